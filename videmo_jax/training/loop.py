"""The loop around a training step: batches in, metrics and checkpoints out. SFT and RL share it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from videmo_jax.training.checkpoint import Checkpoints, Meta
from videmo_jax.training.cluster import Preempted, Stop
from videmo_jax.training.feed import DeviceFeed
from videmo_jax.training.metrics import MetricsWriter
from videmo_jax.training.state import TrainState


class TrainingStopped(RuntimeError):
    """The run cannot go on; the message says at which step, and why."""


@dataclass(frozen=True)
class LoopSpec:
    """How long to train and what to write when, in steps, counted over the whole run."""

    steps: int  # the one to stop after
    log_every: int = 10
    save_every: int = 500
    keep: int = 3  # checkpoints that stay on disk

    def __post_init__(self) -> None:
        if min(self.steps, self.log_every, self.save_every, self.keep) < 1:
            raise ValueError("steps, log.every, checkpoint.every and checkpoint.keep must be at least 1")


@dataclass
class Window:
    """What happened since the last logged step."""

    started: float
    tokens: int = 0
    samples: int = 0
    waited: float = 0.0  # seconds for the next batch

    def rates(self, steps: int) -> dict[str, float]:
        """Tokens (text and vision, without padding) and samples a second, seconds a step, share of time waited."""
        seconds = time.perf_counter() - self.started
        return {
            "tokens_per_second": self.tokens / seconds,
            "samples_per_second": self.samples / seconds,
            "seconds_per_step": seconds / steps,
            "data_wait_share": self.waited / seconds,
        }


def run_steps(
    spec: LoopSpec,
    state: TrainState,
    step: Callable[[TrainState, Any, float], tuple[TrainState, Any]],
    numbers: Callable[[Any], dict[str, Any]],
    feed: DeviceFeed,
    rate: Callable[[int], float],
    *,
    first: int,
    stop: Stop,
    checkpoints: Checkpoints,
    meta: Callable[[int], Meta],
    tokenizer_files: dict[str, str],
    metrics: MetricsWriter,
    describe: Callable[[int], dict[str, Any]],
    console: Console,
    title: str = "training",
) -> TrainState:
    """Trains from step `first` (steps done so far) to `spec.steps`.

    Args:
      spec: the plan.
      state: parameters and optimizer.
      step: (state, batch on the devices, learning rate) -> (state, metrics on the devices).
      numbers: metrics on the devices -> plain numbers, with `loss` among them.
      feed: batches, endless; where they stand is saved with the checkpoints.
      rate: the learning rate of step n (the first is 1).
      first: where to begin.
      stop: says after which step to save and end before the last one.
      checkpoints: where they go.
      meta: what a checkpoint of step n says of itself.
      tokenizer_files: that lie in every checkpoint.
      metrics: takes the logged steps.
      describe: what else to log of step n (epoch, stage).
      console: for the progress bar.
      title: beside the bar.

    Raises:
      TrainingStopped: the loss is no number.
      Preempted: the run was asked to end; the last step is saved.
    """
    with _progress(console) as progress:
        bar = progress.add_task(title, total=spec.steps, completed=first, loss="-", rate="-")
        window = Window(time.perf_counter())
        since = first
        for number in range(first + 1, spec.steps + 1):
            fed = next(feed)
            window.waited += fed.waited
            window.tokens += fed.tokens
            window.samples += fed.samples
            state, measured = step(state, fed.batch, rate(number))
            last = number == spec.steps
            stopping = stop.after(number)
            log = last or number == first + 1 or number % spec.log_every == 0
            save = last or stopping or number % spec.save_every == 0
            if log or save:
                values = numbers(measured)
                if values.pop("halted"):
                    raise TrainingStopped(f"step {number}: the loss leapt or is no number; lower the learning rate")
            if log:
                rates = window.rates(number - since)
                about = {"learning_rate": rate(number), **describe(number)}
                metrics.write({"step": number, **about, **values, **rates})
                shown = {"loss": f"{values['loss']:.4f}", "rate": f"{rates['tokens_per_second']:,.0f}"}
                progress.update(bar, **shown)
                if not console.is_terminal:
                    console.print(f"step {number}/{spec.steps}  loss {shown['loss']}  {shown['rate']} tokens/s")
                window, since = Window(time.perf_counter()), number
            if save:
                checkpoints.save(meta(number), tokenizer_files, state.params, (state.optimizer, state.guard), fed.state)
            progress.update(bar, completed=number)
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
