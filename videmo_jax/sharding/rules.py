"""Logical axes to mesh axes: one table, from which every sharding of the project is derived."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from videmo_jax.files.errors import UserError
from videmo_jax.sharding.devices import all_devices

# What a config sizes, slowest first: replica (between slices), data, fsdp (weights sharded, batch split), tensor.
SHAPE = ("replica", "data", "fsdp", "tensor")
# Devices along fsdp lie on up to three rings of the interconnect, and what is gathered along it travels ring by ring:
# a TPU knows all-gather and reduce-scatter on a ring, and on a whole torus it would add up zero-filled copies.
RINGS = ("fsdp_x", "fsdp_y", "fsdp_z")
MESH_AXES = ("replica", "data", *RINGS, "tensor")

RULES: Mapping[str | None, tuple[str, ...]] = {
    # activations
    "batch": ("replica", "data", *RINGS),
    # weights
    "embed": RINGS,
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor", *RINGS),
    "layers": (),
    None: (),
}


def make_mesh(
    shape: Mapping[str, int], devices: Sequence[jax.Device] | None = None, *, torus: Sequence[int] | None = None
) -> Mesh:
    """A mesh over `devices` (all of them by default); slices that only the data-centre network joins lie along replica.

    Args:
      shape: devices along each axis of SHAPE; one of them may be -1, «what is left»; a missing one is 1.
      devices: of one or several slices.
      torus: the interconnect's rings within a slice; None: those of the devices' coordinates, one ring where they have
        none.

    Raises:
      ValueError: an axis is unknown, the shape does not fill the devices, or `replica` is no multiple of the slices.
    """
    devices = list(all_devices() if devices is None else devices)
    unknown = set(shape) - set(SHAPE)
    if unknown:
        raise UserError(f"mesh has no axis {sorted(unknown)}; its axes are {', '.join(SHAPE)}")
    sizes = [int(shape.get(axis, 1)) for axis in SHAPE]
    fixed = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or min(sizes) < -1 or 0 in sizes or len(devices) % fixed:
        raise UserError(f"mesh {dict(shape)} does not fit {len(devices)} devices; one axis may be -1")
    replica, data, fsdp, tensor = (len(devices) // fixed if size == -1 else size for size in sizes)
    if fixed != len(devices) and -1 not in shape.values():
        raise UserError(f"mesh {dict(shape)} uses {fixed} of {len(devices)} devices; set one axis to -1")
    slices = len({getattr(device, "slice_index", None) or 0 for device in devices})
    if replica % slices:
        raise UserError(f"mesh.replica is {replica}; it must be a multiple of the {slices} slices")
    inside = replica // slices
    rings = rings_of(fsdp, (tensor, data, inside), _torus(devices) if torus is None else torus)
    sizes = [inside, data, *rings, tensor]
    if devices[0].platform != "tpu":
        arranged = np.asarray(devices).reshape([replica, *sizes[1:]])
    elif slices > 1:
        arranged = mesh_utils.create_hybrid_device_mesh(
            sizes, [slices] + [1] * (len(sizes) - 1), devices, allow_split_physical_axes=True
        )
    else:
        arranged = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(arranged, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _torus(devices: Sequence[Any]) -> list[int]:
    """Devices along each dimension of a slice's interconnect; [] where they have no coordinates."""
    places = [device.coords for device in devices if hasattr(device, "coords")]
    return [len(set(along)) for along in zip(*places, strict=True)]


def rings_of(fsdp: int, others: Sequence[int], torus: Sequence[int]) -> tuple[int, int, int]:
    """The sizes of RINGS: what the other axes leave of the torus, or one ring where that does not add up."""
    left = list(torus)
    for size in others:
        for place in sorted(range(len(left)), key=lambda place: left[place] != size):
            shared = math.gcd(size, left[place])
            left[place], size = left[place] // shared, size // shared
    left = sorted((size for size in left if size > 1), reverse=True)
    if math.prod(left) != fsdp or len(left) > len(RINGS):
        left = [fsdp]
    first, second, third = [*left, 1, 1, 1][:3]
    return first, second, third


def whole_mesh(mesh: Mesh, tensor: int = 0) -> Mesh:
    """The same devices with the rings as plain data: batches lie as before, weights are split over tensor alone.

    Args:
      mesh: that is trained on.
      tensor: devices that have one copy of the weights between them, a multiple of those along the mesh's own tensor
        axis: neighbours in the order of the batch then have their rows in common. 0: those of that axis.

    Raises:
      ValueError: the mesh has no such groups of neighbours.
    """
    inside, data, *rings, own = mesh.devices.shape
    tensor, groups = tensor or own, data * math.prod(rings)
    if tensor % own or groups * own % tensor:
        raise UserError(
            f"rollout.tensor is {tensor}; it must be a multiple of mesh.tensor, {own}, and divide the {groups * own} "
            "devices that have the weights between them"
        )
    together = tensor // own
    # Neighbours vary fastest along the new axis: a device's part of a weight lies within its part on the mesh.
    arranged = np.moveaxis(mesh.devices.reshape(inside, groups // together, together, own), 2, 3)
    arranged = arranged.reshape(inside, groups // together, *[1] * len(rings), tensor)
    return Mesh(arranged, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def on_mesh(tree: Any, shardings: Any, shapes: Any | None = None) -> Any:
    """The same arrays, with their places as another mesh of the same devices names them: nothing moves.

    Args:
      tree: of arrays.
      shardings: of the other mesh; each device has what it says already.
      shapes: a tree of what has the arrays' shapes there; None: their own.
    """

    def renamed(array: jax.Array, sharding: NamedSharding, shape: Any) -> jax.Array:
        parts = [shard.data for shard in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(shape.shape, sharding, parts)

    return jax.tree.map(renamed, tree, shardings, tree if shapes is None else shapes)


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


def batch_part(mesh: Mesh) -> tuple[int, int]:
    """(number, count): the part of every batch that this process reads, and in how many parts it is read.

    Processes whose devices hold the same rows, since the tensor axis lies across them, read the same part.

    Raises:
      ValueError: processes hold rows that overlap in part.
    """
    shards = np.arange(batch_shards(mesh)).reshape(*mesh.devices.shape[:-1], 1)
    held: dict[int, set[int]] = {}
    for shard, device in zip(np.broadcast_to(shards, mesh.devices.shape).flat, mesh.devices.flat, strict=True):
        held.setdefault(device.process_index, set()).add(int(shard))
    parts = sorted({tuple(sorted(rows)) for rows in held.values()})
    if sum(map(len, parts)) != batch_shards(mesh) or len({len(rows) for rows in parts}) > 1:
        raise UserError("mesh: hosts hold rows of the batch that overlap in part; choose another mesh.tensor")
    return parts.index(tuple(sorted(held[jax.process_index()]))), len(parts)
