"""The least that a recipe must move between devices, and between a chip and its memory: what a program is held to."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from videmo_jax.data.rows import Budget
from videmo_jax.model.compute import Compute
from videmo_jax.model.config import ModelConfig
from videmo_jax.sharding.rules import RINGS, batch_shards, mesh_axes, partition_spec


def least_traffic(
    params: nnx.State, config: ModelConfig, mesh: Any, rows: int, tokens: int, compute: Compute, microbatches: int
) -> float:
    """Bytes that a device must take in during one step, gathers and reductions in the dtype of the computation.

    For each weight that is split over rings of n devices in all: two gathers for each microbatch (forward, backward)
    and one reduce-scatter of its gradient, (n - 1) / n of the weight each; for the rest of its copies, r of them, an
    all-reduce of the gradient, 2 (r - 1) / r. Over the tensor axis two reductions of the activations a layer, forward
    and backward each.

    Args:
      params: shapes and axes of the parameters.
      config: of the model.
      mesh: devices.
      rows, tokens: of the global batch, and of a row.
      compute: how the model computes.
      microbatches: parts of a batch.
    """
    width = jnp.dtype(compute.dtype).itemsize
    total = 0.0
    for leaf in jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)):
        shape = leaf.get_value().shape
        spec = partition_spec(leaf.get_metadata("out_sharding"), shape, mesh)
        names = [name for dimension in range(len(shape)) for name in mesh_axes(spec, dimension)]
        rings = math.prod(mesh.shape[name] for name in names if name in RINGS)
        used = math.prod(shape) * width / math.prod(mesh.shape[name] for name in names if name not in RINGS)
        copies = batch_shards(mesh) // rings
        total += (2 * microbatches + 1) * used * (rings - 1) / rings + 2 * used / rings * (copies - 1) / copies
    tensor = mesh.shape["tensor"]
    activations = rows / batch_shards(mesh) * tokens * config.text.width * width
    return total + 4 * config.text.layers * activations * 2 * (tensor - 1) / tensor


def least_memory_traffic(
    params: nnx.State, config: ModelConfig, mesh: Any, rows: int, budget: Budget, compute: Compute, microbatches: int
) -> float:
    """Bytes that a chip must read and write in its own memory during one step; an estimate from below.

    Counted are the optimizer's pass over parameters and moments (float32), gathered weights written once and read once
    in each of the passes forward, backward by activations and backward by weights, and what goes into and out of each
    product of a block.

    Args:
      params, config, mesh, rows, compute, microbatches: as in `least_traffic`.
      budget: of a row.
    """
    width = jnp.dtype(compute.dtype).itemsize
    stored = used = 0.0
    for leaf in jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)):
        shape = leaf.get_value().shape
        names = [n for axes in partition_spec(leaf.get_metadata("out_sharding"), shape, mesh) for n in _names(axes)]
        stored += math.prod(shape) * 4 / math.prod(mesh.shape[name] for name in names)
        used += math.prod(shape) * width / math.prod(mesh.shape[name] for name in names if name not in RINGS)
    text, vision, tensor = config.text, config.vision, mesh.shape["tensor"]
    heads = (text.heads + 2 * text.kv_heads) * text.head_width
    by_token = 4 * text.width + (heads + text.heads * text.head_width + 3 * text.mlp_width) / tensor
    by_patch = (8 * vision.width + 3 * vision.mlp_width) / tensor
    share = rows / batch_shards(mesh)
    activations = share * budget.tokens * text.layers * by_token
    activations += share * budget.slabs * budget.patches * vision.layers * by_patch
    return 7 * stored + 2 * 3 * microbatches * used + 3 * activations * width


def _names(axes: Any) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
