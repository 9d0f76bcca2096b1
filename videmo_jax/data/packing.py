"""Which samples share a row: a plan over lengths alone, made before anything is decoded.

The plan is a pure function of (lengths, budget, seed, epoch, window), so that row i of a run is known to every host
and after every restart: the state of the data is the number of the next row.
"""

import math
import threading
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Int32

from videmo_jax.data.chat import encode
from videmo_jax.data.inputs import Preparer
from videmo_jax.data.rows import Budget, Prepared, misfit
from videmo_jax.data.sample import Sample
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.video import VideoError, clip_grid
from videmo_jax.model.positions import VisionGrid

WINDOW = 4096  # samples that may share rows: larger windows fill rows better and hold lengths apart in time


@dataclass(frozen=True)
class Lengths:
    """The N samples that fit a row: their numbers in the dataset, their tokens (text and vision), their slabs."""

    samples: Int32[np.ndarray, "N"]
    tokens: Int32[np.ndarray, "N"]
    slabs: Int32[np.ndarray, "N"]


def measure(samples: Sequence[Sample], preparer: Preparer, budget: Budget, *, threads: int, skips: SkipLog) -> Lengths:
    """Tokenises every text and looks into every clip once, decoding one frame of it.

    Args:
      samples: of the dataset.
      preparer: that will read them.
      budget: the shape of a row.
      threads: that measure at the same time.
      skips: takes the samples whose clips cannot be used, and those that fit no row.
    """
    frames = preparer.spec.frames

    def probe(video: str) -> VisionGrid | str:
        try:
            return clip_grid(preparer.root / video, frames)
        except VideoError as error:
            return str(error)

    videos = list(dict.fromkeys(video for sample in samples for video in sample.videos))
    with ThreadPoolExecutor(threads) as pool:
        grids = dict(zip(videos, pool.map(probe, videos), strict=True))
        sizes = list(pool.map(partial(_size, grids=grids, preparer=preparer, budget=budget), samples))
    fitting = []
    for number, (sample, size) in enumerate(zip(samples, sizes, strict=True)):
        if isinstance(size, str):
            skips.add(sample.id, size)
        else:
            fitting.append((number, *size))
    return Lengths(*np.array(fitting, np.int32).reshape(-1, 3).T)


def _size(
    sample: Sample, *, grids: dict[str, VisionGrid | str], preparer: Preparer, budget: Budget
) -> tuple[int, int] | str:
    """Tokens and slabs of a sample, or why it fits no row."""
    clips: list[VisionGrid] = []
    for video in sample.videos:
        grid = grids[video]
        if isinstance(grid, str):
            return grid
        clips.append(grid)
    encoded = encode(sample.messages, clips, preparer.tokenizer, merge=preparer.spec.frames.merge)
    # Patches without values: only their number is asked for.
    outline = Prepared(sample.id, encoded, tuple(np.empty((g.time, g.height * g.width, 0), np.uint8) for g in clips))
    return misfit(outline, budget) or (len(encoded.tokens), outline.slabs)


@dataclass(frozen=True)
class EpochRows:
    """The rows of an epoch: row r holds the samples `samples[starts[r] : starts[r + 1]]`."""

    samples: Int32[np.ndarray, "N"]
    starts: Int32[np.ndarray, "R+1"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> Int32[np.ndarray, "n"]:
        return self.samples[self.starts[row] : self.starts[row + 1]]


def plan_epoch(lengths: Lengths, budget: Budget, *, seed: int, epoch: int, window: int, pack: bool) -> EpochRows:
    """Shuffles all samples, cuts them into windows, packs each window and shuffles its rows.

    Args:
      lengths: of the samples.
      budget: the shape of a row.
      seed: of the order.
      epoch: each one has an order of its own.
      window: samples that are packed together.
      pack: False for one sample a row.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    order = random.permutation(len(lengths.samples))
    if not pack:
        return EpochRows(lengths.samples[order], np.arange(len(order) + 1, dtype=np.int32))
    rows: list[np.ndarray] = []
    for start in range(0, len(order), window):
        chosen = order[start : start + window]
        packed = pack_rows(lengths.tokens[chosen], lengths.slabs[chosen], budget)
        # Rows come out from long to short: shuffled, no part of an epoch has lengths of its own.
        rows += [chosen[packed[row]] for row in random.permutation(len(packed))]
    starts = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    return EpochRows(lengths.samples[np.concatenate(rows)], starts)


def pack_rows(tokens: Int32[np.ndarray, "N"], slabs: Int32[np.ndarray, "N"], budget: Budget) -> list[list[int]]:
    """Fills one row after the other, each time with the sample that takes most of what is still free in it.

    How much that is, tokens and slabs together, is weighed by the share of each budget that is free, so that samples
    of many slabs meet samples of many tokens. Samples of equal slabs stand in one list by tokens, and the longest that
    fits is found by bisection: some microseconds a sample, and rows fuller than first-fit decreasing makes them.
    Every sample must fit an empty row.
    """
    by_length = np.argsort(tokens, kind="stable")
    classes: dict[int, tuple[list[int], list[int]]] = {}  # slabs -> tokens, ascending, and whose they are
    for count in np.unique(slabs).tolist():
        members = by_length[slabs[by_length] == count]
        classes[count] = tokens[members].tolist(), members.tolist()
    rows: list[list[int]] = []
    left = len(tokens)
    while left:
        row: list[int] = []
        free_tokens, free_slabs = budget.tokens, budget.slabs
        while True:
            most, found = 0.0, None
            token_weight, slab_weight = free_tokens / budget.tokens**2, free_slabs / budget.slabs**2
            for count, (ascending, _) in classes.items():
                place = bisect_right(ascending, free_tokens) - 1
                if count <= free_slabs and place >= 0:
                    taken = ascending[place] * token_weight + count * slab_weight
                    if taken > most:
                        most, found = taken, (count, place)
            if found is None:
                break
            count, place = found
            ascending, members = classes[count]
            row.append(members.pop(place))
            free_tokens, free_slabs = free_tokens - ascending.pop(place), free_slabs - count
        if not row:
            raise ValueError(f"samples longer than an empty row of {budget.tokens} tokens and {budget.slabs} slabs")
        rows.append(row)
        left -= len(row)
    return rows


class RowPlan:
    """All rows of a run, epoch after epoch without end, as a random-access table; threads may share it.

    An epoch ends with empty rows where its last batch is not full, so that no batch spans two epochs. An epoch is
    planned when its first row is asked for, which takes four to eight seconds for a million samples; a restart plans
    the epochs before it again, because their number of rows says where it begins.
    """

    def __init__(
        self, lengths: Lengths, budget: Budget, *, batch: int, seed: int, window: int = WINDOW, pack: bool = True
    ) -> None:
        """Describes the plan; arguments as `plan_epoch`, and `batch`, the rows of a batch over all hosts.

        Raises:
          ValueError: there is no sample.
        """
        if not len(lengths.samples):
            raise ValueError("not a single sample fits a row; enlarge data.row, or look into skipped.jsonl")
        self._batch = batch
        self._plan = partial(plan_epoch, lengths, budget, seed=seed, window=window, pack=pack)
        self._firsts = [0]  # first row of each epoch, and of the one after the last that was planned
        self._epochs: dict[int, EpochRows] = {}
        self._lock = threading.Lock()

    def __getitem__(self, row: int) -> Int32[np.ndarray, "n"]:
        """The numbers of the samples of a row; none for an empty row."""
        epoch, rows = self._find(row)
        inside = row - self._firsts[epoch]
        return rows[inside] if inside < len(rows) else rows.samples[:0]

    def first(self, epoch: int) -> int:
        """The first row of an epoch, counted over the run."""
        with self._lock:
            while len(self._firsts) <= epoch:
                self._extend()
            return self._firsts[epoch]

    def epochs_at(self, row: int) -> float:
        """Epochs that are done before a row."""
        epoch, _ = self._find(row)
        begin, end = self.first(epoch), self.first(epoch + 1)
        return epoch + (row - begin) / (end - begin)

    def batches(self, epochs: float) -> int:
        """Batches of so many epochs; a part of an epoch is rounded up."""
        whole = math.floor(epochs)
        begin, end = self.first(whole), self.first(whole + 1)
        return begin // self._batch + math.ceil((epochs - whole) * (end - begin) / self._batch)

    def _find(self, row: int) -> tuple[int, EpochRows]:
        """The epoch that a row belongs to, and its rows."""
        with self._lock:
            while self._firsts[-1] <= row:
                self._extend()
            epoch = bisect_right(self._firsts, row) - 1
            if epoch not in self._epochs:
                self._keep(epoch, self._plan(epoch=epoch))
            return epoch, self._epochs[epoch]

    def _extend(self) -> None:
        """Plans one epoch more."""
        epoch = len(self._firsts) - 1
        rows = self._plan(epoch=epoch)
        self._firsts.append(self._firsts[-1] + math.ceil(len(rows) / self._batch) * self._batch)
        self._keep(epoch, rows)

    def _keep(self, epoch: int, rows: EpochRows) -> None:
        """Two epochs stay: threads that read ahead stand in the next one."""
        self._epochs[epoch] = rows
        for old in list(self._epochs)[:-2]:
            del self._epochs[old]
