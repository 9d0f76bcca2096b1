"""Opens prepared records for random access, without scanning them."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from videmo_jax.data.records.schema import CLIP_SPLIT, RecordError, decode_clip, decode_sample
from videmo_jax.data.sample import Sample
from videmo_jax.data.video import Clip, FrameSpec

MANIFEST = "manifest.json"
FORMAT = 1  # raised when records are laid out differently


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
      manifest: the counts, the recipe and the files.
      samples: of the split, by number.
    """

    def __init__(self, root: str | os.PathLike[str], split: str) -> None:
        """Opens the records; takes a look at the size of every file and reads none.

        Raises:
          RecordError: the manifest is missing or broken, the split is not there, or a file is missing or was cut short.
        """
        self.root = Path(root)
        self.manifest = read_manifest(self.root)
        if split not in self.manifest["samples"]:
            raise RecordError(f"{self.root}: holds no split {split!r}, only {', '.join(self.manifest['samples'])}.")
        for folder, shard in _shards(self.manifest):
            _check_size(self.root / folder / shard["file"], shard["bytes"])
        self.samples = Samples(_source(self.root / "samples", split))
        self._clips = _source(self.root / "clips", CLIP_SPLIT)

    @property
    def frames(self) -> FrameSpec:
        """How the clips were sampled and resized."""
        return FrameSpec(**self.manifest["recipe"]["frames"])

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
        for folder, shard in _shards(self.manifest):
            path = self.root / folder / shard["file"]
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                    raise RecordError(f"{path}: its checksum is not the manifest's; copy or prepare it again.")


def read_records(root: str | os.PathLike[str], split: str = "train") -> RecordSet:
    """Opens one split of a folder that `prepare` wrote; errors as `RecordSet`."""
    return RecordSet(root, split)


def read_manifest(root: Path) -> dict[str, Any]:
    """What `prepare` says about the records; raises RecordError where it is missing, broken or of another format."""
    path = root / MANIFEST
    if not path.is_file():
        raise RecordError(f"{root}: no {MANIFEST}; name a folder that launch/prepare.py has finished.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: broken ({error}); prepare the records again.") from None
    if version != FORMAT:
        raise RecordError(f"{path}: format {version}, this version reads {FORMAT}; prepare the records again.")
    return manifest


def _shards(manifest: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Folder and description of every file."""
    samples = [("samples", shard) for shards in manifest["samples"].values() for shard in shards]
    return [("clips", shard) for shard in manifest["clips"]] + samples


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise RecordError(f"{path}: missing; copy it again, or prepare the records again.")
    if (size := path.stat().st_size) != expected:
        raise RecordError(
            f"{path}: {size:,} bytes, the manifest says {expected:,}: "
            f"{'cut short' if size < expected else 'changed'}; copy it again, or prepare the records again."
        )


def _source(folder: Path, split: str) -> ArrayRecordDataSource:
    return ArrayRecordDataSource(tfds.builder_from_directory(folder).info.splits[split].file_instructions)
