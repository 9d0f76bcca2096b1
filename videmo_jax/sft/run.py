"""One SFT run: the config composed into data, model, optimizer and loop."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from videmo_jax.data.emo_cfg import EmoCfg, read_emo_cfg
from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.packing import RowPlan, measure
from videmo_jax.data.pipeline import to_devices, training_batches
from videmo_jax.data.rows import Budget
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.synthetic import write_synthetic
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.model.config import ModelConfig
from videmo_jax.reports.training import write_training_report
from videmo_jax.sft.step import ComputeSpec, make_train_step, numbers
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training import workdir as workdirs
from videmo_jax.training.checkpoint import Checkpoints, Meta, read_tokenizer_files, require_fit, steps
from videmo_jax.training.loop import LoopSpec, run_steps
from videmo_jax.training.metrics import MetricsWriter
from videmo_jax.training.optimizer import OptimizerSpec, learning_rate, make_optimizer
from videmo_jax.training.state import TrainState, initial_state

# A run may come back with another machine, more logging, or from another place on disk.
FREE_FIELDS = ("log.", "checkpoint.", "mesh.", "data.threads", "data.cache_mb", "data.root", "init", "tokenizer")
SYNTHETIC = "emo_cfg_synthetic"  # folder of the embedded data in the workdir
SKIPPED = "skipped.jsonl"


class ConfigError(ValueError):
    """The config contradicts itself, or what it names."""


@dataclass(frozen=True)
class Plan:
    """The config, read and checked; and the data, measured; nothing of it touches a device yet."""

    model: ModelConfig
    inputs: InputSpec
    budget: Budget
    optimizer: OptimizerSpec
    compute: ComputeSpec
    tokenizer: Tokenizer
    dataset: EmoCfg
    preparer: Preparer
    skips: SkipLog
    rows: RowPlan
    loop: LoopSpec


def make_plan(config: ConfigDict, workdir: Path, console: Console) -> Plan:
    """Reads everything that the config names, so that what is wrong is said before the first step.

    Raises:
      ConfigError, DatasetError, CheckpointError, TokenizerError, ValueError: with what is wrong and where.
    """
    model = ModelConfig.from_json(config.model.to_dict())
    frames = {"patch": model.vision.patch, "merge": model.vision.merge, "temporal_patch": model.vision.temporal_patch}
    inputs = InputSpec.from_json(
        {"frames": {**config.data.frames.to_dict(), **frames}, "seconds_per_grid": config.data.seconds_per_grid}
    )
    budget = Budget(**config.data.row.to_dict())
    if budget.patches % model.vision.merge**2:
        raise ConfigError(f"data.row.patches is {budget.patches}; it must be a multiple of {model.vision.merge**2}")
    if config.init:
        require_fit(config.init, model)
    tokenizer = _tokenizer(config)
    if tokenizer.vocab_size > model.text.vocab:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model's vocabulary {model.text.vocab}; "
            "set model.text.vocab, or name the tokenizer that belongs to the model"
        )
    dataset = _dataset(config, workdir, console)
    if config.batch < 1 or config.epochs <= 0 or config.steps < 0:
        raise ConfigError(f"batch {config.batch}, epochs {config.epochs}, steps {config.steps}: must be above 0")
    total = len(dataset.samples) + len(dataset.rejected)
    skips = SkipLog(workdir / SKIPPED, total=total, max_share=config.data.max_skipped_share)
    for rejected in dataset.rejected:
        skips.add(rejected.id, rejected.reason)
    preparer = Preparer(dataset.root, tokenizer, inputs, cache_bytes=config.data.cache_mb * 2**20)
    lengths = measure(dataset.samples, preparer, budget, threads=config.data.threads, skips=skips)
    rows = RowPlan(lengths, budget, batch=config.batch, seed=config.seed, pack=config.data.pack)
    count = config.steps or rows.batches(config.epochs)
    return Plan(
        model,
        inputs,
        budget,
        OptimizerSpec(**config.optimizer.to_dict()),
        ComputeSpec(**config.compute.to_dict()),
        tokenizer,
        dataset,
        preparer,
        skips,
        rows,
        LoopSpec(count, config.log.every, config.checkpoint.every, config.checkpoint.keep),
    )


def run(config: ConfigDict, workdir: Path, console: Console) -> TrainState:
    """Trains, or goes on where an earlier start of the same run stopped.

    Args:
      config: of `sft.recipe`.
      workdir: of this run alone.
      console: for progress and messages.
    """
    as_json = json.loads(config.to_json_best_effort())
    started = bool(steps(workdir))
    workdirs.claim(workdir, as_json, free=FREE_FIELDS, started=started)
    if not started:  # what an attempt with another config left out may be usable now
        (workdir / SKIPPED).unlink(missing_ok=True)
    plan = make_plan(config, workdir, console)
    mesh = make_mesh(config.mesh.to_dict())
    hosts = jax.process_count()
    if config.batch % (mesh.size // mesh.shape["tensor"]) or config.batch % hosts:
        raise ConfigError(
            f"batch is {config.batch}; it must be a multiple of the {mesh.size // mesh.shape['tensor']} devices that "
            f"split it, and of the {hosts} hosts"
        )
    optimizer = make_optimizer(plan.optimizer, plan.loop.steps)
    schedule = learning_rate(plan.optimizer, plan.loop.steps)
    batches = training_batches(
        plan.dataset.samples,
        plan.rows,
        plan.preparer,
        vision=plan.model.vision,
        budget=plan.budget,
        batch=config.batch,
        threads=config.data.threads,
        skips=plan.skips,
        host=jax.process_index(),
        hosts=hosts,
    )
    start = {"init": str(config.init)} if config.init else {}
    state = initial_state(plan.model, optimizer, mesh, seed=config.seed, checkpoint=config.init or None)
    with Checkpoints(workdir, keep=plan.loop.keep) as checkpoints:
        first = checkpoints.latest() or 0
        if first:
            params, optimizer_state = checkpoints.restore(first, state.params, state.optimizer, batches)
            state = TrainState(params, optimizer_state)
            console.print(f"resumed from step {first}")
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        console.print(
            f"{parameters / 1e6:,.1f} M parameters on {mesh.size} {jax.devices()[0].platform} device(s), "
            f"{len(plan.dataset.samples):,} samples, {plan.loop.steps:,} steps of {config.batch} rows"
        )
        with MetricsWriter(workdir, after_step=first) as metrics:
            state = run_steps(
                plan.loop,
                state,
                make_train_step(plan.model, optimizer, mesh, plan.compute),
                numbers,
                batches,
                partial(to_devices, mesh=mesh),
                first=first,
                checkpoints=checkpoints,
                meta=lambda step: Meta(plan.model, step, plan.inputs.to_json(), start),
                tokenizer_files=plan.tokenizer.files,
                metrics=metrics,
                describe=lambda step: {
                    "learning_rate": float(schedule(step - 1)),
                    "epoch": plan.rows.epochs_at(step * config.batch),
                    "skipped": len(plan.skips),
                },
                console=console,
            )
    write_training_report(workdir, title=workdir.name, config=as_json)
    if len(plan.skips):
        total = len(plan.dataset.samples) + len(plan.dataset.rejected)
        console.print(f"{len(plan.skips)} of {total} samples could not be used; {workdir / SKIPPED} says why")
    return state


def _tokenizer(config: Mapping[str, Any]) -> Tokenizer:
    if config["tokenizer"]:
        return Tokenizer.from_dir(config["tokenizer"])
    if config["init"]:
        return Tokenizer.from_files(read_tokenizer_files(config["init"]))
    return Tokenizer.embedded()


def _dataset(config: ConfigDict, workdir: Path, console: Console) -> EmoCfg:
    """The samples of the config's folder, or of the synthetic set."""
    root = Path(config.data.root) if config.data.root else workdir / SYNTHETIC
    if not config.data.root:
        console.print(f"data.root is empty: rendering {config.data.synthetic_scenes} synthetic scenes into {root}")
        write_synthetic(root, scenes=config.data.synthetic_scenes, seed=config.seed)
    dataset = read_emo_cfg(
        root, config.data.split, variant=config.data.variant, include=list(config.data.include) or None
    )
    if not dataset.samples:
        why = f"; the first reason: {dataset.rejected[0].id}: {dataset.rejected[0].reason}" if dataset.rejected else ""
        raise ConfigError(f"{root}: no sample of split {config.data.split!r} can be used{why}")
    return dataset
