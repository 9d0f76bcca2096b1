"""Files of records and of what describes them: each appears whole or not at all, and damage to it is found."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from videmo_jax.data.records.schema import RecordError
from videmo_jax.training.folders import is_remote

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


@contextmanager
def whole_file(path: epath.Path) -> Iterator[Path]:
    """A local file to write; after the block it stands under `path`, at once, complete and durable.

    In a bucket objects appear whole, so that the file is written elsewhere and copied there.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / path.name
            yield partial
            epath.Path(partial).copy(path, overwrite=True)
        return
    partial = Path(path).with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def write_shard(path: epath.Path, records: Iterable[bytes]) -> Shard:
    """Writes the records in order, as `whole_file` does."""
    count = 0
    with whole_file(path) as partial:
        writer = ArrayRecordWriter(str(partial), OPTIONS)
        try:
            for record in records:
                writer.write(record)
                count += 1
        finally:
            writer.close()
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = partial.stat().st_size
    return Shard(path.name, count, size, digest)


def write_bytes(path: epath.Path, data: bytes) -> dict[str, Any]:
    """Replaces a file at once; gives its name, size and checksum."""
    with whole_file(path) as partial:
        partial.write_bytes(data)
    return {"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_text(path: epath.Path, lines: Iterable[str]) -> None:
    """Replaces a text file at once."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(lines)


def write_json(path: epath.Path, value: Mapping[str, Any]) -> None:
    """Replaces a JSON file at once."""
    write_text(path, [json.dumps(value, indent=1, ensure_ascii=False) + "\n"])


def check_size(path: epath.Path, expected: int) -> None:
    """Raises RecordError where a file is missing or has another size than the manifest says."""
    try:
        size = path.stat().length
    except FileNotFoundError:
        raise RecordError(f"{path}: missing; copy it again, or prepare the records again.") from None
    if size != expected:
        raise RecordError(
            f"{path}: {size:,} bytes, the manifest says {expected:,}: "
            f"{'cut short' if size < expected else 'changed'}; copy it again, or prepare the records again."
        )


def check_sum(path: epath.Path, expected: str) -> None:
    """Reads a whole file; raises RecordError where its checksum is not the manifest's."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise RecordError(f"{path}: its checksum is not the manifest's; copy or prepare it again.")
