"""Attention on TPUs: JAX's splash kernel, with segments."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jaxtyping import Array, Float, Int

LANES = 128  # tokens are padded to a multiple: the width of a TPU's vector registers
BLOCKS = (512, 384, 256, 128)  # tokens of a tile, the largest that divides the row
WHOLE = 640  # a row of up to so many tokens (a slab) is one tile
NOBODY = -2  # segment of the tokens that fill a row up; segments of the data are -1 and above


@dataclass(frozen=True)
class SharedPrefixMask:
    """Who sees whom in the rows of `model.shared_prefix`: known from the slots alone, so the kernel skips whole tiles.

    Slots past the last answer are taken as one more.
    """

    prefix: int
    slots: int

    def __call__(self, query: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Whether slots see slots."""
        own = (query - self.prefix) // self.slots == (key - self.prefix) // self.slots
        return (key <= query) & ((key < self.prefix) | own)


class _SlotMask(splash.Mask):
    """A mask of one row as the kernel's tables are made from: a tile at a time."""

    def __init__(self, length: int, sees: SharedPrefixMask) -> None:
        self._slots, self._sees = np.arange(length, dtype=np.int32), sees

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._slots), len(self._slots)

    def __getitem__(self, tile: tuple[slice, slice]) -> np.ndarray:
        query, key = tile
        return self._sees(self._slots[query, None], self._slots[None, key])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SlotMask) and (self.shape, self._sees) == (other.shape, other._sees)

    def __hash__(self) -> int:
        return hash((self.shape, self._sees))


def splash_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    *,
    causal: bool = True,
    shared: SharedPrefixMask | None = None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """As `model.attention.segment_attention`, without scores in memory; `interpret` runs on any platform, slowly.

    With `shared`, tokens see those that it says, and of these the ones of their segment.
    """
    length, width = q.shape[1], q.shape[3]
    padding = -length % LANES
    q, k, v = (jnp.moveaxis(jnp.pad(x, [(0, 0), (0, padding), (0, 0), (0, 0)]), 1, 2) for x in (q, k, v))
    ids = jnp.pad(segment_ids, [(0, 0), (0, padding)], constant_values=NOBODY)
    kernel = _kernel(q.shape[1], length + padding, causal, shared, interpret)
    out = jax.vmap(kernel)(q * jnp.asarray(width**-0.5, q.dtype), k, v, segment_ids=splash.SegmentIds(ids, ids))
    return jnp.moveaxis(out, 1, 2)[:, :length]


def _kernel(
    heads: int, length: int, causal: bool, shared: SharedPrefixMask | None, interpret: bool
) -> Callable[..., Array]:
    """The kernel for rows of one length; its tiles see whole slabs, and large squares of longer rows."""
    block = length if length <= WHOLE else next(size for size in BLOCKS if length % size == 0)
    shape = (length, length)
    mask: splash.Mask = splash.CausalMask(shape) if causal else splash.FullMask(shape)
    if shared is not None:
        mask = _SlotMask(length, shared)
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(*[block] * 8),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name="context",
        interpret=interpret,
    )
