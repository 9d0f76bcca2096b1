"""The samples that were left out, and why: nothing is lost silently, and nothing bad stops a run of hours."""

import json
import threading
from pathlib import Path


class SkippedTooMuch(ValueError):
    """More samples had to be left out than the config allows."""


class SkipLog:
    """Counts samples that cannot be used, lists them in a file, and refuses beyond a limit.

    Threads may share it; an id counts once, however often an epoch meets it.
    """

    def __init__(self, path: Path | None, *, total: int, max_share: float) -> None:
        """Goes on with the file of an earlier run, if there is one.

        Args:
          path: a JSON Lines file of {id, reason}, or None to keep the list in memory alone.
          total: samples there are.
          max_share: of them that may be left out before the run stops.
        """
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
                    self._faults += not record.get("again", False)
                    kept.append(line)
            path.write_text("".join(kept))

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, id: str, reason: str, *, again: bool = False) -> None:
        """Records one sample; one that is there again is no loss, and does not count towards the limit.

        Raises:
          SkippedTooMuch: the limit is passed.
        """
        with self._lock:
            if id in self.reasons:
                return
            self.reasons[id] = reason
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(_line(id, reason, again))
            self._faults += not again
            if self._faults > self._max_share * self._total:
                raise SkippedTooMuch(
                    f"{self._faults} of {self._total} samples had to be left out, more than "
                    f"data.max_skipped_share = {self._max_share:g} allows; the last: {id}: {reason}"
                    + (f"; all are listed in {self._path}" if self._path else "")
                )


def _line(id: str, reason: str, again: bool) -> str:
    return json.dumps({"id": id, "reason": reason} | ({"again": True} if again else {}), ensure_ascii=False) + "\n"
