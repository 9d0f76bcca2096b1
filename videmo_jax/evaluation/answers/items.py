"""What is asked: every record of the chosen annotation files, those that cannot be used among them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videmo_jax.data.emo_cfg import DatasetError, EmoCfg, Rejected, read_emo_cfg
from videmo_jax.data.sample import ROLES, Message, Sample
from videmo_jax.evaluation.answers.predictions import Prediction, writable
from videmo_jax.files.json_records import json_records
from videmo_jax.tasks.taxonomy import stem_of


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
      id: annotation file and index in it.
      blank: its line in the prediction file, still without an answer.
      sample: what the model is given; None where the record cannot be used.
      fault: why it cannot.
    """

    id: str
    blank: Prediction
    sample: Sample | None
    fault: str = ""

    @property
    def name(self) -> str:
        """The name of its prediction file, without `.json`."""
        return stem_of(self.id.rpartition("#")[0])

    @property
    def index(self) -> int:
        """Its place in the annotation file, from 0: its line in the prediction file."""
        return int(self.id.rpartition("#")[2])

    @property
    def key(self) -> str:
        """Its id with a hash of what is asked: an answer kept under it is of this question about this file."""
        prompt = self.sample.prompt if self.sample else self.blank.messages
        content = [[[message.role, message.content] for message in prompt], self.blank.videos]
        return f"{self.id}:{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}"


def read_items(root: Path, split: str, variant: str, tasks: Sequence[str] | None) -> list[Item]:
    """Every record of the annotation files, in their order.

    Args:
      root: the folder of Emo-CFG.
      split: `train` or `test`.
      variant: `full` or `sampled`.
      tasks: names of annotation files, with or without `.json`, also shell patterns; None takes all.

    Raises:
      DatasetError: the folder cannot be used, a name matches nothing, or two files would give one prediction file.
    """
    data = read_emo_cfg(root, split, variant=variant, include=tasks)
    items = [Item(sample.id, _blank(sample.prompt, sample.answer, sample.videos), sample) for sample in data.samples]
    items += _unusable(data)
    files: dict[str, str] = {}
    for item in items:
        file = item.id.rpartition("#")[0]
        if files.setdefault(item.name, file) != file:
            raise DatasetError(
                f"{root}: {files[item.name]} and {file} would give the same prediction file; choose with --tasks"
            )
    return sorted(items, key=lambda item: (item.id.rpartition("#")[0], item.index))


def _blank(prompt: Sequence[Message], answer: str, videos: Sequence[str]) -> Prediction:
    """The line that waits for its answer; in the official files the first message is the user's."""
    shown = prompt[1:] if prompt and prompt[0].role == "system" else prompt
    return Prediction("", answer, tuple(shown), tuple(videos))


def _unusable(data: EmoCfg) -> list[Item]:
    """Items for the records that the reader left out: they count as wrong, so their truth is needed."""
    records: dict[str, list[Any]] = {}
    items = []
    for rejected in data.rejected:
        file, _, index = rejected.id.rpartition("#")
        if file not in records:
            records[file] = list(json_records(data.root / "jsons" / file))  # which were just read without fault
        items.append(_unusable_item(rejected, records[file][int(index)]))
    return items


def _unusable_item(rejected: Rejected, record: Any) -> Item:
    """As much of a record as has the right form."""
    record = record if isinstance(record, dict) else {}
    turns, videos = (record.get(name) for name in ("messages", "videos"))
    messages = [
        Message(turn["role"], writable(turn["content"]))
        for turn in (turns if isinstance(turns, list) else [])
        if isinstance(turn, dict) and turn.get("role") in ROLES and isinstance(turn.get("content"), str)
    ]
    answer = messages.pop().content if messages and messages[-1].role == "assistant" else ""
    paths = [writable(path) for path in (videos if isinstance(videos, list) else []) if isinstance(path, str)]
    return Item(rejected.id, _blank(messages, answer, paths), None, rejected.reason)
