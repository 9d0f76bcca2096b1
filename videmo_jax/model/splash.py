"""Attention on TPUs: JAX's splash kernel, with segments."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Float, Int

LANES = 128  # tokens are padded to a multiple: the width of a TPU's vector registers
BLOCKS = (512, 384, 256, 128)  # tokens of a tile, the largest that divides the row
WHOLE = 640  # a row of up to so many tokens (a slab) is one tile
NOBODY = -2  # segment of the tokens that fill a row up; segments of the data are -1 and above


def splash_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    *,
    causal: bool,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """As `model.attention.segment_attention`, without scores in memory; `interpret` runs on any platform, slowly."""
    length, width = q.shape[1], q.shape[3]
    padding = -length % LANES
    q, k, v = (jnp.moveaxis(jnp.pad(x, [(0, 0), (0, padding), (0, 0), (0, 0)]), 1, 2) for x in (q, k, v))
    ids = jnp.pad(segment_ids, [(0, 0), (0, padding)], constant_values=NOBODY)
    kernel = _kernel(q.shape[1], length + padding, causal, interpret)
    out = jax.vmap(kernel)(q * jnp.asarray(width**-0.5, q.dtype), k, v, segment_ids=splash.SegmentIds(ids, ids))
    return jnp.moveaxis(out, 1, 2)[:, :length]


def _kernel(heads: int, length: int, causal: bool, interpret: bool) -> Callable[..., Array]:
    """The kernel for rows of one length; its tiles see whole slabs, and large squares of longer rows."""
    block = length if length <= WHOLE else next(size for size in BLOCKS if length % size == 0)
    mask = splash.CausalMask((length, length)) if causal else splash.FullMask((length, length))
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(*[block] * 8),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name="context",
        interpret=interpret,
    )
