"""Opens prepared records for random access, without scanning them."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath
from jaxtyping import Int16

from videmo_jax.data.records.index import INDEX, SampleLengths, index_files, read_files, read_lengths
from videmo_jax.data.records.schema import RecordError, decode_clip, decode_sample
from videmo_jax.data.records.shards import check_size, check_sum
from videmo_jax.data.sample import Sample
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import Clip, FrameSpec
from videmo_jax.files.json_records import read_json
from videmo_jax.files.paths import open_path

MANIFEST, RECIPE = "manifest.json", "recipe.json"
THREADS = 32  # that look at files
FORMAT = 2  # raised when records are laid out differently


@dataclass(frozen=True, slots=True)
class RecordedSample:
    """A sample and the ids of its clips, in the order of its videos."""

    sample: Sample
    clips: tuple[int, ...]


class Samples(Sequence[RecordedSample]):
    """The samples of one split, read one by one."""

    def __init__(self, source: ArrayRecordDataSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> RecordedSample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return RecordedSample(*decode_sample(self._source[index % len(self)]))


class RecordSet:
    """One split of prepared records; threads may share it, and a copy sent to another process works there.

    Attributes:
      root: the folder.
      split: its name.
      manifest: the counts, the recipe and the files.
      samples: of the split, by number.
    """

    def __init__(self, root: str | os.PathLike[str], split: str, *, check: bool = True) -> None:
        """Opens the records; takes a look at the size of every file and reads none.

        Args:
          root: a folder that `prepare` wrote.
          split: one of its splits.
          check: False to take the sizes on trust.

        Raises:
          RecordError: the manifest is missing or broken, the split is not there, or a file is missing or was cut short.
        """
        self.root, self.split = open_path(root), split
        self.manifest = read_manifest(self.root)
        if split not in self.manifest["samples"]:
            raise RecordError(f"{self.root}: holds no split {split!r}, only {', '.join(self.manifest['samples'])}.")
        if check:
            with ThreadPoolExecutor(THREADS) as pool:  # a bucket answers slowly, but many at once
                list(pool.map(lambda file: check_size(file[0], file[1]["bytes"]), self._files()))
        self.samples = Samples(_source(self.root / "samples", self.manifest["samples"][split]))
        self._clips = _source(self.root / "clips", self.manifest["clips"])

    def __reduce__(self) -> tuple[Callable[..., "RecordSet"], tuple[str, str]]:
        # A worker reads the manifest itself, which is smaller than what was made of it.
        return partial(RecordSet, check=False), (str(self.root), self.split)

    @property
    def frames(self) -> FrameSpec:
        """How the clips were sampled and resized."""
        return FrameSpec(**self.manifest["recipe"]["frames"])

    def lengths(self, tokenizer: Tokenizer) -> SampleLengths:
        """The lengths of all samples of the split, from the index: no record is read, and none is kept here.

        Raises:
          RecordError: the texts were not measured with this tokenizer, or the index is damaged.
        """
        return read_lengths(self.root, self.manifest, self.split, tokenizer, self.frames)

    def sample_files(self) -> tuple[Int16[np.ndarray, "N"], list[str]]:
        """The annotation file of each sample, as its number in the names, from the index; errors as `lengths`."""
        return read_files(self.root, self.manifest, self.split)

    def example(self, number: int) -> tuple[Sample, tuple[Clip, ...]]:
        """A sample and its clips, in the order of its videos; errors as `samples` and `clip`."""
        recorded = self.samples[number]
        return recorded.sample, tuple(map(self.clip, recorded.clips))

    def clip(self, id: int) -> Clip:
        """One clip as `read_clip` gives it, but for JPEG's loss; ids are places from 0.

        Raises:
          IndexError: there is no such clip.
          RecordError: its record is damaged.
        """
        if not 0 <= id < len(self._clips):
            raise IndexError(f"clip {id} of {len(self._clips)}")
        return decode_clip(self._clips[id])

    def verify(self) -> None:
        """Reads every file and compares its checksum; raises RecordError at the first that differs."""
        for path, entry in self._files():
            check_sum(path, entry["sha256"])

    def _files(self) -> list[tuple[epath.Path, Mapping[str, Any]]]:
        """Every file and its description."""
        samples = [shard for shards in self.manifest["samples"].values() for shard in shards]
        folders = {"clips": self.manifest["clips"], "samples": samples, INDEX: index_files(self.manifest)}
        return [(self.root / folder / each["file"], each) for folder, files in folders.items() for each in files]


def read_records(root: str | os.PathLike[str], split: str = "train") -> RecordSet:
    """Opens one split of a folder that `prepare` wrote; errors as `RecordSet`."""
    return RecordSet(root, split)


def read_manifest(root: epath.Path) -> dict[str, Any]:
    """What `prepare` says about the records; raises RecordError where it is missing, broken or of another format."""
    path = root / MANIFEST
    if not path.exists():
        unfinished = (root / RECIPE).exists()
        raise RecordError(
            f"{root}: launch/prepare.py has not finished these records; run it again."
            if unfinished
            else f"{root}: no {MANIFEST}; name a folder that launch/prepare.py has finished."
        )
    manifest = read_json(path, "prepare the records again")
    if (version := manifest.get("format")) != FORMAT:
        raise RecordError(f"{path}: format {version}, this version reads {FORMAT}; prepare the records again.")
    return manifest


def _source(folder: epath.Path, shards: Sequence[Mapping[str, Any]]) -> ArrayRecordDataSource:
    """Random access to all records of some shards; files are opened when they are first asked."""
    # The numbers of records spare a look into every file.
    return ArrayRecordDataSource([f"{folder / shard['file']}[0:{shard['records']}]" for shard in shards])
