"""The decoder of Qwen2.5-VL: grouped-query attention with M-RoPE, SwiGLU, RMSNorm."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from videmo_jax.files.errors import UserError
from videmo_jax.model.attention import segment_attention
from videmo_jax.model.compute import Compute
from videmo_jax.model.config import LoraConfig, TextConfig
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
    weight,
)
from videmo_jax.model.lora import Adapters
from videmo_jax.model.strips import Int8, Strips, multiply
from videmo_jax.model.tables import Table, gather
from videmo_jax.sharding.collectives import enter_tensor, leave_tensor

Attend = Callable[[Array, Array, Array], Array]


class DecoderLayer(nnx.Module):
    """One layer; how its queries meet keys and values is the caller's: packed rows, prefill and decoding share it."""

    lora: Adapters | None = None

    def __init__(self, config: TextConfig, rngs: nnx.Rngs, stack: int) -> None:
        d, n, k, h, f = config.width, config.heads, config.kv_heads, config.head_width, config.mlp_width
        self.eps = config.norm_eps

        def param(name: str, shape: tuple[int, ...], axes: tuple[str | None, ...], layout: str) -> nnx.Param:
            init = {"init": ONES} if "norm" in name else {"init": ZEROS} if name.endswith("bias") else {}
            hf = f"model.layers.{{layer}}.{name}"
            return weight(rngs, shape, axes, hf=hf, layout=layout, stack=stack, **init)

        self.attention_norm = param("input_layernorm.weight", (d,), (None,), "d -> d")
        self.q = param("self_attn.q_proj.weight", (d, n, h), ("embed", "heads", None), "(n h) d -> d n h")
        self.q_bias = param("self_attn.q_proj.bias", (n, h), ("heads", None), "(n h) -> n h")
        self.k = param("self_attn.k_proj.weight", (d, k, h), ("embed", "kv_heads", None), "(k h) d -> d k h")
        self.k_bias = param("self_attn.k_proj.bias", (k, h), ("kv_heads", None), "(k h) -> k h")
        self.v = param("self_attn.v_proj.weight", (d, k, h), ("embed", "kv_heads", None), "(k h) d -> d k h")
        self.v_bias = param("self_attn.v_proj.bias", (k, h), ("kv_heads", None), "(k h) -> k h")
        self.o = param("self_attn.o_proj.weight", (n, h, d), ("heads", None, "embed"), "d (n h) -> n h d")
        self.mlp_norm = param("post_attention_layernorm.weight", (d,), (None,), "d -> d")
        self.gate = param("mlp.gate_proj.weight", (d, f), ("embed", "mlp"), "f d -> d f")
        self.up = param("mlp.up_proj.weight", (d, f), ("embed", "mlp"), "f d -> d f")
        self.down = param("mlp.down_proj.weight", (f, d), ("mlp", "embed"), "d f -> f d")

    def adapt(self, config: LoraConfig, rngs: nnx.Rngs, stack: int) -> None:
        """Puts adapters beside the kernels that the config names."""
        self.lora = Adapters(config, {name: getattr(self, name) for name in config.targets}, rngs, stack)

    def __call__(
        self, x: Float[Array, "B T D"], angles: Float[Array, "B T H/2"], attend: Attend
    ) -> tuple[Float[Array, "B T D"], tuple[Float[Array, "B T K H"], Float[Array, "B T K H"]]]:
        """Returns the new activations, and this layer's rotated keys and its values (for a cache).

        Args:
          x: activations.
          angles: rotary angles of the tokens.
          attend: (q, k, v) -> mixed values, q [B, T, N, H], k and v [B, T, K, H].
        """
        q, k, v = self.qkv(enter_tensor(rms_norm(x, self.attention_norm, self.eps)))
        q, k, v = checkpoint_name((rotate(q, angles), rotate(k, angles), v), "qkv")
        mixed = attend(q, k, v)
        x += checkpoint_name(leave_tensor(self.joined(mixed)), "mixed")
        gate, up = self.gate_up(enter_tensor(rms_norm(x, self.mlp_norm, self.eps)))
        x += leave_tensor(self.narrowed(jax.nn.silu(gate) * up))
        return x, (k, v)

    def qkv(self, y: Float[Array, "B T D"]) -> tuple[Array, Array, Array]:
        """Queries [B, T, N, H], keys and values [B, T, K, H], not yet rotated."""
        q, k, v = project_together(y, (self.q, self.k, self.v), (self.q_bias, self.k_bias, self.v_bias))
        return self._adapted("q", y, q), self._adapted("k", y, k), self._adapted("v", y, v)

    def gate_up(self, y: Float[Array, "B T D"]) -> tuple[Float[Array, "B T F"], Float[Array, "B T F"]]:
        """Both inner projections of the SwiGLU."""
        gate, up = project_together(y, (self.gate, self.up))
        return self._adapted("gate", y, gate), self._adapted("up", y, up)

    def joined(self, mixed: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        """What attention gave, projected back to the model's width."""
        return self._adapted("o", mixed.reshape(*mixed.shape[:2], -1), join_heads(mixed, self.o))

    def narrowed(self, inner: Float[Array, "B T F"]) -> Float[Array, "B T D"]:
        """The outer projection of the SwiGLU."""
        return self._adapted("down", inner, project(inner, self.down, "btf,fd->btd"))

    def _adapted(self, name: str, x: Array, product: Array) -> Array:
        """A product of x with a kernel, and what an adapter adds to it."""
        return product if self.lora is None else self.lora.added(name, x, product)


class FusedLayer(DecoderLayer):
    """A layer that reads its weights as four large matrices in place of seven: decoding waits for memory.

    One layer, not a stack, and without adapters; it is built once before the loop that decodes.
    """

    def __init__(
        self, layer: DecoderLayer, lay_out: Callable[[Array], Array | Strips | Int8] = lambda matrix: matrix
    ) -> None:
        """`lay_out` makes of each matrix what products read, such as `Strips.of`."""
        if layer.lora is not None:
            raise UserError("a model with adapters does not decode; use its plain one, of model.lora.merged")
        self.eps = layer.eps
        self.attention_norm, self.mlp_norm = layer.attention_norm, layer.mlp_norm
        inward = (layer.q, layer.k, layer.v)
        self.heads = tuple(kernel.shape[1] for kernel in inward)
        columns = [kernel[...].reshape(kernel.shape[0], -1) for kernel in inward]
        biases = (layer.q_bias, layer.k_bias, layer.v_bias)
        # Said to hold arrays: a layout such as `Strips` is no array itself, and flax takes it for a constant.
        self.in_bias = jnp.concatenate([bias[...].reshape(-1) for bias in biases])
        self.in_kernel = nnx.data(lay_out(jnp.concatenate(columns, axis=-1)))
        self.o_kernel = nnx.data(lay_out(layer.o[...].reshape(-1, layer.o.shape[-1])))
        self.gate_up_kernel = nnx.data(lay_out(jnp.concatenate([layer.gate[...], layer.up[...]], axis=-1)))
        self.down_kernel = nnx.data(lay_out(layer.down[...]))

    def qkv(self, y: Float[Array, "B T D"]) -> tuple[Array, Array, Array]:
        """As `DecoderLayer.qkv`, in one product."""
        both = rearrange(multiply(y, self.in_kernel) + self.in_bias, "b t (n h) -> b t n h", n=sum(self.heads))
        q, k, v = jnp.split(both, (self.heads[0], self.heads[0] + self.heads[1]), axis=2)
        return q, k, v

    def gate_up(self, y: Float[Array, "B T D"]) -> tuple[Float[Array, "B T F"], Float[Array, "B T F"]]:
        """As `DecoderLayer.gate_up`, in one product."""
        gate, up = jnp.split(multiply(y, self.gate_up_kernel), 2, axis=-1)
        return gate, up

    def joined(self, mixed: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        """As `DecoderLayer.joined`."""
        return multiply(mixed.reshape(*mixed.shape[:2], -1), self.o_kernel)

    def narrowed(self, inner: Float[Array, "B T F"]) -> Float[Array, "B T D"]:
        """As `DecoderLayer.narrowed`."""
        return multiply(inner, self.down_kernel)


class Decoder(nnx.Module):
    """Token embedding, layers, final norm and output layer."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs, lora: LoraConfig = LoraConfig()) -> None:  # noqa: B008
        self.config = config
        shape, axes = (config.vocab, config.width), ("vocab", None)
        self.embedding = weight(rngs, shape, axes, hf="model.embed_tokens.weight", layout="v d -> v d")
        self.layers = DecoderLayer(config, rngs, stack=config.layers)
        self.norm = weight(rngs, (config.width,), (None,), hf="model.norm.weight", layout="d -> d", init=ONES)
        self.head = None if config.tied else weight(rngs, shape, axes, hf="lm_head.weight", layout="v d -> v d")
        if lora.rank:  # last, so that all other initial values are those of the plain model
            self.layers.adapt(lora, rngs, stack=config.layers)

    def tables(self, dtype: Any) -> tuple[Table, Table]:
        """The embedding and the weights of the output layer, gathered; one and the same where they are tied."""
        embedding = gather(self.embedding, dtype)
        return embedding, embedding if self.head is None else gather(self.head, dtype)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B 3 T"],
        segment_ids: Int[Array, "B T"],
        compute: Compute = Compute(),  # noqa: B008 (it is frozen)
        *,
        keep_cache: bool = False,
        attend: Attend | None = None,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Hidden states after the final norm; with `keep_cache` also keys and values, [L, B, T, K, H] each.

        Tokens see earlier tokens of their row that have the same segment id, unless `attend` says otherwise.
        """
        angles = self.rotary_angles(positions)
        if attend is None:
            attend = partial(segment_attention, segment_ids=segment_ids, causal=True, kernel=compute.attention)

        def step(layer: DecoderLayer, x: Array, _: None) -> tuple[Array, Any]:
            x, cache = layer(x, angles, attend)
            return x, cache if keep_cache else None

        x, cache = scan_layers(self.layers, step, x, remat=compute.remat)
        return rms_norm(x, self.norm, self.config.norm_eps), cache

    def rotary_angles(self, positions: Int[Array, "B 3 T"]) -> Float[Array, "B T H/2"]:
        """M-RoPE: each frequency turns with the temporal, height or width id, by sections."""
        sections = jnp.asarray(self.config.mrope_sections)
        axis = jnp.repeat(jnp.arange(3), sections, total_repeat_length=self.config.head_width // 2)
        by_frequency = jnp.moveaxis(positions, 1, -1)[..., axis].astype(jnp.float32)
        return by_frequency * inverse_frequencies(self.config.head_width // 2, self.config.rope_theta)

    def logits(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Scores of the next token, in float32."""
        return jnp.einsum("btd,vd->btv", x, self.tables(x.dtype)[1].rows, preferred_element_type=jnp.float32)
