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
BAR = 2.0**30  # far below any score; a power of two, which bfloat16 has exactly


def splash_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    *,
    causal: bool = True,
    forks: Float[Array, "B T G"] | None = None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """As `model.attention.segment_attention`, without scores in memory; `interpret` runs on any platform, slowly.

    The kernel knows segments and no forks (given one-hot, 0 before the fork): these are features of queries and keys
    beside the model's own. A key has 1 for its fork, and a query a bar for all but its own, so that what it must not
    see weighs exp(-BAR), which is 0. A second set of registers takes them; no mask is in memory.
    """
    length, width = q.shape[1], q.shape[3]
    padding = -length % LANES
    q = q * jnp.asarray(width**-0.5, q.dtype)
    if forks is not None:
        q, k = (
            jnp.concatenate([x, jnp.broadcast_to(y[:, :, None], (*x.shape[:3], y.shape[-1])).astype(x.dtype)], axis=-1)
            for x, y in ((q, (forks - 1) * BAR), (k, forks))
        )
    q, k, v = (jnp.moveaxis(jnp.pad(x, [(0, 0), (0, padding), (0, 0), (0, 0)]), 1, 2) for x in (q, k, v))
    ids = jnp.pad(segment_ids, [(0, 0), (0, padding)], constant_values=NOBODY)
    kernel = _kernel(q.shape[1], length + padding, causal, interpret)
    out = jax.vmap(kernel)(q, k, v, segment_ids=splash.SegmentIds(ids, ids))
    return jnp.moveaxis(out, 1, 2)[:, :length]


def _kernel(heads: int, length: int, causal: bool, interpret: bool) -> Callable[..., Array]:
    """The kernel for rows of one length; its tiles see whole slabs, and large squares of longer rows."""
    block = length if length <= WHOLE else next(size for size in BLOCKS if length % size == 0)
    shape = (length, length)
    mask = splash.CausalMask(shape) if causal else splash.FullMask(shape)
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(*[block] * 8),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name="context",
        interpret=interpret,
    )
