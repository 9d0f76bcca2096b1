"""Safetensors without ever holding a file: tensors are read by byte ranges and written as a stream.

Plain reads, because the pages of a mapped file stay resident, and because they work on every kind of storage.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from videmo_jax.files.errors import UserError
from videmo_jax.files.json_records import read_json
from videmo_jax.files.writing import whole_file, write_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_JSON_BYTES = 64 * 1024**2


# Called for each tensor that is converted: its name, its bytes, the bytes of all.
Report = Callable[[str, int, int], None]


class ConversionError(UserError):
    """Weights cannot be read, do not fit or cannot be written; the message says which, what is wrong, what to do."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's values lie: `offset` counts bytes from the start of the file."""

    path: epath.Path
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of all its values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Its values, or those of rows `start` to `stop` of its first axis."""
        rows = self.shape[0] if stop is None else stop
        row_bytes = self.nbytes // self.shape[0]
        with self.path.open("rb") as file:
            file.seek(self.offset + start * row_bytes)
            data = file.read((rows - start) * row_bytes)
        return np.frombuffer(data, self.dtype).reshape(rows - start, *self.shape[1:])


def stored_tensors(folder: epath.Path) -> dict[str, StoredTensor]:
    """All tensors of a model directory by the names in its files; only headers are read.

    As in transformers, `model.safetensors` wins over an index with shards.

    Raises:
      ConversionError: there are no safetensors, a shard is missing, broken or lacks a tensor, or a dtype is no float.
    """
    if (folder / SINGLE).exists():
        return _file_tensors(folder / SINGLE)
    if not (folder / INDEX).exists():
        raise ConversionError(
            f"{folder}: neither {SINGLE} nor {INDEX}; pickled weights (*.bin) are not read, "
            "save them again with transformers' save_pretrained"
        )
    places = read_json(folder / INDEX, "fetch the file again").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise ConversionError(
            f"{folder / INDEX}: no 'weight_map' from tensor names to file names; fetch the file again"
        )
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(places.values())):
        if PurePosixPath(shard).name != shard or not shard.endswith(".safetensors"):
            raise ConversionError(
                f"{folder / INDEX}: '{shard}' is no plain file name of a shard; shards must lie beside the index"
            )
        if not (folder / shard).exists():
            raise ConversionError(f"{folder}: shard {shard} is missing, although {INDEX} names it; fetch it again")
        held = _file_tensors(folder / shard)
        absent = [name for name, place in places.items() if place == shard and name not in held]
        if absent:
            raise ConversionError(f"{folder / shard}: lacks {some(absent)}, which {INDEX} says it holds")
        tensors.update(held)
    return tensors


def _file_tensors(path: epath.Path) -> dict[str, StoredTensor]:
    """The tensors of one file, from a header that is not trusted."""
    size = path.stat().length
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(size - 8, MAX_HEADER_BYTES):
            raise ConversionError(f"{path}: no safetensors file, or one that was cut off; fetch it again")
        header = file.read(length)
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        found = {name: (e["dtype"], tuple(e["shape"]), *e["data_offsets"]) for name, e in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{path}: its header cannot be read ({error!r}); fetch the file again") from None
    tensors = {}
    for name, (dtype, shape, begin, end) in found.items():
        if dtype not in DTYPES:
            raise ConversionError(
                f"{path}: {name} is {dtype}; only {', '.join(DTYPES)} can be imported, so give the unquantised weights"
            )
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)) or 0 in shape:
            raise ConversionError(f"{path}: {name} has shape {shape} at bytes {begin} to {end}; fetch the file again")
        tensor = StoredTensor(path, shape, DTYPES[dtype], 8 + length + begin)
        if end - begin != tensor.nbytes:
            raise ConversionError(f"{path}: {name} has shape {shape}, but {end - begin} bytes; fetch the file again")
        if 8 + length + end > size:
            raise ConversionError(f"{path}: ends before the values of {name}; the file was cut off, fetch it again")
        tensors[name] = tensor
    return tensors


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that is to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all its values."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_shards(
    folder: epath.Path,
    specs: Sequence[TensorSpec],
    limit: int,
    blocks: Callable[[TensorSpec], Iterator[np.ndarray]],
) -> None:
    """Writes tensors as `model.safetensors`, or as shards with an index where they take more than `limit` bytes.

    Args:
      folder: an existing directory.
      specs: what is written; sizes are known in advance, so the headers come first and values follow as they are read.
      limit: bytes of values in one file; a larger tensor has a file of its own.
      blocks: gives the values of a tensor, rows after rows.
    """
    # Wide types first: every tensor then starts at a multiple of its item size, which readers that map files need.
    shards = _shards(sorted(specs, key=lambda spec: -spec.dtype.itemsize), limit)
    names = [SINGLE]
    if len(shards) > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        places = {spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard}
        index = {"metadata": {"total_size": sum(spec.nbytes for spec in specs)}, "weight_map": places}
        write_json(folder / INDEX, index)
    for name, shard in zip(names, shards, strict=True):
        with whole_file(folder / name) as path, path.open("wb") as file:
            file.write(_header(shard))
            for spec in shard:
                for block in blocks(spec):
                    # As bytes, since buffers know no bfloat16.
                    file.write(np.ascontiguousarray(block, spec.dtype).reshape(-1).view(np.uint8).data)


def _shards(specs: Sequence[TensorSpec], limit: int) -> list[list[TensorSpec]]:
    shards, room = [], 0
    for spec in specs:
        if not shards or spec.nbytes > room:
            shards.append([])
            room = limit
        shards[-1].append(spec)
        room -= spec.nbytes
    return shards


def _header(specs: Sequence[TensorSpec]) -> bytes:
    names = {dtype: name for name, dtype in DTYPES.items()}
    entries: dict[str, Mapping[str, Any]] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for spec in specs:
        end = begin + spec.nbytes
        entries[spec.name] = {"dtype": names[spec.dtype], "shape": spec.shape, "data_offsets": [begin, end]}
        begin = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of many names, for a message of one line."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
