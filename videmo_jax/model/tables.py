"""The vocabulary's tables as a pass reads them: gathered once, looked up, compared with by `training.token_losses`."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from videmo_jax.sharding.collectives import TableShare


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Table:
    """A table [V, D] as a computation reads it.

    Attributes:
      rows: those that this device works on, in the computation's dtype. Their gradient is summed over all uses, and
        only then over devices: tied tables travel once each way.
      share: which rows they are.
    """

    rows: Float[Array, "V D"]
    share: TableShare = field(metadata={"static": True})


def gather(table: nnx.Param, dtype: Any) -> Table:
    """Joins a stored table's parts; they travel as `dtype`, and so does the gradient."""
    share = TableShare(table.get_metadata("out_sharding"), table.get_metadata("whole"))
    return Table(_gather(table[...], share, jnp.dtype(dtype)), share)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(stored: Array, share: TableShare, dtype: Any) -> Array:
    return share.whole(stored, dtype)


def _gather_fwd(stored: Array, share: TableShare, dtype: Any) -> tuple[Array, None]:
    return share.whole(stored, dtype), None


def _gather_bwd(share: TableShare, dtype: Any, _: None, gradient: Array) -> tuple[Array]:
    return (share.reduced(gradient, dtype),)


_gather.defvjp(_gather_fwd, _gather_bwd)


def look_up(table: Table, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """The rows of some tokens; the gradient of a row that comes often is summed in float32."""
    return _look_up(table.rows, tokens, table.share)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _look_up(rows: Array, tokens: Array, share: TableShare) -> Array:
    place = share.place(tokens)
    inside = (place >= 0) & (place < share.rows)
    return share.sum(jnp.where(inside[..., None], rows[jnp.where(inside, place, 0)], 0))


def _look_up_fwd(rows: Array, tokens: Array, share: TableShare) -> tuple[Array, Array]:
    return _look_up(rows, tokens, share), tokens


def _look_up_bwd(share: TableShare, tokens: Array, gradient: Array) -> tuple[Array, None]:
    place = share.place(tokens)
    place = jnp.where(place < 0, share.rows, place)  # what lies outside is dropped
    summed = jnp.zeros((share.rows, gradient.shape[-1]), jnp.float32)
    summed = summed.at[place].add(gradient.astype(jnp.float32), mode="drop")
    return summed.astype(gradient.dtype), None


_look_up.defvjp(_look_up_fwd, _look_up_bwd)
