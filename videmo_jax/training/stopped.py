"""A run that its guard stopped: what is said, and the list of the batch's samples in the work directory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from videmo_jax.files.errors import FileError, UserError
from videmo_jax.files.json_records import read_json
from videmo_jax.files.paths import open_path
from videmo_jax.files.writing import write_json

FILE = "stopped.json"
SHOWN = 3  # samples in the message


class TrainingStopped(RuntimeError):
    """The run cannot go on; the message says at which step, why, and what to do."""


class LeaveOutError(UserError):
    """A file of samples to leave out cannot be read."""


@dataclass(frozen=True)
class Halt:
    """The first bad step, which was not taken.

    Attributes:
      step: its number in the run.
      loss: of its batch, nats a token.
      mean: of the loss over the steps before.
      gradient_norm: before clipping.
    """

    step: int
    loss: float
    mean: float
    gradient_norm: float

    @property
    def is_leap(self) -> bool:
        """Whether all is a number, and the loss leapt."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def stop(
    workdir: epath.PathLike,
    halt: Halt,
    *,
    stage: str,
    rows: tuple[int, int],
    samples: Sequence[str],
    left_out: Sequence[str],
) -> TrainingStopped:
    """Writes WORKDIR/stopped.json and returns what to raise.

    Args:
      workdir: of the run.
      halt: the bad step.
      stage: that it belongs to.
      rows: of the stage's plan, first and end, that its batch has.
      samples: ids of all of them.
      left_out: ids that are left out already; the file lists them too, so that it can take the place of the old list.
    """
    path = open_path(workdir) / FILE
    numbers = {name: getattr(halt, name) for name in ("loss", "mean", "gradient_norm")}
    record = {
        "step": halt.step,
        "stage": stage,
        # JSON has no word for what is no number.
        **{name: value if math.isfinite(value) else str(value) for name, value in numbers.items()},
        "rows": list(rows),
        "samples": list(samples),
        "left_out": list(left_out),
    }
    try:
        write_json(path, record)
    except (FileError, OSError) as error:  # the message below must not be lost for it
        path = f"no file: {error}"
    if halt.is_leap:
        what = f"the loss leapt to {halt.loss:.4g}, its mean was {halt.mean:.4g}"
        way = ", take such leaps (--config.guard.spike=0)"
    else:
        what, way = f"loss {halt.loss:g}, gradient norm {halt.gradient_norm:g}", ""
    more = f" and {len(samples) - SHOWN} more" if len(samples) > SHOWN else ""
    return TrainingStopped(
        f"step {halt.step}: {what}. The step was not taken; all before it is saved. Its samples: "
        f"{', '.join(samples[:SHOWN])}{more} (all in {path}). Started again as it is, the run stops here again: look "
        f"at them (launch/look.py) and leave them out (--config.data.leave_out={path}){way}, or lower the learning "
        f"rate in a new workdir that goes on from these weights (--config.init={workdir})"
    )


def read_left_out(path: epath.PathLike) -> tuple[str, ...]:
    """The ids of samples to leave out: `samples` and `left_out` of a JSON file, such as stopped.json.

    Raises:
      LeaveOutError: it cannot be read, or holds something else.
    """
    ids = _ids(read_json(path, "data.leave_out names a file such as stopped.json"))
    if ids is None:
        raise LeaveOutError(
            f'{path}: no list of samples; data.leave_out names a file as {FILE}: {{"samples": ["ID", ...]}}'
        )
    return ids


def _ids(record: Any) -> tuple[str, ...] | None:
    """The ids in a record, in order and each once; None where it is something else."""
    if not isinstance(record, Mapping) or not isinstance(record.get("samples"), list):
        return None
    ids = record["samples"] + (record["left_out"] if isinstance(record.get("left_out"), list) else [])
    return tuple(dict.fromkeys(ids)) if all(isinstance(id, str) for id in ids) else None
