"""One SFT run: the plan's stages, one after the other, on the devices."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from videmo_jax.data.pipeline import TrainingBatches, to_devices
from videmo_jax.model.flops import step_flops
from videmo_jax.reports.training import write_training_report
from videmo_jax.sft.held_out import perplexities
from videmo_jax.sft.plan import (
    ConfigError,
    Plan,
    StagePlan,
    data_root,
    make_plan,
    read_settings,
    render_synthetic,
    skip_file,
)
from videmo_jax.sft.step import make_loss_step, make_train_step, numbers
from videmo_jax.sharding.chips import chip_of
from videmo_jax.sharding.rules import batch_part, batch_shards, make_mesh
from videmo_jax.training import workdir as workdirs
from videmo_jax.training.checkpoint import Checkpoints, Meta, Restored, steps
from videmo_jax.training.cluster import Stop
from videmo_jax.training.feed import DeviceFeed
from videmo_jax.training.folders import open_folder
from videmo_jax.training.guard import fresh_guard
from videmo_jax.training.hosts import first_host_says, is_first, on_each_host, on_first_host, same_on_all
from videmo_jax.training.loop import LoopSpec, run_steps
from videmo_jax.training.meter import Meter, Work
from videmo_jax.training.metrics import FILE as METRICS
from videmo_jax.training.metrics import MetricsWriter
from videmo_jax.training.mirror import Mirror
from videmo_jax.training.optimizer import learning_rate, make_optimizer
from videmo_jax.training.profile import FOLDER as PROFILE
from videmo_jax.training.profile import Profiler, Steps
from videmo_jax.training.state import TrainState, fresh_state, initial_params, state_layout
from videmo_jax.training.stopped import Halt, TrainingStopped, stop

# A run may come back with another machine, more logging, or from another place on disk.
FREE_FIELDS = (
    "log.",
    "guard.",
    "checkpoint.",
    "mesh.",
    "slice",
    "compute.remat",
    "compute.vision_remat",
    "compute.attention",
    "compute.loss_chunk",
    "compute.microbatches",
    "data.threads",
    "data.workers",
    "data.cache_mb",
    "data.root",
    "data.leave_out",
    "data.instructions",
    "init",
    "tokenizer",
)


def run(config: ConfigDict, workdir: epath.PathLike, console: Console, *, profile: Steps | None = None) -> TrainState:
    """Trains, or goes on where an earlier start of the same run stopped.

    Args:
      config: of `sft.recipe`.
      workdir: of this run alone, a folder or a bucket.
      console: for progress and messages.
      profile: steps to record into WORKDIR/profile.
    """
    data_root(config, workdir)  # refused before anything is written
    workdir, host = open_folder(workdir), jax.process_index()
    as_json = json.loads(config.to_json_best_effort())
    started = bool(steps(workdir))
    on_first_host(lambda: workdirs.claim(workdir, as_json, free=FREE_FIELDS, started=started))
    skipped = skip_file(host)
    if not started:  # what an attempt with another config left out may be usable now
        (workdir / skipped).unlink(missing_ok=True)
    with Mirror(workdir, (METRICS, skipped) if is_first() else (skipped,), console) as mirror:
        settings = on_each_host(lambda: read_settings(config))
        on_first_host(lambda: render_synthetic(config, workdir, console))
        plan = on_each_host(lambda: make_plan(config, settings, workdir, console, logs=mirror.local, host=host))
        rows = [stage.rows for stage in plan.stages] + list(plan.held_out.plans.values() if plan.held_out else ())
        if not same_on_all(" ".join(each.digest for each in rows)):
            raise ConfigError(
                f"the hosts see different data: samples of {data_root(config, workdir)} or their lengths differ; give "
                "all hosts the same"
            )
        try:
            state = _train(config, plan, workdir, mirror, started, profile, console)
        finally:  # also of a run that stopped
            if is_first():
                write_training_report(mirror.local, title=workdir.name, config=as_json)
    if len(plan.skips):
        console.print(f"{len(plan.skips)} of {plan.samples} samples were left out; {workdir / skipped} says why")
    return state


def _train(
    config: ConfigDict,
    plan: Plan,
    workdir: epath.Path,
    mirror: Mirror,
    started: bool,
    profile: Steps | None,
    console: Console,
) -> TrainState:
    """Opens what a run writes to, and trains."""
    mesh = make_mesh(config.mesh.to_dict())
    if config.batch % (batch_shards(mesh) * config.compute.microbatches):
        raise ConfigError(
            f"batch is {config.batch}; it must be a multiple of the {batch_shards(mesh)} devices that split it, times "
            f"compute.microbatches {config.compute.microbatches}"
        )
    keep, keep_every = config.checkpoint.keep, config.checkpoint.keep_every
    if keep_every % config.checkpoint.every:
        raise ConfigError(
            f"checkpoint.keep_every is {keep_every}; it must be a multiple of checkpoint.every = "
            f"{config.checkpoint.every}, since other steps are not saved"
        )
    with Checkpoints(workdir, keep=keep, keep_every=keep_every) as checkpoints:
        # All stages have one optimizer but for its learning rate, and so one program.
        optimizer = make_optimizer(plan.stages[0].stage.optimizer)
        layout = state_layout(plan.model, optimizer, mesh, plan.trained)
        # The guard is a few bytes, and goes with the optimizer.
        restored = checkpoints.restore(layout.params, (layout.optimizer, layout.guard), console.print)
        first = restored.step if restored else 0
        if profile is not None:
            profile.check(first, plan.stages[-1].end)
        with (
            MetricsWriter(mirror.local if is_first() else None, after_step=first if started else -1) as metrics,
            Profiler(mirror.local / PROFILE, profile) as profiler,
            Stop() as stop,
        ):
            beside = _Beside(workdir, mirror, checkpoints, metrics, profiler, stop, console)
            return _Trainer(config, plan, mesh, optimizer, beside).run(restored)


@dataclass(frozen=True)
class _Beside:
    """Where the results of a run go, and what goes along with its steps."""

    workdir: epath.Path
    mirror: Mirror
    checkpoints: Checkpoints
    metrics: MetricsWriter
    profiler: Profiler
    stop: Stop
    console: Console


class _Trainer:
    """What the stages of a run share: the devices, the compiled programs, and where results go."""

    def __init__(
        self,
        config: ConfigDict,
        plan: Plan,
        mesh: Mesh,
        optimizer: optax.GradientTransformation,
        beside: _Beside,
    ) -> None:
        self.config, self.plan, self.mesh, self.beside = config, plan, mesh, beside
        self.console, self.metrics = beside.console, beside.metrics
        row, chip = config.data.row, chip_of(mesh.devices.flat[0])
        flops = step_flops(plan.model, config.batch, row.tokens, row.slabs, row.patches).model
        self.meter = Meter(Work(flops, chip.flops * mesh.size if chip else None))
        self.place = partial(to_devices, mesh=mesh)
        self.hosts = dict(zip(("host", "hosts"), batch_part(mesh), strict=True))
        self.optimizer = optimizer
        self.step = make_train_step(plan.model, self.optimizer, mesh, plan.compute, plan.guard, plan.trained)
        self.loss = make_loss_step(plan.model, mesh, plan.compute)

    def run(self, restored: Restored | None) -> TrainState:
        """Goes on from a checkpoint, None at the start, to the end of the last stage."""
        config, stages = self.config, self.plan.stages
        if restored:
            first, data = restored.step, restored.data
            state = TrainState(restored.params, *restored.optimizer)
        else:
            first, data = 0, {}
            params = initial_params(self.plan.model, self.mesh, seed=config.seed, checkpoint=config.init or None)
            state = TrainState(params, None, fresh_guard())
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        trained = sum(leaf.size for leaf in jax.tree.leaves(self.plan.trained.of(state.params)))
        share = f", {trained / 1e6:,.3f} M of them trained," if trained < parameters else ""
        self.console.print(
            f"{parameters / 1e6:,.1f} M parameters{share} on {self.mesh.size} {jax.devices()[0].platform} device(s), "
            f"{self.plan.samples - len(self.plan.skips):,} samples, {stages[-1].end:,} steps of {config.batch} rows"
        )
        if first:
            self.console.print(f"resumed from step {first}")
        before = "before training"
        for stage in stages:
            if first < stage.end:
                if first <= stage.begin:  # it begins here: until now the state was another stage's
                    self.measure(stage.begin, before, state)
                    state = fresh_state(self.plan.model, state.params, self.optimizer, self.mesh, self.plan.trained)
                state = self.train(stage, state, max(first, stage.begin), data if first > stage.begin else None)
            before = f"after {stage.stage.name}"
        self.measure(stages[-1].end, before, state)
        return state

    def train(self, plan: StagePlan, state: TrainState, first: int, data: dict[str, Any] | None) -> TrainState:
        """Trains one stage from step `first` of the run on, whose batches stand where `data` says."""
        config, name = self.config, plan.stage.name
        batches = TrainingBatches(
            plan.rows,
            self.plan.make,
            skips=self.plan.skips,
            threads=config.data.threads,
            workers=config.data.workers,
            **self.hosts,
        )
        if data:
            batches.restore(data)
        rate = learning_rate(plan.stage.optimizer, plan.end - plan.begin)
        origin = {"init": str(config.init)} if config.init else {}
        with DeviceFeed(batches, self.place) as feed:
            return run_steps(
                LoopSpec(plan.end, config.log.every, config.checkpoint.every, config.checkpoint.keep),
                state,
                self.step,
                numbers,
                feed,
                lambda step: rate(step - plan.begin - 1),
                first=first,
                stop=self.beside.stop,
                checkpoints=self.beside.checkpoints,
                meta=lambda step: Meta(self.plan.model, step, self.plan.inputs.to_json(), origin, name),
                tokenizer_files=self.plan.tokenizer.files,
                metrics=self.metrics,
                meter=self.meter,
                profiler=self.beside.profiler,
                describe=lambda step: {
                    "stage": name,
                    "epoch": plan.rows.epochs_at((step - plan.begin) * config.batch),
                    "skipped": len(self.plan.skips),
                },
                explain=lambda halt: self.explain(plan, halt),
                saved=self.beside.mirror.push,
                console=self.console,
                title=name if len(self.plan.stages) > 1 else "training",
            )

    def explain(self, plan: StagePlan, halt: Halt) -> TrainingStopped:
        """Lists the samples of the step that the guard did not take; what to raise."""
        if not is_first():
            return TrainingStopped(f"step {halt.step} is bad and was not taken; the first host says more")
        begin = (halt.step - plan.begin - 1) * self.config.batch
        rows = begin, begin + self.config.batch
        numbers = [number for row in range(*rows) for number in plan.rows[row].tolist()]
        make = self.plan.make
        with ThreadPoolExecutor(self.config.data.threads) as pool:  # records are read for their ids
            ids = [id for id in pool.map(make.source.id, numbers) if id not in make.leave_out]
        return stop(
            self.beside.workdir, halt, stage=plan.stage.name, rows=rows, samples=ids, left_out=sorted(make.leave_out)
        )

    def measure(self, step: int, when: str, state: TrainState) -> None:
        """Logs the perplexity of held-out samples after `step`, unless it is logged already."""
        # All hosts take part in measuring, and the first alone knows what is logged.
        if self.plan.held_out is None or first_host_says(self.metrics.holds(step, "measured")):
            return
        found = perplexities(
            self.plan.held_out, self.loss, state.params, self.place, threads=self.config.data.threads, **self.hosts
        )
        self.metrics.write({"step": step, "measured": when, **found})
        levels = ", ".join(f"{name.removeprefix('perplexity_')} {value:.3f}" for name, value in found.items())
        self.console.print(f"perplexity of held-out samples {when}: {levels}")
