"""AdamW with warm-up, cosine decay and clipping (PAPER.md section 1)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from flax import nnx


@dataclass(frozen=True)
class OptimizerSpec:
    """The paper's optimizer; fields it does not print are ours."""

    learning_rate: float = 2e-5  # peak (given)
    warmup_share: float = 0.03  # of all steps (given)
    final_share: float = 0.0  # of the peak that is left at the end; the paper says cosine, not to where
    weight_decay: float = 0.0  # (given); not for norms and biases
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float = 1.0  # global norm of the gradient; 0 does not clip

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or not 0 <= self.warmup_share < 1 or self.clip_norm < 0:
            raise ValueError(
                "optimizer: learning_rate must be above 0, warmup_share in [0, 1), clip_norm 0 or above; "
                f"they are {self.learning_rate}, {self.warmup_share}, {self.clip_norm}"
            )


def learning_rate(spec: OptimizerSpec, steps: int) -> optax.Schedule:
    """Linear warm-up, then cosine to the end of `steps`; already the first step learns."""
    warmup = max(round(spec.warmup_share * steps), 1)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=spec.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=spec.learning_rate * spec.final_share,
    )
    return lambda count: schedule(count + 1)


def make_optimizer(spec: OptimizerSpec, steps: int) -> optax.GradientTransformation:
    """The whole update; its learning rate runs over `steps` steps."""
    adamw = optax.adamw(
        learning_rate(spec, steps),
        b1=spec.beta1,
        b2=spec.beta2,
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
        mask=_decayed if spec.weight_decay else None,
        mu_dtype=jnp.float32,
    )
    return optax.chain(optax.clip_by_global_norm(spec.clip_norm), adamw) if spec.clip_norm else adamw


def _decayed(params: nnx.State) -> nnx.State:
    """True for matrices, False for norms and biases."""

    def is_matrix(param: nnx.Variable) -> nnx.Variable:
        name = param.get_metadata("hf")
        return param.replace(name.endswith(".weight") and "norm" not in name and "ln_q" not in name)

    return jax.tree.map(is_matrix, params, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
