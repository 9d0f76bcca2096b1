"""The loop around a training step: batches in, metrics and checkpoints out. SFT and RL share it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from videmo_jax.files.errors import UserError
from videmo_jax.training.checkpoint import Checkpoints, Meta
from videmo_jax.training.cluster import Preempted, Stop
from videmo_jax.training.feed import DeviceFeed, Lookahead
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
    keep: int = 3  # checkpoints that stay on disk

    def __post_init__(self) -> None:
        if min(self.steps, self.log_every, self.save_every, self.keep) < 1:
            raise UserError("steps, log.every, checkpoint.every and checkpoint.keep must be at least 1")


@dataclass(frozen=True)
class _Sent:
    """A step that the devices were given and whose metrics nobody has read."""

    number: int
    measured: Any
    before: dict[str, Any]  # where the batches stood before its own

    def running(self) -> bool:
        """Whether the devices are still at it."""
        return not all(leaf.is_ready() for leaf in jax.tree.leaves(self.measured))


def run_steps(
    spec: LoopSpec,
    state: TrainState,
    step: Callable[[TrainState, Any, float], tuple[TrainState, Any]],
    numbers: Callable[[Any], dict[str, Any]],
    feed: DeviceFeed | Lookahead,
    rate: Callable[[int], float],
    *,
    first: int,
    stop: Stop,
    checkpoints: Checkpoints,
    meta: Callable[[int], Meta],
    tokenizer_files: dict[str, str],
    metrics: MetricsWriter,
    meter: Meter,
    profiler: Profiler,
    describe: Callable[[int], dict[str, Any]],
    explain: Callable[[Halt], TrainingStopped],
    saved: Callable[[], None],
    console: Console,
    title: str = "training",
    at_once: bool = False,
) -> TrainState:
    """Trains from step `first` (steps done so far) to `spec.steps`.

    The metrics of a step are read when the next one is on its way, so that the devices never wait for the host. The
    guard in the step makes up for that: after a bad step the state stays what it was before it. With `at_once` they are
    read before: the step waits for the devices by itself.

    Args:
      spec: the plan.
      state: parameters, optimizer and guard.
      step: (state, batch on the devices, learning rate) -> (state, metrics on the devices).
      numbers: metrics on the devices -> plain numbers, with `loss`, `gradient_norm`, `tokens`, `samples` and `halted`.
      feed: batches, endless; where they stand is saved with the checkpoints.
      rate: the learning rate of step n (the first is 1).
      first: where to begin.
      stop: says after which step to save and end before the last one.
      checkpoints: where they go.
      meta: what a checkpoint of step n says of itself.
      tokenizer_files: that lie in every checkpoint.
      metrics: takes the logged steps.
      meter: measures the time of all stages of the run.
      profiler: records the steps that it is for.
      describe: what else to log of step n (epoch, stage).
      explain: lists the samples of the step that the guard did not take, and says what to raise.
      saved: is called when a checkpoint is on its way.
      console: for the progress bar.
      title: beside the bar.
      at_once: whether a step has ended when its call returns.

    Raises:
      TrainingStopped: the guard found a step bad; all before it is saved.
      Preempted: the run was asked to end; the last step is saved.
    """

    stored = first

    def save(number: int, state: TrainState, stands: dict[str, Any]) -> None:
        nonlocal stored
        began, stored = time.perf_counter(), number
        checkpoints.save(meta(number), tokenizer_files, state.params, (state.optimizer, state.guard), stands)
        meter.aside(time.perf_counter() - began)
        saved()

    def read(sent: _Sent, newest: TrainState) -> None:
        """Waits for a step and takes note of it."""
        values = numbers(sent.measured)
        if values.pop("halted"):
            halt(sent, newest, values)
        meter.took(values.pop("tokens"), values.pop("samples"))
        number = sent.number
        if number in (first + 1, spec.steps) or number % spec.log_every == 0:
            rates = meter.read()
            metrics.write({"step": number, "learning_rate": rate(number), **describe(number), **values, **rates})
            shown = {"loss": f"{values['loss']:.4f}", "rate": f"{rates['tokens_per_second']:,.0f}"}
            progress.update(bar, **shown)
            if not console.is_terminal:
                console.print(f"step {number}/{spec.steps}  loss {shown['loss']}  {shown['rate']} tokens/s")
        progress.update(bar, completed=number)

    def halt(sent: _Sent, newest: TrainState, values: dict[str, Any]) -> None:
        """Saves what there was before the bad step, and raises."""
        done = sent.number - 1
        mean = float(jax.device_get(newest.guard.mean))
        if done > stored:
            save(done, newest.released(), sent.before)
        raise explain(Halt(sent.number, values["loss"], mean, values["gradient_norm"]))

    with _progress(console) as progress:
        bar = progress.add_task(title, total=spec.steps, completed=first, loss="-", rate="-")
        meter.start()
        profiler.turn(first)
        sent: _Sent | None = None
        for number in range(first + 1, spec.steps + 1):
            fed = feed.take(sent.running) if sent else feed.take()
            meter.waited(fed.waited)
            began = time.perf_counter()
            state, measured = step(state, fed.batch, rate(number))
            if number == first + 1:  # the call of a compiled step returns at once
                meter.aside(time.perf_counter() - began)
            if sent:
                read(sent, state)
            sent = _Sent(number, measured, fed.before)
            last = number == spec.steps
            stopping = stop.after(number)
            saving = last or stopping or number % spec.save_every == 0
            if at_once or saving or profiler.edge(number):  # what is saved must be known to be good
                read(sent, state)
                sent = None
            if saving:
                save(number, state, fed.after)
            profiler.turn(number)
            if stopping:
                raise Preempted(f"step {number}: asked to end, and saved; the same command goes on from here")
    return state


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
