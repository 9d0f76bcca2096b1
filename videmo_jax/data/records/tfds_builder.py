"""Builders of TensorFlow Datasets for those who prepare with its tools: our jobs give the records, TFDS writes them.

    clips = EmoCfgClips(root=..., data_dir=...)
    clips.download_and_prepare(file_format="array_record")
    EmoCfgSamples(clips=clips, data_dir=...).download_and_prepare(file_format="array_record")

What is in them is what `prepare` writes; but there is no index and no manifest, so that `read_records`, and with it
the trainer, does not open them.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from videmo_jax.data.records.decoder import ClipRecipe
from videmo_jax.data.records.jobs import ClipJob, Finished, chunks, clip_jobs
from videmo_jax.data.records.schema import (
    CLIP_FEATURES,
    CLIP_SPLIT,
    SAMPLE_FEATURES,
    RecordError,
    clip_example,
    sample_example,
)
from videmo_jax.data.records.settings import SAMPLES_PER_CLIP, Settings
from videmo_jax.data.records.shards import write_json
from videmo_jax.data.records.survey import LeftOut, Source
from videmo_jax.data.sample import Sample

Example = tuple[str, dict[str, Any]]


class EmoCfgClips(tfds.core.ShardBasedBuilder):
    """All clips of an Emo-CFG folder."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # TFDS would look for checksums of downloads beside this file

    def __init__(
        self, *, root: Path, data_dir: epath.PathLike, settings: Settings | None = None, clip_seconds: float = 60.0
    ) -> None:
        """Takes the folder of Emo-CFG, where to write, what to write, and how long a clip may take."""
        self.settings = settings or Settings()
        self.source = Source(Path(root), self.settings.splits, self.settings.variant, [])
        self.base, self._clip_seconds = epath.Path(data_dir), clip_seconds
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=CLIP_FEATURES)

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence["ClipExamples"]]:
        return {CLIP_SPLIT: [ClipExamples(job) for job in self.jobs()]}

    def jobs(self) -> list[ClipJob]:
        """One for each shard."""
        self.base.mkdir(parents=True, exist_ok=True)
        recipe = ClipRecipe(self.source.root, self.settings.frames, self.settings.quality)
        paths, _ = self.source.survey()
        return clip_jobs(self.base, paths, self.settings.shard_size, recipe, self._clip_seconds)


class EmoCfgSamples(tfds.core.ShardBasedBuilder):
    """The samples about the clips of `EmoCfgClips`, which must be prepared first."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # TFDS would look for checksums of downloads beside this file

    def __init__(self, *, clips: EmoCfgClips, data_dir: epath.PathLike) -> None:
        """Takes the builder of the clips, and where to write."""
        self._clips = clips
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=SAMPLE_FEATURES)

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence["SampleExamples"]]:
        source, settings = self._clips.source, self._clips.settings
        bad: dict[str, str] = {}
        places: dict[str, int] = {}
        for job in self._clips.jobs():
            if not job.progress.exists():
                raise RecordError(f"{self._clips.base}: its clips are not prepared; prepare EmoCfgClips first.")
            bad |= json.loads(job.progress.read_text())
            for path in job.clips:
                if path not in bad:
                    places[path] = len(places)
        left_out = LeftOut(bad, source.survey()[1])
        size = SAMPLES_PER_CLIP * settings.shard_size
        return {
            split: [
                SampleExamples(part, [[places[video] for video in sample.videos] for sample in part])
                for part in chunks(list(left_out.of_good_clips(split, source.samples(split))), size)
            ]
            for split in source.files
        }


@dataclass(frozen=True)
class ClipExamples:
    """The clips of one shard; those left out are listed in the job's file of progress."""

    job: ClipJob

    def __call__(self) -> Iterator[Example]:
        """Key and example of each."""
        made = Finished.nothing()
        for record in self.job.records(made, threading.Event()):
            example = clip_example(record)
            yield example["path"], example
        write_json(self.job.progress, made.left_out)


@dataclass(frozen=True)
class SampleExamples:
    """The samples of one shard with the ids of their clips."""

    samples: Sequence[Sample]
    clips: Sequence[Sequence[int]]

    def __call__(self) -> Iterator[Example]:
        """Key and example of each."""
        for sample, clips in zip(self.samples, self.clips, strict=True):
            yield sample.id, sample_example(sample, clips)
