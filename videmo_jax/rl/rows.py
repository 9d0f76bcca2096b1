"""Rows that hold a prompt once and all its answers: the video is computed once, in the loss too.

A row has P slots of a prompt, then G times C slots of an answer. A prompt and each answer stand at the beginning of
their slots; an answer's positions go on from the prompt's, so that it is where it would be in a row of its own.
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from videmo_jax.model.shared_prefix import SharedPrefix
from videmo_jax.model.videmo import Rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GroupBatch:
    """Rows of a prompt and its answers, and what is known of the answers' tokens.

    Attributes:
      rows: of P + G x C slots.
      weights: 1 where a token of an answer is trained on, else 0.
      sampled: log-probability with which it was drawn.
      reference: log-probability by the frozen reference.
      advantages: of each token.
    """

    rows: Rows
    weights: Float32[Array, "B G C"]
    sampled: Float32[Array, "B G C"]
    reference: Float32[Array, "B G C"]
    advantages: Float32[Array, "B G C"]

    @property
    def layout(self) -> SharedPrefix:
        """Where things stand in the rows."""
        *_, answers, slots = self.weights.shape
        return SharedPrefix(self.rows.tokens.shape[-1] - answers * slots, answers, slots)

    def credited(self, advantages: Float32[Array, "B G C"], valid: Bool[Array, "B G"]) -> "GroupBatch":
        """The batch with the tokens' advantages (`rl.advantages`), without the answers that do not count."""
        weights = self.weights * valid[..., None].astype(np.float32)
        return dataclasses.replace(self, weights=weights, advantages=advantages)


def with_answers(
    prompts: Rows, tokens: Int[Array, "B G C"], lengths: Int[Array, "B G"], log_probs: Float[Array, "B G C"]
) -> GroupBatch:
    """Rows of prompts with the answers that were drawn to them, where both are: videos do not travel again.

    Args:
      prompts: one prompt a row; a row may be empty, and then its answers do not exist.
      tokens, lengths, log_probs: as in `sampling.decode.Answers`; what is past `lengths` is not read.

    Returns:
      A batch whose advantages and reference are still 0.
    """
    count, answers, slots = tokens.shape
    known = prompts.segment_ids > 0
    lengths = lengths * jnp.any(known, axis=1)[:, None]
    held = jnp.arange(slots) < lengths[..., None]
    begin = jnp.max(jnp.where(known[:, None], prompts.positions, -1), axis=(1, 2)) + 1
    ids = held.reshape(count, -1).astype(jnp.int32)
    order = (begin[:, None] + jnp.tile(jnp.arange(slots, dtype=jnp.int32), answers)) * ids
    positions = jnp.broadcast_to(order[:, None], (count, 3, answers * slots))
    rows = Rows(
        jnp.concatenate([prompts.tokens, jnp.where(held, tokens, 0).reshape(count, -1)], axis=1),
        jnp.concatenate([prompts.segment_ids, ids], axis=1),
        jnp.concatenate([prompts.positions, positions], axis=2),
        jnp.concatenate([prompts.vision_index, jnp.full(ids.shape, -1, jnp.int32)], axis=1),
        prompts.patches,
        prompts.patch_hw,
    )
    weights, empty = held.astype(jnp.float32), jnp.zeros(held.shape, jnp.float32)
    return GroupBatch(rows, weights, jnp.where(held, log_probs, 0.0), empty, empty)
