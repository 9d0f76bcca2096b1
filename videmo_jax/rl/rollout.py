"""Rollout: the policy answers prompts on the devices that train it, G answers to each, its clip and prompt read once.

A training step gathers weights layer by layer. Here they are read once for every token, so they are gathered first, in
the dtype of the computation, over all but the tensor axis of a mesh of its own: every group of devices along it has one
copy between them, answers its own prompts, and waits for no other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, UInt32

from videmo_jax.data.mixture import generator
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.lora import plain_params
from videmo_jax.model.videmo import Rows, abstract_model
from videmo_jax.sampling.decode import Answers, draw_answers
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sharding.collectives import use_weight
from videmo_jax.sharding.rules import (
    MESH_AXES,
    RINGS,
    batch_sharding,
    mesh_axes,
    on_mesh,
    shard_state,
    whole_mesh,
)
from videmo_jax.training.step import BATCH_SPLIT, require_split


def make_gather(config: ModelConfig, mesh: Mesh, dtype: Any, *, tensor: int = 0) -> Callable[[nnx.State], nnx.State]:
    """The compiled (parameters as they are trained) -> the same in `dtype`, whole but for the tensor axis.

    Args:
      config: of the model; its adapters are merged before (`lora.plain_params`), and the weights are the plain model's.
      mesh: that it is trained on.
      dtype: of the computation.
      tensor: of `whole_mesh`.
    """
    whole = whole_mesh(mesh, tensor)
    abstract = nnx.state(abstract_model(config.plain), nnx.Param)
    placed = shard_state(abstract, whole)
    stored, gathered = (jax.tree.map(lambda s: s.spec, each) for each in (shard_state(abstract, mesh), placed))
    together = whole.shape["tensor"] // mesh.shape["tensor"]

    def one(leaf: nnx.Variable, target: nnx.Variable) -> nnx.Variable:
        value, shape = leaf.get_value(), leaf.get_metadata("whole")
        axes, spec = leaf.get_metadata("out_sharding")[-len(shape) :], target.get_value()
        stacked = value.ndim - len(shape)  # layers are, and not split
        if together == 1:
            axes, shape = (*[None] * stacked, *axes), (*value.shape[:stacked], *shape)
            return leaf.replace(use_weight(value, axes, shape, dtype))

        def own(value: Array) -> Array:
            value = use_weight(value, axes, shape, dtype)
            number = lax.axis_index(("data", *RINGS)) % together
            for dimension in range(value.ndim):
                if mesh_axes(spec, stacked + dimension):
                    size = value.shape[dimension] // together
                    value = lax.dynamic_slice_in_dim(value, number * size, size, dimension)
            return value

        # Layer by layer: no stack of all layers has to be whole on a device, which needs its part alone.
        return leaf.replace(lax.map(own, value) if stacked else own(value))

    def join(params: nnx.State) -> nnx.State:
        return jax.tree.map(one, params, gathered, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))

    # Neighbours have parts of their own, which the mesh has no name for: as if all devices had.
    axes = ("data", *RINGS, "tensor") if together > 1 else "tensor"
    out = jax.tree.map(lambda spec: PartitionSpec(*(axes if name else None for name in spec)), gathered)
    joined = jax.shard_map(join, mesh=mesh, in_specs=(stored,), out_specs=out, check_vma=False)
    compiled = jax.jit(lambda params: joined(plain_params(params, config, dtype)))

    def run(params: nnx.State) -> nnx.State:
        with jax.set_mesh(mesh):
            weights = compiled(params)
        return on_mesh(weights, placed, abstract)

    run.compiled = compiled
    return run


def make_sampler(
    config: ModelConfig,
    mesh: Mesh,
    dtype: Any,
    decoding: Decoding,
    stop_ids: Sequence[int],
    banned_ids: Sequence[int],
    *,
    tensor: int = 0,
) -> Callable[[nnx.State, Rows, UInt32[Array, "B"]], Answers]:
    """The compiled (weights of `make_gather`, prompts, seed of each prompt) -> answers, split as the prompts are.

    Log-probabilities are those of `rl.loss.answer_log_probs` for the same tokens, up to rounding.

    Args:
      config: of the model; its adapters are in the weights.
      mesh: that it is trained on.
      dtype: of the computation, and of the weights.
      decoding: how many answers, and how they are drawn.
      stop_ids: tokens that end an answer.
      banned_ids: tokens that are never drawn.
      tensor: of `make_gather`.

    Raises:
      ValueError: the model does not split over so many devices.
    """
    whole = whole_mesh(mesh, tensor)
    require_split(config, whole.shape["tensor"], "rollout.tensor" if tensor else "mesh.tensor")
    model = abstract_model(config.plain)
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
    shared, own = _exchange(mesh, whole)

    def run(weights: nnx.State, rows: Rows, seeds: Array) -> Answers:
        rows, seeds = shared((rows, seeds))
        with jax.set_mesh(whole):
            drawn = compiled(weights, rows, seeds)
        return own(drawn)

    run.compiled = compiled
    return run


def _exchange(mesh: Mesh, whole: Mesh) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """(a batch on the mesh -> what neighbours have in common on `whole_mesh`, and back)."""
    inside, data, *_, tensor = whole.devices.shape
    own = mesh.shape["tensor"]
    # Devices in the order of the mesh, with neighbours along an axis of their own: nothing but names changes from here
    # to either of the two.
    between = Mesh(mesh.devices.reshape(inside, data, tensor // own, 1, 1, own), MESH_AXES, axis_types=mesh.axis_types)
    alone, common = NamedSharding(between, BATCH_SPLIT), NamedSharding(between, PartitionSpec(("replica", "data")))
    join, split = (jax.jit(lambda x: x, out_shardings=sharding) for sharding in (common, alone))

    def moved(to: Callable[[Any], Any], target: Mesh, tree: Any, start: NamedSharding) -> Any:
        tree = to(on_mesh(tree, jax.tree.map(lambda _: start, tree)))
        return on_mesh(tree, jax.tree.map(lambda array: batch_sharding(target, array.shape), tree))

    return lambda tree: moved(join, whole, tree, alone), lambda tree: moved(split, mesh, tree, common)


def prompt_seeds(seed: int, step: int, count: int, draw: int = 0) -> UInt32[np.ndarray, "B"]:
    """Of the random numbers of each prompt of a batch: a function of the run's seed, the step and its draw alone."""
    words = (seed, 2, step, draw) if draw else (seed, 2, step)
    return generator(*words).integers(2**32, size=count, dtype=np.uint32)
