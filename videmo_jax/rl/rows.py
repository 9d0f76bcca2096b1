"""Rows that hold prompts once with all answers to them: a clip is computed once, in the loss too, and little is padded.

Each answer sees its prompt and itself; its positions go on from the prompt's, so that it is where it would be in a row
of its own.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from videmo_jax.model.attention import Forks
from videmo_jax.model.videmo import Rows
from videmo_jax.rl.layout import Layout

T = TypeVar("T")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GroupBatch:
    """Rows of prompts with their answers, and what is known of the answers' tokens, which are listed for each row.

    Attributes:
      rows: a segment is a prompt and answers to it.
      answer: number of the answer that a slot is of, from 1; 0: of a prompt.
      drawn: place of each answer token among the B x G x C that were drawn; -1 past a row's last.
      slots, before: where it stands, and where what predicts it stands.
      lengths: of its answer.
      weights: 1 where it is trained on, else 0.
      sampled: log-probability with which it was drawn.
      reference: log-probability by the frozen reference.
      advantages: of each token.
      answers, limit: G, and C, the tokens that an answer may have.
    """

    rows: Rows
    answer: Int32[Array, "R T"]
    drawn: Int32[Array, "R A"]
    slots: Int32[Array, "R A"]
    before: Int32[Array, "R A"]
    lengths: Int32[Array, "R A"]
    weights: Float32[Array, "R A"]
    sampled: Float32[Array, "R A"]
    reference: Float32[Array, "R A"]
    advantages: Float32[Array, "R A"]
    answers: int = field(metadata={"static": True})
    limit: int = field(metadata={"static": True})

    @property
    def forks(self) -> Forks:
        """Who sees whom."""
        return Forks(self.answer, self.answers)

    @property
    def first(self) -> Bool[Array, "R A"]:
        """Where an answer begins."""
        return (self.drawn >= 0) & (self.drawn % self.limit == 0)

    def credited(self, advantages: Float32[Array, "B G C"], valid: Bool[Array, "B G"]) -> "GroupBatch":
        """The batch with the tokens' advantages (`rl.advantages`), without the answers that do not count."""
        weights = self.weights * _taken(valid.reshape(-1).astype(jnp.float32), self.drawn // self.limit, 0.0)
        return dataclasses.replace(self, weights=weights, advantages=_taken(advantages.reshape(-1), self.drawn, 0.0))


def side_by_side(batches: Sequence[T]) -> T:
    """Batches of one shape as one: the first rows of all, then the second ones, so that nothing leaves its device.

    Args:
      batches: trees of arrays with the rows in front, all NumPy's or all JAX's; K of B rows make one of B x K.
    """

    def joined(*parts: Array) -> Array:
        xp = np if isinstance(parts[0], np.ndarray) else jnp
        return xp.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])

    return jax.tree.map(joined, *batches)


def with_answers(
    prompts: Rows,
    tokens: Int[Array, "B G C"],
    lengths: Int[Array, "B G"],
    log_probs: Float[Array, "B G C"],
    layout: Layout,
) -> GroupBatch:
    """Rows of prompts with the answers that were drawn to them, where both are: videos do not travel by the host again.

    Args:
      prompts: one prompt a row; a row may be empty.
      tokens, lengths, log_probs: as in `sampling.decode.Answers`; what is past `lengths` is not read.
      layout: what goes where; made for these lengths.

    Returns:
      A batch whose advantages and reference are still 0.
    """
    count, answers, slots = tokens.shape
    prefix = prompts.tokens.shape[1]
    begin = jnp.max(jnp.where(prompts.segment_ids[:, None] > 0, prompts.positions, -1), axis=(1, 2)) + 1
    order = begin[:, None] + jnp.tile(jnp.arange(slots, dtype=jnp.int32), answers)
    order = jnp.broadcast_to(order[..., None], (*order.shape, 3))
    positions = jnp.concatenate([jnp.moveaxis(prompts.positions, 1, -1), order], axis=1).reshape(-1, 3)
    whole = jnp.concatenate([prompts.tokens, tokens.reshape(count, -1)], axis=1).reshape(-1)
    vision = jnp.pad(prompts.vision_index, [(0, 0), (0, answers * slots)], constant_values=-1).reshape(-1)
    index = _taken(vision, layout.tokens, -1)
    held, place = layout.tokens >= 0, layout.tokens % (prefix + answers * slots)
    rows = Rows(
        _taken(whole, layout.tokens, 0),
        layout.segment_ids,
        jnp.moveaxis(_taken(positions, layout.tokens, 0), -1, 1),
        jnp.where(index >= 0, index + layout.vision_shift, -1),
        _taken(prompts.patches.reshape(-1, *prompts.patches.shape[2:]), layout.slabs, 0),
        _taken(prompts.patch_hw.reshape(-1, *prompts.patch_hw.shape[2:]), layout.slabs, -1),
    )
    empty = jnp.zeros(layout.drawn.shape, jnp.float32)
    return GroupBatch(
        rows,
        jnp.where(held & (place >= prefix), (place - prefix) // slots + 1, 0),
        layout.drawn,
        layout.slots,
        layout.before,
        _taken(lengths.reshape(-1), layout.drawn // slots, 0),
        (layout.drawn >= 0).astype(jnp.float32),
        _taken(log_probs.reshape(-1), layout.drawn, 0.0),
        empty,
        empty,
        answers,
        slots,
    )


def _taken(values: Array, places: Int[Array, "..."], nothing: float) -> Array:
    """What stands at places; `nothing` where they are negative."""
    found = values[jnp.maximum(places, 0)]
    return jnp.where((places >= 0).reshape(*places.shape, *[1] * (found.ndim - places.ndim)), found, nothing)
