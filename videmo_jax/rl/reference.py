"""The reference, which the policy is compared with: its frozen parameters, and a copy of those that are trained.

An update gives up the arrays that it trains and leaves all others alone (`training.step.make_step`). So the reference
shares what is frozen, and takes memory for a copy of the rest: of everything, or of adapters alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from videmo_jax.training.trained import Trained, joined


def reference_of(params: nnx.State, policy: nnx.State, trained: Trained, dtype: Any) -> nnx.State:
    """All parameters of a reference: what is trained as `params` have it, copied in `dtype`; the rest is `policy`'s."""
    copied = jax.tree.map(lambda x: jnp.array(x, dtype, copy=True), trained.of(params))
    return joined(copied, trained.split(policy)[1])


def reference_layout(policy: nnx.State, trained: Trained, dtype: Any) -> nnx.State:
    """Shapes and places of `reference_of`, given those of the policy."""
    part, frozen = trained.split(policy)
    return joined(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding), part), frozen)
