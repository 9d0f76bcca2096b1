"""Emo-CFG into record shards: the same bytes for any number of workers, and a killed run goes on where it was.

OUT/recipe.json          what these records are made of; another recipe is refused
OUT/progress/*.json      the shards that are finished, until all are
OUT/clips/, samples/     the shards and TFDS' description of them
OUT/report.jsonl         every clip and sample left out, and why
OUT/manifest.json        counts, checksums and the recipe; written last
"""

import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import tensorflow_datasets as tfds

from videmo_jax.data.emo_cfg import EmoCfg, annotation_files, read_emo_cfg
from videmo_jax.data.records.decoder import ClipDecoder, ClipRecipe
from videmo_jax.data.records.reader import FORMAT, MANIFEST, read_manifest
from videmo_jax.data.records.schema import CLIP_FEATURES, CLIP_SPLIT, SAMPLE_FEATURES, RecordError, encode_sample
from videmo_jax.data.records.shards import Shard, shard_name, write_json, write_shard, write_text
from videmo_jax.data.sample import Sample
from videmo_jax.data.video import FrameSpec, VideoError
from videmo_jax.tasks.taxonomy import task_of

RECIPE, PROGRESS, REPORT = "recipe.json", "progress", "report.jsonl"
SAMPLES_PER_CLIP = 16  # a shard of samples is much smaller than one of clips even so

T = TypeVar("T")
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """What is prepared and how; all of it decides the bytes.

    Attributes:
      splits: of Emo-CFG.
      variant: of its files, `full` or `sampled`.
      frames: how clips are sampled and resized.
      quality: of JPEG, from 1 to 100.
      shard_size: clips that one shard holds at most; some 80 MB at 256.
    """

    splits: tuple[str, ...] = ("train", "test")
    variant: str = "full"
    frames: FrameSpec = field(default_factory=FrameSpec)
    quality: int = 90
    shard_size: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise RecordError(f"quality is {self.quality}; JPEG's goes from 1 to 100.")
        if self.shard_size < 1:
            raise RecordError(f"shard_size is {self.shard_size}; a shard holds at least one clip.")
        if not self.splits:
            raise RecordError("no split is named.")


def prepare(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: Settings,
    *,
    workers: int = 1,
    clip_seconds: float = 60.0,
    on_shard: Report | None = None,
) -> dict[str, Any]:
    """Writes the records of an Emo-CFG folder, goes on with them, or finds them finished.

    Args:
      root: the folder that holds `jsons/` and the videos.
      out: a local folder that does not exist yet, is empty, or holds these very records, finished or not.
      settings: what is written.
      workers: processes that decode.
      clip_seconds: a clip that takes longer is left out.
      on_shard: called with (`clips` or `samples`, shards done, shards in all).

    Returns:
      The manifest.

    Raises:
      DatasetError: the dataset as a whole cannot be read.
      RecordError: the folder holds something else, or no sample can be used.
    """
    root, out, tell = Path(root), Path(out), on_shard or (lambda *_: None)
    recipe = _recipe(root, settings)
    _claim(out, recipe)
    if (out / MANIFEST).exists():
        shutil.rmtree(out / PROGRESS, ignore_errors=True)  # a kill may have come just before this
        return read_manifest(out)
    with _alone(out):
        return _write(root, out, settings, recipe, workers, clip_seconds, tell)


def _write(
    root: Path,
    out: Path,
    settings: Settings,
    recipe: dict[str, Any],
    workers: int,
    clip_seconds: float,
    tell: Report,
) -> dict[str, Any]:
    """Clips, then samples, which name the places of their clips, then what describes both."""
    datasets = {split: read_emo_cfg(root, split, variant=settings.variant) for split in settings.splits}
    paths = sorted({video for data in datasets.values() for sample in data.samples for video in sample.videos})
    jobs = _clip_jobs(out, paths, settings, ClipRecipe(root, settings.frames, settings.quality), clip_seconds)
    finished = _run(jobs, workers, tell)
    bad = {path: reason for job in finished for path, reason in job.left_out.items()}
    usable = {split: _usable(data, bad) for split, data in datasets.items()}
    left_out = _left_out(datasets, bad)
    write_text(out / REPORT, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in left_out))
    if empty := [split for split, samples in usable.items() if not samples]:
        raise RecordError(f"{root}: no usable sample in {', '.join(empty)}; {out / REPORT} says why.")
    places = {path: place for place, path in enumerate(path for path in paths if path not in bad)}
    clips = [job.shard for job in finished]
    samples = _write_samples(out, usable, places, SAMPLES_PER_CLIP * settings.shard_size, tell)
    _describe(out / "clips", CLIP_FEATURES, {CLIP_SPLIT: clips})
    _describe(out / "samples", SAMPLE_FEATURES, samples)
    manifest = {
        "format": FORMAT,
        "recipe": recipe,
        "counts": {
            "clips": len(places),
            "samples": {split: len(of_split) for split, of_split in usable.items()},
            "left_out": dict(Counter(f"{line['kind']}s" for line in left_out)),
            **_tally(usable),
        },
        "clips": [asdict(shard) for shard in clips],
        "samples": {split: [asdict(shard) for shard in shards] for split, shards in samples.items()},
    }
    write_json(out / MANIFEST, manifest)
    shutil.rmtree(out / PROGRESS)
    return manifest


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keeps other runs out of the folder, and removes what a killed one left half-written."""
    with (out / RECIPE).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordError(f"{out}: another run is writing there. Wait for it, or name a new folder.") from None
        for stale in out.rglob(".*.partial-*"):
            stale.unlink()
        yield


def _recipe(root: Path, settings: Settings) -> dict[str, Any]:
    """All that decides the bytes, but for the videos themselves; a JSON object."""
    digest = hashlib.sha256()
    for split in settings.splits:
        for path in annotation_files(root, split, settings.variant):
            digest.update(path.relative_to(root).as_posix().encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    versions = {name: version(name) for name in ("av", "pillow", "array_record", "tensorflow-datasets")}
    recipe = asdict(settings) | {"annotations_sha256": digest.hexdigest(), "versions": versions}
    return recipe | {"splits": list(settings.splits)}


def _claim(out: Path, recipe: dict[str, Any]) -> None:
    """Makes the folder these records', or checks that it is."""
    path = out / RECIPE
    if path.is_file():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
            changed = [f"{name} ({there.get(name)}, asked for {recipe[name]})" for name in recipe
                       if there.get(name) != recipe[name]]  # fmt: skip
        except (ValueError, AttributeError) as error:
            raise RecordError(f"{path}: broken ({error}). Delete the folder, or name a new one.") from None
        if changed:
            raise RecordError(f"{out}: holds records of another recipe: {'; '.join(changed)}. Name a new folder.")
    elif out.exists() and any(out.iterdir()):
        raise RecordError(f"{out}: holds something else than records. Name a new folder.")
    for folder in (out / "clips", out / "samples"):
        folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, recipe)


@dataclass(frozen=True, slots=True)
class _Finished:
    """A shard of clips, and the clips left out of it: path and reason."""

    shard: Shard
    left_out: dict[str, str]


@dataclass(frozen=True, slots=True)
class _ClipJob:
    """One shard of clips; whoever runs it, anywhere, writes the same bytes."""

    path: Path
    progress: Path
    clips: Sequence[str]
    recipe: ClipRecipe
    clip_seconds: float

    def __call__(self, stop: threading.Event) -> _Finished:
        """Writes the shard, or finds it finished; raises InterruptedError soon after `stop` is set."""
        if (before := self._before()) is not None:
            return before
        left_out: dict[str, str] = {}
        with ClipDecoder(self.recipe, self.clip_seconds) as decoder:
            finished = _Finished(write_shard(self.path, self._records(decoder, left_out, stop)), left_out)
        write_json(self.progress, asdict(finished))
        return finished

    def _before(self) -> _Finished | None:
        if not self.progress.is_file():
            return None
        found = json.loads(self.progress.read_text(encoding="utf-8"))
        shard = Shard(**found["shard"])
        there = self.path.is_file() and self.path.stat().st_size == shard.bytes
        return _Finished(shard, found["left_out"]) if there else None

    def _records(self, decoder: ClipDecoder, left_out: dict[str, str], stop: threading.Event) -> Iterator[bytes]:
        for path in self.clips:
            if stop.is_set():
                raise InterruptedError("stopped")
            try:
                yield decoder(path)
            except VideoError as error:
                left_out[path] = str(error)


def _clip_jobs(
    out: Path, paths: Sequence[str], settings: Settings, recipe: ClipRecipe, clip_seconds: float
) -> list[_ClipJob]:
    (out / PROGRESS).mkdir(exist_ok=True)
    chunks = _chunks(paths, settings.shard_size)
    names = [shard_name("clips", CLIP_SPLIT, number, len(chunks)) for number in range(len(chunks))]
    return [
        _ClipJob(out / "clips" / name, out / PROGRESS / f"{name}.json", chunk, recipe, clip_seconds)
        for name, chunk in zip(names, chunks, strict=True)
    ]


def _run(jobs: Sequence[_ClipJob], workers: int, tell: Report) -> list[_Finished]:
    """Runs the jobs, each in a thread that feeds a process of its own."""
    stop = threading.Event()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        futures = [pool.submit(job, stop) for job in jobs]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                tell("clips", done, len(jobs))
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _bad_clip(sample: Sample, bad: dict[str, str]) -> str | None:
    return next((video for video in sample.videos if video in bad), None)


def _usable(data: EmoCfg, bad: dict[str, str]) -> list[Sample]:
    return [sample for sample in data.samples if _bad_clip(sample, bad) is None]


def _left_out(datasets: dict[str, EmoCfg], bad: dict[str, str]) -> list[dict[str, str]]:
    """What the report lists: kind, id and reason; clips first."""
    lines = [{"kind": "clip", "id": path, "reason": reason} for path, reason in sorted(bad.items())]
    for data in datasets.values():
        lines += [{"kind": "sample", "id": sample.id, "reason": sample.reason} for sample in data.rejected]
        for sample in data.samples:
            if path := _bad_clip(sample, bad):
                lines.append({"kind": "sample", "id": sample.id, "reason": f"video {path!r} {bad[path]}"})
    return lines


def _tally(usable: dict[str, list[Sample]]) -> dict[str, dict[str, int]]:
    """Samples by file and by task."""
    files = Counter(sample.file for samples in usable.values() for sample in samples)
    tasks: Counter[str] = Counter()
    for file, count in files.items():
        task = task_of(file)
        tasks[task.name if task else "unknown"] += count
    return {"files": dict(files), "tasks": dict(tasks)}


def _write_samples(
    out: Path, usable: dict[str, list[Sample]], places: dict[str, int], shard_size: int, tell: Report
) -> dict[str, list[Shard]]:
    """The shards of every split. Text alone is written so fast that a killed run writes it again."""
    chunks = {split: _chunks(samples, shard_size) for split, samples in usable.items()}
    total, shards = sum(map(len, chunks.values())), {split: [] for split in usable}
    for split, of_split in chunks.items():
        for number, chunk in enumerate(of_split):
            records = (encode_sample(sample, [places[video] for video in sample.videos]) for sample in chunk)
            name = shard_name("samples", split, number, len(of_split))
            shards[split].append(write_shard(out / "samples" / name, records))
            tell("samples", sum(map(len, shards.values())), total)
    return shards


def _chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Runs of `size`; of nothing, one that is empty, so that there is a file to read."""
    return [items[start : start + size] for start in range(0, len(items), size)] or [items]


def _describe(folder: Path, features: tfds.features.FeaturesDict, shards: dict[str, list[Shard]]) -> None:
    """Writes what TFDS needs to open the folder."""
    template = tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=folder.name, filetype_suffix="array_record")
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.records for shard in of_split],
            num_bytes=sum(shard.bytes for shard in of_split),
            filename_template=template.replace(split=split),
        )
        for split, of_split in shards.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=splits, filename_template=template, check_data=False
    )
