"""Batches on the devices before they are asked for: a thread reads and places the next ones while the step runs."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self


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
      tokens, samples: in this host's part of it, without padding.
      state: where the stream stands after it: what a checkpoint of the step that takes it must hold.
      waited: seconds that the caller stood waiting for it.
    """

    batch: Any
    tokens: int
    samples: int
    state: dict[str, Any]
    waited: float = 0.0


class DeviceFeed:
    """Hands out placed batches in order; a context manager ends its thread.

    What goes wrong while a batch is read is raised where that batch is asked for.
    """

    def __init__(
        self,
        batches: Batches,
        place: Callable[[Any], Any],
        count: Callable[[Any], tuple[int, int]],
        *,
        ahead: int = 2,
    ) -> None:
        """Starts reading.

        Args:
          batches: the stream, which nobody else may read meanwhile.
          place: brings a batch to the devices.
          count: tokens and samples of a batch, without padding.
          ahead: batches on the devices beside the one in use; each takes its memory.
        """
        self._batches, self._place, self._count = batches, place, count
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

    def __next__(self) -> Fed:
        """The next batch; raises what reading it raised."""
        began = time.perf_counter()
        fed = self._ready.get()
        if isinstance(fed, BaseException):
            raise fed
        return Fed(fed.batch, fed.tokens, fed.samples, fed.state, time.perf_counter() - began)

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                batch = next(self._batches)
                item: Fed | BaseException = Fed(self._place(batch), *self._count(batch), self._batches.state)
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
