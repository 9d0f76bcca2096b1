"""What travels between devices during a step.

A step runs on every device's own part of weights and batch (`jax.shard_map` over the whole mesh), so every collective
stands here, and none is left to a compiler's choice. The functions ask for the mesh that they are in; outside of such a
step (on one device, or where the compiler splits the work) they do nothing.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from videmo_jax.sharding.rules import RINGS, RULES, mesh_axes, partition_spec

Axes = Sequence[str | None]
BATCH = RULES["batch"]


def _mesh() -> Any | None:
    """The mesh whose devices run this code, each for itself; None where they do not."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if not mesh.empty and mesh.manual_axes else None


def use_weight(value: Array, axes: Axes, whole: Sequence[int], dtype: Any) -> Array:
    """A stored weight as a computation reads it: cast to `dtype`, then gathered along its rings.

    Half the bytes of float32 travel; its gradient comes back the same way, summed and scattered in `dtype`.

    Args:
      value: this device's part.
      axes: logical axes of the dimensions of `whole`, the shape of all parts together.
      dtype: of the computation.
    """
    value, mesh = value.astype(dtype), _mesh()
    if mesh is None:
        return value
    spec = partition_spec(axes, whole, mesh)
    for dimension in range(value.ndim):
        rings = [axis for axis in mesh_axes(spec, dimension) if axis in RINGS]
        if rings:
            value = _gather(value, dimension, rings)
    return value


def _gather(value: Array, dimension: int, rings: Sequence[str]) -> Array:
    """Joins the parts along a dimension, the last ring first.

    A TPU moves tiles of 8 x 128 values: parts of any size are gathered along an axis of their own in front of two. With
    more, its compiler may lay them out so that the gradient's reduce-scatter becomes an all-reduce, twice the bytes.
    """
    value = jnp.moveaxis(value, dimension, 0)
    rest = value.shape[1:]
    value = value.reshape(len(value), -1)
    for ring in reversed(rings):
        value = lax.all_gather(value, ring).reshape(-1, value.shape[-1])
    return jnp.moveaxis(value.reshape(-1, *rest), 0, dimension)


def unsummed(axes: Axes, whole: Sequence[int]) -> tuple[str, ...]:
    """The axes over which the gradient of a weight, as `use_weight` leaves it, is still to be summed."""
    mesh = _mesh()
    if mesh is None:
        return ()
    spec = partition_spec(axes, whole, mesh)
    done = {axis for dimension in range(len(whole)) for axis in mesh_axes(spec, dimension)}
    return tuple(axis for axis in BATCH if axis not in done)


def sum_over(x: Any, axes: Sequence[str]) -> Any:
    """A tree of arrays, summed over mesh axes."""
    return lax.psum(x, tuple(axes)) if axes and _mesh() is not None else x


def most_over(x: Array, axes: Sequence[str]) -> Array:
    """The largest of what the devices along mesh axes have."""
    return lax.pmax(x, tuple(axes)) if axes and _mesh() is not None else x


@jax.custom_vjp
def enter_tensor(x: Array) -> Array:
    """Activations before weights that are split over the tensor axis; the gradients of the parts are summed."""
    return x


@jax.custom_vjp
def leave_tensor(x: Array) -> Array:
    """Sums what the parts of a split product found; each part has the whole gradient."""
    return sum_over(x, ("tensor",))


enter_tensor.defvjp(lambda x: (x, None), lambda _, gradient: (sum_over(gradient, ("tensor",)),))
leave_tensor.defvjp(lambda x: (leave_tensor(x), None), lambda _, gradient: (gradient,))


def own_share(x: Array) -> Array:
    """This device's share of the leading axis among those along the tensor axis, which all hold the same x.

    For input without a gradient. The axis is filled up with zeros to a multiple.
    """
    mesh = _mesh()
    if mesh is None:
        return x
    parts = mesh.shape["tensor"]
    x = jnp.pad(x, [(0, -len(x) % parts)] + [(0, 0)] * (x.ndim - 1))
    return lax.dynamic_slice_in_dim(x, lax.axis_index("tensor") * (len(x) // parts), len(x) // parts)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def all_shares(x: Array, length: int) -> Array:
    """The shares of all devices along the tensor axis, cut to `length`; each share keeps its own gradient."""
    mesh = _mesh()
    return x if mesh is None else lax.all_gather(x, "tensor", tiled=True)[:length]


def _all_shares_fwd(x: Array, length: int) -> tuple[Array, None]:
    return all_shares(x, length), None


def _all_shares_bwd(length: int, _: None, gradient: Array) -> tuple[Array]:
    return (own_share(gradient),)


all_shares.defvjp(_all_shares_fwd, _all_shares_bwd)


class TableShare:
    """One device's part of a table [V, D] that is stored in rows, over the tensor axis and, within, over the rings."""

    def __init__(self, axes: Axes, whole: Sequence[int]) -> None:
        mesh = _mesh()
        names = mesh_axes(partition_spec(axes, whole, mesh), 0) if mesh is not None else ()
        self._rings = tuple(axis for axis in names if axis in RINGS)
        self._tensor = tuple(axis for axis in names if axis not in RINGS)
        self._counts = {axis: mesh.shape[axis] for axis in names} if mesh is not None else {}
        self.rows = whole[0] // math.prod(self._counts[axis] for axis in self._tensor)  # that this device works on

    def whole(self, table: Array, dtype: Any) -> Array:
        """All rows that this device works on; they travel as `dtype`."""
        table = table.astype(dtype)
        return _gather(table, 0, self._rings) if self._rings else table

    def reduced(self, gradient: Array, dtype: Any) -> Array:
        """Sums the gradient of those rows over the rings and keeps this device's part; it travels as `dtype`."""
        parts = gradient.astype(dtype).reshape(*(self._counts[ring] for ring in self._rings), -1, gradient.shape[-1])
        for ring in self._rings:
            parts = lax.psum_scatter(parts, ring, scatter_dimension=0)
        return parts.astype(jnp.float32)

    def place(self, ids: Array) -> Array:
        """Ids counted from the first of this device's rows; those of other devices lie outside 0 .. rows - 1."""
        return ids - lax.axis_index(self._tensor) * self.rows if self._tensor else ids

    def sum(self, x: Array) -> Array:
        """What the parts of the vocabulary found, summed."""
        return lax.psum(x, self._tensor) if self._tensor else x

    def max(self, x: Array) -> Array:
        """The largest of what the parts of the vocabulary found."""
        return lax.pmax(x, self._tensor) if self._tensor else x

    def joined(self, x: Array) -> Array:
        """What stands at the parts of the vocabulary along the last axis, side by side."""
        return lax.all_gather(x, self._tensor, axis=x.ndim - 1, tiled=True) if self._tensor else x
