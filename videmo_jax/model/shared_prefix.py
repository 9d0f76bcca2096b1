"""Attention over rows in which several answers share one prefix: scores of T x T never exist.

A row has P slots of a prefix and then G times C slots of an answer. Each answer sees the prefix and itself: on TPUs
this is the static mask of a kernel, elsewhere two blocks of scores under one softmax.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from videmo_jax.model.splash import SharedPrefixMask, splash_attention

QUERIES = 256  # whose scores are in memory at once, where no kernel does without them


@dataclass(frozen=True)
class SharedPrefix:
    """Where things stand in a row: `prefix` slots, then `answers` times `slots`."""

    prefix: int
    answers: int
    slots: int

    def __post_init__(self) -> None:
        if min(self.prefix, self.answers, self.slots) < 1:
            raise ValueError(f"{self}: each must be at least 1")

    @property
    def length(self) -> int:
        """Slots of the row."""
        return self.prefix + self.answers * self.slots


def shared_prefix_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    held: Bool[Array, "B T"],
    *,
    layout: SharedPrefix,
    kernel: str = "xla",
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Each token sees what is before it in its own part, and an answer's all of the prefix too.

    Every token sees at least itself, padding included, so no row of scores is empty. What stands at padding means
    nothing, and no other token sees it.

    Args:
      q, k, v: rotated queries and keys, values.
      held: slots that hold a token; the prefix's and each answer's are the first ones of their part.
      layout: of the rows.
      kernel: «splash», which no compiler can split over devices, or any other name of `model.attention.KERNELS`: XLA.
      interpret: runs splash on any platform, slowly.
    """
    if q.shape[1] != layout.length:
        raise ValueError(f"rows of {q.shape[1]} slots are not those of {layout}, which has {layout.length}")
    if kernel == "splash":
        mask = SharedPrefixMask(layout.prefix, layout.slots)
        return splash_attention(q, k, v, held.astype(jnp.int32), shared=mask, interpret=interpret)
    return checkpoint_name(_in_blocks(q, k, v, held, layout), "context")


def _in_blocks(q: Array, k: Array, v: Array, held: Array, layout: SharedPrefix) -> Float[Array, "B T N H"]:
    """Some QUERIES at a time; nothing is multiplied that nobody sees, but for the upper triangle of the last block."""
    prefix, slots = layout.prefix, layout.slots
    mixed = []
    for begin in range(0, prefix, QUERIES):
        end = min(begin + QUERIES, prefix)
        earlier = jnp.arange(begin, end)[:, None] >= jnp.arange(end)
        # Padding of the prefix follows its tokens, so that being earlier is enough.
        mixed.append(_mix(q[:, None, begin:end], [(k[:, None, :end], v[:, None, :end], earlier)])[:, 0])
    before = (k[:, None, :prefix], v[:, None, :prefix], held[:, None, None, None, None, :prefix])
    earlier = jnp.arange(slots)[:, None] >= jnp.arange(slots)
    together = max(QUERIES // slots, 1)
    for begin in range(0, layout.answers, together):
        some = slice(prefix + begin * slots, prefix + min(begin + together, layout.answers) * slots)
        q_, k_, v_ = (rearrange(x[:, some], "b (g c) n h -> b g c n h", c=slots) for x in (q, k, v))
        mixed.append(rearrange(_mix(q_, [before, (k_, v_, earlier)]), "b g c n h -> b (g c) n h"))
    return jnp.concatenate(mixed, axis=1)


def _mix(
    q: Float[Array, "B G C N H"], blocks: Sequence[tuple[Array, Array, Bool[Array, "... S"]]]
) -> Float[Array, "B G C N H"]:
    """Queries of G answers over blocks of keys and values under one softmax, which is float32.

    Args:
      q: queries.
      blocks: keys and values, [B, S, K, H] where all G share them and [B, G, S, K, H] where each has its own; then who
        sees them, which broadcasts to [B, K, G, N / K, C, S].
    """
    kv_heads, scale = blocks[0][0].shape[-2], jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    # Batches of the products lead everywhere, so that no scores are turned.
    q = rearrange(q * scale, "b g c (k r) h -> b k g r c h", k=kv_heads)
    blocks = [(jnp.moveaxis(k, -2, 1), jnp.moveaxis(v, -2, 1), mask) for k, v, mask in blocks]
    scores = []
    for k, _, mask in blocks:
        pattern = "bkgrch,bksh->bkgrcs" if k.ndim == 4 else "bkgrch,bkgsh->bkgrcs"
        found = jnp.einsum(pattern, q, k, preferred_element_type=jnp.float32)
        scores.append(jnp.where(mask, found, jnp.finfo(jnp.float32).min))
    # Any number will do that keeps the exponents small: it has no gradient.
    highest = lax.stop_gradient(reduce(jnp.maximum, [score.max(-1, keepdims=True) for score in scores]))
    total, out = 0.0, 0.0
    for score, (_, v, _) in zip(scores, blocks, strict=True):
        weights = jnp.exp(score - highest)
        total += weights.sum(-1, keepdims=True)
        pattern = "bkgrcs,bksh->bkgrch" if v.ndim == 4 else "bkgrcs,bkgsh->bkgrch"
        out += jnp.einsum(pattern, weights.astype(q.dtype), v, preferred_element_type=jnp.float32)
    return rearrange((out / total).astype(q.dtype), "b k g r c h -> b g c (k r) h")
