"""Next-token loss, as sums with denominators: it does not depend on how a batch is split."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from videmo_jax.data.rows import Batch
from videmo_jax.model.videmo import VidEmo


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
    model: VidEmo, batch: Batch, *, dtype: jnp.dtype = jnp.float32, remat: object | None = None, chunk: int = 512
) -> LossSums:
    """The loss of a batch.

    Args:
      model: the model.
      batch: rows, targets and weights.
      dtype: of the computation; losses are float32.
      remat: a policy of `jax.checkpoint_policies`, or None.
      chunk: tokens of a row whose logits exist at once.
    """
    hidden, _ = model(batch.rows, dtype=dtype, remat=remat)
    return token_sums(model, hidden, batch.targets, batch.weights, chunk)


def token_sums(
    model: VidEmo,
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    chunk: int,
) -> LossSums:
    """Sums over tokens, `chunk` of each row at a time: B x T x V logits never exist, nor in the backward pass."""
    length = hidden.shape[1]
    chunk = min(chunk, length)
    padding = -length % chunk

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    def one_chunk(hidden: Array, targets: Array, weights: Array) -> LossSums:
        logits = model.logits(hidden)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        first = chosen >= jnp.max(lax.stop_gradient(logits), axis=-1)
        return LossSums(jnp.sum(loss * weights), jnp.sum(weights), jnp.sum(first * weights))

    if padding + length > chunk:  # logits of one chunk at a time in the backward pass too
        one_chunk = jax.checkpoint(one_chunk)

    def body(sums: LossSums, share: tuple[Array, Array, Array]) -> tuple[LossSums, None]:
        return sums + one_chunk(*share), None

    zero = LossSums(*(jnp.zeros((), jnp.float32) for _ in range(3)))
    return lax.scan(body, zero, (split(hidden), split(targets), split(weights)))[0]
