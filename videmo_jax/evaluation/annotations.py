"""Prediction lines beside the annotations that they answer: which aspect each asks about, what is missing or extra.

A line belongs to the record with its last user text and its first video path; what is asked twice is answered in order.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videmo_jax.data.emo_cfg import annotation_files
from videmo_jax.evaluation.answers.predictions import Prediction, writable
from videmo_jax.files.json_records import json_records
from videmo_jax.tasks.taxonomy import ASPECTS

Key = tuple[str, str]  # user text, path of the first video


@dataclass(frozen=True, slots=True)
class AnnotatedQuestion:
    """One record of an annotation file; `aspect` is empty where its `source` names none of the 15."""

    key: Key
    query: str
    truth: str
    aspect: str = ""


@dataclass(frozen=True)
class Matching:
    """The lines of one prediction file beside its annotation file.

    Attributes:
      records: of the annotation file, in order.
      places: for each line the record that it answers, None for extra lines.
      missing: records without a line.
      again: extra lines that repeat a record which is answered already.
      unknown: extra lines that no record asks.
      moved: lines that stand elsewhere than their record.
      other_truth: lines whose labels are not their record's answer.
    """

    records: tuple[AnnotatedQuestion, ...]
    places: tuple[int | None, ...]
    missing: tuple[int, ...]
    again: tuple[int, ...]
    unknown: tuple[int, ...]
    moved: tuple[int, ...]
    other_truth: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """What scores.json says: counts, and the first of the numbers, records and lines from 0."""
        kinds = ("missing", "again", "unknown", "moved", "other_truth")
        numbers = {kind: getattr(self, kind) for kind in kinds}
        return {
            "records": len(self.records),
            "lines": len(self.places),
            **{kind: len(found) for kind, found in numbers.items()},
            "examples": {kind: list(found[:20]) for kind, found in numbers.items() if found},
        }


def read_annotations(
    root: Path, split: str, variant: str, names: Collection[str] | None = None
) -> dict[str, tuple[AnnotatedQuestion, ...]]:
    """The records of annotation files by stem, those that cannot be used among them.

    Args:
      root: the folder of Emo-CFG.
      split: `train` or `test`.
      variant: `full` or `sampled`.
      names: stems of the files to read; None reads all.

    Raises:
      DatasetError: the folder or a file cannot be used.
    """
    return {
        path.stem: tuple(_asked(record) for record in json_records(path))
        for path in annotation_files(root, split, variant)
        if names is None or path.stem in names
    }


def _asked(record: Any) -> AnnotatedQuestion:
    """What a record asks; of one in another form, as much as is there."""
    record = record if isinstance(record, dict) else {}
    turns = record.get("messages")
    turns = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    turns = [turn for turn in turns if isinstance(turn.get("content"), str)]
    user = [_text(turn["content"]) for turn in turns if turn.get("role") == "user"]
    answers = [_text(turn["content"]) for turn in turns if turn.get("role") == "assistant"]
    paths = record.get("videos")
    videos = [_text(path) for path in paths if isinstance(path, str)] if isinstance(paths, list) else []
    aspect = _text(record.get("source")).rpartition("QA_")[2]
    return AnnotatedQuestion(
        ("".join(user[-1:]), "".join(videos[:1])),
        "".join(user[:1]),
        "".join(answers[-1:]),
        aspect if aspect in ASPECTS else "",
    )


def _text(value: Any) -> str:
    """Text as it can be written to files, nothing for what is no text."""
    return writable(value) if isinstance(value, str) else ""


def line_key(prediction: Prediction) -> Key:
    """What a line answers."""
    texts = [message.content for message in prediction.messages if message.role == "user"]
    return "".join(texts[-1:]), "".join(prediction.videos[:1])


def match_lines(predictions: Sequence[Prediction], records: Sequence[AnnotatedQuestion]) -> Matching:
    """Finds the record of each line."""
    open_records: dict[Key, deque[int]] = defaultdict(deque)
    for index, record in enumerate(records):
        open_records[record.key].append(index)
    places: list[int | None] = []
    again, unknown = [], []
    for number, prediction in enumerate(predictions):
        key = line_key(prediction)
        if key not in open_records:
            unknown.append(number)
        elif not open_records[key]:
            again.append(number)
        places.append(open_records[key].popleft() if open_records.get(key) else None)
    matched = [(number, place) for number, place in enumerate(places) if place is not None]
    return Matching(
        tuple(records),
        tuple(places),
        tuple(sorted(index for left in open_records.values() for index in left)),
        tuple(again),
        tuple(unknown),
        tuple(number for number, place in matched if place != number),
        tuple(number for number, place in matched if predictions[number].labels != records[place].truth),
    )


def official_aspects(records: Sequence[AnnotatedQuestion]) -> dict[Key, str]:
    """The aspect of each question as the official code finds it: where one is asked twice, the last record's."""
    return {record.key: record.aspect for record in records}
