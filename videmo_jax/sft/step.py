"""The training step of SFT, one compiled program on the mesh."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from videmo_jax.data.rows import Batch
from videmo_jax.model.compute import Compute
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.videmo import VidEmo
from videmo_jax.sft.loss import LossSums, next_token_sums
from videmo_jax.sharding.collectives import BATCH, sum_over
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.state import TrainState
from videmo_jax.training.step import ComputeSpec, StepMetrics, make_forward, make_step
from videmo_jax.training.trained import ALL, Trained


def make_train_step(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    compute: ComputeSpec,
    guard: GuardSpec,
    trained: Trained = ALL,
) -> Callable[[TrainState, Batch, float], tuple[TrainState, StepMetrics]]:
    """The compiled step (state, batch, learning rate) -> (state, metrics), as `training.step.make_step` says.

    The metrics' sums are those of `sft.loss`.
    """
    return make_step(config, optimizer, mesh, compute, guard, next_token_sums, trained)


def make_loss_step(config: ModelConfig, mesh: Mesh, compute: ComputeSpec) -> Callable[[nnx.State, Batch], LossSums]:
    """The compiled loss of a batch, without a gradient: (parameters, batch) -> sums."""

    def body(model: VidEmo, batch: Batch, how: Compute) -> LossSums:
        return sum_over(next_token_sums(model, batch, how, chunk=compute.loss_chunk), BATCH)

    return make_forward(config, mesh, compute, body, PartitionSpec())


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
