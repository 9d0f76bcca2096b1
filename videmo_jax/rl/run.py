"""One RL run: affective-tree policy gradient from a checkpoint of SFT (PAPER.md section 3)."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from videmo_jax.data.pipeline import TrainingBatches, to_devices
from videmo_jax.evaluation.answers.answerer import identity
from videmo_jax.model.flops import group_step_flops
from videmo_jax.reports.training import write_training_report
from videmo_jax.rl.advantages import Advantages
from videmo_jax.rl.answered import Answered
from videmo_jax.rl.held_out import HeldOutRewards
from videmo_jax.rl.iteration import Iteration, Measured, Programs, Reward, measured_numbers
from videmo_jax.rl.plan import RlPlan, RlSettings, make_rl_plan, read_rl_settings, reward_spec
from videmo_jax.rl.prompts import PromptBatch, together
from videmo_jax.rl.rewards.reference_judge import ReferenceJudge
from videmo_jax.rl.rewards.reward import GroupRewards, Rewards
from videmo_jax.rl.rewards.spec import Query
from videmo_jax.rl.rewards.workers import RewardWorkers
from videmo_jax.rl.sample_log import LoggedAnswer, LoggedGroup, SampleLog, log_files, write_samples_page
from videmo_jax.sharding.chips import chip_of
from videmo_jax.sharding.rules import batch_part
from videmo_jax.training.checkpoint import FOLDER as CHECKPOINTS
from videmo_jax.training.checkpoint import Meta, read_meta, restore_plain
from videmo_jax.training.feed import DeviceFeed, Lookahead
from videmo_jax.training.hosts import first_host_says, is_first, on_each_host, on_first_host
from videmo_jax.training.loop import LoopSpec, run_steps
from videmo_jax.training.meter import Meter, Work
from videmo_jax.training.optimizer import learning_rate, make_optimizer
from videmo_jax.training.profile import Steps
from videmo_jax.training.samples import render_synthetic
from videmo_jax.training.session import Session, mesh_of, open_session, open_workdir, require_same_data
from videmo_jax.training.settings import ConfigError
from videmo_jax.training.state import TrainState, fresh_state, initial_params, state_layout
from videmo_jax.training.stopped import Halt, TrainingStopped, stop

STAGE = "rl"
# Beside those of every run: how rewards are made, but not what they are.
FREE_FIELDS = (
    "rewards.workers",
    *(f"rewards.endpoint.{name}" for name in ("url", "replies", "concurrency", "timeout", "attempts", "longest_wait")),
    "rewards.endpoint.max_failures_in_a_row",
)
FAILURES = 8  # of a step that are logged with all their answers


def run(config: ConfigDict, workdir: epath.PathLike, console: Console, *, profile: Steps | None = None) -> TrainState:
    """Trains, or goes on where an earlier start of the same run stopped.

    Args:
      config: of `rl.recipe`.
      workdir: of this run alone, a folder or a bucket.
      console: for progress and messages.
      profile: steps to record into WORKDIR/profile.
    """
    host = jax.process_index()
    own = log_files(host)
    with open_workdir(config, workdir, console, report=_report, own=own, free=FREE_FIELDS) as opened:
        settings = on_each_host(lambda: read_rl_settings(config, opened.workdir))
        on_first_host(lambda: render_synthetic(config, opened.workdir, console))
        logs = opened.mirror.local
        plan = on_each_host(lambda: make_rl_plan(config, settings, opened.workdir, console, logs=logs, host=host))
        require_same_data(config, opened.workdir, [plan.rows])
        origin = on_each_host(lambda: _origin(config, settings))
        mesh, shared = mesh_of(config), settings.shared
        if settings.rewards.caption == "openai" and batch_part(mesh)[1] < jax.process_count():
            raise ConfigError(
                "hosts that share rows along mesh.tensor would each ask the endpoint and may hear different scores; "
                "choose a mesh.tensor that stays within a host"
            )
        optimizer = make_optimizer(settings.stage.optimizer)
        layout = state_layout(shared.model, optimizer, mesh, shared.trained)
        programs = Programs(settings, mesh, optimizer)
        with open_session(config, opened, layout, plan.steps, profile, console) as session:
            on_each_host(lambda: _require_same_init(config, origin, session))
            reference = _reference(config, settings, mesh)
            log = SampleLog(logs, after_step=session.after_step, host=host, spec=settings.rewards)
            with _rewarder(settings, programs, reference) as rewards:
                trainer = _Trainer(config, plan, programs, session, rewards, log, origin)
                state = trainer.run(_state(config, settings, mesh, session, optimizer), reference)
        plan.skips.tell(console.print)
    return state


def _report(folder: Path, title: str, config: Mapping[str, Any]) -> None:
    write_samples_page(folder, title=title, spec=reward_spec(config, folder))
    write_training_report(folder, title, config)


def _origin(config: ConfigDict, settings: RlSettings) -> dict[str, Any]:
    """What checkpoints say of where the weights and the rewards come from."""
    return {
        "init": str(config.init),
        "reference": identity(config.init)["hash"],
        "rewards": settings.rewards.to_config(),
    }


def _require_same_init(config: ConfigDict, origin: Mapping[str, Any], session: Session) -> None:
    """Refuses to go on where `init` is no longer what it was; asked when damaged checkpoints are out of the way.

    Raises:
      ConfigError: it is another checkpoint.
    """
    if session.restored is None:
        return
    before = read_meta(session.opened.workdir / CHECKPOINTS / str(session.first)).origin.get("reference")
    if before != origin["reference"]:
        raise ConfigError(
            f"init ({config.init}) is not the checkpoint that this run began with (hash {origin['reference']} there, "
            f"{before} here), and the policy is compared with it: name that one, with its step"
        )


def _state(config: ConfigDict, settings: RlSettings, mesh: Mesh, session: Session, optimizer: Any) -> TrainState:
    """What the last checkpoint holds, or the weights of `init` with a fresh optimizer."""
    if session.restored:
        return TrainState(session.restored.params, *session.restored.optimizer)
    shared = settings.shared
    params = initial_params(shared.model, mesh, seed=config.seed, checkpoint=config.init)
    return fresh_state(shared.model, params, optimizer, mesh, shared.trained)


def _reference(config: ConfigDict, settings: RlSettings, mesh: Mesh) -> nnx.State | None:
    """The frozen parameters of `init`, split as those that are trained, where something asks for them."""
    if not settings.grpo.beta and settings.rewards.caption != "reference":
        return None
    return restore_plain(config.init, mesh=mesh, dtype=jnp.dtype(settings.shared.compute.dtype))[0]


@dataclass(frozen=True)
class _Later:
    """Rewards that are computed when they are asked for: the devices have been given something to do by then."""

    rewards: Rewards
    queries: list[Query]
    answers: list[list[str]]

    def result(self) -> GroupRewards:
        return self.rewards(self.queries, self.answers)


@contextmanager
def _rewarder(settings: RlSettings, programs: Programs, reference: nnx.State | None) -> Iterator[Reward]:
    """What computes rewards, in processes of its own or in this one."""
    judge = None
    if settings.rewards.caption == "reference":
        judge = ReferenceJudge(programs, reference)
    if settings.reward_workers:
        with RewardWorkers(settings.rewards, settings.reward_workers, reference=judge) as workers:
            yield workers.submit
    else:
        yield partial(_Later, Rewards(settings.rewards, reference=judge))


class _Trainer:
    """The steps of a run, with what is measured and told beside them."""

    def __init__(
        self,
        config: ConfigDict,
        plan: RlPlan,
        programs: Programs,
        session: Session,
        rewards: Reward,
        log: SampleLog,
        origin: dict[str, Any],
    ) -> None:
        self.config, self.plan, self.programs, self.session = config, plan, programs, session
        self.rewards, self.log, self.origin, self.console = rewards, log, origin, session.console
        self.done = session.first
        self.hosts = dict(zip(("host", "hosts"), batch_part(programs.mesh), strict=True))
        self.held_out = None
        if plan.held_out is not None:
            self.held_out = HeldOutRewards(plan.held_out, programs, rewards, config.batch, self.console.print)
        shared, decoding, chip = plan.settings.shared, plan.settings.decoding, chip_of(programs.mesh.devices.flat[0])
        row = shared.budget
        shape = (row.tokens, decoding.answers, decoding.max_new_tokens, row.slabs, row.patches)
        flops = group_step_flops(shared.model, config.batch, *shape).model * plan.settings.updates
        self.meter = Meter(Work(flops, chip.flops * programs.mesh.size if chip else None))

    def run(self, state: TrainState, reference: nnx.State | None) -> TrainState:
        """From the last checkpoint to the end."""
        config, plan, session, settings = self.config, self.plan, self.session, self.plan.settings
        shared, mesh = settings.shared, self.programs.mesh
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        self.console.print(
            f"{parameters / 1e6:,.1f} M parameters on {mesh.size} {jax.devices()[0].platform} device(s), "
            f"{plan.samples - len(plan.skips):,} samples, {plan.steps:,} steps of {config.batch} prompts with "
            f"{settings.decoding.answers} answers each"
        )
        if session.first >= plan.steps:
            self.measure(plan.steps, state.params)
            return state
        batches = TrainingBatches(
            plan.rows,
            plan.make,
            skips=plan.skips,
            together=together,
            threads=config.data.threads,
            workers=config.data.workers,
            **self.hosts,
        )
        if session.restored:
            batches.restore(session.restored.data)
        rate = learning_rate(settings.stage.optimizer, plan.steps)
        with DeviceFeed(batches, self.placed) as device_feed:
            feed = Lookahead(device_feed)
            iteration = Iteration(
                self.programs,
                self.rewards,
                feed,
                seed=config.seed,
                first=session.first,
                last=plan.steps,
                reference=reference if settings.grpo.beta else None,
                on_step=self.log_step,
            )
            state = run_steps(
                LoopSpec(plan.steps, config.log.every, config.checkpoint.every, config.checkpoint.keep),
                state,
                partial(self.step, iteration),
                measured_numbers,
                feed,
                lambda step: rate(step - 1),
                first=session.first,
                stop=session.stop,
                checkpoints=session.checkpoints,
                meta=lambda step: Meta(shared.model, step, shared.inputs.to_json(), self.origin, STAGE),
                tokenizer_files=shared.tokenizer.files,
                metrics=session.metrics,
                meter=self.meter,
                profiler=session.profiler,
                describe=lambda step: {
                    "stage": STAGE,
                    "epoch": plan.rows.epochs_at(step * config.batch),
                    "skipped": len(plan.skips),
                },
                explain=self.explain,
                saved=session.opened.mirror.push,
                console=self.console,
                title=STAGE,
                at_once=True,
            )
        self.measure(plan.steps, state.params)
        return state

    def placed(self, batch: PromptBatch) -> PromptBatch:
        """The batch with its rows on the devices."""
        return PromptBatch(to_devices(batch.rows, self.programs.mesh), batch.prompts)

    def step(
        self, iteration: Iteration, state: TrainState, batch: PromptBatch, rate: float
    ) -> tuple[TrainState, Measured]:
        """A step, and before it what is measured of the policy now and then."""
        self.measure(self.done, state.params)
        self.done += 1
        return iteration(state, batch, rate)

    def measure(self, step: int, params: nnx.State) -> None:
        """Logs the rewards of held-out prompts after `step`, where they are due and not logged already."""
        due = step % self.config.held_out.every == 0 or step == self.plan.steps
        # All hosts take part in measuring, and the first alone knows what is logged.
        if self.held_out is None or not due or first_host_says(self.session.metrics.holds(step, "measured")):
            return
        began = time.perf_counter()
        found = self.held_out(params, step, self.session.opened.mirror.local if is_first() else None)
        self.session.metrics.write({"step": step, "measured": f"after step {step}", **found})
        means = ", ".join(f"{name.removeprefix('held_out/')} {value:.4f}" for name, value in found.items())
        self.console.print(f"held-out rewards after step {step}: {means or 'none'}")
        self.meter.aside(time.perf_counter() - began)

    def log_step(
        self,
        step: int,
        answered: Answered,
        found: GroupRewards,
        advantages: Advantages,
        values: Mapping[str, float],
    ) -> None:
        """Says what failed; logs it, and on the first host some groups of the steps that are logged."""
        failed = {failure.group: failure.reason for failure in found.failures}
        if count := int(values["failed_groups"]):
            which = "; other hosts' samples.HOST.txt name them"
            if failed:
                which = f"; the first: {found.failures[0].id}: {found.failures[0].reason}"
            self.console.print(f"step {step}: rewards of {count} groups failed, which are left out{which}")
        wanted = list(failed)[:FAILURES]
        if is_first() and (step == 1 or step % self.config.log.every == 0):
            wanted += [group for group in range(len(answered.filled)) if group not in failed][: self.config.log.samples]
        self.log.write([_logged(step, group, answered, found, advantages, failed.get(group)) for group in wanted])

    def explain(self, halt: Halt) -> TrainingStopped:
        """Lists the samples of the step that the guard did not take; what to raise."""
        if not is_first():
            return TrainingStopped(f"step {halt.step} is bad and was not taken; the first host says more")
        rows = (halt.step - 1) * self.config.batch, halt.step * self.config.batch
        numbers = [number for row in range(*rows) for number in self.plan.rows[row].tolist()]
        with ThreadPoolExecutor(self.config.data.threads) as pool:  # records are read for their ids
            ids = [id for id in pool.map(self.plan.make.source.id, numbers) if id not in self.plan.make.leave_out]
        workdir, left_out = self.session.opened.workdir, sorted(self.plan.make.leave_out)
        return stop(workdir, halt, stage=STAGE, rows=rows, samples=ids, left_out=left_out)


def _logged(
    step: int, group: int, answered: Answered, found: GroupRewards, advantages: Advantages, failure: str | None
) -> LoggedGroup:
    """A group as the log has it."""
    row = answered.filled[group]
    prompt = answered.prompts[row]
    answers = tuple(
        LoggedAnswer(
            text,
            None if failure else float(found.rewards[group, number]),
            float(advantages.values[row, number]),
            int(answered.lengths[row, number]),
            bool(answered.cut[row, number]),
        )
        for number, text in enumerate(answered.texts[row])
    )
    query = prompt.query
    return LoggedGroup(
        step,
        query.id,
        query.file,
        query.task.name,
        found.branches[group],
        prompt.videos,
        query.question,
        query.truth,
        answers,
        failure,
    )
