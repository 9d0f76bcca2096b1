"""Losses that are sums over tokens, a chunk of a row at a time: logits of B x T x V never exist.

What SFT and RL share: the loss of a token is any function of its log-probability. Its gradient by hidden states and by
the table is made in the same pass, while a chunk's logits are there, and not computed again.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from videmo_jax.model.tables import Table
from videmo_jax.sharding.collectives import TableShare


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenScores:
    """What a model says of given tokens, by its logits / temperature.

    Attributes:
      log_probs: of the tokens (nats).
      entropy: of the whole vocabulary (nats).
      first: whether no other token ranks above.
    """

    log_probs: Float[Array, "B T"]
    entropy: Float[Array, "B T"]
    first: Bool[Array, "B T"]


class HasLoss(Protocol):
    """A tree of arrays, among them `loss`."""

    @property
    def loss(self) -> Array:
        """What is minimised."""


# (scores, facts) -> a tree with a loss, each array [B, T]; a static argument: a function, or a partial of hashable ones
Objective = Callable[[TokenScores, Any], HasLoss]


def token_scores(
    table: Table,
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    chunk: int,
    count: Int[Array, ""] | None = None,
    *,
    temperature: float = 1.0,
) -> TokenScores:
    """Scores of tokens, `chunk` of each row at a time, without a gradient worth having: use `summed` for one.

    With `count`, those of so many in front: the scores of chunks that hold none of them are 0, and not computed.
    """

    def step(_: tuple[()], part: tuple[Array, Array]) -> tuple[tuple[()], TokenScores]:
        return (), _scores(*part, table.rows, table.share, temperature)[0]

    _, scores = _over_chunks(step, (), (_split(hidden, chunk), _split(targets, chunk)), count)
    return jax.tree.map(partial(_join, length=hidden.shape[1]), scores)


def summed(
    objective: Objective,
    table: Table,
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    facts: Any,
    chunk: int,
    count: Int[Array, ""] | None = None,
    *,
    temperature: float = 1.0,
    by_entropy: bool = False,
) -> Any:
    """The arrays of an objective, each summed over all tokens.

    Only `loss` has a gradient, by `hidden` and the table: through the log-probabilities, and the entropy where asked.

    Args:
      objective: takes the scores of tokens and the facts that stand at them.
      table: of the output layer.
      hidden: states that predict the targets.
      targets: tokens.
      facts: a tree of arrays [B, T].
      chunk: tokens of a row whose logits exist at once.
      count: tokens in front beyond which nothing counts, and no chunk is computed; None: all.
      temperature: by which logits are divided.
      by_entropy: whether the entropy has a gradient, too.
    """
    return _summed(hidden, table.rows, targets, facts, count, chunk, table.share, objective, temperature, by_entropy)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8, 9))
def _summed(
    hidden: Array,
    table: Array,
    targets: Array,
    facts: Any,
    count: Array | None,
    chunk: int,
    share: TableShare,
    objective: Objective,
    temperature: float,
    by_entropy: bool,
) -> Any:
    given = hidden, table, targets, facts, count, chunk, share, objective, temperature, by_entropy
    return _pass(*given, gradients=False)[0]


def _forward(*given: Any) -> Any:
    return _pass(*given, gradients=True)


def _backward(
    chunk: int,
    share: TableShare,
    objective: Objective,
    temperature: float,
    by_entropy: bool,
    gradients: tuple[Array, Array],
    wanted: HasLoss,
) -> tuple[Array, Array, None, None, None]:
    by_hidden, by_table = (slope * wanted.loss.astype(slope.dtype) for slope in gradients)
    return by_hidden, by_table, None, None, None


_summed.defvjp(_forward, _backward)


def _pass(
    hidden: Array,
    table: Array,
    targets: Array,
    facts: Any,
    count: Array | None,
    chunk: int,
    share: TableShare,
    objective: Objective,
    temperature: float,
    by_entropy: bool,
    *,
    gradients: bool,
) -> tuple[Any, tuple[Array, Array] | None]:
    """The sums and, where wanted, the loss's gradient by hidden states and by the table."""

    def terms(log_probs: Array, entropy: Array, scores: TokenScores, facts: Any) -> tuple[Array, Any]:
        found = objective(dataclasses.replace(scores, log_probs=log_probs, entropy=entropy), facts)
        found = jax.tree.map(lambda x: jnp.sum(x, dtype=jnp.float32), found)
        return found.loss, found

    def step(carry: tuple[Any, Array | None], part: tuple[Array, Array, Any]) -> Any:
        (sums, by_table), (hidden, targets, facts) = carry, part
        scores, probs, wanted = _scores(hidden, targets, table, share, temperature)
        (slope_of_log_prob, slope_of_entropy), found = jax.grad(terms, (0, 1), has_aux=True)(
            scores.log_probs, scores.entropy, scores, facts
        )
        sums = jax.tree.map(jnp.add, sums, found)
        if not gradients:
            return (sums, None), None
        slope = (wanted - probs) * slope_of_log_prob[..., None]
        if by_entropy:  # dH / dlogits = -p (log p + H)
            information = jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny)) + scores.entropy[..., None]
            slope -= probs * information * slope_of_entropy[..., None]
        slope = (slope if temperature == 1 else slope / temperature).astype(table.dtype)
        by_hidden = share.sum(jnp.einsum("btv,vd->btd", slope, table))
        by_table += jnp.einsum("btv,btd->vd", slope, hidden, preferred_element_type=jnp.float32)
        return (sums, by_table), by_hidden

    parts = jax.tree.map(partial(_split, chunk=chunk), (hidden, targets, facts))
    scored = TokenScores(*(jax.ShapeDtypeStruct(targets.shape, dtype) for dtype in (jnp.float32, jnp.float32, bool)))
    zero = jax.tree.map(lambda x: jnp.zeros((), jnp.float32), jax.eval_shape(objective, scored, facts))
    start = (zero, jnp.zeros(table.shape, jnp.float32) if gradients else None)
    (sums, by_table), by_hidden = _over_chunks(step, start, parts, count)
    if not gradients:
        return sums, None
    return sums, (_join(by_hidden, hidden.shape[1]), by_table.astype(table.dtype))


def _scores(
    hidden: Array, targets: Array, table: Array, share: TableShare, temperature: float
) -> tuple[TokenScores, Float[Array, "B T V"], Bool[Array, "B T V"]]:
    """Scores of a chunk, and for this device's part of the vocabulary probabilities and where the targets are."""
    logits = jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32)
    logits = logits if temperature == 1 else logits / temperature
    highest = share.max(jnp.max(logits, axis=-1))
    exps = jnp.exp(logits - highest[..., None])
    total = share.sum(jnp.sum(exps, axis=-1))
    wanted = share.place(targets)[..., None] == jnp.arange(share.rows)
    chosen = share.sum(jnp.sum(jnp.where(wanted, logits, 0), axis=-1))
    whole = jnp.log(total) + highest
    entropy = whole - share.sum(jnp.sum(exps * logits, axis=-1)) / total
    return TokenScores(chosen - whole, entropy, chosen >= highest), exps / total[..., None], wanted


def _over_chunks(step: Callable[..., Any], start: Any, parts: Any, count: Array | None) -> tuple[Any, Any]:
    """`lax.scan` over chunks of B x N tokens; with `count` it ends after the chunk that holds the last of so many."""
    if count is None:
        return lax.scan(step, start, parts)
    chunk = jax.tree.leaves(parts)[0].shape[2]
    take = partial(lax.dynamic_index_in_dim, keepdims=False)
    found = jax.eval_shape(step, start, jax.tree.map(lambda x: x[0], parts))[1]
    length = len(jax.tree.leaves(parts)[0])
    kept = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), found)

    def one(at: Array, so_far: tuple[Any, Any]) -> tuple[Any, Any]:
        carry, kept = so_far
        carry, found = step(carry, jax.tree.map(lambda x: take(x, at), parts))
        return carry, jax.tree.map(lambda x, y: lax.dynamic_update_index_in_dim(x, y, at, 0), kept, found)

    return lax.fori_loop(0, -(-count // chunk), one, (start, kept))


def _split(x: Array, chunk: int) -> Array:
    """[B, T, ...] to [C, B, chunk, ...], filled up with zeros."""
    chunk = min(chunk, x.shape[1])
    x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % chunk)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)


def _join(x: Array, length: int) -> Array:
    """[C, B, chunk, ...] back to [B, T, ...]."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]
