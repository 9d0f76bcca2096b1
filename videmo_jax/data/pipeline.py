"""The stream of training batches: planned rows, decoded by Grain in threads and processes, whose state is a number."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import grain
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from videmo_jax.data.inputs import Preparer
from videmo_jax.data.packing import RowPlan
from videmo_jax.data.rows import Batch, Budget, Prepared, build_row, misfit, stack_rows
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.source import SampleError, Source
from videmo_jax.files.errors import UserError
from videmo_jax.model.config import VisionConfig
from videmo_jax.sharding.rules import batch_part, batch_sharding

LeftOut = Sequence[tuple[str, str]]  # samples that could not be used: id and reason


class MakesRows(Protocol):
    """Decodes and builds one row; an object, so that worker processes can be given it."""

    def __call__(self, numbers: Int32[np.ndarray, "n"]) -> tuple[Any, LeftOut]:
        """A row of the samples with these numbers, without the batch axis, and those that it leaves out."""


@dataclass(frozen=True)
class RowMaker:
    """Rows to learn from.

    Attributes:
      source: the samples and their clips.
      preparer: makes tokens and patches of them.
      vision: of the model, for the shape of patches.
      budget: the shape of a row.
      leave_out: ids of samples that no row takes. The plan of the rows stays what it is, and with it the place where
        a run stands in it.
    """

    source: Source
    preparer: Preparer
    vision: VisionConfig
    budget: Budget
    leave_out: frozenset[str] = frozenset()

    def __call__(self, numbers: Int32[np.ndarray, "n"]) -> tuple[Batch, LeftOut]:
        """A row without the batch axis, and the samples that could not be used in it: id and reason."""
        held: list[Prepared] = []
        left_out: list[tuple[str, str]] = []
        free = self.budget
        for number in numbers.tolist():
            if self.leave_out and self.source.id(number) in self.leave_out:
                continue
            try:
                prepared = self.preparer(*self.source[number])
            except SampleError as error:
                left_out.append((self.source.id(number), str(error)))
                continue
            if reason := misfit(prepared.needs, free):
                reason = f"its clips hold more than they declare, and its row is full: {reason}"
                left_out.append((prepared.id, reason))
                continue
            held.append(prepared)
            free = Budget(free.tokens - prepared.needs.tokens, free.slabs - prepared.slabs, free.patches)
        return build_row(held, self.budget, self.vision), tuple(left_out)


class TrainingBatches(Iterator[Any]):
    """Batches of rows without end. The state is the number of the next row of the run: whoever knows it goes on from
    there at once, with any number of hosts, threads and worker processes.
    """

    def __init__(
        self,
        plan: RowPlan,
        make: MakesRows,
        *,
        skips: SkipLog,
        together: Callable[[Sequence[Any]], Any] = stack_rows,
        threads: int = 4,
        workers: int = 0,
        host: int = 0,
        hosts: int = 1,
    ) -> None:
        """Describes the stream; nothing is read before the first batch.

        Args:
          plan: which samples share a row, and how many rows a batch has over all hosts: a multiple of `hosts`.
          make: builds a row.
          skips: takes the samples that cannot be used, when the batch that misses them is handed out.
          together: makes rows a batch.
          threads: that decode and tokenise at the same time, in each process.
          workers: processes that do so in place of this one; 0 for none.
          host, hosts: this process reads the host-th part of every batch.
        """
        self._plan, self._make, self._skips, self._together = plan, make, skips, together
        self._threads, self._workers, self._host, self._hosts = threads, workers, host, hosts
        self._batch = 0
        self._stream: Iterator[tuple[Any, LeftOut]] | None = None

    def __next__(self) -> Any:
        """This host's rows of the next batch; raises SkippedTooMuch beyond the limit of the log."""
        if self._stream is None:
            self._stream = self._open()
        batch, left_out = next(self._stream)
        for id, reason in left_out:
            self._skips.add(id, reason)
        self._batch += 1
        return batch

    @property
    def state(self) -> dict[str, Any]:
        """Where the stream stands, a JSON object: the next row of the run, and a hash of the plan that it counts in."""
        return {"row": self._batch * self._plan.batch, "plan": self._plan.digest}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to where a stream stood.

        Raises:
          ValueError: the state belongs to another plan: other data, budgets or seed.
        """
        if state["plan"] != self._plan.digest:
            raise UserError(
                "the samples or their lengths are not those that the checkpoint's batches were planned from; bring "
                "back the data as they were, or start a new run from this checkpoint (config.init)"
            )
        self._batch, self._stream = state["row"] // self._plan.batch, None

    def _open(self) -> Iterator[tuple[Any, LeftOut]]:
        share = self._plan.batch // self._hosts
        rows = grain.MapDataset.source(_HostRows(self._plan, share, self._host, self._hosts, self._batch))
        options = grain.ReadOptions(self._threads, prefetch_buffer_size=max(2 * share, self._threads))
        stream = rows.map(self._make).to_iter_dataset(options)
        if self._workers:
            ahead = max(2 * share // self._workers, 1)
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=ahead))
        return iter(stream.batch(share, drop_remainder=True, batch_fn=partial(_together, together=self._together)))


@dataclass(frozen=True)
class _HostRows:
    """The rows that one host reads: its part of each batch, so that batches are the same for any number of hosts."""

    plan: RowPlan
    share: int  # rows of a batch that a host reads
    host: int
    hosts: int
    first: int  # batch

    def __len__(self) -> int:
        return sys.maxsize  # there is always a next epoch

    def __getitem__(self, index: int) -> Int32[np.ndarray, "n"]:
        batch, inside = divmod(index, self.share)
        return self.plan[((self.first + batch) * self.hosts + self.host) * self.share + inside]


def _together(
    rows: Sequence[tuple[Any, LeftOut]], together: Callable[[Sequence[Any]], Any]
) -> tuple[Any, tuple[tuple[str, str], ...]]:
    return together([row for row, _ in rows]), tuple(each for _, left_out in rows for each in left_out)


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """This host's rows as its share of the global batch, split over the mesh's batch axes."""
    _, parts = batch_part(mesh)

    def place(array: np.ndarray) -> jax.Array:
        sharding = batch_sharding(mesh, (array.shape[0] * parts, *array.shape[1:]))
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(place, batch)


def from_devices(array: jax.Array) -> np.ndarray:
    """This host's rows of an array that is split as a batch is; waits for it."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[first]) for first in sorted(shards)])
