"""Next-token loss, as sums with denominators: it does not depend on how a batch is split."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from videmo_jax.data.rows import Batch
from videmo_jax.model.compute import Compute
from videmo_jax.model.tables import Table
from videmo_jax.model.videmo import VidEmo
from videmo_jax.sharding.collectives import TableShare


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossSums:
    """Sums over the tokens that count: negative log-likelihood (nats), how many, how many ranked first."""

    loss: Float[Array, ""]
    tokens: Float[Array, ""]
    correct: Float[Array, ""]

    def __add__(self, other: "LossSums") -> "LossSums":
        return jax.tree.map(jnp.add, self, other)


def next_token_sums(
    model: VidEmo,
    batch: Batch,
    compute: Compute = Compute(),  # noqa: B008 (it is frozen)
    *,
    chunk: int = 512,
) -> LossSums:
    """The loss of a batch.

    Args:
      model: the model.
      batch: rows, targets and weights.
      compute: how; losses are float32.
      chunk: tokens of a row whose logits exist at once.
    """
    embedding, output = model.language.tables(compute.dtype)
    hidden, _ = model(batch.rows, compute, embedding=embedding)
    return token_sums(output, hidden, batch.targets, batch.weights, chunk)


def token_sums(
    table: Table,
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    chunk: int,
) -> LossSums:
    """Sums over tokens, `chunk` of each row at a time: B x T x V logits never exist.

    The gradient of the loss is made in the same pass, while a chunk's logits are there, and not computed again; that
    of `weights` is not.
    """
    return _sums(hidden, table.rows, targets, weights, chunk, table.share)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _sums(hidden: Array, table: Array, targets: Array, weights: Array, chunk: int, share: TableShare) -> LossSums:
    return _pass(hidden, table, targets, weights, chunk, share, gradients=False)[0]


def _sums_fwd(hidden: Array, table: Array, targets: Array, weights: Array, chunk: int, share: TableShare) -> Any:
    return _pass(hidden, table, targets, weights, chunk, share, gradients=True)


def _sums_bwd(chunk: int, share: TableShare, gradients: tuple[Array, Array], wanted: LossSums) -> Any:
    by_hidden, by_table = gradients
    return by_hidden * wanted.loss.astype(by_hidden.dtype), by_table * wanted.loss.astype(by_table.dtype), None, None


_sums.defvjp(_sums_fwd, _sums_bwd)


def _pass(
    hidden: Array,
    table: Array,
    targets: Array,
    weights: Array,
    chunk: int,
    share: TableShare,
    *,
    gradients: bool,
) -> tuple[LossSums, tuple[Array, Array] | None]:
    """The sums and, where wanted, the loss's gradient by hidden states and by the table."""
    dtype, length = table.dtype, hidden.shape[1]
    ids = jnp.arange(share.rows)

    def step(carry: tuple[LossSums, Array | None], part: tuple[Array, Array, Array]) -> Any:
        (sums, by_table), (hidden, targets, weights) = carry, part
        logits = jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32)
        highest = share.max(jnp.max(logits, axis=-1))
        exps = jnp.exp(logits - highest[..., None])
        total = share.sum(jnp.sum(exps, axis=-1))
        wanted = share.place(targets)[..., None] == ids
        chosen = share.sum(jnp.sum(jnp.where(wanted, logits, 0), axis=-1))
        loss = jnp.log(total) + highest - chosen
        found = LossSums(jnp.sum(loss * weights), jnp.sum(weights), jnp.sum((chosen >= highest) * weights))
        if not gradients:
            return (sums + found, None), None
        slope = ((exps / total[..., None] - wanted) * weights[..., None]).astype(dtype)
        by_hidden = share.sum(jnp.einsum("btv,vd->btd", slope, table))
        by_table += jnp.einsum("btv,btd->vd", slope, hidden, preferred_element_type=jnp.float32)
        return (sums + found, by_table), by_hidden

    zero = LossSums(*(jnp.zeros((), jnp.float32) for _ in range(3)))
    start = (zero, jnp.zeros(table.shape, jnp.float32) if gradients else None)
    (sums, by_table), by_hidden = lax.scan(step, start, tuple(_split(x, chunk) for x in (hidden, targets, weights)))
    if not gradients:
        return sums, None
    return sums, (_join(by_hidden, length), by_table.astype(dtype))


def _split(x: Array, chunk: int) -> Array:
    """[B, T, ...] to [C, B, chunk, ...], filled up with zeros."""
    chunk = min(chunk, x.shape[1])
    x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % chunk)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)


def _join(x: Array, length: int) -> Array:
    """[C, B, chunk, ...] back to [B, T, ...]."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]
