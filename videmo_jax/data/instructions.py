"""Text-only instructions, such as MAGPIE's: JSON Lines in chat form become samples without videos.

A line holds `messages` [{role, content}] or `conversations` [{from: human|gpt|system, value}]; other keys are ignored.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from videmo_jax.data.emo_cfg import BadSample, Rejected, Seen, checked, checked_turns, kind
from videmo_jax.data.sample import VIDEO_TAG, Sample
from videmo_jax.files.json_records import DatasetError, json_lines

FOLDER = "instructions/"  # that `Sample.file` begins with


def is_instruction(file: str) -> bool:
    """Whether a sample's file is one of text-only conversations."""
    return file.startswith(FOLDER)


def read_instructions(paths: Sequence[str | os.PathLike[str]]) -> tuple[list[Sample], list[Rejected]]:
    """Reads and checks files of instructions.

    Args:
      paths: their samples follow one another; `file` is `instructions/NAME.jsonl`, ids have the number of the line.

    Raises:
      DatasetError: a file cannot be read, or two have the same name.
    """
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    for each in iterate_instructions(paths):
        if isinstance(each, Sample):
            samples.append(each)
        else:
            rejected.append(each)
    return samples, rejected


def iterate_instructions(
    paths: Sequence[str | os.PathLike[str]], seen: Seen | None = None
) -> Iterator[Sample | Rejected]:
    """The same one after the other, without holding any; `seen` refuses what comes again."""
    files: dict[str, Path] = {}
    for path in map(Path, paths):
        file = f"{FOLDER}{path.stem}.jsonl"
        if file in files:
            raise DatasetError(f"{path}: has the name of {files[file]}, and samples are named by it. Rename one.")
        files[file] = path
    for file, path in files.items():
        for line, record in json_lines(path):
            id = f"{file}#{line}"
            yield checked(id, partial(_sample, id, file, record), seen)


def _sample(id: str, file: str, record: Any) -> Sample:
    if not isinstance(record, dict):
        raise BadSample(f"the record is {kind(record)}, expected an object")
    messages = checked_turns(record)
    if any(VIDEO_TAG in message.content for message in messages if message.role == "user"):
        raise BadSample(f"holds {VIDEO_TAG}, and instructions have no clips")
    return Sample(id, file, messages)
