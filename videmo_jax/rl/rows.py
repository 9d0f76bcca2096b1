"""Rows that hold a prompt once and all its answers: the video is computed once, in the loss too.

A row has P slots of a prompt, then G times C slots of an answer. A prompt and each answer stand at the beginning of
their slots; an answer's positions go on from the prompt's, so that it is where it would be in a row of its own.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from videmo_jax.data.rows import Budget, Prepared, build_row, misfit, stack_rows
from videmo_jax.files.errors import UserError
from videmo_jax.model.config import VisionConfig
from videmo_jax.model.shared_prefix import SharedPrefix
from videmo_jax.model.videmo import Rows


@dataclass(frozen=True)
class GroupBudget:
    """The shape of a row: room for a prompt, and for `answers` (G) of `slots` (C) tokens each."""

    prompt: Budget
    answers: int
    slots: int

    @property
    def layout(self) -> SharedPrefix:
        """Where things stand in the row."""
        return SharedPrefix(self.prompt.tokens, self.answers, self.slots)


@dataclass(frozen=True)
class Rollout:
    """A prompt and up to G answers to it, as `sampling.decode.Answers` has those of one row.

    Attributes:
      prompt: without an answer.
      tokens: of the answers, the end token included; what is past `lengths` is not read.
      lengths: tokens of each; 0: there is no such answer.
      log_probs: of the sampler, of logits / temperature.
    """

    prompt: Prepared
    tokens: Int[np.ndarray, "G C"]
    lengths: Int[np.ndarray, "G"]
    log_probs: Float[np.ndarray, "G C"]


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

    def credited(self, advantages: Float32[Array, "B G C"], counted: Bool[Array, "B G"]) -> "GroupBatch":
        """The batch with the tokens' advantages (`rl.advantages`), without the answers that do not count."""
        weights = self.weights * counted[..., None].astype(np.float32)
        return dataclasses.replace(self, weights=weights, advantages=advantages)


def build_group(rollout: Rollout, budget: GroupBudget, vision: VisionConfig) -> GroupBatch:
    """One row (without the batch axis; `data.rows.stack_rows` adds it) with its advantages and reference still 0.

    Args:
      rollout: a prompt with its answers.
      budget: the row's shape; what there is less of is left empty.
      vision: of the model.

    Raises:
      ValueError: the prompt or the answers do not fit, or a log-probability is not finite; it names the sample.
    """
    name = f"sample {rollout.prompt.id!r}"
    if reason := misfit(rollout.prompt.needs, budget.prompt):
        raise UserError(f"{name}: its prompt needs {reason}")
    held = _held(rollout, budget, name)
    prompt = stack_rows([build_row([rollout.prompt], budget.prompt, vision)]).rows
    sampled = _laid_out(rollout.log_probs, held).astype(np.float32)
    if not np.isfinite(sampled).all():
        raise UserError(f"{name}: a log-probability of an answer's token is no finite number")
    tokens, lengths = _laid_out(rollout.tokens, held).astype(np.int32), held.sum(axis=-1)
    group = with_answers(prompt, *(x[None] for x in (tokens, lengths, sampled)))
    return jax.tree.map(lambda x: np.asarray(x)[0], group)


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


def present(rollouts: Sequence[Rollout], budget: GroupBudget) -> Bool[np.ndarray, "B G"]:
    """Which of the G answers to each prompt there are."""
    return np.stack([np.pad(r.lengths > 0, (0, budget.answers - len(r.lengths))) for r in rollouts])


def _held(rollout: Rollout, budget: GroupBudget, name: str) -> Bool[np.ndarray, "G C"]:
    """The slots that hold a token of an answer."""
    lengths, shape = rollout.lengths, rollout.tokens.shape
    if len(shape) != 2 or rollout.log_probs.shape != shape or lengths.shape != shape[:1]:
        raise UserError(
            f"{name}: tokens {shape}, log_probs {rollout.log_probs.shape} and lengths {lengths.shape} of its answers "
            "do not fit together"
        )
    longest = int(lengths.max(initial=0))
    if lengths.min(initial=0) < 0 or longest > min(shape[1], budget.slots) or len(lengths) > budget.answers:
        raise UserError(
            f"{name}: {len(lengths)} answers of {int(lengths.min(initial=longest))} to {longest} tokens do not fit; "
            f"there is room for {budget.answers} of 0 to {min(shape[1], budget.slots)}"
        )
    if longest and not len(rollout.prompt.encoded.tokens):
        raise UserError(f"{name}: answers to a prompt without tokens")
    lengths = np.pad(lengths, (0, budget.answers - len(lengths)))
    return np.arange(budget.slots) < lengths[:, None]


def _laid_out(x: Array, held: Bool[np.ndarray, "G C"]) -> np.ndarray:
    """What belongs to the answers' tokens, in all slots, with 0 where there is none."""
    answers, slots = held.shape
    x = np.asarray(x)[:, :slots]
    return np.where(held, np.pad(x, [(0, answers - len(x)), (0, slots - x.shape[1])]), 0)
