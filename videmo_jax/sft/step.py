"""The training step of SFT, one compiled program on the mesh."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from videmo_jax.data.rows import Batch
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.layers import REMAT, products_in
from videmo_jax.model.videmo import abstract_model
from videmo_jax.sft.loss import LossSums, next_token_sums
from videmo_jax.sharding.rules import shard_state
from videmo_jax.training.guard import GuardSpec, watch
from videmo_jax.training.optimizer import descend
from videmo_jax.training.state import TrainState, abstract_state


@dataclass(frozen=True)
class ComputeSpec:
    """How a step computes; parameters, gradients and the optimizer stay float32."""

    dtype: str = "bfloat16"  # of activations and of weights where they are used; or float32
    remat: str = "full"  # a name of model.layers.REMAT
    loss_chunk: int = 512  # tokens of a row whose logits exist at once

    def __post_init__(self) -> None:
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"compute.dtype is {self.dtype!r}; it must be bfloat16 or float32")
        if self.remat not in REMAT:
            raise ValueError(f"compute.remat is {self.remat!r}; it must be one of {', '.join(REMAT)}")
        if self.loss_chunk < 1:
            raise ValueError(f"compute.loss_chunk is {self.loss_chunk}; it must be at least 1")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepMetrics:
    """What a step measured over the global batch.

    Attributes:
      sums: of the trained tokens.
      gradient_norm: before clipping.
      tokens: text and vision, without padding.
      samples: segments of all rows.
      halted: the guard found this step or an earlier one bad: it was not taken.
    """

    sums: LossSums
    gradient_norm: Float[Array, ""]
    tokens: Int[Array, ""]
    samples: Int[Array, ""]
    halted: Bool[Array, ""]


def make_train_step(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    compute: ComputeSpec,
    guard: GuardSpec,
) -> Callable[[TrainState, Batch, float], tuple[TrainState, StepMetrics]]:
    """The compiled step (state, batch, learning rate) -> (state, metrics); the state that goes in is given up.

    A step that the guard finds bad changes nothing but `halted`, and no later one does.
    """
    graph = nnx.graphdef(abstract_model(config))
    layout = shard_state(abstract_state(config, optimizer), mesh)

    def mean_loss(params: nnx.State, batch: Batch) -> tuple[Float[Array, ""], LossSums]:
        sums = next_token_sums(
            nnx.merge(graph, params),
            batch,
            dtype=jnp.dtype(compute.dtype),
            remat=REMAT[compute.remat],
            chunk=compute.loss_chunk,
        )
        return sums.loss / jnp.maximum(sums.tokens, 1), sums

    def step(state: TrainState, batch: Batch, rate: jax.Array) -> tuple[TrainState, StepMetrics]:
        with products_in(compute.dtype):
            (loss, sums), gradient = jax.value_and_grad(mean_loss, has_aux=True)(state.params, batch)
        norm = optax.tree.norm(gradient)
        watched = watch(guard, state.guard, loss, norm, sums.tokens)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        after = descend(state.params, updates, rate), optimizer_state
        # A choice in place, element by element: unlike lax.cond it takes no copy of the state.
        taken = jax.tree.map(partial(jnp.where, watched.halted), (state.params, state.optimizer), after)
        segments = batch.rows.segment_ids
        tokens, samples = jnp.count_nonzero(segments), jnp.sum(jnp.max(segments, axis=-1))
        return TrainState(*taken, watched), StepMetrics(sums, norm, tokens, samples, watched.halted)

    compiled = jax.jit(step, donate_argnums=0, out_shardings=(layout, NamedSharding(mesh, PartitionSpec())))

    def run(state: TrainState, batch: Batch, rate: float) -> tuple[TrainState, StepMetrics]:
        with jax.set_mesh(mesh):
            return compiled(state, batch, np.float32(rate))

    run.compiled = compiled
    return run


def make_loss_step(config: ModelConfig, mesh: Mesh, compute: ComputeSpec) -> Callable[[nnx.State, Batch], LossSums]:
    """The compiled loss of a batch, without a gradient: (parameters, batch) -> sums."""
    graph = nnx.graphdef(abstract_model(config))

    def loss(params: nnx.State, batch: Batch) -> LossSums:
        with products_in(compute.dtype):
            model = nnx.merge(graph, params)
            return next_token_sums(model, batch, dtype=jnp.dtype(compute.dtype), chunk=compute.loss_chunk)

    compiled = jax.jit(loss, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def run(params: nnx.State, batch: Batch) -> LossSums:
        with jax.set_mesh(mesh):
            return compiled(params, batch)

    return run


def numbers(metrics: StepMetrics) -> dict[str, Any]:
    """The metrics as plain numbers; waits for the step."""
    values = jax.device_get(metrics)
    tokens = max(float(values.sums.tokens), 1.0)
    return {
        "loss": float(values.sums.loss) / tokens,
        "accuracy": float(values.sums.correct) / tokens,
        "trained_tokens": int(values.sums.tokens),
        "gradient_norm": float(values.gradient_norm),
        "tokens": int(values.tokens),
        "samples": int(values.samples),
        "halted": bool(values.halted),
    }
