"""Where a run writes what it measures: metrics.jsonl and TensorBoard events in the work directory."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

FILE = "metrics.jsonl"


class MetricsWriter:
    """Writes one JSON object a logged step, and the same numbers for TensorBoard.

    A run that resumes from step n drops what an earlier one logged after n, so that every step stands there once.
    """

    def __init__(self, folder: Path | None, *, after_step: int) -> None:
        """Goes on after `after_step`; -1 begins anew. Without a folder nothing is written: another host does it."""
        self._held: set[tuple[int, str]] = set()
        self._file = self._board = None
        if folder is None:
            return
        path = folder / FILE
        kept = [line for line in read_metrics(folder) if line["step"] <= after_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.rename(path)
        self._file = path.open("a")
        self._held = {(line["step"], name) for line in kept for name in line}
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._board.close()

    def holds(self, step: int, name: str) -> bool:
        """Whether a metric of that name was logged after `step`; False where nothing is written."""
        return (step, name) in self._held

    def write(self, values: Mapping[str, Any]) -> None:
        """Adds one line; `values` holds at least `step`."""
        if self._file is None:
            return
        self._file.write(json.dumps(dict(values)) + "\n")
        self._file.flush()
        self._held |= {(values["step"], name) for name in values}
        for name, value in values.items():
            if isinstance(value, int | float) and name != "step":
                self._board.add_scalar(name, value, values["step"])


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """All logged steps of a work directory; [] where nothing was logged. A line that a kill cut short is left out."""
    path = workdir / FILE
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
