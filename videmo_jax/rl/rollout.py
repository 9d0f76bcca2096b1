"""Rollout: the policy answers prompts on the devices that train it, G answers to each, its clip and prompt read once.

A training step gathers weights layer by layer. Here they are read once for every token, so they are gathered whole
first, in the dtype of the computation, over all but the tensor axis; then every group of devices along that axis
answers its own prompts, and waits for no other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, UInt32

from videmo_jax.data.mixture import generator
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.videmo import Rows, abstract_model
from videmo_jax.sampling.decode import Answers, draw_answers
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sharding.collectives import use_weight
from videmo_jax.sharding.rules import batch_sharding, on_mesh, shard_state, whole_mesh
from videmo_jax.training.step import BATCH_SPLIT


def make_gather(config: ModelConfig, mesh: Mesh, dtype: Any) -> Callable[[nnx.State], nnx.State]:
    """The compiled (parameters as they are trained) -> the same in `dtype`, whole but for the tensor axis."""
    whole = whole_mesh(mesh)
    abstract = nnx.state(abstract_model(config), nnx.Param)
    stored, gathered = (jax.tree.map(lambda s: s.spec, shard_state(abstract, on)) for on in (mesh, whole))

    def one(leaf: nnx.Variable) -> nnx.Variable:
        value, shape = leaf.get_value(), leaf.get_metadata("whole")
        shape = (*value.shape[: value.ndim - len(shape)], *shape)  # layers are stacked, and not split
        return leaf.replace(use_weight(value, leaf.get_metadata("out_sharding"), shape, dtype))

    def join(params: nnx.State) -> nnx.State:
        return jax.tree.map(one, params, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))

    compiled = jax.jit(jax.shard_map(join, mesh=mesh, in_specs=(stored,), out_specs=gathered, check_vma=False))

    def run(params: nnx.State) -> nnx.State:
        with jax.set_mesh(mesh):
            joined = compiled(params)
        return on_mesh(joined, shard_state(joined, whole))

    run.compiled = compiled
    return run


def make_sampler(
    config: ModelConfig,
    mesh: Mesh,
    dtype: Any,
    decoding: Decoding,
    stop_ids: Sequence[int],
    banned_ids: Sequence[int],
) -> Callable[[nnx.State, Rows, UInt32[Array, "B"]], Answers]:
    """The compiled (weights of `make_gather`, prompts, seed of each prompt) -> answers, split as the prompts are.

    Log-probabilities are those of `rl.loss.answer_log_probs` for the same tokens, up to rounding.

    Args:
      config: of the model.
      mesh: that it is trained on.
      dtype: of the computation, and of the weights.
      decoding: how many answers, and how they are drawn.
      stop_ids: tokens that end an answer.
      banned_ids: tokens that are never drawn.
    """
    whole = whole_mesh(mesh)
    model = abstract_model(config)
    graph = nnx.graphdef(model)
    placed = jax.tree.map(lambda s: s.spec, shard_state(nnx.state(model, nnx.Param), whole))

    def local(weights: nnx.State, rows: Rows, seeds: Array) -> Answers:
        return draw_answers(
            nnx.merge(graph, weights),
            rows,
            seeds,
            decoding=decoding,
            stop_ids=tuple(stop_ids),
            banned_ids=tuple(banned_ids),
            dtype=jnp.dtype(dtype),
            platform=mesh.devices.flat[0].platform,
        )

    specs = (placed, BATCH_SPLIT, BATCH_SPLIT)
    compiled = jax.jit(jax.shard_map(local, mesh=whole, in_specs=specs, out_specs=BATCH_SPLIT, check_vma=False))

    def run(weights: nnx.State, rows: Rows, seeds: Array) -> Answers:
        with jax.set_mesh(whole):
            drawn = compiled(weights, *_on_batch(whole, (rows, seeds)))
        return _on_batch(mesh, drawn)

    run.compiled = compiled
    return run


def prompt_seeds(seed: int, step: int, count: int, draw: int = 0) -> UInt32[np.ndarray, "B"]:
    """Of the random numbers of each prompt of a batch: a function of the run's seed, the step and its draw alone."""
    words = (seed, 2, step, draw) if draw else (seed, 2, step)
    return generator(*words).integers(2**32, size=count, dtype=np.uint32)


def _on_batch(mesh: Mesh, tree: Any) -> Any:
    """Arrays that are split as a batch is, on this mesh of the same devices."""
    return on_mesh(tree, jax.tree.map(lambda array: batch_sharding(mesh, array.shape), tree))
