"""What both towers are made of: weights that know their Hugging Face name, norms, rotary, stacks of layers."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from videmo_jax.model.compute import REMAT
from videmo_jax.sharding.collectives import use_weight
from videmo_jax.sharding.rules import RULES

Initializer = Callable[..., jax.Array]
NORMAL = nnx.initializers.normal(0.02)  # as in the configurations of Qwen2.5-VL
ZEROS = nnx.initializers.zeros_init()
ONES = nnx.initializers.ones_init()

T = TypeVar("T")


def weight(
    rngs: nnx.Rngs,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    *,
    hf: str | None = None,
    layout: str | None = None,
    init: Initializer = NORMAL,
    stack: int | None = None,
) -> nnx.Param:
    """One parameter in float32, with all that import, export and sharding have to know of it.

    Args:
      rngs: its stream `params` gives the initial values.
      shape: sizes, without the layers' axis.
      axes: logical axes, a name of `sharding.rules.RULES` for each dimension.
      hf: the tensor's name in a Hugging Face file; «{layer}» stands for the layer's number. None: it has none there.
      layout: an einops pattern from the Hugging Face tensor to ours, whose right side names each axis of `shape`.
      init: initialiser.
      stack: number of layers, where this weight is stacked along a leading axis.
    """
    if len(axes) != len(shape) or any(axis not in RULES for axis in axes):
        raise ValueError(f"{hf or 'weight'}: logical axes {axes} do not describe shape {shape}")
    whole = shape
    if stack is not None:
        shape, axes = (stack, *shape), ("layers", *axes)
    value = init(rngs.params(), shape, jnp.float32)
    return nnx.Param(value, out_sharding=axes, eager_sharding=False, whole=whole, hf=hf, hf_layout=layout)


def products_in(dtype: Any) -> AbstractContextManager[None]:
    """While this lasts, matrix products are traced as `dtype` promises: TPUs compute float32 ones in bfloat16 passes
    unless they are told otherwise."""
    return jax.default_matmul_precision("highest" if jnp.dtype(dtype) == jnp.float32 else None)


def used(param: nnx.Param, dtype: Any) -> Array:
    """A parameter, or one layer of a stacked one, as the computation reads it; see `sharding.collectives`."""
    whole = param.get_metadata("whole")
    return use_weight(param[...], param.get_metadata("out_sharding")[-len(whole) :], whole, dtype)


def project(x: Array, kernel: nnx.Param, pattern: str, bias: nnx.Param | None = None) -> Array:
    """einsum with a kernel in the activations' dtype, plus a bias that lies on the last axes."""
    y = jnp.einsum(pattern, x, used(kernel, x.dtype))
    return y if bias is None else y + used(bias, x.dtype)


def project_together(
    x: Float[Array, "*B D"], kernels: Sequence[nnx.Param], biases: Sequence[nnx.Param] = ()
) -> list[Array]:
    """x by several kernels [D, ...] of equal axes, gathered and multiplied as one: fewer and larger products."""
    columns = [kernel[...].reshape(len(kernel[...]), -1) for kernel in kernels]
    axes = kernels[0].get_metadata("out_sharding")[-len(kernels[0].get_metadata("whole")) :]
    whole = (kernels[0].get_metadata("whole")[0], 1)  # only the first dimension is gathered
    y = x @ use_weight(jnp.concatenate(columns, axis=1), (axes[0], None), whole, x.dtype)
    if biases:
        y += jnp.concatenate([used(bias, x.dtype).reshape(-1) for bias in biases])
    ends = np.cumsum([part.shape[1] for part in columns])
    parts = jnp.split(y, ends[:-1], axis=-1)
    return [part.reshape(*x.shape[:-1], *kernel.shape[1:]) for part, kernel in zip(parts, kernels, strict=True)]


def join_heads(x: Float[Array, "*B N H"], kernel: nnx.Param) -> Float[Array, "*B D"]:
    """Projects heads back to the model's width, as one matrix product."""
    return x.reshape(*x.shape[:-2], -1) @ used(kernel, x.dtype).reshape(-1, kernel.get_metadata("whole")[-1])


def rms_norm(x: Float[Array, "*B D"], scale: nnx.Param, eps: float) -> Float[Array, "*B D"]:
    """RMSNorm, computed in float32."""
    wide = x.astype(jnp.float32)
    wide *= lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return wide.astype(x.dtype) * used(scale, x.dtype)


def inverse_frequencies(count: int, theta: float) -> Float[Array, "F"]:
    """Rotary frequencies theta ** (-i / count), i = 0 .. count - 1."""
    return 1.0 / theta ** (jnp.arange(count, dtype=jnp.float32) / count)


def rotate(x: Float[Array, "B T N H"], angles: Float[Array, "B T H/2"]) -> Float[Array, "B T N H"]:
    """Rotary embedding: the halves of each head turn by `angles`, computed in float32."""
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def scan_layers(
    layers: nnx.Module,
    step: Callable[[Any, Array, Any], tuple[Array, T]],
    x: Array,
    per_layer: Any = None,
    *,
    remat: str,
) -> tuple[Array, T]:
    """Runs x through a stack of layers in one compiled loop: compile time does not grow with depth.

    Args:
      layers: a module whose parameters are stacked along axis 0.
      step: (layer, x, this layer's share of per_layer) -> (x, an output to stack over the layers).
      x: the activations that go in.
      per_layer: a tree of arrays with the layers in front.
      remat: a name of `model.compute.REMAT`.
    """
    graph, state = nnx.split(layers)

    def body(carry: Array, share: tuple[nnx.State, Any]) -> tuple[Array, T]:
        return step(nnx.merge(graph, share[0]), carry, share[1])

    body = jax.checkpoint(body, policy=REMAT[remat], prevent_cse=False)
    return lax.scan(body, x, (state, per_layer))


def take_layer(layers: nnx.Module, index: int) -> Any:
    """Layer number `index` of a stack, as a module of its own."""
    graph, state = nnx.split(layers)
    return nnx.merge(graph, jax.tree.map(lambda leaf: leaf[index], state))
