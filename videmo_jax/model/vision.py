"""The vision tower of Qwen2.5-VL, on slabs of two frames.

Slabs never see each other, also in the full-attention blocks, so they are the batch: x is [S, P, D]. Every block runs
the same attention inside its slab; the ids that decide who sees whom are those of the slab or of the window, as a flag
scanned with the weights says. Any pattern of windowed and full blocks is thus one code path without a permutation.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, Int32, UInt8

from videmo_jax.model.attention import segment_attention
from videmo_jax.model.compute import Compute
from videmo_jax.model.config import VisionConfig
from videmo_jax.model.layers import (
    ONES,
    ZEROS,
    inverse_frequencies,
    join_heads,
    project,
    project_together,
    rms_norm,
    rotate,
    scan_layers,
    used,
    weight,
)

# Of CLIP, in RGB (PAPER.md section 7).
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


class VisionBlock(nnx.Module):
    """RMSNorm, attention, RMSNorm, SwiGLU with biases; `stack` blocks at once."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs, stack: int) -> None:
        d, n, h, f = config.width, config.heads, config.head_width, config.mlp_width
        hf = "visual.blocks.{layer}."
        self.eps = config.norm_eps
        self.norm1 = weight(rngs, (d,), (None,), hf=hf + "norm1.weight", layout="d -> d", init=ONES, stack=stack)
        self.qkv = weight(
            rngs,
            (d, 3, n, h),
            ("embed", None, None, None),
            hf=hf + "attn.qkv.weight",
            layout="(three n h) d -> d three n h",
            stack=stack,
        )
        self.qkv_bias = weight(
            rngs,
            (3, n, h),
            (None, None, None),
            hf=hf + "attn.qkv.bias",
            layout="(three n h) -> three n h",
            init=ZEROS,
            stack=stack,
        )
        self.proj = weight(
            rngs,
            (n, h, d),
            (None, None, "embed"),
            hf=hf + "attn.proj.weight",
            layout="d (n h) -> n h d",
            stack=stack,
        )
        self.proj_bias = weight(rngs, (d,), (None,), hf=hf + "attn.proj.bias", layout="d -> d", init=ZEROS, stack=stack)
        self.norm2 = weight(rngs, (d,), (None,), hf=hf + "norm2.weight", layout="d -> d", init=ONES, stack=stack)
        self.gate, self.gate_bias = _mlp_weight(rngs, d, f, hf + "mlp.gate_proj", stack)
        self.up, self.up_bias = _mlp_weight(rngs, d, f, hf + "mlp.up_proj", stack)
        self.down = weight(
            rngs, (f, d), (None, "embed"), hf=hf + "mlp.down_proj.weight", layout="d f -> f d", stack=stack
        )
        self.down_bias = weight(
            rngs, (d,), (None,), hf=hf + "mlp.down_proj.bias", layout="d -> d", init=ZEROS, stack=stack
        )

    def __call__(
        self,
        x: Float[Array, "S P D"],
        angles: Float[Array, "S P H/2"],
        segment_ids: Int[Array, "S P"],
        kernel: str = "xla",
    ) -> Float[Array, "S P D"]:
        """Patches see the patches of their slab that have the same segment id."""
        qkv = project(rms_norm(x, self.norm1, self.eps), self.qkv, "spd,dcnh->cspnh")
        q, k, v = qkv + used(self.qkv_bias, x.dtype)[:, None, None]
        q, k, v = checkpoint_name((rotate(q, angles), rotate(k, angles), v), "qkv")
        mixed = segment_attention(q, k, v, segment_ids, causal=False, kernel=kernel)
        x += checkpoint_name(join_heads(mixed, self.proj) + used(self.proj_bias, x.dtype), "mixed")
        y = rms_norm(x, self.norm2, self.eps)
        gate, up = project_together(y, (self.gate, self.up), (self.gate_bias, self.up_bias))
        return x + project(jax.nn.silu(gate) * up, self.down, "spf,fd->spd", self.down_bias)


class PatchMerger(nnx.Module):
    """RMSNorm, then merge x merge neighbouring patches through an MLP to the decoder's width."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs) -> None:
        d, group, out = config.width, config.merge**2, config.out_width
        hf = "visual.merger."
        self.eps, self.group = config.norm_eps, group
        self.norm = weight(rngs, (d,), (None,), hf=hf + "ln_q.weight", layout="d -> d", init=ONES)
        self.inner = weight(rngs, (group * d, group * d), ("embed", None), hf=hf + "mlp.0.weight", layout="f d -> d f")
        self.inner_bias = weight(rngs, (group * d,), (None,), hf=hf + "mlp.0.bias", layout="f -> f", init=ZEROS)
        self.outer = weight(rngs, (group * d, out), ("embed", None), hf=hf + "mlp.2.weight", layout="d f -> f d")
        self.outer_bias = weight(rngs, (out,), (None,), hf=hf + "mlp.2.bias", layout="d -> d", init=ZEROS)

    def __call__(self, x: Float[Array, "S P D"]) -> Float[Array, "S P/4 E"]:
        """The patches of a merge group lie next to each other."""
        x = rms_norm(x, self.norm, self.eps)
        x = x.reshape(x.shape[0], -1, self.group * x.shape[-1])
        x = jax.nn.gelu(project(x, self.inner, "spd,df->spf", self.inner_bias), approximate=False)
        return project(x, self.outer, "spf,fd->spd", self.outer_bias)


class VisionTower(nnx.Module):
    """Patches of slabs to tokens of the decoder."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.patch_embed = weight(
            rngs,
            (config.channels, config.temporal_patch, config.patch, config.patch, config.width),
            (None, None, None, None, "embed"),
            hf="visual.patch_embed.proj.weight",
            layout="d c t y x -> c t y x d",
        )
        self.blocks = VisionBlock(config, rngs, stack=config.layers)
        self.merger = PatchMerger(config, rngs)

    def __call__(
        self,
        patches: UInt8[Array, "S P X"],
        patch_hw: Int[Array, "S P 2"],
        compute: Compute = Compute(),  # noqa: B008 (it is frozen)
    ) -> Float[Array, "S P/4 E"]:
        """Encodes slabs.

        Args:
          patches: raw pixels 0..255 in the order channel, frame, row, column; patches in merge groups.
          patch_hw: row and column of each patch within its frame, in patches; -1 marks padding.
          compute: how.
        """
        full = jnp.isin(jnp.arange(self.config.layers), jnp.asarray(self.config.full_attention, jnp.int32))
        slab_ids, window_ids = attention_ids(patch_hw, self.config)
        angles = rotary_angles(patch_hw, self.config)

        def step(
            block: VisionBlock, x: Float[Array, "S P D"], full: Bool[Array, ""]
        ) -> tuple[Float[Array, "S P D"], None]:
            return block(x, angles, jnp.where(full, slab_ids, window_ids), compute.attention), None

        x = self.embed_patches(patches, compute.dtype)
        x, _ = scan_layers(self.blocks, step, x, full, remat=compute.vision_remat)
        return self.merger(x)

    def embed_patches(self, patches: UInt8[Array, "S P X"], dtype: jnp.dtype) -> Float[Array, "S P D"]:
        """Scales pixels to Qwen's mean and deviation (in float32), then embeds each patch linearly."""
        slabs, count, _ = patches.shape
        pixels = patches.reshape(slabs, count, self.config.channels, -1).astype(jnp.float32) / 255.0
        pixels = (pixels - jnp.asarray(PIXEL_MEAN)[:, None]) / jnp.asarray(PIXEL_STD)[:, None]
        kernel = used(self.patch_embed, dtype).reshape(-1, self.config.width)
        return pixels.reshape(slabs, count, -1).astype(dtype) @ kernel


def attention_ids(
    patch_hw: Int[Array, "S P 2"], config: VisionConfig
) -> tuple[Int32[Array, "S P"], Int32[Array, "S P"]]:
    """Who sees whom, in full and in windowed blocks: 0 for all of a slab, the window's number; padding is -1."""
    valid = patch_hw[..., 0] >= 0
    row, column = jnp.moveaxis(patch_hw.astype(jnp.int32) // config.window_patches, -1, 0)
    # Windows start at the top left corner; the number of windows in a row only has to be large enough.
    window = row * jnp.int32(1 << 15) + column
    return jnp.where(valid, 0, -1), jnp.where(valid, window, -1)


def rotary_angles(patch_hw: Int[Array, "S P 2"], config: VisionConfig) -> Float[Array, "S P H/2"]:
    """2-D rotary: the first half of the frequencies turns with the row, the second with the column."""
    frequencies = inverse_frequencies(config.head_width // 4, config.rope_theta)
    angles = patch_hw[..., None].astype(jnp.float32) * frequencies
    return angles.reshape(*patch_hw.shape[:2], -1)


def _mlp_weight(rngs: nnx.Rngs, width: int, mlp_width: int, hf: str, stack: int) -> tuple[nnx.Param, nnx.Param]:
    """A projection into the MLP, with its bias."""
    kernel = weight(rngs, (width, mlp_width), ("embed", None), hf=hf + ".weight", layout="f d -> d f", stack=stack)
    bias = weight(rngs, (mlp_width,), (None,), hf=hf + ".bias", layout="f -> f", init=ZEROS, stack=stack)
    return kernel, bias
