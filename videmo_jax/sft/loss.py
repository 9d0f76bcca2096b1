"""Next-token loss, as sums with denominators: it does not depend on how a batch is split."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from videmo_jax.data.rows import Batch
from videmo_jax.model.compute import Compute
from videmo_jax.model.videmo import VidEmo
from videmo_jax.training.token_losses import TokenScores, summed


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossSums:
    """Sums over the tokens that count: negative log-likelihood (nats), how many, how many ranked first."""

    loss: Float[Array, ""]
    tokens: Float[Array, ""]
    correct: Float[Array, ""]

    @property
    def count(self) -> Float[Array, ""]:
        """What the loss is divided by."""
        return self.tokens

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
    return summed(_negative_log_likelihood, output, hidden, batch.targets, batch.weights, chunk)


def _negative_log_likelihood(scores: TokenScores, weights: Float[Array, "B T"]) -> LossSums:
    """Of each token, by its weight."""
    return LossSums(-scores.log_probs * weights, weights, scores.first * weights)
