"""LoRA: products with the decoder's weights W get a part of low rank beside them, W + alpha / rank * A B.

While it is trained that sum is never made: the part is added to the products (Hu et al. 2021, arXiv:2106.09685).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from videmo_jax.model.config import LoraConfig, ModelConfig
from videmo_jax.model.layers import ZEROS, used, weight

Path = tuple[str, ...]
ADAPTERS = "language.layers.lora"  # prefix of the names of all adapters


class Adapters(nnx.Module):
    """For each target of every layer A [D, r], normal at first, and B [r, ...], zeros: at first they add nothing."""

    def __init__(self, config: LoraConfig, kernels: Mapping[str, nnx.Param], rngs: nnx.Rngs, stack: int) -> None:
        """Makes adapters.

        Args:
          config: their rank, scale and targets.
          kernels: the weights by target, stacked; their last axes are those of `kernel_split`.
          rngs: its stream `params` gives the initial values.
          stack: number of layers.
        """
        self.scale = config.scale
        for name in config.targets:
            inward, outward = kernel_split(name, kernels[name].get_metadata("whole"))
            down = weight(rngs, (inward, config.rank), ("embed", None), stack=stack)
            # Split over the same devices, along the last axis: of the rank there are too few.
            axes = (*[None] * len(outward), "embed")
            setattr(self, f"{name}_a", down)
            setattr(self, f"{name}_b", weight(rngs, (config.rank, *outward), axes, init=ZEROS, stack=stack))

    def added(self, name: str, x: Float[Array, "B T D"], y: Float[Array, "B T *E"]) -> Float[Array, "B T *E"]:
        """`y`, the product of x with the kernel `name`, with the adapter's part where it has one."""
        if not hasattr(self, f"{name}_a"):
            return y
        narrow = x @ used(getattr(self, f"{name}_a"), x.dtype)
        return y + jnp.tensordot(narrow, used(getattr(self, f"{name}_b"), x.dtype), 1) * self.scale


def kernel_split(name: str, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """The size of what goes into a kernel (for `o` all heads as one), and the axes of what comes out."""
    return (shape[0] * shape[1], shape[2:]) if name == "o" else (shape[0], shape[1:])


def merged_kernel(kernel: Any, a: Any, b: Any, scale: float) -> Array:
    """One layer's W + scale * A B, in float32.

    Args:
      kernel: of any shape.
      a: [D, r], D the size of what goes in.
      b: [r, ...].
      scale: alpha / rank.
    """
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    product = jnp.matmul(a, b.reshape(len(b), -1), precision="highest")
    return jnp.asarray(kernel, jnp.float32) + scale * product.reshape(kernel.shape)


def adapter_paths(config: LoraConfig) -> dict[Path, tuple[Path, Path]]:
    """Where A and B of each adapted kernel stand among the parameters, by the kernel's own path."""
    layers = tuple(ADAPTERS.split("."))
    return {
        (*layers[:-1], name): ((*layers, f"{name}_a"), (*layers, f"{name}_b"))
        for name in (config.targets if config.rank else ())
    }


def plain_params(params: nnx.State, config: ModelConfig, dtype: Any) -> nnx.State:
    """`merged` within a program of the caller's: sums are made in float32 and rounded to `dtype`, the rest stays."""
    flat = {tuple(path): param for path, param in nnx.to_flat_state(params)}
    for path, adapter in adapter_paths(config.lora).items():
        a, b = (flat.pop(each).get_value() for each in adapter)
        flat[path] = flat[path].replace(_every_layer(flat[path].get_value(), a, b, config.lora.scale, dtype))
    return nnx.from_flat_state(flat)


def merged(params: nnx.State, config: ModelConfig) -> tuple[nnx.State, ModelConfig]:
    """Parameters of the plain model that computes the same, and its configuration; sums are made in float32.

    Kernels keep their dtype and their place on the devices. Those with adapters are given up, as the devices may not
    hold all of them twice: `params` is of no use afterwards.
    """
    flat = {tuple(path): param for path, param in nnx.to_flat_state(params)}
    for path, adapter in adapter_paths(config.lora).items():
        kernel, a, b = flat[path].get_value(), *(flat.pop(each).get_value() for each in adapter)
        how = {"donate_argnums": 0, "static_argnums": (3, 4), "out_shardings": kernel.sharding}
        sums = jax.jit(_every_layer, **how)(kernel, a, b, config.lora.scale, kernel.dtype)
        # Awaited: on CPUs, two programs with collectives in flight can block each other.
        flat[path] = flat[path].replace(jax.block_until_ready(sums))
    return nnx.from_flat_state(flat), config.plain


def _every_layer(kernel: Array, a: Array, b: Array, scale: float, dtype: Any) -> Array:
    """`merged_kernel` of stacks, one layer after the other: the float32 products of all would be as large as they."""
    return lax.map(lambda layer: merged_kernel(*layer, scale).astype(dtype), (kernel, a, b))
