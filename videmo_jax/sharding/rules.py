"""Logical axes to mesh axes: one table, from which every sharding of the project is derived."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Mesh axes, slowest first: replica (between slices), data, fsdp (weights sharded, batch split), tensor.
MESH_AXES = ("replica", "data", "fsdp", "tensor")

RULES: Mapping[str | None, tuple[str, ...]] = {
    # activations
    "batch": ("replica", "data", "fsdp"),
    # weights
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "layers": (),
    None: (),
}


def make_mesh(shape: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over `devices` (all of them by default).

    Args:
      shape: devices along each of MESH_AXES; one of them may be -1, «what is left»; a missing one is 1.

    Raises:
      ValueError: an axis is unknown, or the shape does not fill the devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    unknown = set(shape) - set(MESH_AXES)
    if unknown:
        raise ValueError(f"mesh has no axis {sorted(unknown)}; its axes are {', '.join(MESH_AXES)}")
    sizes = [int(shape.get(axis, 1)) for axis in MESH_AXES]
    fixed = 1
    for size in sizes:
        fixed *= size if size != -1 else 1
    if sizes.count(-1) > 1 or min(sizes) < -1 or 0 in sizes or len(devices) % fixed:
        raise ValueError(f"mesh {dict(shape)} does not fit {len(devices)} devices; one axis may be -1")
    sizes = [len(devices) // fixed if size == -1 else size for size in sizes]
    if fixed != len(devices) and -1 not in shape.values():
        raise ValueError(f"mesh {dict(shape)} uses {fixed} of {len(devices)} devices; set one axis to -1")
    return jax.make_mesh(sizes, MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(sizes), devices=devices)


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


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins an activation to its logical axes on the mesh of the surrounding `jax.set_mesh`; else does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes, x.shape, mesh))
