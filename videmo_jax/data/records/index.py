"""What a trainer must know of millions of samples before it reads one: their lengths, in a few arrays.

OUT/index/clips.npz                        of each clip: slabs, and height and width in patches
OUT/index/samples-SPLIT.npz                of each sample: its annotation file and its clips
OUT/index/text-SPLIT-TOKENIZER.npy         of each sample: tokens of its text, by the tokenizer's id
"""

import hashlib
import io
import os
import zipfile
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath
from jaxtyping import Int16, Int32

from videmo_jax.data.chat import count_text_tokens
from videmo_jax.data.records.schema import Grid, RecordError, decode_sample
from videmo_jax.data.records.shards import check_size, write_entry
from videmo_jax.data.sample import Sample
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec

INDEX = "index"
MOST_FILES = np.iinfo(np.int16).max + 1  # annotation files of a split
# `zipfile` writes the time otherwise, and the same input must give the same bytes.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)

Entry = dict[str, Any]  # of a file in the manifest: its name, size and checksum


@dataclass(frozen=True)
class SampleLengths:
    """The lengths of N samples.

    Attributes:
      file: the annotation file of each, as its number in `files`.
      files: names as `Sample.file` has them.
      text: tokens of the whole conversation, answers included, without those of its clips.
      vision: merged tokens of its clips.
      slabs: of its clips.
      patches: of its largest slab; 0 without clips.
    """

    file: Int16[np.ndarray, "N"]
    files: tuple[str, ...]
    text: Int32[np.ndarray, "N"]
    vision: Int32[np.ndarray, "N"]
    slabs: Int32[np.ndarray, "N"]
    patches: Int32[np.ndarray, "N"]

    def __len__(self) -> int:
        return len(self.file)


def tokenizer_id(tokenizer: Tokenizer) -> str:
    """Names a tokenizer by how it reads texts: 16 hexadecimal digits."""
    return hashlib.sha256(tokenizer.definition.encode()).hexdigest()[:16]


def write_clip_index(out: epath.Path, grids: Iterable[Grid]) -> Entry:
    """Writes the grids of all clips in the order of their ids."""
    slabs, height, width = np.array([*grids], np.int16).reshape(-1, 3).T
    return write_entry(out / INDEX / "clips.npz", _npz({"slabs": slabs, "height": height, "width": width}))


class SampleIndex:
    """Collects what the index says of the samples of one split, in the order of their records."""

    def __init__(self) -> None:
        # Lists of millions of integers would take ten times as much.
        self._file, self._clips, self._counts = array("h"), array("i"), array("i")
        self._numbers: dict[str, int] = {}

    @property
    def files(self) -> list[str]:
        """The annotation files so far, in the order in which they came."""
        return list(self._numbers)

    def add(self, sample: Sample, clips: Sequence[int]) -> None:
        """Takes the next sample; raises RecordError where it is of too many files."""
        number = self._numbers.setdefault(sample.file, len(self._numbers))
        if number >= MOST_FILES:
            raise RecordError(f"{sample.file}: the split has over {MOST_FILES:,} annotation files; join some.")
        self._file.append(number)
        self._clips.extend(clips)
        self._counts.append(len(clips))

    def samples_by_file(self) -> dict[str, int]:
        """How many samples each annotation file has."""
        counts = np.bincount(np.array(self._file, np.int16), minlength=len(self._numbers))
        return dict(zip(self._numbers, counts.tolist(), strict=True))

    def write(self, out: epath.Path, split: str) -> Entry:
        """Writes the file of the split."""
        starts = np.cumsum(np.array(self._counts, np.int32), dtype=np.int64)
        arrays = {
            "file": np.array(self._file, np.int16),
            "clips": np.array(self._clips, np.int32),
            "clip_starts": np.concatenate([np.zeros(1, np.int64), starts]),
        }
        return write_entry(out / INDEX / f"samples-{split}.npz", _npz(arrays))


def write_texts(
    out: epath.Path,
    shards: Mapping[str, Sequence[epath.Path]],
    tokenizer: Tokenizer,
    workers: int,
    tell: Callable[[int, int], None],
) -> dict[str, Entry]:
    """Measures the texts of all samples and writes the files of all splits.

    Args:
      out: the folder of the records.
      shards: of each split's samples, in order.
      tokenizer: that measures.
      workers: processes that share the shards.
      tell: called with (shards done, shards in all).
    """
    jobs = [(split, path) for split, paths in shards.items() for path in paths]
    counts: dict[str, list[np.ndarray]] = {split: [] for split in shards}
    paths = [path for _, path in jobs]
    if workers == 1 or len(jobs) == 1:
        measured = map(_measure_shard, paths, repeat(tokenizer.files))
        _collect(jobs, measured, counts, tell)
    else:
        with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _one_thread) as pool:
            _collect(jobs, pool.map(_measure_shard, paths, repeat(tokenizer.files)), counts, tell)
    id = tokenizer_id(tokenizer)
    return {
        split: write_entry(out / INDEX / f"text-{split}-{id}.npy", _npy(np.concatenate(of_split)))
        for split, of_split in counts.items()
    }


def _collect(
    jobs: Sequence[tuple[str, epath.Path]],
    measured: Iterable[np.ndarray],
    counts: Mapping[str, list[np.ndarray]],
    tell: Callable[[int, int], None],
) -> None:
    for done, ((split, _), lengths) in enumerate(zip(jobs, measured, strict=True), start=1):
        counts[split].append(lengths)
        tell(done, len(jobs))


def _one_thread() -> None:
    """The processes are the parallelism; the tokenizer would start a thread a core in each."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _measure_shard(path: epath.Path, tokenizer: Mapping[str, str]) -> Int32[np.ndarray, "n"]:
    """Text tokens of the samples of one shard."""
    reader = ArrayRecordReader(str(path))
    try:
        records = reader.read_all() if reader.num_records() else []
    finally:
        reader.close()
    return count_text_tokens([decode_sample(record)[0].messages for record in records], Tokenizer(tokenizer))


def read_files(root: epath.Path, manifest: Mapping[str, Any], split: str) -> tuple[Int16[np.ndarray, "N"], list[str]]:
    """The annotation file of each sample of a split, as its number in the names; RecordError where it is damaged."""
    return _load(root, manifest["index"]["samples"][split])["file"], manifest["files"][split]


def read_lengths(
    root: epath.Path, manifest: Mapping[str, Any], split: str, tokenizer: Tokenizer, frames: FrameSpec
) -> SampleLengths:
    """Puts the lengths of a split together.

    Raises:
      RecordError: the texts were not measured with this tokenizer, or a file is damaged.
    """
    id, index = tokenizer_id(tokenizer), manifest["index"]
    if id not in index["texts"]:
        measured = ", ".join(index["texts"]) or "none"
        raise RecordError(
            f"{root}: its texts are not measured with tokenizer {id} (measured: {measured}). Give the command that "
            f"wrote the records again with that tokenizer: python launch/prepare.py ... --out {root} --tokenizer DIR"
        )
    clips, samples = _load(root, index["clips"]), _load(root, index["samples"][split])
    text = _load(root, index["texts"][id][split])
    slabs, height, width = (clips[name].astype(np.int32) for name in ("slabs", "height", "width"))
    patches = height * width
    numbers, starts = samples["clips"], samples["clip_starts"]
    most = np.zeros(len(text), np.int32)
    held = np.flatnonzero(np.diff(starts))  # reduceat knows no empty run
    if len(held):
        most[held] = np.maximum.reduceat(patches[numbers], starts[held])
    return SampleLengths(
        file=samples["file"],
        files=tuple(manifest["files"][split]),
        text=text,
        vision=_sums((slabs * patches // frames.merge**2)[numbers], starts),
        slabs=_sums(slabs[numbers], starts),
        patches=most,
    )


def _sums(values: np.ndarray, starts: np.ndarray) -> Int32[np.ndarray, "N"]:
    """The sum of each run of values."""
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    return (total[starts[1:]] - total[starts[:-1]]).astype(np.int32)


def index_files(manifest: Mapping[str, Any]) -> list[Entry]:
    """The descriptions of all files of the index."""
    index = manifest["index"]
    texts = [entry for of_tokenizer in index["texts"].values() for entry in of_tokenizer.values()]
    return [index["clips"], *index["samples"].values(), *texts]


def _load(root: epath.Path, entry: Entry) -> Any:
    """An array, or arrays by name. Wrong lengths would only show as rows that overflow, so the checksum is compared."""
    path = root / INDEX / entry["file"]
    check_size(path, entry["bytes"])
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise RecordError(f"{path}: its checksum is not the manifest's; copy it again, or prepare the records again.")
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", ZIP_TIME), _npy(values))
    return file.getvalue()


def _npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
    return file.getvalue()
