"""Attention behind one door: which kernel computes it is decided here and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from videmo_jax.model.splash import splash_attention

KERNELS = ("auto", "splash", "xla")  # auto: splash on TPUs, XLA's own elsewhere


def kernel_for(name: str, platform: str) -> str:
    """The kernel that `name` of KERNELS means on a platform («tpu», «gpu», «cpu»)."""
    return name if name != "auto" else "splash" if platform == "tpu" else "xla"


def segment_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    *,
    causal: bool,
    kernel: str = "xla",
) -> Float[Array, "B T N H"]:
    """Attention among tokens of equal segment id, with grouped key/value heads.

    Every token sees at least itself, padding included, so no row of scores is empty and nothing turns into NaN.

    Args:
      q, k, v: rotated queries and keys, values.
      segment_ids: who sees whom.
      causal: tokens see no later ones.
      kernel: «splash», which no compiler can split over devices, or «xla».
    """
    if kernel == "splash":
        return splash_attention(q, k, v, segment_ids, causal=causal)
    mask = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return checkpoint_name(jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal), "context")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of one layer, as the two products of attention take them: no transposition while decoding.

    A prefix has one entry (B) for each prompt, the answers' own slots one for each answer (B x G in one axis).
    """

    keys: Float[Array, "B K H C"]
    values: Float[Array, "B K C H"]

    @classmethod
    def of_prefix(cls, k: Float[Array, "B T K H"], v: Float[Array, "B T K H"]) -> "Cache":
        """From what a layer returned for all tokens of a prompt."""
        return cls(rearrange(k, "b t k h -> b k h t"), rearrange(v, "b t k h -> b k t h"))

    @classmethod
    def empty(cls, count: int, slots: int, heads: int, width: int, dtype: jnp.dtype) -> "Cache":
        """`slots` free places in each of `count` entries."""
        return cls(jnp.zeros((count, heads, width, slots), dtype), jnp.zeros((count, heads, slots, width), dtype))

    def with_room(self, slots: int) -> "Cache":
        """The cache with free places after its own."""
        keys = jnp.pad(self.keys, [(0, 0)] * 3 + [(0, slots)])
        return Cache(keys, jnp.pad(self.values, [(0, 0)] * 2 + [(0, slots), (0, 0)]))

    def put(self, k: Float[Array, "B G K H"], v: Float[Array, "B G K H"], slot: Int[Array, ""]) -> "Cache":
        """The cache with one token more of every answer, in `slot`."""
        k, v = rearrange(k, "b g k h -> (b g) k h 1"), rearrange(v, "b g k h -> (b g) k 1 h")
        return Cache(
            lax.dynamic_update_slice_in_dim(self.keys, k, slot, axis=3),
            lax.dynamic_update_slice_in_dim(self.values, v, slot, axis=2),
        )


def cached_attention(
    q: Float[Array, "B G N H"], blocks: Sequence[tuple[Cache, Bool[Array, "#B C"]]]
) -> Float[Array, "B G N H"]:
    """One new token of each of G answers to a prompt, over blocks of keys and values under one softmax.

    Args:
      q: rotated queries.
      blocks: caches with the slots of them that count. One with B entries is shared by a prompt's answers, so that the
        prefix lies in memory once; one with B x G entries belongs to the answers themselves.
    """
    batch, group, _, width = q.shape
    kv_heads = blocks[0][0].keys.shape[1]

    def by_prompt(x: Array) -> Array:
        """[B, K, G x R, ...], whether the block is shared or not."""
        return x if len(x) == batch else rearrange(x, "(b g) k r ... -> b k (g r) ...", b=batch)

    def like(cache: Cache, x: Array) -> Array:
        """[B, K, G x R, ...] as the entries of a block are laid out."""
        return x if len(cache.keys) == batch else rearrange(x, "b k (g r) ... -> (b g) k r ...", g=group)

    q = rearrange(q, "b g (k r) h -> b k (g r) h", k=kv_heads) * jnp.asarray(width**-0.5, q.dtype)
    scores = []
    for cache, mask in blocks:
        found = jnp.einsum("bkrh,bkhc->bkrc", like(cache, q), cache.keys, preferred_element_type=jnp.float32)
        scores.append(jnp.where(mask[:, None, None], found, jnp.finfo(jnp.float32).min))
    highest = reduce(jnp.maximum, [by_prompt(score.max(-1, keepdims=True)) for score in scores])
    total, out = 0.0, 0.0
    for score, (cache, _) in zip(scores, blocks, strict=True):
        weights = jnp.exp(score - like(cache, highest))
        total += by_prompt(weights.sum(-1, keepdims=True))
        out += by_prompt(jnp.einsum("bkrc,bkch->bkrh", weights.astype(q.dtype), cache.values))
    return rearrange(out / total.astype(q.dtype), "b k (g r) h -> b g (k r) h", g=group)
