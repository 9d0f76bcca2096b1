"""How the model computes: precision, what the backward pass computes again, which attention kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Policy = Callable[..., bool]


def _all_but_weights(primitive: Any, *_: Any, **__: Any) -> bool:
    """Everything is kept but what a weight passes through on its way into a product: gathered weights are large."""
    return primitive.name not in ("convert_element_type", "all_gather", "transpose", "reshape", "name")


_policies = jax.checkpoint_policies

# What a block keeps for its backward pass and need not compute again, by name, from the most memory to the least.
REMAT: dict[str, Policy] = {
    "none": _all_but_weights,
    # products with weights, and the attention's result
    "dots": _policies.save_from_both_policies(
        _policies.dots_with_no_batch_dims_saveable, _policies.save_only_these_names("context")
    ),
    # all of the attention: the MLP is computed again
    "attention": _policies.save_only_these_names("qkv", "context", "mixed"),
    # the attention's result: its kernel does not run again
    "context": _policies.save_only_these_names("context"),
    # only what goes from block to block
    "full": _policies.nothing_saveable,
}


@dataclass(frozen=True)
class Compute:
    """How a pass through the model is computed; weights are cast where they are used.

    Attributes:
      dtype: of activations and products.
      remat, vision_remat: names of REMAT, for the blocks of the decoder and of the vision tower.
      attention: a name of `model.attention.KERNELS`.
    """

    dtype: Any = jnp.float32
    remat: str = "none"
    vision_remat: str = "none"
    attention: str = "xla"
