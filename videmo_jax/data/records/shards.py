"""Files of records and of what describes them: each appears whole or not at all, and damage to it is found."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from videmo_jax.data.records.schema import RecordError
from videmo_jax.files.writing import whole_file, write_bytes

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


def write_shard(path: epath.Path, records: Iterable[bytes]) -> Shard:
    """Writes the records in order, as `whole_file` does."""
    count = 0
    with whole_file(path, durable=True) as partial:
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


def write_entry(path: epath.Path, data: bytes) -> dict[str, Any]:
    """Replaces a file at once; gives its name, size and checksum."""
    write_bytes(path, data)
    return {"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


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
