"""Rows that hold a prompt once and all its answers: the video is computed once, in the loss too.

A row has P slots of a prompt, then G times C slots of an answer. A prompt and each answer stand at the beginning of
their slots; an answer's positions go on from the prompt's, so that it is where it would be in a row of its own.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from videmo_jax.data.rows import Budget, Prepared, build_row, misfit
from videmo_jax.model.config import VisionConfig
from videmo_jax.model.shared_prefix import SharedPrefix
from videmo_jax.model.videmo import Rows
from videmo_jax.rl.advantages import Advantages, token_advantages


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

    def credited(self, advantages: Advantages, tokens: Float[np.ndarray, "B G C"] | None = None) -> "GroupBatch":
        """The batch with advantages, without the answers that do not count; see `rl.advantages`.

        Args:
          advantages: of the answers.
          tokens: of single tokens in their place; NaN where the answer's stays.
        """
        values = token_advantages(advantages.values, self.weights.shape[-1], tokens)
        if values.shape != self.weights.shape:
            raise ValueError(f"advantages are of {values.shape[:2]} answers, the batch is of {self.weights.shape[:2]}")
        weights = self.weights * advantages.counted[..., None].astype(np.float32)
        return dataclasses.replace(self, weights=weights, advantages=values)


def build_group(rollout: Rollout, budget: GroupBudget, vision: VisionConfig) -> GroupBatch:
    """One row (without the batch axis; `data.rows.stack_rows` adds it) with its advantages and reference still 0.

    Args:
      rollout: a prompt with its answers.
      budget: the row's shape; what there is less of is left empty.
      vision: of the model.

    Raises:
      ValueError: the prompt or the answers do not fit, or a log-probability is not finite; it names the sample.
    """
    name, layout = f"sample {rollout.prompt.id!r}", budget.layout
    if reason := misfit(rollout.prompt.needs, budget.prompt):
        raise ValueError(f"{name}: its prompt needs {reason}")
    held = _held(rollout, budget, name)
    prompt = build_row([rollout.prompt], budget.prompt, vision).rows
    count = len(rollout.prompt.encoded.tokens)
    begin = int(prompt.positions[:, :count].max(initial=-1)) + 1
    ids = held.reshape(-1).astype(np.int32)
    order = np.tile(begin + np.arange(layout.slots), layout.answers) * ids
    rows = Rows(
        np.concatenate([prompt.tokens, _laid_out(rollout.tokens, held).reshape(-1).astype(np.int32)]),
        np.concatenate([prompt.segment_ids, ids]),
        np.concatenate([prompt.positions, np.tile(order, (3, 1)).astype(np.int32)], axis=1),
        np.concatenate([prompt.vision_index, np.full(ids.shape, -1, np.int32)]),
        prompt.patches,
        prompt.patch_hw,
    )
    sampled = _laid_out(rollout.log_probs, held).astype(np.float32)
    if not np.isfinite(sampled).all():
        raise ValueError(f"{name}: a log-probability of an answer's token is no finite number")
    empty = np.zeros(held.shape, np.float32)
    return GroupBatch(rows, held.astype(np.float32), sampled, empty, empty)


def present(rollouts: Sequence[Rollout], budget: GroupBudget) -> Bool[np.ndarray, "B G"]:
    """Which of the G answers to each prompt there are."""
    return np.stack([np.pad(r.lengths > 0, (0, budget.answers - len(r.lengths))) for r in rollouts])


def _held(rollout: Rollout, budget: GroupBudget, name: str) -> Bool[np.ndarray, "G C"]:
    """The slots that hold a token of an answer."""
    lengths, shape = rollout.lengths, rollout.tokens.shape
    if len(shape) != 2 or rollout.log_probs.shape != shape or lengths.shape != shape[:1]:
        raise ValueError(
            f"{name}: tokens {shape}, log_probs {rollout.log_probs.shape} and lengths {lengths.shape} of its answers "
            "do not fit together"
        )
    longest = int(lengths.max(initial=0))
    if lengths.min(initial=0) < 0 or longest > min(shape[1], budget.slots) or len(lengths) > budget.answers:
        raise ValueError(
            f"{name}: {len(lengths)} answers of {int(lengths.min(initial=longest))} to {longest} tokens do not fit; "
            f"there is room for {budget.answers} of 0 to {min(shape[1], budget.slots)}"
        )
    if longest and not len(rollout.prompt.encoded.tokens):
        raise ValueError(f"{name}: answers to a prompt without tokens")
    lengths = np.pad(lengths, (0, budget.answers - len(lengths)))
    return np.arange(budget.slots) < lengths[:, None]


def _laid_out(x: Array, held: Bool[np.ndarray, "G C"]) -> np.ndarray:
    """What belongs to the answers' tokens, in all slots, with 0 where there is none."""
    answers, slots = held.shape
    x = np.asarray(x)[:, :slots]
    return np.where(held, np.pad(x, [(0, answers - len(x)), (0, slots - x.shape[1])]), 0)
