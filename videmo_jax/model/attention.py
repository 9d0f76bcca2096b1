"""Attention behind one door: which kernel computes it is decided here and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from videmo_jax.model.splash import splash_attention

# auto: splash on TPUs, XLA's own elsewhere; blocks: XLA's own for some queries at a time, which decoding prefills with
KERNELS = ("auto", "splash", "xla", "blocks")
QUERIES = 128  # that «blocks» takes at a time


def kernel_for(name: str, platform: str) -> str:
    """The kernel that `name` of KERNELS means on a platform («tpu», «gpu», «cpu»)."""
    return name if name != "auto" else "splash" if platform == "tpu" else "xla"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Forks:
    """Ways in which a segment goes on: tokens of way 0 are seen by all later ones, others by those of their way alone.

    Attributes:
      of: the way of each token, 0 to `count`.
      count: ways of a segment beside 0.
    """

    of: Int[Array, "B T"]
    count: int = field(metadata={"static": True})


def segment_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    *,
    causal: bool,
    kernel: str = "xla",
    forks: Forks | None = None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Attention among tokens of equal segment id, with grouped key/value heads.

    Every token sees at least itself, padding included, so no row of scores is empty and nothing turns into NaN.

    Args:
      q, k, v: rotated queries and keys, values.
      segment_ids: who sees whom.
      causal: tokens see no later ones.
      kernel: «splash», which no compiler can split over devices, «xla», or «blocks».
      forks: of segments that fork, which are causal.
      interpret: runs splash on any platform, slowly.
    """
    if kernel == "splash":
        ways = None if forks is None else jax.nn.one_hot(forks.of - 1, forks.count)
        return splash_attention(q, k, v, segment_ids, causal=causal, forks=ways, interpret=interpret)
    if kernel == "blocks" or forks is not None:
        return checkpoint_name(_in_blocks(q, k, v, segment_ids, causal, forks), "context")
    mask = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return checkpoint_name(jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal), "context")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of one layer, as the two products of attention take them: no transposition while decoding.

    Each of its E entries is read by all queries that go on from it: one entry for a beginning that many share, or one
    for each answer.
    """

    keys: Float[Array, "E K H C"]
    values: Float[Array, "E K C H"]

    @classmethod
    def of_tokens(cls, k: Float[Array, "E T K H"], v: Float[Array, "E T K H"]) -> "Cache":
        """From what a layer returned for all tokens of its rows."""
        return cls(rearrange(k, "e t k h -> e k h t"), rearrange(v, "e t k h -> e k t h"))

    @classmethod
    def empty(cls, count: int, slots: int, heads: int, width: int, dtype: jnp.dtype) -> "Cache":
        """`slots` free places in each of `count` entries."""
        return cls(jnp.zeros((count, heads, width, slots), dtype), jnp.zeros((count, heads, slots, width), dtype))

    def until(self, end: int) -> "Cache":
        """The first places."""
        return Cache(self.keys[..., :end], self.values[:, :, :end])

    def with_room(self, slots: int) -> "Cache":
        """The cache with free places after its own."""
        keys = jnp.pad(self.keys, [(0, 0)] * 3 + [(0, slots)])
        return Cache(keys, jnp.pad(self.values, [(0, 0)] * 2 + [(0, slots), (0, 0)]))

    def put(self, k: Float[Array, "E K H"], v: Float[Array, "E K H"], slot: Int[Array, ""]) -> "Cache":
        """The cache with one token more of every entry, in `slot`."""
        return Cache(
            lax.dynamic_update_slice_in_dim(self.keys, k[..., None], slot, axis=3),
            lax.dynamic_update_slice_in_dim(self.values, v[:, :, None], slot, axis=2),
        )


def cached_attention(
    q: Float[Array, "R N H"], blocks: Sequence[tuple[Cache, Bool[Array, "#E #M C"]]]
) -> Float[Array, "R N H"]:
    """New tokens over blocks of keys and values under one softmax.

    Args:
      q: rotated queries.
      blocks: caches, each with the places that a query sees. A cache of E entries is shared by M = R / E queries each,
        one after the other in `q`: what many answers go on from lies in memory once, and is read once.
    """
    kv_heads, width = blocks[0][0].keys.shape[1:3]

    def by_entry(x: Float[Array, "R K G ..."], cache: Cache) -> Float[Array, "E K M G ..."]:
        return rearrange(x, "(e m) k g ... -> e k m g ...", e=len(cache.keys))

    def by_query(x: Float[Array, "E K M G ..."]) -> Float[Array, "R K G ..."]:
        return rearrange(x, "e k m g ... -> (e m) k g ...")

    q = rearrange(q, "r (k g) h -> r k g h", k=kv_heads) * jnp.asarray(width**-0.5, q.dtype)
    scores = []
    for cache, mask in blocks:
        found = jnp.einsum("ekmgh,ekhc->ekmgc", by_entry(q, cache), cache.keys, preferred_element_type=jnp.float32)
        scores.append(jnp.where(mask[:, None, :, None], found, jnp.finfo(jnp.float32).min))
    # Any number will do that keeps the exponents small: it has no gradient.
    highest = lax.stop_gradient(reduce(jnp.maximum, [by_query(score.max(-1, keepdims=True)) for score in scores]))
    total, out = 0.0, 0.0
    for score, (cache, _) in zip(scores, blocks, strict=True):
        weights = jnp.exp(score - by_entry(highest, cache))
        total += by_query(weights.sum(-1, keepdims=True))
        out += by_query(jnp.einsum("ekmgc,ekch->ekmgh", weights.astype(q.dtype), cache.values))
    return rearrange(out / total.astype(q.dtype), "r k g h -> r (k g) h")


def _in_blocks(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    causal: bool,
    forks: Forks | None,
) -> Float[Array, "B T N H"]:
    """Scores of QUERIES tokens at a time: memory grows with T, not its square, and nothing later is multiplied at all.

    On the CPU the scores stay in its caches: five times as fast as T x T of them, at T = 640.
    """
    cache, places, mixed = Cache.of_tokens(k, v), jnp.arange(q.shape[1]), []
    for begin in range(0, q.shape[1], QUERIES):
        some = slice(begin, begin + QUERIES)
        seen = slice(min(some.stop, q.shape[1]) if causal else q.shape[1])
        mask = segment_ids[:, some, None] == segment_ids[:, None, seen]
        if causal:
            mask &= places[some, None] >= places[seen]
        if forks is not None:
            theirs = forks.of[:, None, seen]
            mask &= (theirs == 0) | (theirs == forks.of[:, some, None])
        queries = q[:, some]
        context = cached_attention(queries.reshape(-1, *q.shape[2:]), [(cache.until(seen.stop), mask)])
        mixed.append(context.reshape(queries.shape))
    return jnp.concatenate(mixed, axis=1)
