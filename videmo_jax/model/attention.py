"""Attention behind one door: which kernel computes it is decided here and nowhere else."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def segment_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    *,
    causal: bool,
) -> Float[Array, "B T N H"]:
    """Attention among tokens of equal segment id, with grouped key/value heads.

    Every token sees at least itself, padding included, so no row of scores is empty and nothing turns into NaN.
    """
    mask = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of one layer, as the two products of attention take them: no transposition while decoding.

    A shared prefix has no G axis; an answer's own slots have one.
    """

    keys: Float[Array, "*B K H C"]
    values: Float[Array, "*B K C H"]

    @classmethod
    def of_prefix(cls, k: Float[Array, "*B T K H"], v: Float[Array, "*B T K H"]) -> "Cache":
        """From what a layer returned for all tokens of a prompt."""
        return cls(rearrange(k, "... t k h -> ... k h t"), rearrange(v, "... t k h -> ... k t h"))

    @classmethod
    def empty(cls, shape: tuple[int, ...], slots: int, width: int, dtype: jnp.dtype) -> "Cache":
        """`slots` free places for heads of `width`; `shape` is that of the axes in front, key heads last."""
        return cls(jnp.zeros((*shape, width, slots), dtype), jnp.zeros((*shape, slots, width), dtype))

    def put(self, k: Float[Array, "B G K H"], v: Float[Array, "B G K H"], slot: Int[Array, ""]) -> "Cache":
        """The cache with one token more, in `slot`."""
        keys = lax.dynamic_update_slice_in_dim(self.keys, k[..., None], slot, axis=-1)
        return Cache(keys, lax.dynamic_update_slice_in_dim(self.values, v[..., None, :], slot, axis=-2))


def cached_attention(
    q: Float[Array, "B G N H"],
    prefix: Cache,
    own: Cache,
    prefix_mask: Bool[Array, "B T"],
    own_mask: Bool[Array, "C"],
) -> Float[Array, "B G N H"]:
    """One new token of each of G answers to a prompt: two score blocks, prefix and own answer, under one softmax.

    The prefix (T tokens) lies in memory once for all its answers; `own` holds C slots for each answer.
    """
    kv_heads = own.keys.shape[2]
    q = rearrange(q, "b g (k r) h -> b k g r h", k=kv_heads) * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    lowest = jnp.finfo(jnp.float32).min
    to_prefix = jnp.einsum("bkgrh,bkht->bkgrt", q, prefix.keys, preferred_element_type=jnp.float32)
    to_prefix = jnp.where(prefix_mask[:, None, None, None], to_prefix, lowest)
    to_own = jnp.einsum("bkgrh,bgkhc->bkgrc", q, own.keys, preferred_element_type=jnp.float32)
    to_own = jnp.where(own_mask, to_own, lowest)
    highest = jnp.maximum(to_prefix.max(-1, keepdims=True), to_own.max(-1, keepdims=True))
    to_prefix, to_own = jnp.exp(to_prefix - highest), jnp.exp(to_own - highest)
    total = to_prefix.sum(-1, keepdims=True) + to_own.sum(-1, keepdims=True)
    out = jnp.einsum("bkgrt,bkth->bkgrh", to_prefix.astype(q.dtype), prefix.values)
    out += jnp.einsum("bkgrc,bgkch->bkgrh", to_own.astype(q.dtype), own.values)
    return rearrange(out / total.astype(q.dtype), "b k g r h -> b g (k r) h")
