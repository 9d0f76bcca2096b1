"""Rewards of whole batches while the devices are busy: the one face that training sees."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from types import TracebackType
from typing import Self

from videmo_jax.rl.rewards.branches import Reference, failed
from videmo_jax.rl.rewards.lanes import Lane, ProcessLane, ThreadLane
from videmo_jax.rl.rewards.reward import GroupRewards, Piece, Rewards, asked_of, checked_size, gathered
from videmo_jax.rl.rewards.spec import Asked, Query, RewardError, RewardSpec

CHUNKS_OF_A_PROCESS = 4  # parts of a batch for each process, so that none waits long for the slowest
HUNG = 3  # groups of a batch whose own reward may hang before the rest is not computed
POLL_SECONDS = 0.2  # how often somebody who waits asks whether to go on


class Interrupted(Exception):
    """Nobody waited for the rewards: the run is to end."""


def _never() -> bool:
    return False


@dataclass
class _Part:
    """Pieces of a batch that are computed together, and where."""

    places: list[int]
    asked: list[Asked]
    answers: list[list[str]]
    lane: Lane
    work: Callable[[list[Asked], list[list[str]]], list[Piece]]
    own: bool = False
    future: "Future[list[Piece]] | None" = None

    def send(self) -> None:
        self.future = self.lane.submit(self.work, self.asked, self.answers)

    def failed(self, why: Exception | str) -> list[Piece]:
        return [Piece(failed(why))] * len(self.asked)


class Pending:
    """The rewards of a batch that is under way."""

    def __init__(
        self, spec: RewardSpec, queries: Sequence[Query], parts: list[_Part], here: list[_Part], size: int
    ) -> None:
        self._spec, self._queries, self._parts, self._here, self._size = spec, queries, parts, here, size
        self._done: GroupRewards | None = None

    def result(self, stopped: Callable[[], bool] = _never) -> GroupRewards:
        """Waits for the rewards, which are those of `Rewards`; of several hosts all must, where the reference judges.

        Groups whose worker dies twice or whose reward does not come in time have failed.

        Args:
          stopped: is asked now and then whether the run is to end.

        Raises:
          Interrupted: it is.
        """
        if self._done is None:
            self._done = gathered(self._spec, self._queries, self._waited(stopped), self._size)
        return self._done

    def _waited(self, stopped: Callable[[], bool]) -> list[Piece]:
        deadline = time.monotonic() + self._spec.timeout
        # What only the calling process can do is done while the others work.
        found = [(part, part.work(part.asked, part.answers)) for part in self._here]
        waiting, broken, hung = deque(self._parts), [], 0
        while waiting:
            part = waiting.popleft()
            if part.own and hung == HUNG:
                found.append((part, part.failed(f"not computed: {HUNG} groups before it hung")))
                continue
            seconds = self._spec.own_timeout if part.own else self._spec.timeout
            try:
                found.append((part, _result(part, deadline, seconds, stopped)))
            except TimeoutError:
                hung += part.own
                found.append((part, part.failed(f"no reward within {seconds:g} s")))
                part.lane.replace()
                for other in waiting if hung < HUNG else ():
                    if other.lane is part.lane and not _succeeded(other):
                        other.send()
            except (BrokenProcessPool, CancelledError):
                broken.append(part)
            except Interrupted:
                raise
            except Exception as error:
                found.append((part, part.failed(error)))
        # A dead process takes all of its pool's parts along; alone, the guilty one shows.
        for part in broken:
            found.append((part, self._again(part, deadline, stopped)))
        pieces = {at: piece for part, given in found for at, piece in zip(part.places, given, strict=True)}
        return [pieces[at] for at in range(len(pieces))]

    def _again(self, part: _Part, deadline: float, stopped: Callable[[], bool]) -> list[Piece]:
        part.send()
        try:
            return _result(part, deadline, self._spec.timeout, stopped)
        except (BrokenProcessPool, CancelledError):
            return part.failed("its worker process died, twice")
        except Interrupted:
            raise
        except Exception as error:
            return part.failed(error)


def _result(part: _Part, deadline: float, seconds: float, stopped: Callable[[], bool]) -> list[Piece]:
    """What a part gives; raises TimeoutError after so many seconds, or at the deadline."""
    until = min(time.monotonic() + seconds, deadline)
    while True:
        left = until - time.monotonic()
        if wait([part.future], timeout=max(min(left, POLL_SECONDS), 0)).done:
            return part.future.result()
        if stopped():
            raise Interrupted
        if left <= 0:
            raise TimeoutError


def _succeeded(part: _Part) -> bool:
    return part.future.done() and not part.future.cancelled() and part.future.exception() is None


class Rewarder:
    """`Rewards` of batches: the same values, bit for bit, in the order of the batch.

    An endpoint is asked for all of a batch at once by a thread of this process. Trees, rules and overlap, and one's own
    functions beside them, take worker processes, or without those a thread each. The reference takes the devices, and
    so the caller's thread, in `Pending.result`. Use it in a `with` statement, or call `close`.
    """

    def __init__(self, spec: RewardSpec, *, processes: int = 0, reference: Reference | None = None) -> None:
        """Prepares the branches; workers start when they are needed.

        Args:
          spec: of the rewards.
          processes: that compute; 0: none but this one.
          reference: the function of `caption = "reference"`.

        Raises:
          RewardError: as `Rewards`, or there are less than no processes.
        """
        if processes < 0:
            raise RewardError(f"rewards: {processes} worker processes; there must be 0 or more")
        self._spec, self._processes = spec, processes
        self._all = Rewards(spec, reference=reference)
        # Workers never see captions that an endpoint or a function of this process scores.
        self._elsewhere = replace(spec, caption="overlap", endpoint=None)
        self._plain, self._own = (ProcessLane(processes) if processes else ThreadLane() for _ in range(2))
        self._endpoint = ThreadLane()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers; what is not done by now is given up."""
        for lane in (self._plain, self._own, self._endpoint):
            lane.close()

    def __call__(self, queries: Sequence[Query], answers: Sequence[Sequence[str]]) -> GroupRewards:
        """As `Rewards`."""
        return self.submit(queries, answers).result()

    def submit(self, queries: Sequence[Query], answers: Sequence[Sequence[str]]) -> Pending:
        """Starts the computation of a batch and returns at once; raises ValueError as `Rewards`."""
        size = checked_size(queries, answers)
        asked, texts = asked_of(self._spec, queries, answers)
        kinds: dict[str, list[int]] = {"plain": [], "own": [], "openai": [], "reference": []}
        for at, each in enumerate(asked):
            kind = "own" if each.own else self._spec.caption if each.component == "caption" else "plain"
            kinds[kind if kind in kinds else "plain"].append(at)

        def part(places: list[int], lane: Lane, work: Callable[..., list[Piece]], own: bool = False) -> _Part:
            return _Part(places, [asked[at] for at in places], [list(texts[at]) for at in places], lane, work, own)

        plain, elsewhere = kinds["plain"], _Elsewhere(self._elsewhere, 1 if self._processes else None)
        step = max(1, -(-len(plain) // (self._processes * CHUNKS_OF_A_PROCESS))) if self._processes else len(plain)
        parts = [part(plain[at : at + step], self._plain, elsewhere) for at in range(0, len(plain), max(step, 1))]
        parts += [part([at], self._own, elsewhere, own=True) for at in kinds["own"]]
        if kinds["openai"]:
            parts.append(part(kinds["openai"], self._endpoint, self._all.pieces))
        for each in parts:
            each.send()
        # Other hosts may have something to ask where this one has not.
        judged = self._spec.caption == "reference"
        here = [part(kinds["reference"], self._endpoint, self._all.pieces)] if judged else []
        return Pending(self._spec, queries, parts, here, size)


@dataclass(frozen=True)
class _Elsewhere:
    """Computes rewards in a lane; where that is a process, `Rewards` are made there once."""

    spec: RewardSpec
    threads: int | None

    def __call__(self, asked: list[Asked], answers: list[list[str]]) -> list[Piece]:
        return _rewards(self.spec, self.threads).pieces(asked, answers)


@lru_cache(maxsize=1)
def _rewards(spec: RewardSpec, threads: int | None) -> Rewards:
    return Rewards(spec, threads=threads)
