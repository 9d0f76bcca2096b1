"""The tables of the vocabulary, [V, D]: whole on every device only while they are read.

What sums over tokens into a V x D gradient is computed on each device's own tokens and reduced once; left to the
compiler it would travel once a chunk of tokens.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from videmo_jax.sharding.rules import RULES, current_mesh, mesh_axes, partition_spec

Axes = tuple[str | None, ...]


class Share:
    """One device's part of a table and of the tokens, inside `on_each_device`; without a mesh, all of both.

    A table is stored in parts of its rows, over the tensor axis and, within, over those along which it is gathered.
    """

    def __init__(self, stored: tuple[str, ...], tokens: tuple[str, ...], sizes: Mapping[str, int]) -> None:
        self._vocab = tuple(axis for axis in stored if axis in RULES["heads"])
        self._gathered = tuple(axis for axis in stored if axis not in self._vocab)
        self._count = math.prod(sizes[axis] for axis in self._gathered)
        self._tokens, self._sizes = tokens, sizes

    def whole(self, table: Float[Array, "v D"], dtype: Any) -> Float[Array, "V D"]:
        """All rows that this device works on; they travel as `dtype`."""
        table = table.astype(dtype)
        if not self._gathered:
            return table
        return lax.all_gather(table, self._gathered, axis=0).reshape(-1, table.shape[-1])

    def rows(self, table: Float[Array, "v D"]) -> int:
        """V, how many rows this device works on."""
        return len(table) * self._count

    def reduced(self, gradient: Float[Array, "V D"], dtype: Any) -> Float[Array, "v D"]:
        """Sums a table's gradient over all tokens and keeps this device's part; it travels as `dtype`."""
        summed = gradient.astype(dtype)
        if self._gathered:
            parts = summed.reshape(self._count, -1, summed.shape[-1])
            summed = lax.psum_scatter(parts, self._gathered, scatter_dimension=0)
            for axis in set(self._gathered) - set(self._tokens):  # these devices had the same tokens
                summed = summed / self._sizes[axis]
        rest = tuple(axis for axis in self._tokens if axis not in self._gathered)
        return (lax.psum(summed, rest) if rest else summed).astype(jnp.float32)

    def place(self, tokens: Int[Array, "*B"], size: int) -> Int[Array, "*B"]:
        """Ids counted from the first of this device's `size` rows; those of other devices lie outside 0 .. size - 1."""
        return tokens - lax.axis_index(self._vocab) * size if self._vocab else tokens

    def over_vocab(self, reduce: Callable[..., Array], x: Array) -> Array:
        """Reduces (`lax.psum`, `lax.pmax`) what each part of the vocabulary found."""
        return reduce(x, self._vocab) if self._vocab else x

    def over_tokens(self, x: Any) -> Any:
        """Sums what the devices found for their tokens."""
        return lax.psum(x, self._tokens) if self._tokens else x


def on_each_device(
    body: Callable[..., Any], table: Array, axes: Axes, *arrays: Array, out: Callable[..., Any] | None = None
) -> Any:
    """Runs body(share, table, *arrays) on every device's part of the table and of the arrays' rows.

    Args:
      body: what to run; its results are laid out as `out` says.
      table: [V, D], stored by its logical `axes`.
      axes: of the table.
      *arrays: [B, ...] each.
      out: (spec of the table, spec of rows) -> specs of the results; None: one array of rows.
    """
    mesh = current_mesh()
    if mesh is None:
        return body(Share((), (), {}), table, *arrays)
    stored = partition_spec(axes, table.shape, mesh)
    rows = partition_spec(("batch",), arrays[0].shape[:1], mesh)
    share = Share(mesh_axes(stored, 0), mesh_axes(rows, 0), mesh.shape)
    run = jax.shard_map(
        partial(body, share),
        in_specs=(stored, *[rows] * len(arrays)),
        out_specs=out(stored, rows) if out else rows,
        check_vma=False,
    )
    return run(table, *arrays)


def look_up(table: nnx.Param, tokens: Int[Array, "B T"], dtype: Any) -> Float[Array, "B T D"]:
    """The rows of some tokens, in `dtype`; the gradient of a row that comes often is summed in float32."""
    return _look_up(table[...], tokens, tuple(table.get_metadata("out_sharding")), len(table[...]), jnp.dtype(dtype))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _look_up(table: Array, tokens: Array, axes: Axes, vocab: int, dtype: Any) -> Array:
    def body(share: Share, table: Array, tokens: Array) -> Array:
        whole = share.whole(table, dtype)
        place = share.place(tokens, len(whole))
        inside = (place >= 0) & (place < len(whole))
        return share.over_vocab(lax.psum, jnp.where(inside[..., None], whole[jnp.where(inside, place, 0)], 0))

    return on_each_device(body, table, axes, tokens)


def _look_up_fwd(table: Array, tokens: Array, axes: Axes, vocab: int, dtype: Any) -> tuple[Array, Array]:
    return _look_up(table, tokens, axes, vocab, dtype), tokens


def _look_up_bwd(axes: Axes, vocab: int, dtype: Any, tokens: Array, gradient: Array) -> tuple[Array, None]:

    def body(share: Share, like: Array, tokens: Array, gradient: Array) -> Array:
        rows, width = share.rows(like), gradient.shape[-1]
        place = share.place(tokens, rows)
        place = jnp.where(place < 0, rows, place)  # what lies outside is dropped
        summed = jnp.zeros((rows, width), jnp.float32).at[place].add(gradient.astype(jnp.float32), mode="drop")
        return share.reduced(summed, dtype)

    # The table's own values are not needed, only where it lies.
    like = jnp.zeros((vocab, gradient.shape[-1]), jnp.int8)
    return on_each_device(body, like, axes, tokens, gradient, out=lambda stored, _: stored), None


_look_up.defvjp(_look_up_fwd, _look_up_bwd)
