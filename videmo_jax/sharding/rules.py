"""Logical axes to mesh axes: one table, from which every sharding of the project is derived."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import lax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# Mesh axes, slowest first: replica (between slices), data, fsdp (weights sharded, batch split), tensor.
MESH_AXES = ("replica", "data", "fsdp", "tensor")

RULES: Mapping[str | None, tuple[str, ...]] = {
    # activations
    "batch": ("replica", "data", "fsdp"),
    "slabs": ("replica", "data", "fsdp", "tensor"),  # the vision tower splits its work, not its weights
    # weights of the decoder
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor", "fsdp"),
    # weights of the vision tower
    "vision_embed": ("fsdp", "tensor"),
    "layers": (),
    None: (),
}

# Along these a weight is stored in parts and gathered where it is used; along the others it stays split.
GATHERED = ("embed", "vision_embed")


def make_mesh(shape: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices` (all of them by default); slices that only the data-centre network joins lie along replica.

    Args:
      shape: devices along each of MESH_AXES; one of them may be -1, «what is left»; a missing one is 1.

    Raises:
      ValueError: an axis is unknown, the shape does not fill the devices, or `replica` is no multiple of the slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    unknown = set(shape) - set(MESH_AXES)
    if unknown:
        raise ValueError(f"mesh has no axis {sorted(unknown)}; its axes are {', '.join(MESH_AXES)}")
    sizes = [int(shape.get(axis, 1)) for axis in MESH_AXES]
    fixed = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or min(sizes) < -1 or 0 in sizes or len(devices) % fixed:
        raise ValueError(f"mesh {dict(shape)} does not fit {len(devices)} devices; one axis may be -1")
    sizes = [len(devices) // fixed if size == -1 else size for size in sizes]
    if fixed != len(devices) and -1 not in shape.values():
        raise ValueError(f"mesh {dict(shape)} uses {fixed} of {len(devices)} devices; set one axis to -1")
    slices = len({getattr(device, "slice_index", None) or 0 for device in devices})
    if sizes[0] % slices:
        raise ValueError(f"mesh.replica is {sizes[0]}; it must be a multiple of the {slices} slices")
    arrange = partial(mesh_utils.create_device_mesh, allow_split_physical_axes=True)
    if slices > 1:
        inside, between = [sizes[0] // slices, *sizes[1:]], [slices, 1, 1, 1]
        arranged = mesh_utils.create_hybrid_device_mesh(
            inside, between, devices=devices, allow_split_physical_axes=True
        )
    elif devices[0].platform == "tpu":
        arranged = arrange(sizes, devices=devices)
    else:
        arranged = np.asarray(devices).reshape(sizes)
    return Mesh(arranged, MESH_AXES, axis_types=(AxisType.Auto,) * len(sizes))


def partition_spec(axes: Sequence[str | None], shape: Sequence[int], mesh: Any) -> PartitionSpec:
    """Where an array with these logical axes lies; a mesh axis that does not divide its dimension is left out."""
    spec = []
    for axis, size in zip(axes, shape, strict=True):
        names, split = [], 1
        for name in RULES[axis]:
            if mesh.shape[name] > 1 and size % (split * mesh.shape[name]) == 0:
                names.append(name)
                split *= mesh.shape[name]
        spec.append(tuple(names) if len(names) > 1 else names[0] if names else None)
    return PartitionSpec(*spec)


def mesh_axes(spec: PartitionSpec, dimension: int) -> tuple[str, ...]:
    """The mesh axes along which a dimension is split."""
    names = spec[dimension]
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def shard_state(state: Any, mesh: Mesh) -> Any:
    """The sharding of every variable of a tree (parameters, an optimizer's state); other arrays lie everywhere."""

    def sharding(leaf: Any) -> Any:
        if not isinstance(leaf, nnx.Variable):
            return NamedSharding(mesh, PartitionSpec())
        shape = leaf.get_value().shape
        axes = leaf.get_metadata("out_sharding", None) or (None,) * len(shape)
        return leaf.replace(NamedSharding(mesh, partition_spec(axes, shape, mesh)))

    return jax.tree.map(sharding, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def batch_sharding(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """The sharding of an array whose first axis is the batch."""
    return NamedSharding(mesh, partition_spec(("batch", *[None] * (len(shape) - 1)), shape, mesh))


def batch_shards(mesh: Any) -> int:
    """Into how many parts a batch is split."""
    return math.prod(mesh.shape[name] for name in RULES["batch"])


def current_mesh() -> Any | None:
    """The mesh of the surrounding `jax.set_mesh`, or None."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else mesh


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins an activation to its logical axes on the current mesh; without one it does nothing."""
    mesh = current_mesh()
    return x if mesh is None else lax.with_sharding_constraint(x, partition_spec(axes, x.shape, mesh))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def use_weight(value: jax.Array, axes: tuple[str | None, ...], dtype: Any) -> jax.Array:
    """A stored weight as a computation reads it: cast to `dtype`, then gathered, so that half the bytes travel.

    Its gradient comes back the same way: summed and scattered in `dtype`, then cast.
    """
    value = value.astype(dtype)
    parts = _parts(value.shape, axes)
    if parts is None:
        return value
    stored, whole = parts.split(value), (None, *parts.spec[1:])
    return parts.join(lax.with_sharding_constraint(stored, PartitionSpec(*whole)))


def _use_weight_fwd(value: jax.Array, axes: tuple[str | None, ...], dtype: Any) -> tuple[jax.Array, Any]:
    return use_weight(value, axes, dtype), jax.numpy.zeros((), value.dtype)


def _use_weight_bwd(axes: tuple[str | None, ...], dtype: Any, stored: jax.Array, gradient: jax.Array) -> Any:
    parts = _parts(gradient.shape, axes)
    if parts is not None:
        gradient = constrain(parts.join(parts.split(gradient)), *axes)
    return (gradient.astype(stored.dtype),)


use_weight.defvjp(_use_weight_fwd, _use_weight_bwd)


@dataclass(frozen=True)
class _Parts:
    """A weight as the devices hold it: [parts, size of a part, ...].

    A TPU moves whole tiles of 8 x 128 values. Along an axis of their own, parts of any size can be gathered and
    scattered; along the axis that they make up, the compiler would add up zero-filled copies: twice the bytes.
    """

    axis: int
    count: int
    spec: PartitionSpec

    def split(self, x: jax.Array) -> jax.Array:
        x = jax.numpy.moveaxis(x, self.axis, 0)
        return lax.with_sharding_constraint(x.reshape(self.count, -1, *x.shape[1:]), self.spec)

    def join(self, x: jax.Array) -> jax.Array:
        return jax.numpy.moveaxis(x.reshape(-1, *x.shape[2:]), 0, self.axis)


def _parts(shape: tuple[int, ...], axes: tuple[str | None, ...]) -> _Parts | None:
    """How the current mesh splits a weight along its gathered axis; None where it does not."""
    mesh = current_mesh()
    axis = next((number for number, name in enumerate(axes) if name in GATHERED), None)
    if mesh is None or axis is None:
        return None
    spec = partition_spec(axes, shape, mesh)
    names = mesh_axes(spec, axis)
    if not names:
        return None
    rest = [part for number, part in enumerate(spec) if number != axis]
    return _Parts(axis, math.prod(mesh.shape[name] for name in names), PartitionSpec(names, None, *rest))
