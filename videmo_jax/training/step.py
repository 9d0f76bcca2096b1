"""The training step that SFT and RL share, one compiled program on the mesh; a loss makes it one or the other."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from videmo_jax.files.errors import UserError
from videmo_jax.model.attention import KERNELS, kernel_for
from videmo_jax.model.compute import REMAT, Compute
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.layers import products_in
from videmo_jax.model.videmo import Rows, VidEmo, abstract_model
from videmo_jax.sharding.collectives import BATCH, most_over, sum_over, unsummed
from videmo_jax.sharding.rules import RULES, batch_shards, shard_state
from videmo_jax.training.guard import GuardSpec, watch
from videmo_jax.training.optimizer import descend
from videmo_jax.training.state import TrainState, abstract_state
from videmo_jax.training.trained import ALL, Trained, joined

BATCH_SPLIT = PartitionSpec(RULES["batch"])


class HasRows(Protocol):
    """A batch: a tree of arrays, all with the rows in front."""

    @property
    def rows(self) -> Rows:
        """What the model reads."""


class Sums(Protocol):
    """What a loss finds in a part of a batch: a tree of numbers, the sum of two of which is that of both parts."""

    @property
    def loss(self) -> Array:
        """What is minimised, summed."""

    @property
    def count(self) -> Array:
        """What the sum is divided by."""


class SumsOf(Protocol):
    """A loss."""

    def __call__(self, model: VidEmo, batch: Any, compute: Compute, *, chunk: int) -> Sums:
        """Sums over the batch's rows, with the logits of `chunk` tokens of a row in memory."""


@dataclass(frozen=True)
class ComputeSpec:
    """How a step computes; parameters, gradients and the optimizer stay float32."""

    dtype: str = "bfloat16"  # of activations and of weights where they are used; or float32
    remat: str = "full"  # of the decoder's blocks, a name of model.compute.REMAT
    vision_remat: str = "full"  # of the vision tower's
    attention: str = "auto"  # a name of model.attention.KERNELS
    loss_chunk: int = 512  # tokens of a row whose logits exist at once
    microbatches: int = 1  # parts of a batch that a device computes one after the other
    row_by_row: bool = False  # in place of parts: a device's rows, up to the last that holds something

    def __post_init__(self) -> None:
        choices = {
            "dtype": ("bfloat16", "float32"),
            "remat": tuple(REMAT),
            "vision_remat": tuple(REMAT),
            "attention": KERNELS,
        }
        for field, names in choices.items():
            if getattr(self, field) not in names:
                raise UserError(f"compute.{field} is {getattr(self, field)!r}; it must be one of {', '.join(names)}")
        for field in ("loss_chunk", "microbatches"):
            if getattr(self, field) < 1:
                raise UserError(f"compute.{field} is {getattr(self, field)}; it must be at least 1")

    def on(self, mesh: Mesh) -> Compute:
        """What the model is told, on these devices."""
        kernel = kernel_for(self.attention, mesh.devices.flat[0].platform)
        return Compute(jnp.dtype(self.dtype), self.remat, self.vision_remat, kernel)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepMetrics:
    """What a step measured over the global batch.

    Attributes:
      sums: of the loss.
      gradient_norm: before clipping.
      tokens: text and vision, without padding.
      samples: segments of all rows.
      halted: the guard found this step or an earlier one bad: it was not taken.
    """

    sums: Any
    gradient_norm: Float[Array, ""]
    tokens: Int[Array, ""]
    samples: Int[Array, ""]
    halted: Bool[Array, ""]


def make_step(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    compute: ComputeSpec,
    guard: GuardSpec,
    sums_of: SumsOf,
    trained: Trained = ALL,
) -> Callable[[TrainState, Any, float], tuple[TrainState, StepMetrics]]:
    """The compiled step (state, batch, learning rate) -> (state, metrics); the state that goes in is given up.

    A step that the guard finds bad changes nothing but `halted`, and no later one does. A batch in which nothing counts
    changes nothing. What is not `trained` has no gradient: its arrays stay the very same ones, and are not given up.
    """
    layout, _ = shard_state(abstract_state(config, optimizer, trained), mesh).split(trained)
    gradients = gradient_sums(config, mesh, compute, sums_of, trained)

    def step(state: TrainState, frozen: nnx.State, batch: HasRows, rate: jax.Array) -> tuple[TrainState, StepMetrics]:
        before = state.params
        with products_in(compute.dtype):
            sums, summed = gradients(joined(before, frozen), batch)
        count = jnp.maximum(sums.count, 1)
        gradient = jax.tree.map(lambda x: x / count, summed)
        norm = optax.tree.norm(gradient)
        watched = watch(guard, state.guard, sums.loss / count, norm, sums.count)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, before)
        after = descend(before, updates, rate), optimizer_state
        # A choice in place, element by element: unlike lax.cond it takes no copy of the state.
        stay = watched.halted | (sums.count == 0)
        new, optimizer_state = jax.tree.map(partial(jnp.where, stay), (before, state.optimizer), after)
        segments = batch.rows.segment_ids
        tokens, samples = jnp.count_nonzero(segments), jnp.sum(jnp.max(segments, axis=-1))
        state = TrainState(new, optimizer_state, watched)
        return state, StepMetrics(sums, norm, tokens, samples, watched.halted)

    compiled = jax.jit(step, donate_argnums=0, out_shardings=(layout, NamedSharding(mesh, PartitionSpec())))

    def run(state: TrainState, batch: HasRows, rate: float) -> tuple[TrainState, StepMetrics]:
        part, frozen = state.split(trained)
        with jax.set_mesh(mesh):
            after, metrics = compiled(part, frozen, batch, np.float32(rate))
        return replace(after, params=joined(after.params, frozen)), metrics

    run.compiled = compiled
    return run


def make_forward(
    config: ModelConfig,
    mesh: Mesh,
    compute: ComputeSpec,
    body: Callable[[VidEmo, Any, Compute], Any],
    out: PartitionSpec,
) -> Callable[[nnx.State, Any], Any]:
    """A compiled pass without a gradient: (parameters, batch) -> body(model, batch, compute).

    Args:
      config, mesh, compute: of the model.
      body: of a device's part of the batch, or with `compute.row_by_row` of each of its rows.
      out: `PartitionSpec()` where the body returns what all devices have alike, such as sums over them;
        `BATCH_SPLIT` where it returns arrays with the rows in front.
    """

    def local(merge: Callable[..., VidEmo], params: nnx.State, batch: HasRows) -> Any:
        model = merge(params)

        def whole(part: HasRows) -> Any:
            return body(model, part, compute.on(mesh))

        return _row_by_row(whole, batch) if compute.row_by_row else whole(batch)

    on_devices = _on_every_device(config, mesh, compute, local, lambda stored: out)

    def whole(params: nnx.State, batch: HasRows) -> Any:
        with products_in(compute.dtype):
            return on_devices(params, batch)

    compiled = jax.jit(whole, out_shardings=NamedSharding(mesh, out))

    def run(params: nnx.State, batch: HasRows) -> Any:
        with jax.set_mesh(mesh):
            return compiled(params, batch)

    run.compiled = compiled
    return run


def gradient_sums(
    config: ModelConfig, mesh: Mesh, compute: ComputeSpec, sums_of: SumsOf, trained: Trained = ALL
) -> Callable[[nnx.State, Any], tuple[Sums, nnx.State]]:
    """(parameters, batch) -> sums over the batch, and the gradient of its summed loss by what is `trained`.

    Raises:
      ValueError: the mesh does not suit the model, or (when called) the batch the mesh and its microbatches.
    """

    def local(merge: Callable[..., VidEmo], params: nnx.State, batch: HasRows) -> tuple[Sums, nnx.State]:
        sums, gradients = _gradients(trained, merge, params, batch, compute, partial(sums_of, compute=compute.on(mesh)))
        return sum_over(sums, BATCH), gradients

    return _on_every_device(config, mesh, compute, local, lambda stored: (PartitionSpec(), trained.of(stored)))


def require_split(config: ModelConfig, devices: int, field: str) -> None:
    """Refuses a model whose layers do not split over so many devices; `field` of the config says how many.

    Raises:
      ValueError: they do not.
    """
    for name in ("kv_heads", "mlp_width"):
        if getattr(config.text, name) % devices:
            raise UserError(f"{field} is {devices}; it must divide text.{name}, {getattr(config.text, name)}")


def _on_every_device(
    config: ModelConfig,
    mesh: Mesh,
    compute: ComputeSpec,
    body: Callable[[Callable[..., VidEmo], nnx.State, Any], Any],
    out: Callable[[nnx.State], Any],
) -> Callable[[nnx.State, Any], Any]:
    """(parameters, batch) -> body(model of parameters, parameters, batch) on each device's own part of both.

    `out` says how what the body returns lies on the mesh, given how the parameters do.
    """
    graph = nnx.graphdef(abstract_model(config))
    require_split(config, mesh.shape["tensor"], "mesh.tensor")
    if config.lora.rank and mesh.shape["tensor"] > 1:
        raise UserError(f"mesh.tensor is {mesh.shape['tensor']}; with adapters (model.lora.rank) it must be 1")
    local = partial(body, partial(nnx.merge, graph))

    def run(params: nnx.State, batch: HasRows) -> Any:
        rows, shards = len(batch.rows.tokens), batch_shards(mesh) * compute.microbatches
        if rows % shards:
            raise UserError(f"a batch of {rows} rows is no multiple of the {shards} parts that it is computed in")
        stored = jax.tree.map(lambda sharding: sharding.spec, shard_state(params, mesh))
        given = (stored, BATCH_SPLIT)
        return jax.shard_map(local, mesh=mesh, in_specs=given, out_specs=out(stored), check_vma=False)(params, batch)

    return run


def _gradients(
    trained: Trained,
    merge: Callable[..., VidEmo],
    params: nnx.State,
    batch: HasRows,
    spec: ComputeSpec,
    sums_of: Callable[..., Sums],
) -> tuple[Sums, nnx.State]:
    """Sums over a device's rows, and the gradient of the loss summed over all: it does not depend on any cut."""
    params, frozen = trained.split(params)

    def summed_loss(params: nnx.State, batch: HasRows) -> tuple[Float[Array, ""], Sums]:
        sums = sums_of(merge(joined(params, frozen)), batch, chunk=spec.loss_chunk)
        return sums.loss, sums

    gradient = jax.value_and_grad(summed_loss, has_aux=True)
    if spec.microbatches == 1 and not spec.row_by_row:
        (_, sums), gradients = gradient(params, batch)
    else:

        def add(so_far: tuple[Sums, nnx.State], part: HasRows) -> tuple[tuple[Sums, nnx.State], None]:
            (_, sums), gradients = gradient(params, part)
            return jax.tree.map(jnp.add, so_far, (sums, gradients)), None

        parts = _cut(batch, len(batch.rows.tokens) if spec.row_by_row else spec.microbatches)
        found = jax.eval_shape(summed_loss, params, _part(parts, 0))[1]
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), found), jax.tree.map(jnp.zeros_like, params)
        if spec.row_by_row:
            sums, gradients = lax.fori_loop(0, _filled(batch), lambda at, found: add(found, _part(parts, at))[0], zero)
        else:
            (sums, gradients), _ = lax.scan(add, zero, parts)
    return sums, _over_devices(gradients, spec.dtype)


def _cut(batch: HasRows, parts: int) -> HasRows:
    """A device's rows as so many parts."""
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)


def _part(parts: HasRows, at: Array | int) -> HasRows:
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, at, keepdims=False), parts)


def _filled(batch: HasRows) -> Int[Array, ""]:
    """How many rows of a device hold something, or of that which has most: all take part in what travels."""
    held = jnp.any(batch.rows.segment_ids > 0, axis=1)
    return most_over(jnp.max(jnp.where(held, jnp.arange(1, len(held) + 1), 0)), BATCH)


def _row_by_row(body: Callable[[HasRows], Any], batch: HasRows) -> Any:
    """What the body returns of each row; 0 for those behind the last that holds something."""
    parts = _cut(batch, len(batch.rows.tokens))
    found = jax.eval_shape(body, _part(parts, 0))
    kept = jax.tree.map(lambda x: jnp.zeros((len(batch.rows.tokens), *x.shape), x.dtype), found)

    def one(at: Array, kept: Any) -> Any:
        put = partial(lax.dynamic_update_index_in_dim, index=at, axis=0)
        return jax.tree.map(put, kept, body(_part(parts, at)))

    kept = lax.fori_loop(0, _filled(batch), one, kept)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept)


def _over_devices(gradients: nnx.State, dtype: Any) -> nnx.State:
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
