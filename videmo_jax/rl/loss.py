"""The objective of GRPO on rows of `rl.rows`, as sums with denominators: it does not depend on how a batch is split."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from videmo_jax.files.errors import UserError
from videmo_jax.model.compute import Compute
from videmo_jax.model.shared_prefix import shared_prefix_attention
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
    output, hidden, targets = _predictions(model, batch, compute)
    lengths = jnp.sum(batch.weights, axis=-1, keepdims=True)
    share = batch.weights
    if spec.reduction != "token":
        share = share / (jnp.maximum(lengths, 1) if spec.reduction == "sequence" else batch.weights.shape[-1])
    moved = jnp.zeros_like(batch.weights)
    if spec.ratio == "sequence":  # all of an answer's tokens before any of them: the output layer is read twice
        scores = token_scores(output, lax.stop_gradient(hidden), targets, chunk, temperature=spec.temperature)
        apart = jnp.where(batch.weights > 0, scores.log_probs.reshape(moved.shape) - batch.sampled, 0.0)
        moved += jnp.sum(apart, axis=-1, keepdims=True) / jnp.maximum(lengths, 1)
        moved = lax.stop_gradient(moved)
    starts = jnp.zeros_like(batch.weights).at[..., 0].set(lengths[..., 0] > 0)
    facts = _Facts(batch.weights, share, starts, batch.sampled, batch.reference, batch.advantages, moved)
    facts = jax.tree.map(lambda x: x.reshape(targets.shape), facts)
    objective = partial(token_terms, spec=spec)
    by_entropy = spec.entropy > 0
    return summed(objective, output, hidden, targets, facts, chunk, temperature=spec.temperature, by_entropy=by_entropy)


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
) -> Float[Array, "B G C"]:
    """Log-probabilities of the answers' tokens by logits / temperature, without a gradient; 0 where there is no token.

    Args:
      model: the policy or the reference.
      batch: of which only the rows are read.
      compute: how.
      chunk: tokens of a row's answers whose logits exist at once.
      temperature: of the sampler.
    """
    output, hidden, targets = _predictions(model, batch, compute)
    found = token_scores(output, hidden, targets, chunk, temperature=temperature).log_probs
    held = batch.rows.segment_ids[:, batch.layout.prefix :] > 0
    return jnp.where(held, found, 0.0).reshape(batch.weights.shape)


def _predictions(model: VidEmo, batch: GroupBatch, compute: Compute) -> tuple[Table, Float[Array, "B GC D"], Array]:
    """The output layer's table, and for every slot of an answer the state that predicts its token, and the token."""
    layout, rows = batch.layout, batch.rows
    held = rows.segment_ids > 0
    attend = partial(shared_prefix_attention, held=held, layout=layout, kernel=compute.attention)
    embedding, output = model.language.tables(compute.dtype)
    hidden, _ = model(rows, compute, embedding=embedding, attend=attend)
    last = jnp.maximum(jnp.sum(held[:, : layout.prefix], axis=1) - 1, 0)
    before = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, None]
    count, _, width = hidden.shape
    own = hidden[:, layout.prefix :].reshape(count, layout.answers, layout.slots, width)[:, :, :-1]
    states = jnp.concatenate([jnp.broadcast_to(before, (count, layout.answers, 1, width)), own], axis=2)
    return output, states.reshape(count, -1, width), rows.tokens[:, layout.prefix :]
