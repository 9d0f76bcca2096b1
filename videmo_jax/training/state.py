"""What a training step changes: parameters, the optimizer's state and the guard, laid out over the mesh."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from videmo_jax.model.config import ModelConfig
from videmo_jax.model.lora import ADAPTERS
from videmo_jax.model.videmo import VidEmo, abstract_model
from videmo_jax.sharding.rules import shard_state
from videmo_jax.training.checkpoint import read_meta, restore_params, restore_plain
from videmo_jax.training.guard import Guard, fresh_guard
from videmo_jax.training.trained import ALL, Trained, joined


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters in float32, the optimizer's state, and the guard that keeps both from a bad step."""

    params: nnx.State
    optimizer: Any
    guard: Guard

    def split(self, trained: Trained) -> tuple["TrainState", nnx.State]:
        """(the state with the trained parameters alone, the other parameters)."""
        params, frozen = trained.split(self.params)
        return dataclasses.replace(self, params=params), frozen

    def released(self) -> "TrainState":
        """The state with a guard that lets steps be taken again, as it did before the bad one."""
        guard = dataclasses.replace(self.guard, halted=jnp.logical_and(self.guard.halted, False))
        return dataclasses.replace(self, guard=guard)


def abstract_state(config: ModelConfig, optimizer: optax.GradientTransformation, trained: Trained = ALL) -> TrainState:
    """Shapes and metadata of a state, without values; the optimizer has one for what is trained alone."""
    params = nnx.state(abstract_model(config), nnx.Param)
    return TrainState(params, jax.eval_shape(optimizer.init, trained.of(params)), jax.eval_shape(fresh_guard))


def state_layout(
    config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh, trained: Trained = ALL
) -> TrainState:
    """Shapes, dtypes and places on the mesh of a state, without values: what a checkpoint is restored into."""
    state = abstract_state(config, optimizer, trained)
    return jax.tree.map(
        lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), state, shard_state(state, mesh)
    )


def initial_params(
    config: ModelConfig,
    mesh: Mesh,
    *,
    seed: int,
    checkpoint: epath.PathLike | None = None,
    dtype: Any = jnp.float32,
) -> nnx.State:
    """Weights to start from: random, or those of a checkpoint; each device makes or reads its own share.

    Adapters that are not the config's own are merged into the checkpoint's weights; its own begin anew, unless the
    checkpoint has the same ones.
    """
    if checkpoint is not None and read_meta(checkpoint).model.lora == config.lora:
        return restore_params(checkpoint, mesh=mesh, dtype=dtype)
    layout = shard_state(nnx.state(abstract_model(config), nnx.Param), mesh)
    fresh = ALL if checkpoint is None else Trained(only=(ADAPTERS,))
    made = jax.jit(
        lambda: jax.tree.map(lambda x: x.astype(dtype), fresh.of(nnx.state(VidEmo(config, nnx.Rngs(seed)), nnx.Param))),
        out_shardings=fresh.of(layout),
    )()
    if checkpoint is None:
        return made
    return joined(made, restore_plain(checkpoint, mesh=mesh, dtype=dtype)[0])


def fresh_state(
    config: ModelConfig,
    params: nnx.State,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    trained: Trained = ALL,
) -> TrainState:
    """The parameters with an optimizer that has not taken a step, and a guard that has seen none."""
    layout = shard_state(abstract_state(config, optimizer, trained), mesh)
    return TrainState(
        params,
        jax.jit(optimizer.init, out_shardings=layout.optimizer)(trained.of(params)),
        jax.jit(fresh_guard, out_shardings=layout.guard)(),
    )
