"""The whole model: slabs of video and tokens of text in, hidden states and logits out."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, UInt8

from videmo_jax.model.compute import Compute
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.language import Attend, Decoder
from videmo_jax.model.tables import Table, gather, look_up
from videmo_jax.model.vision import VisionTower
from videmo_jax.sharding.collectives import all_shares, own_share


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rows:
    """What the model reads: B rows of T tokens, each with up to S slabs of P patches of X pixel values.

    A segment is one sample; 0 is padding. `vision_index` is -1 for text, and for a vision token its place among the
    row's merged tokens: slab x (P / 4) + number within the slab. `patch_hw` is -1 where a slab is padded.
    """

    tokens: Int32[Array, "B T"]
    segment_ids: Int32[Array, "B T"]
    positions: Int32[Array, "B 3 T"]
    vision_index: Int32[Array, "B T"]
    patches: UInt8[Array, "B S P X"]
    patch_hw: Int32[Array, "B S P 2"]


class VidEmo(nnx.Module):
    """Qwen2.5-VL."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.vision = VisionTower(config.vision, rngs)
        self.language = Decoder(config.text, rngs, config.lora)

    def embed(self, rows: Rows, table: Table, compute: Compute) -> Float[Array, "B T D"]:
        """Token embeddings, with the vision tower's output where `vision_index` says so."""
        x = look_up(table, rows.tokens)
        batch, slabs, patches, _ = rows.patches.shape
        if slabs == 0:
            return x
        merged = self.vision(
            own_share(rows.patches.reshape(batch * slabs, patches, -1)),
            own_share(rows.patch_hw.reshape(batch * slabs, patches, 2)),
            compute,
        )
        merged = all_shares(merged, batch * slabs).reshape(batch, -1, x.shape[-1])
        index = rows.vision_index[..., None]
        return jnp.where(index >= 0, jnp.take_along_axis(merged, jnp.maximum(index, 0), axis=1), x)

    def __call__(
        self,
        rows: Rows,
        compute: Compute = Compute(),  # noqa: B008 (it is frozen)
        *,
        embedding: Table | None = None,
        keep_cache: bool = False,
        attend: Attend | None = None,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Hidden states of every token; with `keep_cache` also the decoder's keys and values.

        Args:
          rows: the input.
          compute: how.
          embedding: of `language.tables`, where it is gathered already.
          keep_cache: whether to return keys and values, [L, B, T, K, H] each.
          attend: how the decoder's queries meet keys and values, where rows are not segments one after the other.
        """
        table = gather(self.language.embedding, compute.dtype) if embedding is None else embedding
        x = self.embed(rows, table, compute)
        return self.language(x, rows.positions, rows.segment_ids, compute, keep_cache=keep_cache, attend=attend)

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Scores of the next token, in float32."""
        return self.language.logits(hidden)


def abstract_model(config: ModelConfig) -> VidEmo:
    """The model with shapes in place of values: names, shapes and axes of any size cost nothing."""
    graph, state = _abstract_parts(config)
    return nnx.merge(graph, jax.tree.map(lambda shape: shape, state))  # variables of its own


@lru_cache(maxsize=8)
def _abstract_parts(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """Traced once for a configuration: a run asks for it in many places."""
    return nnx.split(nnx.eval_shape(lambda: VidEmo(config, nnx.Rngs(0))))
