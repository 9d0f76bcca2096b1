"""Attention behind one door: which kernel computes it is decided here and nowhere else."""

import jax
import jax.numpy as jnp
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


def cached_attention(
    q: Float[Array, "B G N H"],
    prefix: tuple[Float[Array, "B T K H"], Float[Array, "B T K H"]],
    own: tuple[Float[Array, "B G C K H"], Float[Array, "B G C K H"]],
    prefix_mask: Bool[Array, "B T"],
    own_mask: Bool[Array, "C"],
) -> Float[Array, "B G N H"]:
    """One new token of each of G answers to a prompt: two score blocks, prefix and own answer, under one softmax.

    The prefix (T tokens) lies in memory once for all its answers; `own` holds C slots for each answer.
    """
    b, g, n, h = q.shape
    kv_heads = own[0].shape[3]
    q = q.reshape(b, g, kv_heads, n // kv_heads, h) * jnp.asarray(h**-0.5, q.dtype)
    lowest = jnp.finfo(jnp.float32).min
    to_prefix = jnp.einsum("bgkrh,btkh->bgkrt", q, prefix[0], preferred_element_type=jnp.float32)
    to_prefix = jnp.where(prefix_mask[:, None, None, None, :], to_prefix, lowest)
    to_own = jnp.einsum("bgkrh,bgckh->bgkrc", q, own[0], preferred_element_type=jnp.float32)
    to_own = jnp.where(own_mask, to_own, lowest)
    weights = jax.nn.softmax(jnp.concatenate([to_prefix, to_own], axis=-1), axis=-1).astype(q.dtype)
    from_prefix, from_own = jnp.split(weights, [prefix[0].shape[1]], axis=-1)
    out = jnp.einsum("bgkrt,btkh->bgkrh", from_prefix, prefix[1])
    out += jnp.einsum("bgkrc,bgckh->bgkrh", from_own, own[1])
    return out.reshape(b, g, n, h)
