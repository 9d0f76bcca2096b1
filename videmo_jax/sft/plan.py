"""A run on paper: the config read and checked, the data measured, every stage's rows planned. No device is touched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track

from videmo_jax.data.emo_cfg import DatasetError, Rejected
from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.packing import RowPlan, Sizes
from videmo_jax.data.pipeline import RowMaker
from videmo_jax.data.records import RecordError
from videmo_jax.data.rows import Budget
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.source import Files, Source, fitting, open_source
from videmo_jax.data.synthetic import write_synthetic
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.model.config import ModelConfig
from videmo_jax.sft.curriculum import Levels, Stage, is_instruction, mixture, read_stages
from videmo_jax.sft.held_out import HeldOut, draw
from videmo_jax.tasks.taxonomy import Task, declared_task
from videmo_jax.training.checkpoint import read_tokenizer_files, require_fit
from videmo_jax.training.folders import is_remote
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.step import ComputeSpec
from videmo_jax.training.stopped import read_left_out
from videmo_jax.training.trained import Trained, read_trained

SYNTHETIC = "emo_cfg_synthetic"  # folder of the embedded data in the workdir


def skip_file(host: int) -> str:
    """Name of the list of what a host left out."""
    return "skipped.jsonl" if not host else f"skipped.{host}.jsonl"


class ConfigError(ValueError):
    """The config contradicts itself, or what it names."""


@dataclass(frozen=True)
class StagePlan:
    """A stage with its rows; its steps are `begin + 1` to `end` of the run."""

    stage: Stage
    rows: RowPlan
    begin: int
    end: int


@dataclass(frozen=True)
class Plan:
    """All that a run needs but devices."""

    model: ModelConfig
    inputs: InputSpec
    compute: ComputeSpec
    guard: GuardSpec
    tokenizer: Tokenizer
    make: RowMaker
    skips: SkipLog
    samples: int  # of the source, the unusable ones among them
    stages: tuple[StagePlan, ...]
    held_out: HeldOut | None
    trained: Trained


@dataclass(frozen=True)
class Settings:
    """What a config says, checked; no data are read yet."""

    model: ModelConfig
    inputs: InputSpec
    budget: Budget
    compute: ComputeSpec
    guard: GuardSpec
    every: Sequence[Stage]  # of the curriculum
    chosen: Sequence[Stage]  # of them, those that the run trains
    declared: tuple[Task, ...]
    tokenizer: Tokenizer
    leave_out: tuple[str, ...]  # ids of samples
    trained: Trained

    @property
    def preparer(self) -> Preparer:
        """Makes tokens and patches of samples."""
        return Preparer(self.tokenizer, self.inputs)


def read_settings(config: ConfigDict) -> Settings:
    """Checks all of a config that can be checked without its data.

    Raises:
      ConfigError, CurriculumError, CheckpointError, TokenizerError, LeaveOutError, ValueError: what is wrong and where.
    """
    model = ModelConfig.from_json(config.model.to_dict())
    frames = {"patch": model.vision.patch, "merge": model.vision.merge, "temporal_patch": model.vision.temporal_patch}
    inputs = InputSpec.from_json(
        {"frames": {**config.data.frames.to_dict(), **frames}, "seconds_per_grid": config.data.seconds_per_grid}
    )
    budget = Budget(**config.data.row.to_dict())
    if budget.patches % model.vision.merge**2:
        raise ConfigError(f"data.row.patches is {budget.patches}; it must be a multiple of {model.vision.merge**2}")
    if config.batch < 1:
        raise ConfigError(f"batch is {config.batch}; it must be above 0")
    every, chosen = read_stages(config)
    declared = tuple(map(declared_task, config.data.tasks))
    compute, guard = ComputeSpec(**config.compute.to_dict()), GuardSpec(**config.guard.to_dict())
    if config.init:
        require_fit(config.init, model)
    elif config.only and chosen[0] is not every[0]:
        raise ConfigError(f"only is {config.only!r}, which goes on from earlier stages: name their checkpoint in init")
    tokenizer = _tokenizer(config)
    if tokenizer.vocab_size > model.text.vocab:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model's vocabulary {model.text.vocab}; "
            "set model.text.vocab, or name the tokenizer that belongs to the model"
        )
    leave_out = read_left_out(config.data.leave_out) if config.data.leave_out else ()
    trained = read_trained(model, config.freeze, config.train_also)
    return Settings(model, inputs, budget, compute, guard, every, chosen, declared, tokenizer, leave_out, trained)


def make_plan(
    config: ConfigDict,
    settings: Settings,
    workdir: epath.PathLike,
    console: Console,
    *,
    logs: Path | None = None,
    host: int = 0,
) -> Plan:
    """Measures the data and plans every stage's rows, so that what is wrong is said before the first step.

    Args:
      config: of `sft.recipe`.
      settings: what it says.
      workdir: takes the list of what was left out, and holds the embedded data where no other is named.
      console: hears what is going on.
      logs: local folder for the list, where the work directory is a bucket.
      host: number of this process; each keeps a list of its own.

    Raises:
      ConfigError, CurriculumError, DatasetError, ValueError: what is wrong and where.
    """
    budget = settings.budget
    source, rejected = _source(config, workdir, settings.preparer, console)
    count, name = len(source) + len(rejected), skip_file(host)
    skips = SkipLog(
        (logs or Path(workdir)) / name,
        total=count,
        max_share=config.data.max_skipped_share,
        called=str(epath.Path(workdir) / name),
    )
    for each in rejected:
        skips.add(each.id, each.reason, counts=not each.again)
    for id in settings.leave_out:
        skips.add(id, "data.leave_out names it", counts=False)
    wanted = _included(source.files, config.data.include)
    lengths = source.lengths(wanted)
    usable = fitting(source, lengths, wanted, budget, skips)
    levels = Levels(source.files, usable, settings.declared)
    sizes = Sizes(lengths.tokens, lengths.slabs)
    make = RowMaker(source, settings.preparer, settings.model.vision, budget, frozenset(settings.leave_out))
    return Plan(
        settings.model,
        settings.inputs,
        settings.compute,
        settings.guard,
        settings.tokenizer,
        make,
        skips,
        count,
        _plan_stages(config, settings.every, settings.chosen, levels, sizes, budget),
        _held_out(config, workdir, make, settings.declared, console) if config.held_out.samples else None,
        settings.trained,
    )


def data_root(config: ConfigDict, workdir: epath.PathLike) -> str:
    """Where the data lie; raises ConfigError where they would have to be rendered into a bucket."""
    if not config.data.root and is_remote(workdir):
        raise ConfigError(
            f"data.root is empty, and the synthetic set is not rendered into a bucket ({workdir}): name a folder or "
            "records in data.root, or a local --workdir"
        )
    return config.data.root or str(epath.Path(workdir) / SYNTHETIC)


def render_synthetic(config: ConfigDict, workdir: epath.PathLike, console: Console) -> None:
    """Makes the embedded data in the work directory, where the config names no other."""
    if not config.data.root:
        root = data_root(config, workdir)
        console.print(f"data.root is empty: rendering {config.data.synthetic_scenes} synthetic scenes into {root}")
        write_synthetic(root, scenes=config.data.synthetic_scenes, seed=config.seed)


def _tokenizer(config: Mapping[str, Any]) -> Tokenizer:
    if config["tokenizer"]:
        return Tokenizer.from_dir(config["tokenizer"])
    if config["init"]:
        return Tokenizer.from_files(read_tokenizer_files(config["init"]))
    return Tokenizer.embedded()


def _source(
    config: ConfigDict, workdir: epath.PathLike, preparer: Preparer, console: Console
) -> tuple[Source, list[Rejected]]:
    """The samples, and those that cannot be used."""
    root = data_root(config, workdir)
    source, rejected = open_source(
        root,
        config.data.split,
        preparer.spec.frames,
        preparer.tokenizer,
        variant=config.data.variant,
        include=list(config.data.include) or None,
        instructions=list(config.data.instructions),
        cache_bytes=config.data.cache_mb * 2**20,
        threads=config.data.threads,
        watch=lambda items, what, total: track(items, what, total, console=console, transient=True),
    )
    if not len(source):
        why = f"; the first reason: {rejected[0].id}: {rejected[0].reason}" if rejected else ""
        raise ConfigError(f"{root}: no sample of split {config.data.split!r} can be used{why}")
    return source, rejected


def _included(files: Files, include: Sequence[str]) -> Bool[np.ndarray, "N"]:
    """The samples of the files that `data.include` names, and all text-only ones."""

    return files.chosen(lambda file: _named(file, include) or is_instruction(file))


def _named(file: str, include: Sequence[str]) -> bool:
    """Whether a file is included; all are where no pattern is given."""
    return not include or any(fnmatchcase(PurePosixPath(file).name, pattern) for pattern in include)


def _plan_stages(
    config: ConfigDict,
    every: Sequence[Stage],
    chosen: Sequence[Stage],
    levels: Levels,
    sizes: Sizes,
    budget: Budget,
) -> tuple[StagePlan, ...]:
    """The rows and steps of the stages, one after the other."""
    plans: list[StagePlan] = []
    begin = 0
    for stage in chosen:
        place = every.index(stage)
        rows = RowPlan(
            mixture(stage, every[:place], levels),
            sizes,
            budget,
            batch=config.batch,
            seed=config.seed + place,  # an order of its own in every stage
            pack=config.data.pack,
        )
        end = begin + (stage.steps or rows.batches(stage.epochs))
        plans.append(StagePlan(stage, rows, begin, end))
        begin = end
    return tuple(plans)


def _held_out(
    config: ConfigDict,
    workdir: epath.PathLike,
    make: RowMaker,
    declared: tuple[Task, ...],
    console: Console,
) -> HeldOut | None:
    """The samples that perplexity is measured on; None, with a word why, where the data have no such split."""
    try:
        source, _ = open_source(
            data_root(config, workdir),
            config.held_out.split,
            make.preparer.spec.frames,
            make.preparer.tokenizer,
            variant=config.data.variant,
            cache_bytes=config.data.cache_mb * 2**20,
            threads=config.data.threads,
        )
        held_out = draw(
            source,
            replace(make, source=source, leave_out=frozenset()),
            each=config.held_out.samples,
            batch=config.batch,
            included=lambda file: _named(file, config.data.include),
            declared=declared,
            pack=config.data.pack,
        )
    except (DatasetError, RecordError) as error:
        console.print(f"no perplexity of held-out samples: {error}")
        return None
    left_out = f"; {held_out.left_out} fit no row or cannot be used" if held_out.left_out else ""
    console.print(f"held out: {held_out.samples} samples of {', '.join(held_out.plans) or 'no level'}{left_out}")
    return held_out
