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
from videmo_jax.rl.rewards.reward import GroupRewards, Rewards, checked_size, failed_groups, joined
from videmo_jax.rl.rewards.spec import Query, RewardError, RewardSpec

CHUNKS_OF_A_PROCESS = 4  # parts of a batch for each process, so that none waits long for the slowest
HUNG = 3  # groups of a batch whose own reward may hang before the rest is not computed
POLL_SECONDS = 0.2  # how often somebody who waits asks whether to go on


class Interrupted(Exception):
    """Nobody waited for the rewards: the run is to end."""


def _never() -> bool:
    return False


@dataclass
class _Part:
    """Groups of a batch that are computed together, and where."""

    places: list[int]
    queries: list[Query]
    answers: list[list[str]]
    lane: Lane
    work: Callable[[list[Query], list[list[str]]], GroupRewards]
    own: bool = False
    future: "Future[GroupRewards] | None" = None

    def send(self) -> None:
        self.future = self.lane.submit(self.work, self.queries, self.answers)


class Pending:
    """The rewards of a batch that is under way."""

    def __init__(self, spec: RewardSpec, parts: list[_Part], here: list[_Part], size: int) -> None:
        self._spec, self._parts, self._here, self._size = spec, parts, here, size
        self._done: GroupRewards | None = None

    def result(self, stopped: Callable[[], bool] = _never) -> GroupRewards:
        """Waits for the rewards, which are those of `Rewards`.

        Groups whose worker dies twice or whose reward does not come in time have failed.

        Args:
          stopped: is asked now and then whether the run is to end.

        Raises:
          Interrupted: it is.
        """
        if self._done is None:
            self._done = self._waited(stopped)
        return self._done

    def _waited(self, stopped: Callable[[], bool]) -> GroupRewards:
        deadline = time.monotonic() + self._spec.timeout
        # What only the calling process can do is done while the others work.
        found = [(part, part.work(part.queries, part.answers)) for part in self._here]
        waiting, broken, hung = deque(self._parts), [], 0
        while waiting:
            part = waiting.popleft()
            if part.own and hung == HUNG:
                found.append((part, self._failed(part, f"not computed: {HUNG} groups before it hung")))
                continue
            seconds = self._spec.own_timeout if part.own else self._spec.timeout
            try:
                found.append((part, _result(part, deadline, seconds, stopped)))
            except TimeoutError:
                hung += part.own
                found.append((part, self._failed(part, f"no reward within {seconds:g} s")))
                part.lane.replace()
                for other in waiting if hung < HUNG else ():
                    if other.lane is part.lane and not _succeeded(other):
                        other.send()
            except (BrokenProcessPool, CancelledError):
                broken.append(part)
            except Interrupted:
                raise
            except Exception as error:
                found.append((part, self._failed(part, failed(error).reason)))
        # A dead process takes all of its pool's parts along; alone, the guilty one shows.
        for part in broken:
            found.append((part, self._again(part, deadline, stopped)))
        return joined([rewards for _, rewards in found], [part.places for part, _ in found])

    def _again(self, part: _Part, deadline: float, stopped: Callable[[], bool]) -> GroupRewards:
        part.send()
        try:
            return _result(part, deadline, self._spec.timeout, stopped)
        except (BrokenProcessPool, CancelledError):
            return self._failed(part, "its worker process died, twice")
        except Interrupted:
            raise
        except Exception as error:
            return self._failed(part, failed(error).reason)

    def _failed(self, part: _Part, reason: str) -> GroupRewards:
        return failed_groups(self._spec, part.queries, self._size, reason)


def _result(part: _Part, deadline: float, seconds: float, stopped: Callable[[], bool]) -> GroupRewards:
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
        kinds: dict[str, list[int]] = {"plain": [], "own": [], "openai": [], "reference": []}
        for at, query in enumerate(queries):
            branch = self._spec.branch(query)
            scorer = self._spec.caption if branch == "caption" else branch
            kinds[scorer if scorer in kinds else "plain"].append(at)

        def part(places: list[int], lane: Lane, work: Callable[..., GroupRewards], own: bool = False) -> _Part:
            texts = [list(answers[at]) for at in places]
            return _Part(places, [queries[at] for at in places], texts, lane, work, own)

        plain, elsewhere = kinds["plain"], _Elsewhere(self._elsewhere, 1 if self._processes else None)
        step = max(1, -(-len(plain) // (self._processes * CHUNKS_OF_A_PROCESS))) if self._processes else len(plain)
        parts = [part(plain[at : at + step], self._plain, elsewhere) for at in range(0, len(plain), max(step, 1))]
        parts += [part([at], self._own, elsewhere, own=True) for at in kinds["own"]]
        if kinds["openai"]:
            parts.append(part(kinds["openai"], self._endpoint, self._all))
        for each in parts:
            each.send()
        # A batch without groups has rewards of the right shape, too.
        here = [part(kinds["reference"], self._endpoint, self._all)] if kinds["reference"] or not parts else []
        return Pending(self._spec, parts, here, size)


@dataclass(frozen=True)
class _Elsewhere:
    """Computes rewards in a lane; where that is a process, `Rewards` are made there once."""

    spec: RewardSpec
    threads: int | None

    def __call__(self, queries: list[Query], answers: list[list[str]]) -> GroupRewards:
        return _rewards(self.spec, self.threads)(queries, answers)


@lru_cache(maxsize=1)
def _rewards(spec: RewardSpec, threads: int | None) -> Rewards:
    return Rewards(spec, threads=threads)
