"""Batches on the devices before they are asked for: a thread reads and places the next ones while the step runs."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

POLL_SECONDS = 0.005  # how often it is asked whether the devices are still busy


class Batches(Protocol):
    """Batches without end, and where they stand."""

    def __next__(self) -> Any: ...

    @property
    def state(self) -> dict[str, Any]:
        """A JSON object from which the stream goes on after the batch that was handed out last."""
        ...


@dataclass(frozen=True)
class Fed:
    """A batch on the devices.

    Attributes:
      batch: the arrays.
      before, after: where the stream stands before it and after it: what a checkpoint must hold so that this batch is
        the next one, or is done.
      waited: seconds that the devices stood idle for it.
    """

    batch: Any
    before: dict[str, Any]
    after: dict[str, Any]
    waited: float = 0.0


def _idle() -> bool:
    return False


class DeviceFeed:
    """Hands out placed batches in order; a context manager ends its thread.

    What goes wrong while a batch is read is raised where that batch is asked for.
    """

    def __init__(self, batches: Batches, place: Callable[[Any], Any], *, ahead: int = 2) -> None:
        """Starts reading.

        Args:
          batches: the stream, which nobody else may read meanwhile.
          place: brings a batch to the devices.
          ahead: batches on the devices beside the one in use; each takes its memory.
        """
        self._batches, self._place = batches, place
        self._ready: queue.Queue[Fed | BaseException] = queue.Queue(max(ahead - 1, 1))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="feed", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def take(self, busy: Callable[[], bool] = _idle) -> Fed:
        """The next batch; raises what reading it raised.

        Args:
          busy: whether the devices still have something to do: time in which they have is no waiting.
        """
        while True:
            working = busy()
            began = time.perf_counter()
            try:
                fed = self._ready.get(timeout=POLL_SECONDS if working else None)
            except queue.Empty:
                continue
            if isinstance(fed, BaseException):
                raise fed
            return Fed(fed.batch, fed.before, fed.after, 0.0 if working else time.perf_counter() - began)

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                before = self._batches.state
                batch = next(self._batches)
                item: Fed | BaseException = Fed(self._place(batch), before, self._batches.state)
            except BaseException as error:
                item = error
            while not self._stop.is_set():
                try:
                    self._ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return


class Lookahead:
    """A feed whose next batch may be looked at before it is taken."""

    def __init__(self, feed: DeviceFeed) -> None:
        self._feed, self._next = feed, None

    def take(self, busy: Callable[[], bool] = _idle) -> Fed:
        """As `DeviceFeed.take`."""
        fed, self._next = self._next or self._feed.take(busy), None
        return fed

    def peek(self) -> Any:
        """The batch that `take` will hand out next."""
        self._next = self._next or self._feed.take()
        return self._next.batch
