"""Emo-CFG into record shards: the same bytes for any number of workers, and a killed run goes on where it was.

OUT/recipe.json          what these records are made of; another recipe is refused
OUT/progress/*.json      the shards of clips that are finished: changed annotations do not decode them again
OUT/clips/, samples/     the shards and TFDS' description of them
OUT/index/               lengths of all samples
OUT/report.jsonl         every clip and sample left out, and why
OUT/manifest.json        counts, checksums and the recipe; written last
"""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from etils import epath

from videmo_jax.data.records.decoder import ClipRecipe
from videmo_jax.data.records.jobs import Finished, Report, Runner, clip_jobs, run_locally
from videmo_jax.data.records.reader import MANIFEST, RECIPE, read_manifest
from videmo_jax.data.records.schema import RecordError
from videmo_jax.data.records.settings import SAMPLES_PER_CLIP, Settings
from videmo_jax.data.records.survey import TRAIN, LeftOut, Source
from videmo_jax.data.records.writing import WrittenSplit, finish, measure_texts, write_samples
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.files.json_records import read_json
from videmo_jax.files.paths import is_remote, open_path
from videmo_jax.files.writing import write_json, write_text

REPORT = "report.jsonl"
NEW_FOLDER = "delete the folder, or name a new one"
ANNOTATIONS = "annotations_sha256"  # the field of a recipe that no clip depends on


def prepare(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: Settings,
    *,
    instructions: Sequence[str | os.PathLike[str]] = (),
    tokenizers: Sequence[Tokenizer] = (),
    workers: int = 1,
    runner: Runner | None = None,
    clip_seconds: float = 60.0,
    max_skipped_share: float = 0.05,
    on_shard: Report | None = None,
) -> dict[str, Any]:
    """Writes the records of an Emo-CFG folder, goes on with them, or finds them finished.

    Args:
      root: the local folder that holds `jsons/` and the videos.
      out: a folder, local or gs://, that does not exist yet, is empty, or holds these very records, finished or not.
      settings: what is written.
      instructions: files of text-only instructions (`data/instructions.py`), for the split `train`.
      tokenizers: that measure the texts, by default the embedded one; to finished records their lengths are added.
      workers: processes that decode and measure.
      runner: runs the jobs of clips; by default `workers` processes of this machine do.
      clip_seconds: a clip that takes longer is left out.
      max_skipped_share: of the samples of a split that may have a fault; what comes twice is none.
      on_shard: called with (what is written, shards done, shards in all).

    Returns:
      The manifest.

    Raises:
      DatasetError: the dataset as a whole cannot be read.
      RecordError: the folder holds something else, no sample can be used, or too many cannot.
    """
    out, tell = open_path(out), on_shard or (lambda *_: None)
    tokenizers = tokenizers or [Tokenizer.embedded()]
    source = Source(Path(root), settings.splits, settings.variant, [Path(path) for path in instructions])
    recipe = _recipe(source, settings)
    if instructions and TRAIN not in settings.splits:
        raise RecordError(
            f"instructions belong to the split {TRAIN}, which is not prepared; name it, or leave them out."
        )
    _require_ours(out, recipe)  # before anything is made there
    run = runner or partial(run_locally, workers=workers)
    for folder in (out / "clips", out / "samples"):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        _claim(out, recipe)
        if (out / MANIFEST).exists():
            manifest = measure_texts(out, read_manifest(out), tokenizers, workers, tell)
        else:
            clips, splits, left_out = _write(source, out, settings, run, clip_seconds, max_skipped_share, tell)
            manifest = finish(out, recipe, clips, splits, left_out, tokenizers, workers, tell)
            _sweep(out, manifest)
    return manifest


def _sweep(out: epath.Path, manifest: dict[str, Any]) -> None:
    """Removes shards of other annotations, whose number was another."""
    samples = [shard for shards in manifest["samples"].values() for shard in shards]
    for folder, shards in (("clips", manifest["clips"]), ("samples", samples)):
        held = {shard["file"] for shard in shards}
        for path in (out / folder).iterdir():
            if ".array_record-" in path.name and path.name not in held:
                path.unlink()


def _write(
    source: Source,
    out: epath.Path,
    settings: Settings,
    run: Runner,
    clip_seconds: float,
    max_skipped_share: float,
    tell: Report,
) -> tuple[list[Finished], dict[str, WrittenSplit], LeftOut]:
    """Clips, then samples, which name the places of their clips; and counts what was left out."""
    paths, splits = source.survey()
    recipe = ClipRecipe(source.root, settings.frames, settings.quality)
    clips = run(clip_jobs(out, paths, settings.shard_size, recipe, clip_seconds), tell)
    bad = {path: reason for each in clips for path, reason in each.left_out.items()}
    places = {path: place for place, path in enumerate(path for path in paths if path not in bad)}
    counts = {split: survey.usable(bad) for split, survey in splits.items()}
    left_out = LeftOut(bad, splits)
    written: dict[str, WrittenSplit] = {}
    for split, count in counts.items():
        usable = left_out.of_good_clips(split, source.samples(split))
        if all(counts.values()):
            stream = ((sample, [places[video] for video in sample.videos]) for sample in usable)
            written[split] = write_samples(out, split, stream, count, SAMPLES_PER_CLIP * settings.shard_size, tell)
        for _ in usable:  # to the end, where the last ones are left out or nothing is written
            pass
    write_text(out / REPORT, left_out.lines())
    if empty := [split for split, count in counts.items() if not count]:
        raise RecordError(f"{source.root}: no usable sample in {', '.join(empty)}; {out / REPORT} says why.")
    for split, count in counts.items():
        if (faulty := left_out.faulty[split]) > max_skipped_share * (faulty + count):
            raise RecordError(
                f"{source.root}: {faulty:,} of {faulty + count:,} samples of {split} had to be left out, more than "
                f"max_skipped_share = {max_skipped_share:g} allows; {out / REPORT} says why. Mend them, or allow more."
            )
    return clips, written, left_out


@contextmanager
def _alone(out: epath.Path) -> Iterator[None]:
    """Keeps other runs out of the folder, and removes what a killed one left half-written.

    A bucket has no locks: there it keeps out the runs of this machine alone.
    """
    path = Path(out)  # files in it are replaced, and a lock would stay with the old one
    if is_remote(out):
        path = Path(tempfile.gettempdir()) / f"videmo-{hashlib.sha256(str(out).encode()).hexdigest()[:16]}"
        path.mkdir(exist_ok=True)
    held = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordError(f"{out}: another run is writing there. Wait for it, or name a new folder.") from None
        if not is_remote(out):
            for stale in Path(out).rglob(".*.partial-*"):
                stale.unlink()
        yield
    finally:
        os.close(held)


def _recipe(source: Source, settings: Settings) -> dict[str, Any]:
    """All that decides the bytes, but for the videos themselves; a JSON object."""
    annotations = hashlib.sha256()
    for path in (path for files in source.files.values() for path in files):
        annotations.update(path.relative_to(source.root).as_posix().encode())
        annotations.update(_digest(path))
    versions = {name: version(name) for name in ("av", "pillow", "array_record", "tensorflow-datasets")}
    return asdict(settings) | {
        "splits": list(settings.splits),
        "annotations_sha256": annotations.hexdigest(),
        "instructions": {path.name: _digest(path).hex() for path in source.instructions},
        "versions": versions,
    }


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _claim(out: epath.Path, recipe: dict[str, Any]) -> None:
    """Makes the folder these records'; where its annotations were others, its clips stay."""
    path = out / RECIPE
    if path.exists() and read_json(path, NEW_FOLDER)[ANNOTATIONS] == recipe[ANNOTATIONS]:
        return
    (out / MANIFEST).unlink(missing_ok=True)  # its samples are written again
    write_json(path, recipe)


def _require_ours(out: epath.Path, recipe: dict[str, Any]) -> None:
    """Raises RecordError where the folder holds something that these records cannot go on with."""
    path = out / RECIPE
    if path.exists():
        held = read_json(path, NEW_FOLDER)
        # Finished records are what they are, whatever is installed now; clips of two versions are not mixed.
        finished = (out / MANIFEST).exists() and held.get(ANNOTATIONS) == recipe[ANNOTATIONS]
        free = (ANNOTATIONS, "versions") if finished else (ANNOTATIONS,)
        changed = [f"{name} ({held.get(name)}, asked for {recipe[name]})" for name in recipe
                   if name not in free and held.get(name) != recipe[name]]  # fmt: skip
        if changed:
            raise RecordError(f"{out}: holds records of another recipe: {'; '.join(changed)}. Name a new folder.")
    elif out.exists() and any(each.name not in ("clips", "samples") or any(each.iterdir()) for each in out.iterdir()):
        raise RecordError(f"{out}: holds something else than records. Name a new folder.")
