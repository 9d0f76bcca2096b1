"""Files that grow while a run goes on, also where its work directory is a bucket, whose objects cannot be added to.

There they grow in a folder of this machine and are copied whole: at most every so many seconds, when a checkpoint is
saved, and at the end. A local work directory is written to directly.
"""

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from etils import epath
from rich.console import Console

from videmo_jax.files.paths import is_remote
from videmo_jax.files.writing import write_bytes

EVERY_SECONDS = 30.0


class Mirror:
    """The folder to write to (`local`), kept up with the work directory; a context manager.

    What cannot be copied is said once and tried again; where it still cannot be at the end, OSError is raised.
    """

    def __init__(
        self, workdir: epath.PathLike, goes_on: Sequence[str], console: Console, *, every: float = EVERY_SECONDS
    ) -> None:
        """Describes the folder.

        Args:
          workdir: a folder or a bucket.
          goes_on: names of files that an earlier start may have left there and this one adds to.
          console: hears what cannot be copied.
          every: seconds between copies.
        """
        self._workdir, self._goes_on, self._console, self._every = epath.Path(workdir), goes_on, console, every
        self._remote = is_remote(workdir)
        self._held = tempfile.TemporaryDirectory(prefix="videmo") if self._remote else None
        self.local = Path(self._held.name) if self._held else Path(workdir)
        self._copied: dict[Path, tuple[int, int]] = {}  # sizes and times of what is there
        self._wake, self._end = threading.Event(), False
        self._thread = threading.Thread(target=self._keep_up, name="mirror", daemon=True)

    def __enter__(self) -> Self:
        """Fetches what goes on."""
        if self._remote:
            for name in self._goes_on:
                if (self._workdir / name).exists():
                    write_bytes(self.local / name, (self._workdir / name).read_bytes())
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._held:
            return
        self._end = True
        self._wake.set()
        self._thread.join()
        try:
            self._copy()
        except Exception as failed:
            if error is None:
                raise OSError(f"{self._workdir}: {failed}; {self.local} keeps what could not be copied") from failed
            self._console.print(f"{self._workdir}: {failed}; {self.local} keeps what could not be copied")
        else:
            self._held.cleanup()

    def push(self) -> None:
        """Copies soon, in the background."""
        self._wake.set()

    def _keep_up(self) -> None:
        said = False
        while not self._end:
            self._wake.wait(self._every)
            self._wake.clear()
            try:
                self._copy()
            except Exception as error:  # of any of the libraries that know buckets; the run must not end for a copy
                if not said:
                    self._console.print(f"{self._workdir}: {error}; metrics are copied there when it can be reached")
                said = True

    def _copy(self) -> None:
        """Copies the files that have changed."""
        for path in sorted(self.local.rglob("*")):
            if not path.is_file():
                continue
            stat = path.stat()
            now = stat.st_size, stat.st_mtime_ns
            if self._copied.get(path) != now:
                write_bytes(self._workdir / path.relative_to(self.local).as_posix(), path.read_bytes())
                self._copied[path] = now
