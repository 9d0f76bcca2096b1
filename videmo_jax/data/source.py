"""Where samples come from: a folder of Emo-CFG whose videos are decoded on the way, or prepared records.

Both answer the same questions: how long is each sample (asked once, before anything is decoded), and what is in it.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import numpy as np
from jaxtyping import Bool, Int32

from videmo_jax.data.chat import encode
from videmo_jax.data.emo_cfg import Rejected, read_emo_cfg
from videmo_jax.data.instructions import read_instructions
from videmo_jax.data.records import RecordError, RecordSet, SampleLengths, read_records
from videmo_jax.data.records.reader import MANIFEST
from videmo_jax.data.rows import Budget, misfit
from videmo_jax.data.sample import Sample
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import Clip, ClipCache, FrameSpec, VideoError, clip_grid
from videmo_jax.files.errors import UserError
from videmo_jax.files.paths import is_remote
from videmo_jax.model.positions import VisionGrid
from videmo_jax.tasks.taxonomy import is_named

T = TypeVar("T")

Watch = Callable[[Iterable[T], str, int], Iterable[T]]  # (items, what they are, how many): the same, with a bar


def unwatched(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The items without a bar."""
    return items


# Of FrameSpec: what bounds the reading of files does not change what a readable one gives.
BOUNDS = ("max_decoded_frames", "max_source_pixels")


class SampleError(UserError):
    """One sample cannot be used; the message says why. The others can."""


class SourceError(UserError):
    """A source does not fit the run; the message says what differs and what to do."""


@dataclass(frozen=True)
class Files:
    """Which annotation file each of the N samples of a source comes from: a number into `names` (below `jsons/`)."""

    names: tuple[str, ...]
    file: Int32[np.ndarray, "N"]

    def chosen(self, by_name: Callable[[str], bool]) -> Bool[np.ndarray, "N"]:
        """The samples of those files whose name is chosen."""
        return np.array([by_name(name) for name in self.names], bool)[self.file]


@dataclass(frozen=True)
class Lengths:
    """What rows are planned by, for all N samples of a source in order.

    Attributes:
      tokens: of the whole conversation, text and vision; 0 where a sample cannot be used or was not measured.
      slabs: of all its clips.
      patches: the most that a slab of it has.
      faults: number of a sample that cannot be used, and why.
    """

    tokens: Int32[np.ndarray, "N"]
    slabs: Int32[np.ndarray, "N"]
    patches: Int32[np.ndarray, "N"]
    faults: Mapping[int, str]


class Source(Protocol):
    """Samples by number; a copy can be sent to worker processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> tuple[Sample, tuple[Clip, ...]]:
        """A sample and its clips; raises SampleError."""
        ...

    def id(self, number: int) -> str:
        """What the sample is called in lists of what was left out."""
        ...

    @property
    def files(self) -> Files:
        """Where each sample comes from."""
        ...

    @property
    def left_out(self) -> int:
        """Samples with a fault that were left out before, when records were prepared."""
        ...

    def lengths(self, wanted: Bool[np.ndarray, "N"]) -> Lengths:
        """The lengths of the samples that are wanted, and perhaps of others."""
        ...


@dataclass(frozen=True)
class ClipFolder:
    """Videos below `root`, decoded when they are asked for, and kept as far as memory is given."""

    root: Path
    frames: FrameSpec
    cache: ClipCache

    def clips(self, sample: Sample) -> tuple[Clip, ...]:
        """The clips of a sample; raises SampleError."""
        try:
            return tuple(self.cache.read(self.root / video, self.frames) for video in sample.videos)
        except VideoError as error:
            raise SampleError(str(error)) from None

    def grid(self, video: str) -> VisionGrid | str:
        """The patches that a video will give, or why it cannot be used."""
        try:
            return clip_grid(self.root / video, self.frames)
        except VideoError as error:
            return str(error)


@dataclass(frozen=True)
class VideoSource:
    """Samples in memory whose clips are decoded from a folder of videos."""

    folder: ClipFolder
    samples: Sequence[Sample]
    tokenizer: Tokenizer
    threads: int = 4  # that measure
    watch: Watch = unwatched

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"watch": unwatched}  # a progress bar stays with the process that shows it

    def __getitem__(self, number: int) -> tuple[Sample, tuple[Clip, ...]]:
        sample = self.samples[number]
        return sample, self.folder.clips(sample)

    def id(self, number: int) -> str:
        """Annotation file and place in it."""
        return self.samples[number].id

    @property
    def left_out(self) -> int:
        """None: what is read now is also counted now."""
        return 0

    @property
    def files(self) -> Files:
        """Where each sample comes from."""
        names = {name: place for place, name in enumerate(dict.fromkeys(sample.file for sample in self.samples))}
        return Files(tuple(names), np.array([names[sample.file] for sample in self.samples], np.int32))

    def lengths(self, wanted: Bool[np.ndarray, "N"]) -> Lengths:
        """Tokenises every text and looks into every clip once, decoding one frame of it."""
        numbers = np.flatnonzero(wanted)
        samples = [self.samples[number] for number in numbers.tolist()]
        videos = list(dict.fromkeys(video for sample in samples for video in sample.videos))
        with ThreadPoolExecutor(self.threads) as pool:
            grids = dict(
                zip(videos, self.watch(pool.map(self.folder.grid, videos), "measuring clips", len(videos)), strict=True)
            )
            measure = partial(_needs, grids=grids, tokenizer=self.tokenizer, merge=self.folder.frames.merge)
            needs = list(self.watch(pool.map(measure, samples), "measuring texts", len(samples)))
        columns = np.zeros((3, len(self)), np.int32)
        columns[:, numbers] = np.array(
            [(0, 0, 0) if isinstance(n, str) else (n.tokens, n.slabs, n.patches) for n in needs], np.int32
        ).reshape(-1, 3).T  # fmt: skip
        faults = {number: n for number, n in zip(numbers.tolist(), needs, strict=True) if isinstance(n, str)}
        return Lengths(*columns, faults)


def _needs(sample: Sample, *, grids: Mapping[str, VisionGrid | str], tokenizer: Tokenizer, merge: int) -> Budget | str:
    """The smallest row that holds a sample, or why it cannot be used."""
    clips: list[VisionGrid] = []
    for video in sample.videos:
        grid = grids[video]
        if isinstance(grid, str):
            return grid
        clips.append(grid)
    encoded = encode(sample.messages, clips, tokenizer, merge=merge)
    patches = max((grid.height * grid.width for grid in clips), default=0)
    return Budget(len(encoded.tokens), sum(grid.time for grid in clips), patches)


class RecordSource:
    """Samples of one split of prepared records (launch/prepare.py)."""

    def __init__(self, records: RecordSet, tokenizer: Tokenizer) -> None:
        """Reads the index; raises SourceError where texts were not measured with this tokenizer."""
        self._records = records
        try:
            self._known: SampleLengths | None = records.lengths(tokenizer)
        except RecordError as error:
            raise SourceError(str(error)) from None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_known": None}  # a worker asks for samples only

    def __len__(self) -> int:
        return len(self._records.samples)

    def __getitem__(self, number: int) -> tuple[Sample, tuple[Clip, ...]]:
        try:
            return self._records.example(number)
        except (ValueError, OSError, RuntimeError) as error:  # array_record has no errors of its own
            raise SampleError(f"record {number} cannot be read: {error}") from None

    def id(self, number: int) -> str:
        """Annotation file and place in it; the record's number where the record cannot be read."""
        try:
            return self._records.samples[number].sample.id
        except (ValueError, OSError, RuntimeError):
            return f"record {number}"

    @property
    def left_out(self) -> int:
        """Of this split, by the manifest; what was prepared before it had such a count has none."""
        return self._records.manifest["counts"].get("faulty", {}).get(self._records.split, 0)

    @property
    def files(self) -> Files:
        """Where each sample comes from."""
        return Files(self._known.files, self._known.file.astype(np.int32))

    def lengths(self, wanted: Bool[np.ndarray, "N"]) -> Lengths:
        """What the index beside the records says; no record is read."""
        known = self._known
        return Lengths(known.text + known.vision, known.slabs, known.patches, {})


def open_source(
    root: str | os.PathLike[str],
    split: str,
    frames: FrameSpec,
    tokenizer: Tokenizer,
    *,
    variant: str = "full",
    include: Sequence[str] | None = None,
    instructions: Sequence[str] = (),
    cache_bytes: int = 2**30,
    threads: int = 4,
    watch: Watch = unwatched,
) -> tuple[Source, list[Rejected]]:
    """Opens what lies at `root`: records where there is their manifest, else a folder of Emo-CFG.

    Args:
      root: the folder.
      split: `train` or `test`.
      frames: how clips are sampled and resized.
      tokenizer: measures the texts.
      variant: of the annotation files of a folder.
      include: patterns of annotation files, each of which must match one; None takes all. Records come whole all the
        same: choose among them by `Source.files`.
      instructions: JSON Lines files of conversations without videos, which join a folder's samples; records were
        prepared with theirs.
      cache_bytes: of decoded clips kept in memory, for a folder.
      threads: that measure a folder.
      watch: shows how far measuring is.

    Returns:
      The source, and the samples of a folder that cannot be used.

    Raises:
      DatasetError, RecordError: it cannot be read.
      SourceError: the records were made another way than the run needs.
    """
    if is_remote(root) or (Path(root) / MANIFEST).is_file():
        source = RecordSource(_matching(read_records(root, split), frames, instructions), tokenizer)
        for pattern in include or ():
            if not any(is_named(file, pattern) for file in source.files.names):
                names = ", ".join(PurePosixPath(file).name for file in source.files.names)
                raise SourceError(f"{root}: no annotation file is named {pattern!r}; there are: {names}")
        return source, []
    data = read_emo_cfg(
        root, split, variant=variant, include=include, duplicates="reject" if split == "train" else "keep"
    )
    texts, rejected = read_instructions(instructions)
    folder = ClipFolder(data.root, frames, ClipCache(cache_bytes))
    return VideoSource(folder, data.samples + texts, tokenizer, threads, watch), data.rejected + rejected


def _matching(records: RecordSet, frames: FrameSpec, instructions: Sequence[str]) -> RecordSet:
    differing = [
        f"{item.name}: {getattr(records.frames, item.name)} there, {getattr(frames, item.name)} in the config"
        for item in fields(FrameSpec)
        if item.name not in BOUNDS and getattr(records.frames, item.name) != getattr(frames, item.name)
    ]
    if differing:
        raise SourceError(
            f"{records.root}: its clips were made another way ({'; '.join(differing)}). Change data.frames, or prepare "
            "the records again with --frames"
        )
    if instructions:
        raise SourceError(
            f"{records.root}: records take their text-only samples along; prepare them with --instructions instead of "
            "naming data.instructions"
        )
    return records


def fitting(
    source: Source, lengths: Lengths, wanted: Bool[np.ndarray, "N"], budget: Budget, skips: SkipLog
) -> Bool[np.ndarray, "N"]:
    """Which of the wanted samples can be used and fit an empty row.

    The others are listed in `skips`, which raises SkippedTooMuch beyond its limit.
    """
    fits = (lengths.tokens > 0) & (lengths.tokens <= budget.tokens)
    fits &= (lengths.slabs <= budget.slabs) & (lengths.patches <= budget.patches)
    for number in np.flatnonzero(wanted & ~fits).tolist():
        needs = Budget(*(int(column[number]) for column in (lengths.tokens, lengths.slabs, lengths.patches)))
        skips.add(source.id(number), lengths.faults.get(number) or misfit(needs, budget) or "holds no token")
    return wanted & fits
