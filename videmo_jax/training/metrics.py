"""Where a run writes what it measures: metrics.jsonl and TensorBoard events in the work directory."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videmo_jax.files.json_records import read_journal, to_line
from videmo_jax.files.writing import append_text, write_text

# tensorboardX imports PyTorch where it is installed: three seconds, and none of it is used for scalars.
_hidden = sys.modules.setdefault("torch", None) is None
from tensorboardX import SummaryWriter  # noqa: E402

if _hidden:
    del sys.modules["torch"]

FILE = "metrics.jsonl"


class MetricsWriter:
    """Writes one JSON object a logged step, and the same numbers for TensorBoard.

    A run that resumes from step n drops what an earlier one logged after n, so that every step stands there once.
    """

    def __init__(self, folder: Path | None, *, after_step: int) -> None:
        """Goes on after `after_step`; -1 begins anew. Without a folder nothing is written: another host does it."""
        self._held: set[tuple[int, str]] = set()
        self._path = self._board = None
        if folder is None:
            return
        path = folder / FILE
        kept = [line for line in read_metrics(folder) if line["step"] <= after_step]
        write_text(path, map(to_line, kept))
        self._path = path
        self._held = {(line["step"], name) for line in kept for name in line}
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def holds(self, step: int, name: str) -> bool:
        """Whether a metric of that name was logged after `step`; False where nothing is written."""
        return (step, name) in self._held

    def write(self, values: Mapping[str, Any]) -> None:
        """Adds one line; `values` holds at least `step`."""
        if self._path is None:
            return
        append_text(self._path, to_line(dict(values)))
        self._held |= {(values["step"], name) for name in values}
        for name, value in values.items():
            if isinstance(value, int | float) and name != "step":
                self._board.add_scalar(name, value, values["step"])


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """All logged steps of a work directory; [] where nothing was logged. A line that a kill cut short is left out."""
    return read_journal(workdir / FILE, "delete the line")
