"""What stands around the steps of a run: batches in, metrics and checkpoints out. SFT and RL share it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from videmo_jax.files.errors import UserError
from videmo_jax.training.checkpoint import Checkpoints, Meta
from videmo_jax.training.cluster import Preempted, Stop
from videmo_jax.training.feed import DeviceFeed, Fed, Lookahead
from videmo_jax.training.hosts import first_host_says
from videmo_jax.training.meter import Meter
from videmo_jax.training.metrics import MetricsWriter
from videmo_jax.training.profile import Profiler
from videmo_jax.training.state import TrainState
from videmo_jax.training.stopped import Halt, TrainingStopped


@dataclass(frozen=True)
class LoopSpec:
    """How long to train and what to write when, in steps, counted over the whole run."""

    steps: int  # the one to stop after
    log_every: int = 10
    save_every: int = 500
    save_minutes: float = 10.0  # since the last one, looked at where steps are logged; 0: steps alone count
    keep: int = 3  # checkpoints that stay on disk

    def __post_init__(self) -> None:
        if min(self.steps, self.log_every, self.save_every, self.keep) < 1:
            raise UserError("steps, log.every, checkpoint.every and checkpoint.keep must be at least 1")
        if not self.save_minutes >= 0:
            raise UserError(f"checkpoint.minutes is {self.save_minutes}; it must be 0 or above")


@dataclass(frozen=True)
class _Sent:
    """A step that the devices were given and whose metrics nobody has read."""

    number: int
    measured: Any
    before: dict[str, Any]  # where the batches stood before its own
    rows: Sequence[int]  # of the run that it learned from

    def running(self) -> bool:
        """Whether the devices are still at it."""
        return not all(leaf.is_ready() for leaf in jax.tree.leaves(self.measured))


@dataclass
class Loop:
    """The numbers of the steps that are to be done; takes note of each one that was.

        with loop:
            for number in loop:
                fed = loop.take(feed)
                state, measured = step(state, fed.batch, loop.rate(number))
                loop.took(number, state, measured, fed, rows)

    The metrics of a step are read when the next one is on its way, so that the devices never wait for the host. The
    guard in the step makes up for that: after a bad step the state stays what it was before it.

    Attributes:
      spec: the plan.
      first: steps of the run that are done.
      numbers: metrics on the devices -> plain numbers, with `loss`, `gradient_norm`, `tokens`, `samples` and `halted`.
      rate: the learning rate of step n (the first is 1).
      stop: says after which step to save and end before the last one.
      checkpoints: where they go.
      meta: what a checkpoint of step n says of itself.
      tokenizer_files: that lie in every checkpoint.
      metrics: takes the logged steps.
      meter: measures the time of all stages of the run.
      profiler: records the steps that it is for.
      describe: what else to log of step n (epoch, stage).
      explain: lists the samples of the step that the guard did not take, given its rows, and says what to raise.
      saved: is called when a checkpoint is on its way.
      console: for the progress bar.
      title: beside the bar.
    """

    spec: LoopSpec
    first: int
    numbers: Callable[[Any], dict[str, Any]]
    rate: Callable[[int], float]
    stop: Stop
    checkpoints: Checkpoints
    meta: Callable[[int], Meta]
    tokenizer_files: dict[str, str]
    metrics: MetricsWriter
    meter: Meter
    profiler: Profiler
    describe: Callable[[int], dict[str, Any]]
    explain: Callable[[Halt, Sequence[int]], TrainingStopped]
    saved: Callable[[], None]
    console: Console
    title: str = "training"
    _sent: _Sent | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._stored, self._saved_at = self.first, time.monotonic()
        self._progress = _progress(self.console)

    def __enter__(self) -> Self:
        self._progress.start()
        self._bar = self._progress.add_task(self.title, total=self.spec.steps, completed=self.first, loss="-", rate="-")
        self.meter.start()
        self.profiler.turn(self.first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first + 1, self.spec.steps + 1))

    def take(self, feed: DeviceFeed | Lookahead) -> Fed:
        """The next batch; the time in which the devices wait for it is no part of a step."""
        fed = feed.take(self._sent.running) if self._sent else feed.take()
        self.meter.waited(fed.waited)
        self._began = time.perf_counter()
        return fed

    def took(
        self,
        number: int,
        state: TrainState,
        measured: Any,
        fed: Fed,
        rows: Sequence[int],
        *,
        at_once: bool = False,
        beside: tuple[Any, ...] = (),
    ) -> None:
        """Takes note of a step that the devices were given, and saves where it is time.

        Args:
          number: of the step.
          state: after it.
          measured: its metrics on the devices.
          fed: its batch; of several with `before` of the first and `after` of the last.
          rows: of the run that it learned from.
          at_once: whether the devices are done with it.
          beside: what else a checkpoint holds, as of `session.open_session`.

        Raises:
          TrainingStopped: the guard found a step bad; all before it is saved.
          Preempted: the run was asked to end; the last step is saved.
        """
        if number == self.first + 1:  # the call of a compiled step returns at once
            self.meter.aside(time.perf_counter() - self._began)
        if self._sent:
            self._read(self._sent, state, beside)
        self._sent = _Sent(number, measured, fed.before, rows)
        stopping = self.stop.after(number)
        saving = number == self.spec.steps or stopping or number % self.spec.save_every == 0 or self._is_time(number)
        if at_once or saving or self.profiler.edge(number):  # what is saved must be known to be good
            self._read(self._sent, state, beside)
            self._sent = None
        if saving:
            self._save(number, state, fed.after, beside)
        self.profiler.turn(number)
        if stopping:
            raise Preempted(f"step {number}: asked to end, and saved; the same command goes on from here")

    def save_before(self, number: int, state: TrainState, before: dict[str, Any], beside: tuple[Any, ...] = ()) -> None:
        """Saves what there was before a step that is not taken, unless it is saved already.

        Args:
          number: of the step.
          state: before it.
          before: where the batches stood.
          beside: as of `took`.
        """
        if number - 1 > self._stored:
            self._save(number - 1, state, before, beside)

    def _is_time(self, number: int) -> bool:
        """Whether so long nothing was saved that the first host finds it time; all hosts hear the same."""
        spec = self.spec
        if not spec.save_minutes or number % spec.log_every:
            return False
        return first_host_says(time.monotonic() - self._saved_at >= 60 * spec.save_minutes)

    def _save(self, number: int, state: TrainState, stands: dict[str, Any], beside: tuple[Any, ...]) -> None:
        began, self._stored, self._saved_at = time.perf_counter(), number, time.monotonic()
        optimizer = (state.optimizer, state.guard, *beside)
        self.checkpoints.save(self.meta(number), self.tokenizer_files, state.params, optimizer, stands)
        self.meter.aside(time.perf_counter() - began)
        self.saved()

    def _read(self, sent: _Sent, newest: TrainState, beside: tuple[Any, ...]) -> None:
        """Waits for a step and takes note of it."""
        values = self.numbers(sent.measured)
        if values.pop("halted"):
            mean = float(jax.device_get(newest.guard.mean))
            self.save_before(sent.number, newest.released(), sent.before, beside)
            raise self.explain(Halt(sent.number, values["loss"], mean, values["gradient_norm"]), sent.rows)
        self.meter.took(values.pop("tokens"), values.pop("samples"), values.pop("flops", None))
        number, steps = sent.number, self.spec.steps
        if number in (self.first + 1, steps) or number % self.spec.log_every == 0:
            rates = self.meter.read()
            self.metrics.write(
                {"step": number, "learning_rate": self.rate(number), **self.describe(number), **values, **rates}
            )
            shown = {"loss": f"{values['loss']:.4f}", "rate": f"{rates['tokens_per_second']:,.0f}"}
            self._progress.update(self._bar, **shown)
            if not self.console.is_terminal:
                self.console.print(f"step {number}/{steps}  loss {shown['loss']}  {shown['rate']} tokens/s")
        self._progress.update(self._bar, completed=number)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  {task.fields[rate]} tokens/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
