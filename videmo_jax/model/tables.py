"""Rows of the vocabulary's table, looked up; the loss over all of them stands in `sft.loss`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from videmo_jax.sharding.collectives import TableShare


def share_of(table: nnx.Param) -> TableShare:
    """Which rows of a table this device works on."""
    return TableShare(table.get_metadata("out_sharding"), table.get_metadata("whole"))


def look_up(table: nnx.Param, tokens: Int[Array, "B T"], dtype: Any) -> Float[Array, "B T D"]:
    """The rows of some tokens, in `dtype`; the gradient of a row that comes often is summed in float32."""
    return _look_up(table[...], tokens, share_of(table), jnp.dtype(dtype))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _look_up(table: Array, tokens: Array, share: TableShare, dtype: Any) -> Array:
    whole, place = share.whole(table, dtype), share.place(tokens)
    inside = (place >= 0) & (place < share.rows)
    return share.sum(jnp.where(inside[..., None], whole[jnp.where(inside, place, 0)], 0))


def _look_up_fwd(table: Array, tokens: Array, share: TableShare, dtype: Any) -> tuple[Array, Array]:
    return _look_up(table, tokens, share, dtype), tokens


def _look_up_bwd(share: TableShare, dtype: Any, tokens: Array, gradient: Array) -> tuple[Array, None]:
    place = share.place(tokens)
    place = jnp.where(place < 0, share.rows, place)  # what lies outside is dropped
    summed = jnp.zeros((share.rows, gradient.shape[-1]), jnp.float32)
    summed = summed.at[place].add(gradient.astype(jnp.float32), mode="drop")
    return share.reduced(summed, dtype), None


_look_up.defvjp(_look_up_fwd, _look_up_bwd)
