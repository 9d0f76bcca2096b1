"""One RL run: affective-tree policy gradient from a checkpoint of SFT (PAPER.md section 3)."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Bool
from ml_collections import ConfigDict
from rich.console import Console

from videmo_jax.data.pipeline import TrainingBatches
from videmo_jax.evaluation.answers.answerer import identity
from videmo_jax.model.flops import answers_flops
from videmo_jax.reports.training import write_training_report
from videmo_jax.rl.answered import Answered, branch_names
from videmo_jax.rl.held_out import HeldOutRewards
from videmo_jax.rl.lessons import Lesson, as_drawn, first_groups
from videmo_jax.rl.plan import RlPlan, RlSettings, make_rl_plan, read_rl_settings, reward_spec
from videmo_jax.rl.programs import Drawn, Programs
from videmo_jax.rl.prompts import PromptBatch, together
from videmo_jax.rl.reference import reference_layout, reference_of
from videmo_jax.rl.rewards.failures import FailureWatch, RewardsFail
from videmo_jax.rl.rewards.reference_judge import ReferenceJudge
from videmo_jax.rl.rewards.reward import reward_metrics
from videmo_jax.rl.rewards.rewarder import Interrupted, Pending, Rewarder
from videmo_jax.rl.rewards.spec import BRANCHES, RewardSpec
from videmo_jax.rl.rows import side_by_side
from videmo_jax.rl.sample_log import LoggedAnswer, LoggedGroup, SampleLog, log_files, write_samples_page
from videmo_jax.sharding.chips import chip_of
from videmo_jax.sharding.rules import batch_part
from videmo_jax.training.checkpoint import FOLDER as CHECKPOINTS
from videmo_jax.training.checkpoint import Meta, read_meta
from videmo_jax.training.cluster import Preempted
from videmo_jax.training.feed import DeviceFeed, Fed, Lookahead
from videmo_jax.training.hosts import first_host_says, is_first, on_each_host, on_first_host
from videmo_jax.training.loop import Loop, LoopSpec
from videmo_jax.training.meter import Meter, Work
from videmo_jax.training.optimizer import learning_rate, make_optimizer
from videmo_jax.training.profile import Steps
from videmo_jax.training.samples import render_synthetic
from videmo_jax.training.session import Session, mesh_of, open_session, open_workdir, require_same_data
from videmo_jax.training.settings import ConfigError
from videmo_jax.training.state import TrainState, fresh_state, initial_params, state_layout
from videmo_jax.training.stopped import Halt, TrainingStopped, stop
from videmo_jax.training.trained import joined, sizes

STAGE = "rl"
# Beside those of every run: how rewards are made, but not what they are, and how rows are filled.
FREE_FIELDS = (
    "packed",
    *(f"rewards.{name}" for name in ("workers", "timeout", "own_timeout", "max_failed_share")),
    *(f"rewards.endpoint.{name}" for name in ("url", "replies", "concurrency", "timeout", "attempts", "longest_wait")),
    *(f"rewards.endpoint.{name}" for name in ("longest_asked_wait", "max_failures_in_a_row")),
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
        kept = _kept(settings, reference_layout(layout.params, shared.trained, shared.compute.dtype))
        programs = Programs(settings, mesh, optimizer)
        with open_session(config, opened, layout, plan.steps, profile, console, kept) as session:
            on_each_host(lambda: _require_same_init(config, origin, session))
            state = _state(config, settings, mesh, session, optimizer)
            reference, judging = _references(config, settings, mesh, session, state)
            log = SampleLog(logs, after_step=session.after_step, host=host, spec=settings.rewards)
            judge = None if judging is None else ReferenceJudge(programs, judging)
            with Rewarder(settings.rewards, processes=settings.reward_workers, reference=judge) as rewarder:
                trainer = _Trainer(config, plan, programs, session, rewarder, log, origin)
                state = trainer.run(state, reference)
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
        optimizer_state, guard, *_ = session.restored.optimizer
        return TrainState(session.restored.params, optimizer_state, guard)
    shared = settings.shared
    params = initial_params(shared.model, mesh, seed=config.seed, checkpoint=config.init)
    return fresh_state(shared.model, params, optimizer, mesh, shared.trained)


def _references(
    config: ConfigDict, settings: RlSettings, mesh: Mesh, session: Session, state: TrainState
) -> tuple[nnx.State | None, nnx.State | None]:
    """(what the policy is compared with, what judges captions), None where nothing asks: `init`, or of the first what
    the last checkpoint has of it."""
    trained, dtype, restored = settings.shared.trained, settings.shared.compute.dtype, session.restored
    reference = judging = None
    if restored and settings.reference_every:
        reference = joined(restored.optimizer[2], trained.split(state.params)[1])
    judged = settings.rewards.caption == "reference"
    if judged or (settings.grpo.beta and reference is None):
        # A run that comes back reads again what its policy was at first.
        start = {"seed": config.seed, "checkpoint": config.init, "dtype": jnp.dtype(dtype)}
        params = initial_params(settings.shared.model, mesh, **start) if restored else state.params
        judging = reference_of(params, state.params, trained, dtype)
        reference = judging if reference is None else reference
    return reference if settings.grpo.beta else None, judging if judged else None


def _kept(settings: RlSettings, reference: nnx.State | None) -> tuple[nnx.State, ...]:
    """What checkpoints hold of the reference: where it moves, its own copy of what is trained."""
    return (settings.shared.trained.of(reference),) if settings.reference_every else ()


class _Trainer:
    """The steps of a run, and what is measured and told beside them."""

    def __init__(
        self,
        config: ConfigDict,
        plan: RlPlan,
        programs: Programs,
        session: Session,
        rewarder: Rewarder,
        log: SampleLog,
        origin: dict[str, Any],
    ) -> None:
        self.config, self.plan, self.programs, self.session = config, plan, programs, session
        self.rewarder, self.log, self.origin, self.console = rewarder, log, origin, session.console
        self.hosts = dict(zip(("host", "hosts"), batch_part(programs.mesh), strict=True))
        self.failures = FailureWatch(plan.settings.rewards.max_failed_share)
        self.held_out = None
        if plan.held_out is not None:
            self.held_out = HeldOutRewards(plan.held_out, programs, rewarder, config.batch, self.console.print)
        chip = chip_of(programs.mesh.devices.flat[0])
        self.meter = Meter(Work(None, chip.flops * programs.mesh.size if chip else None))

    def run(self, state: TrainState, reference: nnx.State | None) -> TrainState:
        """From the last checkpoint to the end."""
        config, plan, settings = self.config, self.plan, self.plan.settings
        devices = f"{self.programs.mesh.size} {jax.devices()[0].platform} device(s)"
        self.console.print(
            f"{sizes(state.params, settings.shared.trained)} on {devices}, "
            f"{plan.samples - len(plan.skips):,} samples, {plan.steps:,} steps of {config.batch} prompts with "
            f"{settings.decoding.answers} answers each"
        )
        if self.session.first < plan.steps:
            with DeviceFeed(self.batches(), self.programs.placed) as feed:
                state = self.train(state, reference, Lookahead(feed))
        self.measure(plan.steps, state.params)
        return state

    def train(self, state: TrainState, reference: nnx.State | None, feed: Lookahead) -> TrainState:
        """All steps: prompts, answers, rewards, advantages, the update.

        With `staleness` 1 the next prompts are answered by the policy as it is before the update, while this step's
        rewards are computed; a run that comes back answers its first prompts with the newest policy. With
        `leave_out_flat` groups that teach nothing are in no row, and with several `draws` the next prompts are answered
        in their place.
        """
        programs, settings, ahead = self.programs, self.plan.settings, None
        trained, dtype = settings.shared.trained, settings.shared.compute.dtype
        with self.loop() as loop:
            for step in loop:
                self.measure(step - 1, state.params)
                fed = loop.take(feed)
                rollout = ahead or self.collected(self.drawn(fed.batch, state, step))
                stale = settings.staleness and step < self.plan.steps
                coming = self.drawn(feed.peek(), state, step + 1) if stale else None
                began, packed = time.perf_counter(), None
                if not settings.leave_out_flat:  # all groups are taken: the reference reads while rewards are made
                    packed = programs.rows([rollout.drawn], [rollout.answered], reference)
                try:
                    lessons = [self.lesson(rollout)]
                    taken = self.taken(lessons)
                    while len(lessons) < settings.draws and taken.any(axis=1).sum() < self.config.batch:
                        more = feed.take()
                        self.meter.waited(more.waited)
                        fed = replace(fed, after=more.after)
                        drawn = self.drawn(more.batch, state, step, draw=len(lessons))
                        lessons.append(self.lesson(self.collected(drawn)))
                        taken = self.taken(lessons)
                    values = self.rewarded(step, lessons, taken)
                except (Interrupted, RewardsFail) as error:
                    loop.save_before(step, state, fed.before, _kept(settings, reference))
                    raise _ended(step, error) from None
                seconds = sum(lesson.seconds for lesson in lessons)
                waited = time.perf_counter() - began - (seconds - lessons[0].seconds)
                began = time.perf_counter()
                if packed is None:
                    drawn, answered = [lesson.drawn for lesson in lessons], [lesson.answered for lesson in lessons]
                    packed = programs.rows(drawn, answered, reference, taken)
                rows, filled = packed
                by_token, valid = side_by_side([(lesson.by_token, lesson.advantages.valid) for lesson in lessons])
                state, updates = programs.updated(state, rows, by_token, valid, loop.rate(step))
                ahead = self.collected(coming) if coming else None
                measured = updates.numbers()
                if settings.reference_every and step % settings.reference_every == 0 and not measured["halted"]:
                    reference = reference_of(state.params, state.params, trained, dtype)
                values |= {"filled": filled, "seconds_rollout": seconds, "seconds_reward": waited}
                values |= {"seconds_update": time.perf_counter() - began}
                values |= {"epoch": self.plan.rows.epochs_at(fed.after["row"])}
                self.write_samples(step, lessons)
                learned, beside = _rows(fed, len(lessons), taken), _kept(settings, reference)
                loop.took(step, state, measured | values, fed, learned, at_once=True, beside=beside)
        return state

    def drawn(self, batch: PromptBatch, state: TrainState, step: int, draw: int = 0) -> Drawn:
        """The answers of a step, which the devices are at; `draw` rollouts of it came before."""
        return self.programs.draw(batch, self.programs.gather(state.params), self.config.seed, step, draw=draw)

    def collected(self, drawn: Drawn) -> "_Rollout":
        """Waits for the answers and sends them to be rewarded."""
        answered = self.programs.answered(drawn)
        texts = [answered.texts[row] for row in answered.filled]
        return _Rollout(drawn, answered, self.rewarder.submit(answered.queries, texts), drawn.seconds())

    def lesson(self, rollout: "_Rollout") -> Lesson:
        """Waits for the rewards: what the answers teach.

        Raises:
          Interrupted: the run is to end.
        """
        settings, answered = self.plan.settings, rollout.answered
        rewards = rollout.rewards.result(lambda: self.session.stop.asked)
        advantages = answered.advantages(rewards, settings.advantages, mask_cut=settings.mask_cut)
        by_token = answered.by_token(advantages, rewards, settings.node_credit)
        return Lesson(rollout.drawn, answered, rewards, advantages, by_token, rollout.seconds)

    def taken(self, lessons: Sequence[Lesson]) -> Bool[np.ndarray, "B*K G"] | None:
        """Which answers of all hosts the update takes, of a batch of groups at most; None: all that there are."""
        if not self.plan.settings.leave_out_flat:
            return None
        teaches = self.programs.on_every_host({"groups": side_by_side([lesson.teaches for lesson in lessons])})
        return first_groups(teaches["groups"], len(lessons), self.config.batch)

    def rewarded(
        self, step: int, lessons: Sequence[Lesson], taken: Bool[np.ndarray, "B*K G"] | None
    ) -> dict[str, float]:
        """What to log of the rewards of all hosts; says which failed.

        Raises:
          RewardsFail: too many did, over the last steps.
        """
        rows = self.programs.on_every_host(side_by_side([_measured(lesson) for lesson in lessons]))
        rows = rows | {"taken": np.ones_like(rows["teaches"]) if taken is None else taken}
        rows = {name: values[rows["branch"] >= 0] for name, values in rows.items()}
        branches = [BRANCHES[number] for number in rows["branch"]]
        parts = {name: rows[name].astype(np.float64) for name in lessons[0].rewards.parts}
        values = reward_metrics(rows["rewards"].astype(np.float64), branches, parts)
        if branches:
            values |= {"cut": float(rows["cut"].mean()), **self.work(rows)}
        if taken is not None:
            teach, took = (int(rows[name].any(axis=1).sum()) for name in ("teaches", "taken"))
            flat = len(branches) - int(values["failed_groups"]) - teach
            values |= {"draws": len(lessons), "left_out_flat": flat, "dropped_groups": teach - took}
        failures = [failure for lesson in lessons for failure in lesson.rewards.failures]
        reason = f"{failures[-1].id}: {failures[-1].reason}" if failures else "on another host"
        if count := int(values["failed_groups"]):
            where = reason if failures else "other hosts' samples.HOST.txt name them"
            self.console.print(f"step {step}: rewards of {count} groups failed, which are left out; {where}")
        lost = {branch: int(values.get(f"failed_groups/{branch}", 0)) for branch in branches}
        self.failures.check(step, Counter(branches), lost, reason)
        return values

    def work(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The operations of a step that are no padding."""
        settings = self.plan.settings

        def forward(answers: Bool[np.ndarray, "N G"]) -> float:
            groups = answers.any(axis=1)
            if not groups.any():
                return 0.0
            sums = {name: float(rows[name][groups].sum()) for name in ("prompt_tokens", "slabs", "patches")}
            sums |= {"prompts": int(groups.sum()), "answer_tokens": float(rows["lengths"][answers].sum())}
            return answers_flops(settings.shared.model, answers=settings.decoding.answers, **sums)

        # Every answer is drawn; those that are taken are read by the reference where there is one, and learnt from.
        each = bool(settings.grpo.beta) + 3 * settings.updates
        return {"flops": forward(np.ones_like(rows["taken"])) + each * forward(rows["taken"])}

    def write_samples(self, step: int, lessons: Sequence[Lesson]) -> None:
        """Logs what failed, and on the first host some groups of the steps that are logged, in the order of drawing."""
        groups = [(lesson, group) for lesson in lessons for group in range(len(lesson.answered.filled))]
        wanted = [each for each in groups if each[1] in each[0].failures][:FAILURES]
        if is_first() and (step == 1 or step % self.config.log.every == 0):
            wanted += [each for each in groups if each[1] not in each[0].failures][: self.config.log.samples]
        spec = self.plan.settings.rewards
        self.log.write([_logged(step, *each, spec) for each in wanted])

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

    def batches(self) -> TrainingBatches:
        """The prompts, from where the last checkpoint stands."""
        config, plan = self.config, self.plan
        batches = TrainingBatches(
            plan.rows,
            plan.make,
            skips=plan.skips,
            together=together,
            threads=config.data.threads,
            workers=config.data.workers,
            **self.hosts,
        )
        if self.session.restored:
            batches.restore(self.session.restored.data)
        return batches

    def loop(self) -> Loop:
        """What stands around the steps."""
        config, plan, session, shared = self.config, self.plan, self.session, self.plan.settings.shared
        rate = learning_rate(plan.settings.stage.optimizer, plan.steps)
        checkpoint = config.checkpoint.every, config.checkpoint.minutes, config.checkpoint.keep
        return Loop(
            LoopSpec(plan.steps, config.log.every, *checkpoint),
            session.first,
            dict,
            rate=lambda step: rate(step - 1),
            stop=session.stop,
            checkpoints=session.checkpoints,
            meta=lambda step: Meta(shared.model, step, shared.inputs.to_json(), self.origin, STAGE),
            tokenizer_files=shared.tokenizer.files,
            metrics=session.metrics,
            meter=self.meter,
            profiler=session.profiler,
            describe=lambda step: {"stage": STAGE, "skipped": len(plan.skips)},
            explain=self.explain,
            saved=session.opened.mirror.push,
            console=self.console,
            title=STAGE,
        )

    def explain(self, halt: Halt, rows: Sequence[int]) -> TrainingStopped:
        """Lists the samples of the step that the guard did not take; what to raise."""
        if not is_first():
            return TrainingStopped(f"step {halt.step} is bad and was not taken; the first host says more")
        numbers = [number for row in rows for number in self.plan.rows[row].tolist()]
        with ThreadPoolExecutor(self.config.data.threads) as pool:  # records are read for their ids
            ids = [id for id in pool.map(self.plan.make.source.id, numbers) if id not in self.plan.make.leave_out]
        workdir, left_out = self.session.opened.workdir, sorted(self.plan.make.leave_out)
        spanned = min(rows, default=0), max(rows, default=-1) + 1
        return stop(workdir, halt, stage=STAGE, rows=spanned, samples=ids, left_out=left_out)


@dataclass(frozen=True)
class _Rollout:
    """Answers, what the host made of them, their rewards, which are under way, and how long the answers took."""

    drawn: Drawn
    answered: Answered
    rewards: Pending
    seconds: float


def _ended(step: int, error: Interrupted | RewardsFail) -> Exception:
    """What ends a run whose step was not taken."""
    if isinstance(error, RewardsFail):
        return error
    return Preempted(
        f"step {step}: asked to end while its rewards were computed; all before it is saved, and the same command goes "
        "on from there"
    )


def _rows(fed: Fed, count: int, taken: Bool[np.ndarray, "B*K G"] | None) -> Sequence[int]:
    """The rows of the run that a step learned from, of `count` rollouts: those that are taken; None: all."""
    first, end = fed.before["row"], fed.after["row"]
    return range(first, end) if taken is None else (first + np.flatnonzero(as_drawn(taken.any(1), count))).tolist()


def _measured(lesson: Lesson) -> dict[str, np.ndarray]:
    """What is logged of each row; `branch` -1: there is no prompt."""
    answered = lesson.answered
    names = branch_names(answered.prompts, lesson.rewards)
    return {
        "rewards": answered.all_rewards(lesson.rewards).astype(np.float32),
        "branch": np.array([BRANCHES.index(name) if name else -1 for name in names], np.int32),
        "cut": answered.cut.mean(axis=1, dtype=np.float32),
        "teaches": lesson.teaches,
        **answered.all_parts(lesson.rewards),
        **answered.sizes,
    }


def _logged(step: int, lesson: Lesson, group: int, spec: RewardSpec) -> LoggedGroup:
    """A group as the log has it."""
    answered, found, advantages = lesson.answered, lesson.rewards, lesson.advantages
    failure = lesson.failures.get(group)
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
        spec.describe(query),
        prompt.videos,
        query.question,
        query.truth,
        answers,
        failure,
    )
