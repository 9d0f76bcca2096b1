"""One file of records: written whole or not at all, and described so that damage is found."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter

# Each record is read alone, and JPEG cannot be compressed further.
OPTIONS = "group_size:1,uncompressed"


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished file: its name, its number of records, its size in bytes and its checksum."""

    file: str
    records: int
    bytes: int
    sha256: str


def shard_name(dataset: str, split: str, number: int, count: int) -> str:
    """The name that TFDS expects."""
    return f"{dataset}-{split}.array_record-{number:05d}-of-{count:05d}"


def write_shard(path: Path, records: Iterable[bytes]) -> Shard:
    """Writes the records in order; the file appears under its name only when it is complete and on the disk."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    count = 0
    try:
        writer = ArrayRecordWriter(str(partial), OPTIONS)
        try:
            for record in records:
                writer.write(record)
                count += 1
        finally:
            writer.close()
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return Shard(path.name, count, size, digest)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces a JSON file at once."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replaces a text file at once."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
