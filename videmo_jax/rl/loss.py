"""The objective of GRPO on rows of `rl.rows`, as sums with denominators: it does not depend on how a batch is split."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from videmo_jax.files.errors import UserError
from videmo_jax.model.attention import segment_attention
from videmo_jax.model.compute import Compute
from videmo_jax.model.tables import Table
from videmo_jax.model.videmo import VidEmo
from videmo_jax.rl.rows import GroupBatch
from videmo_jax.training.token_losses import TokenScores, summed, token_scores

REDUCTIONS = ("sequence", "token", "constant")
RATIOS = ("token", "sequence")
OBJECTIVES = ("clip", "cispo")


@dataclass(frozen=True)
class GrpoSpec:
    """PAPER.md section 3; its numbers are ours."""

    clip_low: float = 0.2  # eps below 1: what worse answers lose at most
    clip_high: float = 0.2  # eps above 1: what better ones gain at most
    beta: float = 0.04  # of the KL term; 0: there is none, and no reference is read
    temperature: float = 0.9  # of the sampler, by which logits are divided
    # Mean over answers of the mean over their tokens (given); token: over all tokens; constant: mean over answers of
    # the sum over their tokens, by the tokens that one may have (Dr. GRPO, arXiv 2503.20783, with grpo.scale off).
    reduction: str = "sequence"
    ratio: str = "token"  # or sequence: the answer's geometric mean, for all its tokens (GSPO, arXiv 2507.18071)
    objective: str = "clip"  # or cispo: clipped ratios are weights, no token loses its gradient (arXiv 2506.13585)
    dual_clip: float = 0.0  # of worse answers the ratio counts up to this, such as 3 (arXiv 1912.09729); 0: all of it
    entropy: float = 0.0  # weight of the next token's entropy, which is raised

    def __post_init__(self) -> None:
        if not (0 <= self.clip_low < 1 and 0 <= self.clip_high < math.inf and 0 <= self.beta < math.inf):
            raise UserError(
                f"grpo: clip_low is {self.clip_low}, clip_high {self.clip_high}, beta {self.beta}; clip_low must be in "
                "[0, 1), the others 0 or above"
            )
        if not 0 < self.temperature < math.inf:
            raise UserError(f"grpo.temperature is {self.temperature}; it must be above 0: that of the sampler")
        for name, choices in (("reduction", REDUCTIONS), ("ratio", RATIOS), ("objective", OBJECTIVES)):
            if getattr(self, name) not in choices:
                raise UserError(f"grpo.{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
        if not (self.dual_clip == 0 or 1 + self.clip_high < self.dual_clip < math.inf):
            raise UserError(f"grpo.dual_clip is {self.dual_clip}; it must be 0, or above 1 + clip_high")
        if not 0 <= self.entropy < math.inf:
            raise UserError(f"grpo.entropy is {self.entropy}; it must be 0 or above")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GrpoSums:
    """Sums over the tokens that count.

    Attributes:
      loss: the objective's negative; divided by `count` it is a mean as `GrpoSpec.reduction` says.
      count: answers or tokens.
      answers, tokens: how many.
      kl: estimated divergence from the reference (nats).
      entropy: of the next token, at the temperature (nats).
      ratio: of probabilities, now to when the token was drawn.
      clipped_low, clipped_high: tokens whose ratio is beyond a bound that takes their gradient.
      gap: absolute difference of log-probabilities, now and when drawn (nats). Before the first of several updates it
        is what sampler and trainer compute differently.
    """

    loss: Float[Array, "*T"]
    count: Float[Array, "*T"]
    answers: Float[Array, "*T"]
    tokens: Float[Array, "*T"]
    kl: Float[Array, "*T"]
    entropy: Float[Array, "*T"]
    ratio: Float[Array, "*T"]
    clipped_low: Float[Array, "*T"]
    clipped_high: Float[Array, "*T"]
    gap: Float[Array, "*T"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Facts:
    """What stands at a token: as in `GroupBatch`; its share of the loss; 1 at the first of an answer that counts.

    `moved`: with a ratio of sequences its answer's mean difference of log-probabilities, now and when drawn; else 0.
    """

    weights: Float[Array, "B T"]
    share: Float[Array, "B T"]
    starts: Float[Array, "B T"]
    sampled: Float[Array, "B T"]
    reference: Float[Array, "B T"]
    advantages: Float[Array, "B T"]
    moved: Float[Array, "B T"]


def grpo_sums(
    model: VidEmo,
    batch: GroupBatch,
    compute: Compute = Compute(),  # noqa: B008 (it is frozen)
    *,
    chunk: int = 512,
    spec: GrpoSpec = GrpoSpec(),
) -> GrpoSums:
    """The loss of a batch.

    Args:
      model: the policy.
      batch: rows, advantages, log-probabilities.
      compute: how; losses are float32.
      chunk: tokens of a row's answers whose logits exist at once.
      spec: the objective.
    """
    output, hidden, targets, count = _predictions(model, batch, compute)
    lengths, share = jnp.maximum(batch.lengths, 1), batch.weights
    if spec.reduction != "token":
        share = share / (lengths if spec.reduction == "sequence" else batch.limit)
    moved = jnp.zeros_like(batch.weights)
    if spec.ratio == "sequence":  # all of an answer's tokens before any of them: the output layer is read twice
        scores = token_scores(output, lax.stop_gradient(hidden), targets, chunk, count, temperature=spec.temperature)
        apart = jnp.where(batch.weights > 0, scores.log_probs - batch.sampled, 0.0)
        moved = lax.stop_gradient(_over_answers(apart, batch.first) / lengths)
    starts = batch.weights * batch.first
    facts = _Facts(batch.weights, share, starts, batch.sampled, batch.reference, batch.advantages, moved)
    objective, by_entropy = partial(token_terms, spec=spec), spec.entropy > 0
    how = {"temperature": spec.temperature, "by_entropy": by_entropy}
    return summed(objective, output, hidden, targets, facts, chunk, count, **how)


def _over_answers(values: Float[Array, "R A"], first: Bool[Array, "R A"]) -> Float[Array, "R A"]:
    """At each token the sum over its answer."""
    answer, count = jnp.cumsum(first, axis=1), values.shape[1] + 1
    sums = jax.vmap(partial(jax.ops.segment_sum, num_segments=count))(values, answer)
    return jnp.take_along_axis(sums, answer, axis=1)


def token_terms(scores: TokenScores, facts: _Facts, spec: GrpoSpec) -> GrpoSums:
    """What each token adds: min(r A, clip(r) A) - beta KL, with KL = exp(ref - lp) - (ref - lp) - 1.

    With a ratio of sequences r is the answer's, and its gradient at a token that of the token's log-probability.
    """
    counts, advantages = facts.weights > 0, facts.advantages
    # Where nothing counts, neither infinities nor their gradients may arise.
    moved = jnp.where(counts, scores.log_probs - facts.sampled, 0.0)
    ratio = jnp.exp(moved)
    if spec.ratio == "sequence":
        own = jnp.where(counts, scores.log_probs, 0.0)
        ratio = jnp.exp(facts.moved + own - lax.stop_gradient(own))
    low, high = 1 - spec.clip_low, 1 + spec.clip_high
    clipped = jnp.clip(ratio, low, high)
    if spec.objective == "cispo":
        gained = lax.stop_gradient(clipped) * advantages * jnp.where(counts, scores.log_probs, 0.0)
    else:
        gained = jnp.minimum(ratio * advantages, clipped * advantages)
    if spec.dual_clip:
        gained = jnp.where(advantages < 0, jnp.maximum(gained, spec.dual_clip * advantages), gained)
    gained += spec.entropy * scores.entropy
    kl = jnp.zeros_like(ratio)
    if spec.beta:
        away = jnp.where(counts, facts.reference - scores.log_probs, 0.0)
        kl = jnp.exp(away) - away - 1
    measured = {
        "tokens": jnp.ones_like(ratio),
        "kl": kl,
        "entropy": scores.entropy,
        "ratio": ratio,
        "clipped_low": (ratio < low) & (advantages < 0),
        "clipped_high": (ratio > high) & (advantages > 0),
        "gap": jnp.abs(moved),
    }
    return GrpoSums(
        loss=jnp.where(counts, spec.beta * kl - gained, 0.0) * facts.share,
        count=facts.weights if spec.reduction == "token" else facts.starts,
        answers=facts.starts,
        **{name: value * facts.weights for name, value in measured.items()},
    )


def answer_log_probs(
    model: VidEmo,
    batch: GroupBatch,
    compute: Compute = Compute(),  # noqa: B008 (it is frozen)
    *,
    chunk: int = 512,
    temperature: float = 1.0,
) -> Float[Array, "R A"]:
    """Log-probabilities of the answers' tokens by logits / temperature, without a gradient; 0 where there is no token.

    Args:
      model: the policy or the reference.
      batch: of which only the rows are read.
      compute: how.
      chunk: tokens of a row's answers whose logits exist at once.
      temperature: of the sampler.
    """
    output, hidden, targets, count = _predictions(model, batch, compute)
    found = token_scores(output, hidden, targets, chunk, count, temperature=temperature).log_probs
    return jnp.where(batch.drawn >= 0, found, 0.0)


def _predictions(
    model: VidEmo, batch: GroupBatch, compute: Compute
) -> tuple[Table, Float[Array, "R A D"], Int[Array, "R A"], Int[Array, ""]]:
    """The output layer's table; for every token of an answer the state that predicts it, and the token; how many."""
    rows = batch.rows
    how = {"causal": True, "kernel": compute.attention, "forks": batch.forks}
    embedding, output = model.language.tables(compute.dtype)
    attend = partial(segment_attention, segment_ids=rows.segment_ids, **how)
    hidden, _ = model(rows, compute, embedding=embedding, attend=attend)
    states = jnp.take_along_axis(hidden, batch.before[..., None], axis=1)
    count = jnp.max(jnp.sum(batch.drawn >= 0, axis=1))
    return output, states, jnp.take_along_axis(rows.tokens, batch.slots, axis=1), count
