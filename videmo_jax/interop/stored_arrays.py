"""Arrays inside a checkpoint, written and read piece by piece: host memory does not grow with the model.

Orbax saves and restores whole arrays. Here Orbax saves a tree of one-element placeholders, and before it commits the
checkpoint each array is written anew through TensorStore, on which Orbax itself stands: zarr arrays in one OCDBT store.
That layout is undocumented, hence the pinned Orbax and the test that compares with a plain save.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath
from flax import nnx

from videmo_jax.files.paths import absolute, is_remote
from videmo_jax.interop.hf_names import Path

CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ArraySpec:
    """An array of a checkpoint; `stacked` says that its first axis counts layers."""

    shape: tuple[int, ...]
    dtype: np.dtype
    stacked: bool

    @property
    def chunk(self) -> tuple[int, ...]:
        """What is read or written at once: at most one layer, of it rows for CHUNK_BYTES."""
        layers, (rows, *rest) = self.shape[: self.stacked], self.shape[self.stacked :]
        row_bytes = math.prod(rest) * self.dtype.itemsize
        return (*(1 for _ in layers), min(rows, max(1, CHUNK_BYTES // row_bytes)), *rest)


def open_array(params: epath.PathLike, path: Path, create: ArraySpec | None = None) -> ts.TensorStore:
    """The array at `path` of the tree under `.../params`; with `create`, a new one that replaces it."""
    folder = os.fspath(params)
    base = folder if is_remote(folder) else f"file://{os.path.abspath(folder)}"
    spec: dict[str, Any] = {
        "driver": "zarr",
        "kvstore": {"driver": "ocdbt", "base": base.rstrip("/") + "/", "path": ".".join(map(str, path)) + "/"},
    }
    if create is None:
        return ts.open(spec, open=True, read=True).result()
    # Compressed as Orbax does it.
    spec["metadata"] = {"chunks": create.chunk, "compressor": {"id": "zstd", "level": 1}}
    return ts.open(
        spec, create=True, delete_existing=True, dtype=ts.dtype(create.dtype.name), shape=create.shape
    ).result()


class _FilledHandler(ocp.StandardCheckpointHandler):
    """Lets `fill` write into the saved tree before Orbax commits it; the checkpoint names the handler it stands for."""

    def __init__(self, fill: Callable[[epath.Path], None]) -> None:
        super().__init__()
        self._fill = fill

    @classmethod
    def typestr(cls) -> str:
        return ocp.StandardCheckpointHandler.typestr()

    def finalize(self, directory: epath.Path) -> None:
        super().finalize(directory)
        self._fill(directory)


def save_filled(
    checkpoint: epath.PathLike,
    arrays: Mapping[Path, ArraySpec],
    fill: Callable[[epath.Path], None],
    **items: dict[str, Any],
) -> None:
    """Writes a checkpoint as one whole: either it is there, or a temporary directory that nobody takes for one.

    Args:
      checkpoint: `.../checkpoints/STEP`.
      arrays: the parameters.
      fill: writes every array into the given directory, by `open_array(directory, path, spec)`.
      items: further items, as JSON objects.
    """
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add("params", ocp.args.StandardSave, _FilledHandler(fill))
    for name in items:
        registry.add(name, ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    placeholders = nnx.traversals.unflatten_mapping({path: np.zeros(1, a.dtype) for path, a in arrays.items()})
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(handler_registry=registry)) as saver:
        saver.save(
            absolute(checkpoint),
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(placeholders),
                **{name: ocp.args.JsonSave(item) for name, item in items.items()},
            ),
        )
