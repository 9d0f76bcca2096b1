"""The samples that were left out, and why: nothing is lost silently, and nothing bad stops a run of hours."""

import threading
from collections.abc import Callable
from pathlib import Path

from videmo_jax.files.errors import UserError
from videmo_jax.files.json_records import read_journal, to_line
from videmo_jax.files.writing import append_text, write_text


class SkippedTooMuch(UserError):
    """More samples had to be left out than the config allows."""


class SkipLog:
    """Counts samples that cannot be used, lists them in a file, and refuses beyond a limit.

    Threads may share it; an id counts once, however often an epoch meets it.
    """

    def __init__(self, path: Path | None, *, total: int, max_share: float, called: str = "", before: int = 0) -> None:
        """Goes on with the file of an earlier run, if there is one.

        Args:
          path: a JSON Lines file of {id, reason}, or None to keep the list in memory alone.
          total: samples there are.
          max_share: of them that may be left out before the run stops.
          called: what messages call the file, where it is copied elsewhere.
          before: of the total, those that were left out when records were prepared; their reasons stand there.

        Raises:
          SkippedTooMuch: those alone, or with those of an earlier run, are more than may be.
        """
        self._called = called or str(path)
        self._path, self._total, self._max_share = path, total, max_share
        self._lock = threading.Lock()
        self.reasons: dict[str, str] = {}
        self._faults = before
        if path is not None and path.exists():
            records = read_journal(path, "delete the line, or the file: its samples are looked at again")
            for record in records:
                self.reasons[record["id"]] = record["reason"]
                self._faults += record.get("counts", True)
            write_text(path, map(to_line, records))
        self._check(f"{before} when the records were prepared (their report.jsonl)")

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
                append_text(self._path, to_line({"id": id, "reason": reason} | ({} if counts else {"counts": False})))
            self._faults += counts
            self._check(f"the last: {id}: {reason}")

    def _check(self, last: str) -> None:
        if self._faults > self._max_share * self._total:
            raise SkippedTooMuch(
                f"{self._faults} of {self._total} samples had to be left out, more than data.max_skipped_share = "
                f"{self._max_share:g} allows; {last}" + (f"; all are listed in {self._called}" if self._path else "")
            )
