"""Which samples share a row: a plan over lengths alone, made before anything is decoded.

The plan is a pure function of (lengths, mixture, budget, seed, epoch, window), so that row i of a run is known to every
host and after every restart: the state of the data is the number of the next row.
"""

import hashlib
import math
import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
from jaxtyping import Int32

from videmo_jax.data.mixture import Mixture, generator
from videmo_jax.data.rows import Budget
from videmo_jax.files.errors import UserError

WINDOW = 4096  # samples that may share rows: larger windows fill rows better and hold lengths apart in time
KEPT_WINDOWS = 8  # threads that read ahead stand in the next ones


@dataclass(frozen=True)
class Sizes:
    """What the plan must know of each of the N samples of a dataset: tokens (text and vision) and slabs."""

    tokens: Int32[np.ndarray, "N"]
    slabs: Int32[np.ndarray, "N"]


@dataclass(frozen=True)
class PlannedRows:
    """Planned rows: row r holds the samples `samples[starts[r] : starts[r + 1]]`."""

    samples: Int32[np.ndarray, "N"]
    starts: Int32[np.ndarray, "R+1"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> Int32[np.ndarray, "n"]:
        return self.samples[self.starts[row] : self.starts[row + 1]]


def pack_rows(tokens: Int32[np.ndarray, "N"], slabs: Int32[np.ndarray, "N"], budget: Budget) -> PlannedRows:
    """Fills one row after the other, each time with the sample that takes most of what is still free in it.

    How much that is, tokens and slabs together, is weighed by the share of each budget that is free, so that samples
    of many slabs meet samples of many tokens. Samples of equal slabs stand in one list by tokens, and the longest that
    fits is found by bisection. PlannedRows come out fuller than first-fit decreasing makes them.

    Args:
      tokens, slabs: of the samples.
      budget: of a row.

    Raises:
      ValueError: a sample does not fit an empty row.
    """
    order = np.lexsort((np.arange(len(tokens)), tokens, slabs)).astype(np.int32)
    if len(order) and (tokens.max() > budget.tokens or slabs.max() > budget.slabs or tokens.min() < 1):
        raise UserError(f"samples longer than an empty row of {budget.tokens} tokens and {budget.slabs} slabs")
    _, firsts = np.unique(slabs[order], return_index=True)
    samples, starts = _fill(
        tokens[order].astype(np.int64), slabs[order].astype(np.int64), firsts, budget.tokens, budget.slabs
    )
    return PlannedRows(order[samples], starts)


@numba.njit(cache=True)
def _fill(tokens, slabs, firsts, most_tokens, most_slabs):  # noqa: ANN001, ANN202  (arrays, compiled)
    """Samples sorted by slabs, then tokens; `firsts` begins each class of equal slabs. Places row after row, starts."""
    count, classes = len(tokens), len(firsts)
    members, sizes = np.arange(count), np.empty(classes, np.int64)
    for c in range(classes):
        sizes[c] = (firsts[c + 1] if c + 1 < classes else count) - firsts[c]
    samples, starts = np.empty(count, np.int32), np.zeros(count + 1, np.int32)
    placed, rows = 0, 0
    while placed < count:
        free_tokens, free_slabs = most_tokens, most_slabs
        while True:
            token_weight, slab_weight = free_tokens / most_tokens**2, free_slabs / most_slabs**2
            most, found, found_class = 0.0, -1, -1
            for c in range(classes):
                if sizes[c] == 0 or slabs[firsts[c]] > free_slabs:
                    continue
                low, high = firsts[c], firsts[c] + sizes[c]  # the last with tokens <= free_tokens stands before low
                while low < high:
                    middle = (low + high) // 2
                    if tokens[members[middle]] <= free_tokens:
                        low = middle + 1
                    else:
                        high = middle
                place = low - 1
                if place >= firsts[c]:
                    taken = tokens[members[place]] * token_weight + slabs[firsts[c]] * slab_weight
                    if taken > most:
                        most, found, found_class = taken, place, c
            if found < 0:
                break
            member = members[found]
            samples[placed] = member
            placed += 1
            free_tokens -= tokens[member]
            free_slabs -= slabs[member]
            sizes[found_class] -= 1
            for place in range(found, firsts[found_class] + sizes[found_class]):
                members[place] = members[place + 1]
        rows += 1
        starts[rows] = placed
    return samples, starts[: rows + 1]


class RowPlan:
    """All rows of a run, epoch after epoch without end, as a random-access table; threads may share it.

    An epoch is shuffled as a whole, cut into windows, and each window is packed and its rows shuffled. It ends with
    empty rows where its last batch is not full, so that no batch spans two epochs. Only the number of rows of each
    window is kept (counting them takes a second for a million samples, the first time that an epoch is asked about);
    the rows of a window are planned again when one is asked for, in about a millisecond.
    """

    def __init__(
        self,
        mixture: Mixture,
        sizes: Sizes,
        budget: Budget,
        *,
        batch: int,
        seed: int,
        window: int = WINDOW,
        pack: bool = True,
    ) -> None:
        """Describes the plan.

        Args:
          mixture: the samples of an epoch.
          sizes: of all samples of the dataset.
          budget: the shape of a row.
          batch: rows of a batch over all hosts.
          seed: of the order.
          window: samples that are packed together.
          pack: False for one sample a row.

        Raises:
          ValueError: there is no sample.
        """
        if not len(mixture):
            raise UserError("not a single sample fits a row; enlarge data.row, or look into skipped.jsonl")
        self.mixture, self.budget, self.batch = mixture, budget, batch
        self._sizes, self._seed, self._window, self._pack = sizes, seed, window, pack
        # First row of each epoch and of the one after the last that was counted, and the first rows of its windows.
        self._epochs, self._windows = [0], []
        self._rows: OrderedDict[tuple[int, int], PlannedRows] = OrderedDict()
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int32))
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """A copy for another process: the counts go along, the lock and what is quickly made again do not."""
        with self._lock:
            return self.__dict__ | {"_lock": None, "_rows": OrderedDict(), "_order": (-1, np.zeros(0, np.int32))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def __getitem__(self, row: int) -> Int32[np.ndarray, "n"]:
        """The numbers of the samples of a row; none for an empty row."""
        with self._lock:
            epoch, inside = self._place(row)
            firsts = self._windows[epoch]
            if inside >= firsts[-1]:
                return np.zeros(0, np.int32)
            window = bisect_right(firsts, inside) - 1
            return self._planned(epoch, window)[inside - firsts[window]]

    def first(self, epoch: int) -> int:
        """The first row of an epoch, counted over the run."""
        with self._lock:
            while len(self._epochs) <= epoch:
                self._count()
            return self._epochs[epoch]

    def epochs_at(self, row: int) -> float:
        """Epochs that are done before a row."""
        with self._lock:
            epoch, inside = self._place(row)
            return epoch + inside / (self._epochs[epoch + 1] - self._epochs[epoch])

    def batches(self, epochs: float) -> int:
        """Batches of so many epochs; a part of an epoch is rounded up."""
        whole = math.floor(epochs)
        begin, end = self.first(whole), self.first(whole + 1) if epochs > whole else self.first(whole)
        return begin // self.batch + math.ceil((epochs - whole) * (end - begin) / self.batch)

    @cached_property
    def digest(self) -> str:
        """A hash of all that decides the rows: two plans with the same one are the same plan."""
        digest = hashlib.sha256(repr((self.budget, self.batch, self._seed, self._window, self._pack)).encode())
        for part in self.mixture.parts:
            digest.update(repr(part.an_epoch).encode())
            digest.update(part.numbers.tobytes())
            for sizes in (self._sizes.tokens, self._sizes.slabs):
                digest.update(sizes[part.numbers].tobytes())
        return digest.hexdigest()[:16]

    def _place(self, row: int) -> tuple[int, int]:
        """The epoch that a row belongs to, and its place there."""
        while self._epochs[-1] <= row:
            self._count()
        epoch = bisect_right(self._epochs, row) - 1
        return epoch, row - self._epochs[epoch]

    def _count(self) -> None:
        """Plans one epoch more, to know how many rows each of its windows has."""
        epoch, windows = len(self._windows), math.ceil(len(self.mixture) / self._window)
        firsts = np.cumsum([0, *(len(self._plan(epoch, window)) for window in range(windows))]).tolist()
        self._windows.append(firsts)
        self._epochs.append(self._epochs[-1] + math.ceil(firsts[-1] / self.batch) * self.batch)

    def _planned(self, epoch: int, window: int) -> PlannedRows:
        """The rows of a window, from memory where they are among the last."""
        key = epoch, window
        if key not in self._rows:
            self._rows[key] = self._plan(epoch, window)
            if len(self._rows) > KEPT_WINDOWS:
                self._rows.popitem(last=False)
        self._rows.move_to_end(key)
        return self._rows[key]

    def _plan(self, epoch: int, window: int) -> PlannedRows:
        if self._order[0] != epoch:
            self._order = epoch, self.mixture.order(self._seed, epoch)
        chosen = self._order[1][window * self._window : (window + 1) * self._window]
        if not self._pack:
            return PlannedRows(chosen, np.arange(len(chosen) + 1, dtype=np.int32))
        packed = pack_rows(self._sizes.tokens[chosen], self._sizes.slabs[chosen], self.budget)
        # PlannedRows come out from long to short: shuffled, no part of an epoch has lengths of its own.
        rows = [packed[row] for row in generator(self._seed, 2, epoch, window).permutation(len(packed))]
        starts = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        return PlannedRows(chosen[np.concatenate(rows)], starts)
