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
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from videmo_jax.data.rows import Batch
from videmo_jax.model.attention import KERNELS, kernel_for
from videmo_jax.model.compute import REMAT, Compute
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.layers import products_in
from videmo_jax.model.videmo import VidEmo, abstract_model
from videmo_jax.sft.loss import LossSums, next_token_sums
from videmo_jax.sharding.collectives import BATCH, sum_over, unsummed
from videmo_jax.sharding.rules import RULES, batch_shards, shard_state
from videmo_jax.training.guard import GuardSpec, watch
from videmo_jax.training.optimizer import descend
from videmo_jax.training.state import TrainState, abstract_state
from videmo_jax.training.trained import ALL, Trained, joined


@dataclass(frozen=True)
class ComputeSpec:
    """How a step computes; parameters, gradients and the optimizer stay float32."""

    dtype: str = "bfloat16"  # of activations and of weights where they are used; or float32
    remat: str = "full"  # of the decoder's blocks, a name of model.compute.REMAT
    vision_remat: str = "full"  # of the vision tower's
    attention: str = "auto"  # a name of model.attention.KERNELS
    loss_chunk: int = 512  # tokens of a row whose logits exist at once
    microbatches: int = 1  # parts of a batch that a device computes one after the other

    def __post_init__(self) -> None:
        choices = {
            "dtype": ("bfloat16", "float32"),
            "remat": tuple(REMAT),
            "vision_remat": tuple(REMAT),
            "attention": KERNELS,
        }
        for field, names in choices.items():
            if getattr(self, field) not in names:
                raise ValueError(f"compute.{field} is {getattr(self, field)!r}; it must be one of {', '.join(names)}")
        for field in ("loss_chunk", "microbatches"):
            if getattr(self, field) < 1:
                raise ValueError(f"compute.{field} is {getattr(self, field)}; it must be at least 1")

    def on(self, mesh: Mesh) -> Compute:
        """What the model is told, on these devices."""
        kernel = kernel_for(self.attention, mesh.devices.flat[0].platform)
        return Compute(jnp.dtype(self.dtype), self.remat, self.vision_remat, kernel)


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
    trained: Trained = ALL,
) -> Callable[[TrainState, Batch, float], tuple[TrainState, StepMetrics]]:
    """The compiled step (state, batch, learning rate) -> (state, metrics); the state that goes in is given up.

    A step that the guard finds bad changes nothing but `halted`, and no later one does. What is not `trained` is never
    changed: it has no gradient.
    """
    layout = shard_state(abstract_state(config, optimizer, trained), mesh)
    gradients = gradient_sums(config, mesh, compute, trained)

    def step(state: TrainState, batch: Batch, rate: jax.Array) -> tuple[TrainState, StepMetrics]:
        with products_in(compute.dtype):
            sums, summed = gradients(state.params, batch)
        tokens = jnp.maximum(sums.tokens, 1)
        gradient = jax.tree.map(lambda x: x / tokens, summed)
        norm = optax.tree.norm(gradient)
        watched = watch(guard, state.guard, sums.loss / tokens, norm, sums.tokens)
        before, frozen = trained.split(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, before)
        after = descend(before, updates, rate), optimizer_state
        # A choice in place, element by element: unlike lax.cond it takes no copy of the state.
        new, optimizer_state = jax.tree.map(partial(jnp.where, watched.halted), (before, state.optimizer), after)
        segments = batch.rows.segment_ids
        tokens, samples = jnp.count_nonzero(segments), jnp.sum(jnp.max(segments, axis=-1))
        state = TrainState(joined(new, frozen), optimizer_state, watched)
        return state, StepMetrics(sums, norm, tokens, samples, watched.halted)

    compiled = jax.jit(step, donate_argnums=0, out_shardings=(layout, NamedSharding(mesh, PartitionSpec())))

    def run(state: TrainState, batch: Batch, rate: float) -> tuple[TrainState, StepMetrics]:
        with jax.set_mesh(mesh):
            return compiled(state, batch, np.float32(rate))

    run.compiled = compiled
    return run


def gradient_sums(
    config: ModelConfig, mesh: Mesh, compute: ComputeSpec, trained: Trained = ALL
) -> Callable[[nnx.State, Batch], tuple[LossSums, nnx.State]]:
    """(parameters, batch) -> sums over the batch, and the gradient of its summed loss by what is `trained`.

    Raises:
      ValueError: the mesh does not suit the model, or (when called) the batch the mesh and its microbatches.
    """
    return _on_every_device(config, mesh, compute, partial(_gradients, trained), trained)


def make_loss_step(config: ModelConfig, mesh: Mesh, compute: ComputeSpec) -> Callable[[nnx.State, Batch], LossSums]:
    """The compiled loss of a batch, without a gradient: (parameters, batch) -> sums."""
    loss = _on_every_device(config, mesh, compute, _loss)

    def whole(params: nnx.State, batch: Batch) -> LossSums:
        with products_in(compute.dtype):
            return loss(params, batch)[0]

    compiled = jax.jit(whole, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def run(params: nnx.State, batch: Batch) -> LossSums:
        with jax.set_mesh(mesh):
            return compiled(params, batch)

    return run


def _on_every_device(
    config: ModelConfig,
    mesh: Mesh,
    compute: ComputeSpec,
    body: Callable[..., Any],
    trained: Trained | None = None,
) -> Any:
    """(parameters, batch) -> body(model of parameters, parameters, batch, compute) on each device's own part of both.

    The body returns sums over its rows, whose total is returned, and a tree like the trained parameters or None.
    """
    graph = nnx.graphdef(abstract_model(config))
    for field in ("kv_heads", "mlp_width"):
        if getattr(config.text, field) % mesh.shape["tensor"]:
            raise ValueError(
                f"mesh.tensor is {mesh.shape['tensor']}; it must divide text.{field}, {getattr(config.text, field)}"
            )
    if config.lora.rank and mesh.shape["tensor"] > 1:
        raise ValueError(f"mesh.tensor is {mesh.shape['tensor']}; with adapters (model.lora.rank) it must be 1")

    def local(params: nnx.State, batch: Batch) -> Any:
        sums, tree = body(partial(nnx.merge, graph), params, batch, compute, compute.on(mesh))
        return sum_over(sums, BATCH), tree

    def run(params: nnx.State, batch: Batch) -> Any:
        rows, shards = len(batch.targets), batch_shards(mesh) * compute.microbatches
        if rows % shards:
            raise ValueError(f"a batch of {rows} rows is no multiple of the {shards} parts that it is computed in")
        stored = jax.tree.map(lambda sharding: sharding.spec, shard_state(params, mesh))
        split = PartitionSpec(RULES["batch"])
        out = (PartitionSpec(), None if trained is None else trained.of(stored))
        return jax.shard_map(local, mesh=mesh, in_specs=(stored, split), out_specs=out, check_vma=False)(params, batch)

    return run


def _loss(merge: Callable[..., VidEmo], params: nnx.State, batch: Batch, spec: ComputeSpec, compute: Compute) -> Any:
    """Sums over a device's rows."""
    return next_token_sums(merge(params), batch, compute, chunk=spec.loss_chunk), None


def _gradients(
    trained: Trained,
    merge: Callable[..., VidEmo],
    params: nnx.State,
    batch: Batch,
    spec: ComputeSpec,
    compute: Compute,
) -> tuple[LossSums, nnx.State]:
    """Sums over a device's rows, and the gradient of the loss summed over all: it does not depend on any cut."""
    params, frozen = trained.split(params)

    def summed_loss(params: nnx.State, batch: Batch) -> tuple[Float[Array, ""], LossSums]:
        sums = next_token_sums(merge(joined(params, frozen)), batch, compute, chunk=spec.loss_chunk)
        return sums.loss, sums

    gradient = jax.value_and_grad(summed_loss, has_aux=True)
    if spec.microbatches == 1:
        (_, sums), gradients = gradient(params, batch)
    else:

        def add(so_far: tuple[LossSums, nnx.State], part: Batch) -> tuple[tuple[LossSums, nnx.State], None]:
            (_, sums), gradients = gradient(params, part)
            return jax.tree.map(jnp.add, so_far, (sums, gradients)), None

        zero = LossSums(*(jnp.zeros((), jnp.float32) for _ in range(3)))
        parts = jax.tree.map(lambda x: x.reshape(spec.microbatches, -1, *x.shape[1:]), batch)
        (sums, gradients), _ = lax.scan(add, (zero, jax.tree.map(jnp.zeros_like, params)), parts)
    return sums, _summed(gradients, compute.dtype)


def _summed(gradients: nnx.State, dtype: Any) -> nnx.State:
    """Gradients summed over the axes that their weights are not gathered along; the large ones travel as `dtype`."""

    def summed(path: tuple[Any, ...], leaf: nnx.Variable) -> nnx.Variable:
        axes, whole = leaf.get_metadata("out_sharding"), leaf.get_metadata("whole")
        over = unsummed(axes[-len(whole) :], whole)
        if path[0].key == "vision":  # the devices along the tensor axis had slabs of their own
            over = (*over, "tensor")
        value = leaf.get_value()
        travelling = value.astype(dtype) if len(whole) > 1 else value
        return leaf.replace(sum_over(travelling, over).astype(value.dtype))

    return jax.tree_util.tree_map_with_path(summed, gradients, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


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
