"""Attention on TPUs: JAX's splash kernel, with segments, on each device's share of rows and heads."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Float, Int

from videmo_jax.sharding.rules import current_mesh, mesh_axes, partition_spec

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
    rows: str,
    heads: str | None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """As `model.attention.segment_attention`, without scores in memory.

    Args:
      q, k, v, segment_ids: see there.
      causal: tokens see no later ones.
      rows, heads: logical axes of B and of N; keys and values have those of «kv_heads» where N has «heads».
      interpret: runs the kernel on any platform, slowly.
    """
    local = functools.partial(_on_one_device, causal=causal, interpret=interpret)
    mesh = current_mesh()
    if mesh is None:
        return local(q, k, v, segment_ids)
    kv_heads = "kv_heads" if heads else None
    outer = partition_spec((rows, None, heads, None), q.shape, mesh)
    inner = partition_spec((rows, None, kv_heads, None), k.shape, mesh)
    if mesh_axes(outer, 2) != mesh_axes(inner, 2):  # too few of them: every head gets its own
        k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
        inner = outer
    ids = partition_spec((rows, None), segment_ids.shape, mesh)
    split = jax.shard_map(local, in_specs=(outer, inner, inner, ids), out_specs=outer, check_vma=False)
    return split(q, k, v, segment_ids)


def _on_one_device(q: Array, k: Array, v: Array, segment_ids: Array, *, causal: bool, interpret: bool) -> Array:
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
