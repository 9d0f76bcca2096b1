"""The guard of a run: a step whose loss or gradient is no number, or whose loss leaps, is not taken.

It is decided on the devices, in the step itself: however late the host reads the metrics, the parameters and the
optimizer are those of before the bad step, and stay so.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from videmo_jax.files.errors import UserError

DECAY = 0.98  # of the mean: some fifty steps


@dataclass(frozen=True)
class GuardSpec:
    """When a step counts as bad; a loss or a gradient norm that is not finite always does."""

    spike: float = 3.0  # nats a token above the mean of the steps before; 0: any finite loss is taken
    warmup: int = 20  # steps of a stage that are counted before a leap counts

    def __post_init__(self) -> None:
        if not self.spike >= 0 or self.warmup < 1:
            raise UserError(
                f"guard: spike is {self.spike}, warmup {self.warmup}; spike must be 0 or above, warmup at least 1"
            )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Guard:
    """What the guard remembers, on all devices.

    Attributes:
      total: exponential mean of the loss of the steps that were taken, not yet corrected for its start from 0.
      counted: steps in it.
      halted: whether a step was bad; from then on none is taken.
    """

    total: Float[Array, ""]
    counted: Int[Array, ""]
    halted: Bool[Array, ""]

    @property
    def mean(self) -> Float[Array, ""]:
        """Mean loss of the last steps, nats a token; 0 before the first."""
        return self.total / jnp.maximum(1 - DECAY ** self.counted.astype(jnp.float32), 1 - DECAY)


def fresh_guard() -> Guard:
    """A guard that has seen nothing."""
    return Guard(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jnp.zeros((), bool))


def watch(
    spec: GuardSpec, guard: Guard, loss: Float[Array, ""], norm: Float[Array, ""], tokens: Float[Array, ""]
) -> Guard:
    """The guard after a step; `halted` says that the step must not be taken.

    Args:
      spec: what is bad.
      guard: after the step before.
      loss: of the global batch, nats a token.
      norm: of its gradient.
      tokens: that are trained in it; a batch with none has no loss that could be counted.
    """
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(norm))
    if spec.spike:
        bad |= (guard.counted >= spec.warmup) & (loss > guard.mean + spec.spike)
    halted = guard.halted | bad
    count = ~halted & (tokens > 0)
    return Guard(jnp.where(count, DECAY * guard.total + (1 - DECAY) * loss, guard.total), guard.counted + count, halted)
