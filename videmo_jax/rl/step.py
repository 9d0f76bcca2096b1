"""The update of the policy and the log-probabilities that it needs, each one compiled program on the mesh."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from videmo_jax.model.config import ModelConfig
from videmo_jax.rl.loss import GrpoSpec, answer_log_probs, grpo_sums
from videmo_jax.rl.rows import GroupBatch
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.state import TrainState
from videmo_jax.training.step import BATCH_SPLIT, ComputeSpec, StepMetrics, make_forward, make_step
from videmo_jax.training.trained import ALL, Trained


def make_policy_step(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    compute: ComputeSpec,
    guard: GuardSpec,
    spec: GrpoSpec,
    trained: Trained = ALL,
) -> Callable[[TrainState, GroupBatch, float], tuple[TrainState, StepMetrics]]:
    """The compiled update (state, batch, learning rate) -> (state, metrics), as `training.step.make_step` says.

    Several updates from one rollout are several calls with the same batch. The metrics' sums are those of `rl.loss`. A
    device takes its rows one after the other, and none that is empty on all devices.
    """
    compute = replace(compute, row_by_row=True)
    return make_step(config, optimizer, mesh, compute, guard, partial(grpo_sums, spec=spec), trained)


def make_log_prob_step(
    config: ModelConfig, mesh: Mesh, compute: ComputeSpec, temperature: float
) -> Callable[[nnx.State, GroupBatch], Float[Array, "R A"]]:
    """The compiled (parameters, batch) -> log-probabilities of the answers' tokens, split as the batch is.

    With the reference's parameters it gives `GroupBatch.reference`.
    """
    body = partial(answer_log_probs, chunk=compute.loss_chunk, temperature=temperature)
    return make_forward(config, mesh, replace(compute, row_by_row=True), body, BATCH_SPLIT)


def numbers(metrics: StepMetrics) -> dict[str, Any]:
    """The metrics as plain numbers; waits for the step."""
    values = jax.device_get(metrics)
    sums, tokens = values.sums, max(float(values.sums.tokens), 1.0)
    by_token = ("kl", "entropy", "ratio", "clipped_low", "clipped_high")
    return {
        "loss": float(sums.loss) / max(float(sums.count), 1.0),
        **{name: float(getattr(sums, name)) / tokens for name in by_token},
        "log_prob_gap": float(sums.gap) / tokens,
        "length": float(sums.tokens) / max(float(sums.answers), 1.0),
        "answers": int(sums.answers),
        "trained_tokens": int(sums.tokens),
        "gradient_norm": float(values.gradient_norm),
        "tokens": int(values.tokens),
        "samples": int(values.samples),
        "halted": bool(values.halted),
    }
