"""One SFT run: the plan's stages, one after the other, on the devices."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
from videmo_jax.sft.curriculum import read_stages
from videmo_jax.sft.held_out import perplexities
from videmo_jax.sft.plan import Plan, StagePlan, make_plan
from videmo_jax.sft.step import make_loss_step, make_train_step, numbers
from videmo_jax.sharding.chips import chip_of
from videmo_jax.sharding.rules import batch_part
from videmo_jax.training.checkpoint import Meta
from videmo_jax.training.feed import DeviceFeed
from videmo_jax.training.guard import fresh_guard
from videmo_jax.training.hosts import first_host_says, is_first, on_each_host, on_first_host
from videmo_jax.training.loop import Loop, LoopSpec
from videmo_jax.training.meter import Meter, Work
from videmo_jax.training.optimizer import learning_rate, make_optimizer
from videmo_jax.training.profile import Steps
from videmo_jax.training.samples import render_synthetic
from videmo_jax.training.session import Session, mesh_of, open_session, open_workdir, require_same_data
from videmo_jax.training.settings import ConfigError, Settings, read_settings
from videmo_jax.training.state import TrainState, fresh_state, initial_params, state_layout
from videmo_jax.training.stopped import Halt, TrainingStopped, stop
from videmo_jax.training.trained import sizes


def run(config: ConfigDict, workdir: epath.PathLike, console: Console, *, profile: Steps | None = None) -> TrainState:
    """Trains, or goes on where an earlier start of the same run stopped.

    Args:
      config: of `sft.recipe`.
      workdir: of this run alone, a folder or a bucket.
      console: for progress and messages.
      profile: steps to record into WORKDIR/profile.
    """
    host = jax.process_index()
    with open_workdir(config, workdir, console, report=write_training_report) as opened:
        settings = on_each_host(lambda: _checked(config))
        on_first_host(lambda: render_synthetic(config, opened.workdir, console))
        logs = opened.mirror.local
        plan = on_each_host(lambda: make_plan(config, settings, opened.workdir, console, logs=logs, host=host))
        held_out = plan.held_out.plans.values() if plan.held_out else ()
        require_same_data(config, opened.workdir, [*(stage.rows for stage in plan.stages), *held_out])
        mesh = mesh_of(config)
        # All stages have one optimizer but for its learning rate, and so one program.
        optimizer = make_optimizer(plan.stages[0].stage.optimizer)
        layout = state_layout(plan.model, optimizer, mesh, plan.trained)
        with open_session(config, opened, layout, plan.stages[-1].end, profile, console) as session:
            state = _Trainer(config, plan, mesh, optimizer, session).run()
        plan.skips.tell(console.print)
    return state


def _checked(config: ConfigDict) -> Settings:
    """All of a config that can be checked before its data are rendered or read."""
    every, chosen = read_stages(config)
    if chosen[0] is not every[0] and not config.init:
        raise ConfigError(f"only is {config.only!r}, which goes on from earlier stages: name their checkpoint in init")
    return read_settings(config)


class _Trainer:
    """What the stages of a run share: the devices, the compiled programs, and where results go."""

    def __init__(
        self,
        config: ConfigDict,
        plan: Plan,
        mesh: Mesh,
        optimizer: optax.GradientTransformation,
        session: Session,
    ) -> None:
        self.config, self.plan, self.mesh, self.session = config, plan, mesh, session
        self.console, self.metrics = session.console, session.metrics
        row, chip = config.data.row, chip_of(mesh.devices.flat[0])
        flops = step_flops(plan.model, config.batch, row.tokens, row.slabs, row.patches).model
        self.meter = Meter(Work(flops, chip.flops * mesh.size if chip else None))
        self.place = partial(to_devices, mesh=mesh)
        self.hosts = dict(zip(("host", "hosts"), batch_part(mesh), strict=True))
        self.optimizer = optimizer
        self.step = make_train_step(plan.model, self.optimizer, mesh, plan.compute, plan.guard, plan.trained)
        self.loss = make_loss_step(plan.model, mesh, plan.compute)

    def run(self) -> TrainState:
        """Goes on from the last checkpoint, if there is one, to the end of the last stage."""
        config, stages = self.config, self.plan.stages
        first, restored = self.session.first, self.session.restored
        if restored:
            data = restored.data
            state = TrainState(restored.params, *restored.optimizer)
        else:
            data = {}
            params = initial_params(self.plan.model, self.mesh, seed=config.seed, checkpoint=config.init or None)
            state = TrainState(params, None, fresh_guard())
        self.console.print(
            f"{sizes(state.params, self.plan.trained)} on {self.mesh.size} {jax.devices()[0].platform} device(s), "
            f"{self.plan.samples - len(self.plan.skips):,} samples, {stages[-1].end:,} steps of {config.batch} rows"
        )
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
        checkpoint = config.checkpoint.every, config.checkpoint.minutes, config.checkpoint.keep
        loop = Loop(
            LoopSpec(plan.end, config.log.every, *checkpoint),
            first,
            numbers,
            rate=lambda step: rate(step - plan.begin - 1),
            stop=self.session.stop,
            checkpoints=self.session.checkpoints,
            meta=lambda step: Meta(self.plan.model, step, self.plan.inputs.to_json(), origin, name),
            tokenizer_files=self.plan.tokenizer.files,
            metrics=self.metrics,
            meter=self.meter,
            profiler=self.session.profiler,
            describe=lambda step: {
                "stage": name,
                "epoch": plan.rows.epochs_at((step - plan.begin) * config.batch),
                "skipped": len(self.plan.skips),
            },
            explain=partial(self.explain, plan),
            saved=self.session.opened.mirror.push,
            console=self.console,
            title=name if len(self.plan.stages) > 1 else "training",
        )
        with DeviceFeed(batches, self.place) as feed, loop:
            for number in loop:
                fed = loop.take(feed)
                state, measured = self.step(state, fed.batch, loop.rate(number))
                loop.took(number, state, measured, fed, range(fed.before["row"], fed.after["row"]))
        return state

    def explain(self, plan: StagePlan, halt: Halt, rows: Sequence[int]) -> TrainingStopped:
        """Lists the samples of the step that the guard did not take; what to raise."""
        if not is_first():
            return TrainingStopped(f"step {halt.step} is bad and was not taken; the first host says more")
        numbers = [number for row in rows for number in plan.rows[row].tolist()]
        make = self.plan.make
        with ThreadPoolExecutor(self.config.data.threads) as pool:  # records are read for their ids
            ids = [id for id in pool.map(make.source.id, numbers) if id not in make.leave_out]
        return stop(
            self.session.opened.workdir,
            halt,
            stage=plan.stage.name,
            rows=(rows[0], rows[-1] + 1),
            samples=ids,
            left_out=sorted(make.leave_out),
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
