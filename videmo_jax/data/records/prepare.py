"""Emo-CFG into record shards: the same bytes for any number of workers, and a killed run goes on where it was.

OUT/recipe.json          what these records are made of; another recipe is refused
OUT/progress/*.json      the shards that are finished, until all are
OUT/clips/, samples/     the shards and TFDS' description of them
OUT/index/               lengths of all samples
OUT/report.jsonl         every clip and sample left out, and why
OUT/manifest.json        counts, checksums and the recipe; written last
"""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from etils import epath

from videmo_jax.data.emo_cfg import EmoCfg, annotation_files, read_emo_cfg
from videmo_jax.data.records.decoder import ClipRecipe
from videmo_jax.data.records.jobs import PROGRESS, Finished, Report, clip_jobs, run_locally
from videmo_jax.data.records.reader import MANIFEST, read_manifest
from videmo_jax.data.records.schema import RecordError
from videmo_jax.data.records.shards import write_json, write_text
from videmo_jax.data.records.writing import WrittenSplit, finish, measure_texts, write_samples
from videmo_jax.data.sample import Sample
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec

RECIPE, REPORT = "recipe.json", "report.jsonl"
SAMPLES_PER_CLIP = 16  # a shard of samples is much smaller than one of clips even so


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
    tokenizers: Sequence[Tokenizer] = (),
    workers: int = 1,
    clip_seconds: float = 60.0,
    on_shard: Report | None = None,
) -> dict[str, Any]:
    """Writes the records of an Emo-CFG folder, goes on with them, or finds them finished.

    Args:
      root: the folder that holds `jsons/` and the videos.
      out: a local folder that does not exist yet, is empty, or holds these very records, finished or not.
      settings: what is written.
      tokenizers: that measure the texts, by default the embedded one; to finished records their lengths are added.
      workers: processes that decode and measure.
      clip_seconds: a clip that takes longer is left out.
      on_shard: called with (what is written, shards done, shards in all).

    Returns:
      The manifest.

    Raises:
      DatasetError: the dataset as a whole cannot be read.
      RecordError: the folder holds something else, or no sample can be used.
    """
    root, out, tell = Path(root), epath.Path(out), on_shard or (lambda *_: None)
    tokenizers = tokenizers or [Tokenizer.embedded()]
    recipe = _recipe(root, settings)
    _claim(out, recipe)
    with _alone(out):
        if (out / MANIFEST).exists():
            manifest = measure_texts(out, read_manifest(out), tokenizers, workers, tell)
        else:
            clips, splits, left_out = _write(root, out, settings, workers, clip_seconds, tell)
            manifest = finish(out, recipe, clips, splits, left_out, tokenizers, workers, tell)
        (out / PROGRESS).rmtree(missing_ok=True)
    return manifest


def _write(
    root: Path, out: epath.Path, settings: Settings, workers: int, clip_seconds: float, tell: Report
) -> tuple[list[Finished], dict[str, WrittenSplit], dict[str, int]]:
    """Clips, then samples, which name the places of their clips; and counts what was left out."""
    datasets = {split: read_emo_cfg(root, split, variant=settings.variant) for split in settings.splits}
    paths = sorted({video for data in datasets.values() for sample in data.samples for video in sample.videos})
    clip_recipe = ClipRecipe(root, settings.frames, settings.quality)
    clips = run_locally(clip_jobs(out, paths, settings.shard_size, clip_recipe, clip_seconds), workers, tell)
    bad = {path: reason for each in clips for path, reason in each.left_out.items()}
    usable = {split: _usable(data, bad) for split, data in datasets.items()}
    left_out = _left_out(datasets, bad)
    write_text(out / REPORT, (json.dumps(line, ensure_ascii=False) + "\n" for line in left_out))
    if empty := [split for split, samples in usable.items() if not samples]:
        raise RecordError(f"{root}: no usable sample in {', '.join(empty)}; {out / REPORT} says why.")
    places = {path: place for place, path in enumerate(path for path in paths if path not in bad)}
    splits = {}
    for split, samples in usable.items():
        stream = ((sample, [places[video] for video in sample.videos]) for sample in samples)
        splits[split] = write_samples(out, split, stream, len(samples), SAMPLES_PER_CLIP * settings.shard_size, tell)
    return clips, splits, dict(Counter(f"{line['kind']}s" for line in left_out))


@contextmanager
def _alone(out: epath.Path) -> Iterator[None]:
    """Keeps other runs out of the folder, and removes what a killed one left half-written."""
    with (out / RECIPE).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordError(f"{out}: another run is writing there. Wait for it, or name a new folder.") from None
        for stale in Path(out).rglob(".*.partial-*"):
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


def _claim(out: epath.Path, recipe: dict[str, Any]) -> None:
    """Makes the folder these records', or checks that it is."""
    path = out / RECIPE
    if path.is_file():
        try:
            there = json.loads(path.read_text())
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
