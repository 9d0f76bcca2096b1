"""Batches without values: shapes, dtypes and places on a mesh."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from videmo_jax.data.rows import Batch, Budget
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.videmo import Rows
from videmo_jax.sharding.rules import batch_sharding


def on_batch(tree: Any, mesh: Mesh) -> Any:
    """The same shapes, all split along their first axis as a batch is."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh, x.shape)), tree)


def rows_layout(rows: int, budget: Budget, model: ModelConfig, mesh: Mesh) -> Rows:
    """Rows of a global batch."""

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    t, s, p = budget.tokens, budget.slabs, budget.patches
    ids, patches = array(jnp.int32, t), array(jnp.uint8, s, p, model.vision.patch_values)
    return on_batch(Rows(ids, ids, array(jnp.int32, 3, t), ids, patches, array(jnp.int32, s, p, 2)), mesh)


def batch_layout(rows: int, budget: Budget, model: ModelConfig, mesh: Mesh) -> Batch:
    """A global batch of SFT."""
    read = rows_layout(rows, budget, model, mesh)
    return Batch(read, read.tokens, on_batch(jax.ShapeDtypeStruct(read.tokens.shape, jnp.float32), mesh))
