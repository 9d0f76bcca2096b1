"""Rewards in worker processes, while devices are busy with the next rollout.

Workers are spawned, not forked, and import no JAX, unless the endpoint's judge is used. `spawn` imports the main module
again: a command that starts workers imports JAX inside of its functions only.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from types import TracebackType

from videmo_jax.rl.rewards.branches import Reference, failed
from videmo_jax.rl.rewards.reward import GroupRewards, Rewards, checked_size, failed_groups, joined
from videmo_jax.rl.rewards.spec import Query, RewardError, RewardSpec

CHUNKS_OF_A_PROCESS = 4  # parts of a batch for each process, so that none waits long for the slowest


@dataclass
class _Chunk:
    """A part of a batch, and where it is computed at the moment."""

    places: list[int]
    prompts: list[Query]
    answers: list[list[str]]
    pool: ProcessPoolExecutor | None = None
    future: "Future[GroupRewards] | None" = None


class PendingRewards:
    """The rewards of a batch that is under way."""

    def __init__(self, workers: "RewardWorkers", chunks: list[_Chunk], own: _Chunk | None, size: int) -> None:
        self._workers, self._chunks, self._own, self._size = workers, chunks, own, size
        self._done: GroupRewards | None = None

    def result(self) -> GroupRewards:
        """Waits for the rewards, which are those of `Rewards`; groups that kill their worker twice have failed."""
        if self._done is None:
            # What only the calling process can do is done while the workers work.
            parts = [self._workers.here(self._own)] if self._own else []
            places = [self._own.places] if self._own else []
            broken = []
            for chunk in self._chunks:
                try:
                    parts.append(chunk.future.result())
                    places.append(chunk.places)
                except BrokenProcessPool:
                    broken.append(chunk)
                except Exception as error:
                    parts.append(self._workers.failed(chunk, self._size, failed(error).reason))
                    places.append(chunk.places)
            # A dead process takes all of its pool's chunks along; alone, the guilty one shows.
            for chunk in broken:
                parts.append(self._workers.again(chunk, self._size))
                places.append(chunk.places)
            self._done = joined(parts, places)
        return self._done


class RewardWorkers:
    """`Rewards` in processes: the same values, bit for bit, in the order of the batch.

    Use it in a `with` statement, or call `close`.
    """

    def __init__(self, spec: RewardSpec, processes: int, *, reference: Reference | None = None) -> None:
        """Starts the workers.

        Args:
          spec: of the rewards.
          processes: at least 1.
          reference: the function of `caption = "reference"`, which is called in the calling process, in `result`.

        Raises:
          RewardError: as `Rewards`, or there are no processes.
        """
        if processes < 1:
            raise RewardError(f"rewards: {processes} worker processes; there must be at least 1")
        self._spec, self._processes = spec, processes
        self._here = Rewards(spec, reference=reference)
        # A function of this process cannot go elsewhere; workers never see the caption branch then.
        self._worker_spec = replace(spec, caption="overlap") if reference else spec
        self._pool = self._started()

    def __enter__(self) -> "RewardWorkers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers; what has not begun is not done."""
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, prompts: Sequence[Query], answers: Sequence[Sequence[str]]) -> GroupRewards:
        """As `Rewards`."""
        return self.submit(prompts, answers).result()

    def submit(self, prompts: Sequence[Query], answers: Sequence[Sequence[str]]) -> PendingRewards:
        """Starts the computation of a batch and returns at once; raises ValueError as `Rewards`."""
        size = checked_size(prompts, answers)
        own = [
            at
            for at, query in enumerate(prompts)
            if self._spec.caption == "reference" and self._spec.branch(query) == "caption"
        ]
        rest = [at for at in range(len(prompts)) if at not in set(own)]
        step = max(1, -(-len(rest) // (self._processes * CHUNKS_OF_A_PROCESS)))
        parts = [rest[first : first + step] for first in range(0, len(rest), step)]

        def chunk(places: list[int]) -> _Chunk:
            return _Chunk(places, [prompts[at] for at in places], [list(answers[at]) for at in places])

        chunks = [chunk(part) for part in parts]
        for each in chunks:
            self._send(each)
        # A batch without groups has rewards of the right shape, too.
        alone = chunk(own) if own or not chunks else None
        return PendingRewards(self, chunks, alone, size)

    def here(self, chunk: _Chunk) -> GroupRewards:
        """Computes a chunk in this process."""
        return self._here(chunk.prompts, chunk.answers)

    def again(self, chunk: _Chunk, size: int) -> GroupRewards:
        """Repeats a chunk whose pool broke, alone and once; if its worker dies again, its groups have failed."""
        self._send(chunk)
        try:
            return chunk.future.result()
        except BrokenProcessPool:
            return self.failed(chunk, size, "its worker process died, twice")
        except Exception as error:
            return self.failed(chunk, size, failed(error).reason)

    def failed(self, chunk: _Chunk, size: int, reason: str) -> GroupRewards:
        """What a chunk gives that cannot be computed."""
        return failed_groups(self._spec, chunk.prompts, size, reason)

    def _send(self, chunk: _Chunk) -> None:
        """Gives a chunk to the workers, to new ones where the old ones are dead."""
        if chunk.pool is self._pool:  # it broke there
            self._restart()
        try:
            chunk.future = self._pool.submit(_work, self._worker_spec, chunk.prompts, chunk.answers)
        except BrokenProcessPool:
            self._restart()
            chunk.future = self._pool.submit(_work, self._worker_spec, chunk.prompts, chunk.answers)
        chunk.pool = self._pool

    def _restart(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._started()

    def _started(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._processes, get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Ends this worker when its trainer is killed: nobody else would tell it to stop, and it would wait for ever."""

    def watch() -> None:
        wait([parent_process().sentinel])
        os._exit(1)

    Thread(target=watch, name="parent", daemon=True).start()


@lru_cache(maxsize=1)
def _rewards(spec: RewardSpec) -> Rewards:
    """Those of a worker process, made once."""
    return Rewards(spec, threads=1)


def _work(spec: RewardSpec, prompts: list[Query], answers: list[list[str]]) -> GroupRewards:
    return _rewards(spec)(prompts, answers)
