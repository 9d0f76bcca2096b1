"""Group advantages of GRPO (PAPER.md section 3): how much better an answer is than its prompt's others."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from videmo_jax.files.errors import UserError


@dataclass(frozen=True)
class AdvantageSpec:
    """How rewards become advantages; neither is printed in the paper."""

    scale: bool = True  # divide by the group's standard deviation; False: A = R - mean
    epsilon: float = 1e-4  # added to the standard deviation

    def __post_init__(self) -> None:
        if not (np.isfinite(self.epsilon) and self.epsilon > 0):
            raise UserError(f"advantage.epsilon is {self.epsilon}; it must be a number above 0")


@dataclass(frozen=True)
class Advantages:
    """Of B groups of G answers.

    Attributes:
      values: of each answer; 0 where it does not count.
      valid: answers that are trained on.
      left_out: groups in which a reward failed: none of their answers counts.
      flat: groups that count and whose rewards are all alike: A = 0, only the KL term moves the policy.
    """

    values: Float32[np.ndarray, "B G"]
    valid: Bool[np.ndarray, "B G"]
    left_out: int
    flat: int


def group_advantages(
    rewards: Float[np.ndarray, "B G"],
    present: Bool[np.ndarray, "B G"] | None = None,
    spec: AdvantageSpec = AdvantageSpec(),
) -> Advantages:
    """A = (R - mean) / (unbiased standard deviation + epsilon) over the answers of each prompt, in float64.

    Args:
      rewards: of each answer; one that is no finite number says that it could not be had, and its group is left out.
      present: answers that there are; None: all. An only answer has nothing to be compared with: A = 0.
      spec: how.

    Raises:
      ValueError: the shapes do not fit.
    """
    rewards = np.asarray(rewards, np.float64)
    present = np.ones(rewards.shape, bool) if present is None else np.asarray(present, bool)
    if rewards.ndim != 2 or present.shape != rewards.shape:
        raise UserError(f"rewards have the shape {rewards.shape}, present {present.shape}; both must be [B, G]")
    failed = np.any(present & ~np.isfinite(rewards), axis=1)
    valid = present & ~failed[:, None]
    known = np.where(valid, rewards, 0.0)
    count = valid.sum(axis=1, keepdims=True)
    apart = np.where(valid, known - known.sum(axis=1, keepdims=True) / np.maximum(count, 1), 0.0)
    highest, lowest = (np.where(valid, rewards, end) for end in (-np.inf, np.inf))
    # By the rewards themselves: a mean of equal numbers may differ from them by rounding.
    spread = highest.max(axis=1, initial=-np.inf) > lowest.min(axis=1, initial=np.inf)
    if spec.scale:
        apart = apart / (np.sqrt((apart**2).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1)) + spec.epsilon)
    values = np.where(spread[:, None], apart, 0.0).astype(np.float32)
    return Advantages(values, valid, int(failed.sum()), int((valid.any(axis=1) & ~spread).sum()))


def token_advantages(
    answers: Float[np.ndarray, "B G"], slots: int, tokens: Float[np.ndarray, "B G C"] | None = None
) -> Float32[np.ndarray, "B G C"]:
    """The advantage of every token: its answer's, unless it has its own (node-level credit).

    Args:
      answers: of the answers.
      slots: C, of an answer.
      tokens: of single tokens, in place of the answer's; NaN where the answer's stays.

    Raises:
      ValueError: the shapes do not fit, or an advantage is infinite.
    """
    whole = np.repeat(np.asarray(answers, np.float32)[..., None], slots, axis=-1)
    if tokens is not None:
        if tokens.shape != whole.shape:
            raise UserError(f"advantages of tokens have the shape {tokens.shape}; it must be {whole.shape}")
        whole = np.where(np.isnan(tokens), whole, tokens).astype(np.float32)
    if not np.isfinite(whole).all():
        raise UserError("an advantage is no finite number; leave answers without a reward out (group_advantages)")
    return whole
