"""The samples that were left out, and why: nothing is lost silently, and nothing bad stops a run of hours."""

import json
import threading
from collections.abc import Callable
from pathlib import Path


class SkippedTooMuch(ValueError):
    """More samples had to be left out than the config allows."""


class SkipLog:
    """Counts samples that cannot be used, lists them in a file, and refuses beyond a limit.

    Threads may share it; an id counts once, however often an epoch meets it.
    """

    def __init__(self, path: Path | None, *, total: int, max_share: float, called: str = "") -> None:
        """Goes on with the file of an earlier run, if there is one.

        Args:
          path: a JSON Lines file of {id, reason}, or None to keep the list in memory alone.
          total: samples there are.
          max_share: of them that may be left out before the run stops.
          called: what messages call the file, where it is copied elsewhere.
        """
        self._called = called or str(path)
        self._path, self._total, self._max_share = path, total, max_share
        self._lock = threading.Lock()
        self.reasons: dict[str, str] = {}
        self._faults = 0
        if path is not None and path.exists():
            kept: list[str] = []
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):  # a kill may have cut the last one
                    record = json.loads(line)
                    self.reasons[record["id"]] = record["reason"]
                    self._faults += record.get("counts", True)
                    kept.append(line)
            path.write_text("".join(kept))

    def __len__(self) -> int:
        return len(self.reasons)

    def tell(self, say: Callable[[str], object]) -> None:
        """Says how many samples were left out, if any were."""
        if self.reasons:
            say(f"{len(self)} of {self._total} samples were left out; {self._called} says why")

    def add(self, id: str, reason: str, *, counts: bool = True) -> None:
        """Records one sample; what is no loss (it is there again, the config leaves it out) need not count.

        Raises:
          SkippedTooMuch: the limit is passed.
        """
        with self._lock:
            if id in self.reasons:
                return
            self.reasons[id] = reason
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(_line(id, reason, counts))
            self._faults += counts
            if self._faults > self._max_share * self._total:
                raise SkippedTooMuch(
                    f"{self._faults} of {self._total} samples had to be left out, more than "
                    f"data.max_skipped_share = {self._max_share:g} allows; the last: {id}: {reason}"
                    + (f"; all are listed in {self._called}" if self._path else "")
                )


def _line(id: str, reason: str, counts: bool) -> str:
    return json.dumps({"id": id, "reason": reason} | ({} if counts else {"counts": False}), ensure_ascii=False) + "\n"
