"""The shards of samples, and what describes all records: TFDS' metadata, the index, the manifest."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from videmo_jax.data.instructions import FOLDER as INSTRUCTIONS
from videmo_jax.data.records.index import INDEX, SampleIndex, tokenizer_id, write_clip_index, write_texts
from videmo_jax.data.records.jobs import Finished, Report
from videmo_jax.data.records.reader import FORMAT, MANIFEST
from videmo_jax.data.records.schema import CLIP_FEATURES, CLIP_SPLIT, SAMPLE_FEATURES, encode_sample
from videmo_jax.data.records.shards import Shard, shard_name, write_shard
from videmo_jax.data.records.survey import LeftOut
from videmo_jax.data.sample import Sample
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.files.writing import write_json
from videmo_jax.tasks.taxonomy import task_of


@dataclass(frozen=True, slots=True)
class WrittenSplit:
    """The shards of one split's samples, and what the index says of them."""

    shards: list[Shard]
    index: SampleIndex


def write_samples(
    out: epath.Path,
    split: str,
    samples: Iterable[tuple[Sample, Sequence[int]]],
    count: int,
    shard_size: int,
    tell: Report,
) -> WrittenSplit:
    """Writes the samples of a split. Text alone is written so fast that a killed run writes it again.

    Args:
      out: the folder of the records.
      split: its name.
      samples: each with the ids of its clips; none is held longer than its turn.
      count: how many there are.
      shard_size: samples a file.
      tell: called with (`SPLIT samples`, shards done, shards in all).
    """
    index, shards = SampleIndex(), []
    total = -(-count // shard_size) or 1

    def records() -> Iterator[bytes]:
        for sample, clips in samples:
            index.add(sample, clips)
            yield encode_sample(sample, clips)

    stream = records()
    for number in range(total):
        name = shard_name("samples", split, number, total)
        shards.append(write_shard(out / "samples" / name, islice(stream, shard_size)))
        tell(f"{split} samples", number + 1, total)
    return WrittenSplit(shards, index)


def finish(
    out: epath.Path,
    recipe: Mapping[str, Any],
    clips: Sequence[Finished],
    splits: Mapping[str, WrittenSplit],
    left_out: LeftOut,
    tokenizers: Sequence[Tokenizer],
    workers: int,
    tell: Report,
) -> dict[str, Any]:
    """Describes the shards of clips and samples; the manifest, which is returned, comes last."""
    (out / INDEX).mkdir(exist_ok=True)
    _describe(out / "clips", CLIP_FEATURES, {CLIP_SPLIT: [each.shard for each in clips]})
    _describe(out / "samples", SAMPLE_FEATURES, {split: written.shards for split, written in splits.items()})
    files = {split: written.index.samples_by_file() for split, written in splits.items()}
    manifest = {
        "format": FORMAT,
        "recipe": recipe,
        "counts": {
            "clips": sum(each.shard.records for each in clips),
            "samples": {split: sum(of_split.values()) for split, of_split in files.items()},
            "left_out": left_out.counts,
            "faulty": left_out.faulty,
            "files": {file: count for of_split in files.values() for file, count in of_split.items()},
            "tasks": _tasks(files),
        },
        "files": {split: list(of_split) for split, of_split in files.items()},
        "clips": [asdict(each.shard) for each in clips],
        "samples": {split: [asdict(shard) for shard in written.shards] for split, written in splits.items()},
        "index": {
            "clips": write_clip_index(out, (grid for each in clips for grid in each.grids)),
            "samples": {split: written.index.write(out, split) for split, written in splits.items()},
            "texts": {},
        },
    }
    return measure_texts(out, manifest, tokenizers, workers, tell)


def measure_texts(
    out: epath.Path, manifest: dict[str, Any], tokenizers: Sequence[Tokenizer], workers: int, tell: Report
) -> dict[str, Any]:
    """Measures the texts with every tokenizer that the manifest lacks, writes the manifest and returns it."""
    texts = manifest["index"]["texts"]
    paths = {
        split: [out / "samples" / shard["file"] for shard in shards] for split, shards in manifest["samples"].items()
    }
    missing = {tokenizer_id(each): each for each in tokenizers if tokenizer_id(each) not in texts}
    for id, tokenizer in missing.items():
        kind = f"texts by tokenizer {id}"
        texts[id] = write_texts(out, paths, tokenizer, workers, lambda done, total, kind=kind: tell(kind, done, total))
    if missing or not (out / MANIFEST).exists():
        write_json(out / MANIFEST, manifest)
    return manifest


def _tasks(files: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Samples by task."""
    tasks: Counter[str] = Counter()
    for of_split in files.values():
        for file, count in of_split.items():
            task = task_of(file)
            other = "instructions" if file.startswith(INSTRUCTIONS) else "unknown"
            tasks[task.name if task else other] += count
    return dict(tasks)


def _describe(folder: epath.Path, features: tfds.features.FeaturesDict, shards: Mapping[str, Sequence[Shard]]) -> None:
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
