"""AdamW with warm-up, cosine decay and clipping (PAPER.md section 1)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from videmo_jax.files.errors import UserError


@dataclass(frozen=True)
class OptimizerSpec:
    """The paper's optimizer; fields it does not print are ours."""

    learning_rate: float = 2e-5  # peak (given)
    schedule: str = "cosine"  # after the warm-up (given); or linear, constant
    warmup_share: float = 0.03  # of all steps (given)
    final_share: float = 0.0  # of the peak that is left behind the last step; the paper says cosine, not to where
    weight_decay: float = 0.0  # (given); not for norms and biases
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float = 1.0  # global norm of the gradient; 0 does not clip

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or not 0 <= self.warmup_share < 1 or self.clip_norm < 0:
            raise UserError(
                "optimizer: learning_rate must be above 0, warmup_share in [0, 1), clip_norm 0 or above; "
                f"they are {self.learning_rate}, {self.warmup_share}, {self.clip_norm}"
            )
        if self.schedule not in SCHEDULES:
            raise UserError(f"optimizer: schedule is {self.schedule!r}; it must be one of {', '.join(SCHEDULES)}")


# What is left of the way from the peak to the end, by the share of the steps after the warm-up that are done.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}


def learning_rate(spec: OptimizerSpec, steps: int) -> Callable[[int], float]:
    """Linear warm-up, then the schedule towards its end right behind `steps`: the first (number 0) and last step learn.

    It is that of optax and transformers over one more step, without its first one, whose rate is 0. Plain numbers, made
    on the host and given to the step: another schedule is not another program.
    """
    warmup = max(round(spec.warmup_share * steps), 1)
    curve, floor = SCHEDULES[spec.schedule], spec.final_share

    def rate(step: int) -> float:
        done = step + 1
        if done <= warmup:
            return spec.learning_rate * done / warmup
        left = curve(min((done - warmup) / max(steps + 1 - warmup, 1), 1.0))
        return spec.learning_rate * (floor + (1 - floor) * left)

    return rate


def make_optimizer(spec: OptimizerSpec) -> optax.GradientTransformation:
    """Clipping, Adam and weight decay: all of AdamW but the learning rate, which `descend` multiplies by."""
    parts = [optax.scale_by_adam(b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon, mu_dtype=jnp.float32)]
    if spec.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(spec.clip_norm))
    if spec.weight_decay:
        parts.append(optax.add_decayed_weights(spec.weight_decay, mask=_decayed))
    return optax.chain(*parts)


def descend(params: nnx.State, updates: nnx.State, rate: jax.Array) -> nnx.State:
    """The parameters after one step against `updates`."""
    return optax.apply_updates(params, jax.tree.map(lambda update: -rate * update, updates))


def _decayed(params: nnx.State) -> nnx.State:
    """True for matrices (adapters too, which have no Hugging Face name), False for norms and biases."""

    def is_matrix(param: nnx.Variable) -> nnx.Variable:
        name = param.get_metadata("hf")
        return param.replace(name is None or (name.endswith(".weight") and "norm" not in name and "ln_q" not in name))

    return jax.tree.map(is_matrix, params, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
