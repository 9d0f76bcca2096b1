"""The training step: one compilation, the same numbers on any mesh, losses that do not depend on the split."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videmo_jax.data.chat import Encoded
from videmo_jax.data.pipeline import to_devices
from videmo_jax.data.rows import Budget, Prepared, build_row, misfit, stack_rows
from videmo_jax.data.video import FrameSpec, patchify
from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from videmo_jax.model.layers import products_in
from videmo_jax.model.positions import VisionGrid
from videmo_jax.model.videmo import VidEmo
from videmo_jax.sft.loss import next_token_sums
from videmo_jax.sft.step import make_train_step, numbers
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import fresh_state, initial_params
from videmo_jax.training.step import ComputeSpec, gradient_sums

CONFIG = ModelConfig(
    TextConfig(64, 2, 4, 2, 16, 96, 128, (2, 3, 3), tied=False),
    VisionConfig(32, 2, 2, 48, 64, full_attention=(1,)),
)
BUDGET = Budget(tokens=48, slabs=3, patches=24)
VIDEO = 120


def sample(rng, *segments):
    """Random text around random clips; the last half of the tokens is the answer."""
    tokens, vision, patches, hw = [], [], [], []
    for segment in segments:
        if isinstance(segment, VisionGrid):
            frames = rng.integers(0, 256, (2 * segment.time, 14 * segment.height, 14 * segment.width, 3), np.uint8)
            clip, places = patchify(frames, FrameSpec())
            patches.append(clip)
            hw.append(places)
            seen = sum(v >= 0 for v in vision)
            vision += range(seen, seen + segment.merged_tokens())
            tokens += [VIDEO] * segment.merged_tokens()
        else:
            tokens += list(rng.integers(0, VIDEO, segment))
            vision += [-1] * segment
    trained = np.arange(len(tokens)) > len(tokens) // 2
    encoded = Encoded(np.array(tokens, np.int32), trained, np.array(vision, np.int32), segments)
    return Prepared("random", encoded, tuple(patches), tuple(hw))


def samples(seed):
    rng = np.random.default_rng(seed)
    clip = VisionGrid(2, 4, 6, 1.3)
    return [
        sample(rng, 3, clip, 8),
        sample(rng, 9),
        sample(rng, 2, VisionGrid(1, 4, 4), 3, VisionGrid(2, 4, 4, 0.9), 4),
        sample(rng, 5, clip, 20),
    ]


def batch(seed):
    return stack_rows([build_row([s], BUDGET, CONFIG.vision) for s in samples(seed)])


def train(mesh, dtype="float32", count=4):
    optimizer = make_optimizer(OptimizerSpec(weight_decay=0.1))
    state = fresh_state(CONFIG, initial_params(CONFIG, mesh, seed=0), optimizer, mesh)
    compute = ComputeSpec(dtype=dtype, remat="dots", loss_chunk=32)
    step = make_train_step(CONFIG, optimizer, mesh, compute, GuardSpec())
    losses = []
    for seed in range(count):
        state, metrics = step(state, to_devices(batch(seed), mesh), 1e-2 / (seed + 1))
        losses.append(numbers(metrics)["loss"])
    return losses, state, step


@pytest.fixture(scope="module")
def on_one_device():
    return train(make_mesh({"data": 1}, jax.devices()[:1]))


def test_training_compiles_once_and_learns(on_one_device):
    losses, _, step = on_one_device
    assert step.compiled._cache_size() == 1
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("shape", [{"fsdp": 2, "tensor": 2}, {"data": 2, "tensor": 2}], ids=str)
def test_a_mesh_of_four_gives_the_numbers_of_one_device(shape, on_one_device):
    losses, state, step = train(make_mesh(shape))
    np.testing.assert_allclose(losses, on_one_device[0], atol=1e-5, rtol=0)
    kernel = state.params["language"]["layers"]["gate"].get_value()
    if "fsdp" in shape:
        assert kernel.sharding.shard_shape(kernel.shape)[1] == kernel.shape[1] // shape["fsdp"]
    assert step.compiled._cache_size() == 1


def test_rings_of_a_torus_give_the_numbers_of_one_device(on_one_device):
    mesh = make_mesh({"fsdp": 4}, torus=(2, 2))
    assert (mesh.shape["fsdp_x"], mesh.shape["fsdp_y"]) == (2, 2)
    np.testing.assert_allclose(train(mesh)[0], on_one_device[0], atol=1e-5, rtol=0)


def test_a_batch_cut_into_microbatches_has_the_loss_and_gradient_of_the_whole():
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    params = initial_params(CONFIG, mesh, seed=0)
    found = []
    for count in (1, 2, 4):
        spec = ComputeSpec(dtype="float32", loss_chunk=32, microbatches=count)
        run = jax.jit(gradient_sums(CONFIG, mesh, spec, next_token_sums))
        with jax.set_mesh(mesh), products_in("float32"):
            sums, gradients = run(params, to_devices(batch(0), mesh))
        found.append((sums.loss / sums.tokens, jax.tree.map(lambda x, tokens=sums.tokens: x / tokens, gradients)))
    for loss, gradients in found[1:]:
        np.testing.assert_allclose(loss, found[0][0], atol=1e-6, rtol=0)
        for ours, whole in zip(jax.tree.leaves(gradients), jax.tree.leaves(found[0][1]), strict=True):
            np.testing.assert_allclose(ours, whole, atol=1e-6, rtol=0)


def test_a_batch_that_cannot_be_cut_is_refused():
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    spec = ComputeSpec(dtype="float32", microbatches=3)
    run, params = gradient_sums(CONFIG, mesh, spec, next_token_sums), initial_params(CONFIG, mesh, seed=0)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="4 rows is no multiple of the 3 parts"):
        run(params, batch(0))
    with pytest.raises(ValueError, match=r"must divide text\.kv_heads, 2"):
        gradient_sums(CONFIG, make_mesh({"tensor": 4}), spec, next_token_sums)


def test_bfloat16_stays_near_float32(on_one_device):
    losses, state, _ = train(make_mesh({"data": 1}, jax.devices()[:1]), dtype="bfloat16")
    np.testing.assert_allclose(losses, on_one_device[0], rtol=0.03)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_a_bad_step_changes_nothing_and_no_later_one_does(on_one_device):
    _, state, step = on_one_device
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    good = batch(9)
    weights = good.weights.copy()
    weights.ravel()[np.argmax(weights)] = 3e38  # a loss beyond float32
    bad = dataclasses.replace(good, weights=weights)
    before = jax.device_get((state.params, state.optimizer, state.guard.mean, state.guard.counted))
    state = jax.tree.map(jnp.copy, state)  # the fixture keeps its own
    for rows, loss_is_number in ((bad, False), (good, True), (good, True)):
        state, metrics = step(state, to_devices(rows, mesh), 1e-2)
        found = numbers(metrics)
        assert found["halted"] and np.isfinite(found["loss"]) == loss_is_number
        after = jax.device_get((state.params, state.optimizer, state.guard.mean, state.guard.counted))
        jax.tree.map(np.testing.assert_array_equal, after, before)
    taken = dataclasses.replace(state, guard=dataclasses.replace(state.guard, halted=jnp.zeros((), bool)))
    taken, metrics = step(taken, to_devices(good, mesh), 1e-2)
    assert not numbers(metrics)["halted"] and int(taken.guard.counted) == 5


def test_tokens_and_samples_are_those_of_all_rows(on_one_device):
    _, state, step = on_one_device
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    _, metrics = step(jax.tree.map(jnp.copy, state), to_devices(batch(1), mesh), 0.0)
    found = numbers(metrics)
    assert found["tokens"] == sum(each.needs.tokens for each in samples(1))
    assert found["samples"] == 4


@pytest.fixture(scope="module")
def sums():
    """The loss of rows, by one model, in programs that are compiled once for rows of one shape."""
    model = VidEmo(CONFIG, nnx.Rngs(1))
    return jax.jit(partial(next_token_sums, model), static_argnames="chunk")


def test_loss_does_not_depend_on_chunks_or_rows(sums):
    whole = sums(batch(0), chunk=48)
    for chunk in (1, 7, 100):
        np.testing.assert_allclose(sums(batch(0), chunk=chunk).loss, whole.loss, rtol=1e-6)
    alone = [sums(stack_rows([build_row([s], BUDGET, CONFIG.vision)])) for s in samples(0)]
    np.testing.assert_allclose(sum(float(a.loss) for a in alone), whole.loss, rtol=1e-6)
    assert sum(float(a.tokens) for a in alone) == float(whole.tokens)


def test_samples_packed_into_one_row_have_the_loss_of_rows_of_their_own(sums):
    apart = sums(batch(0), chunk=48)
    together = build_row(samples(0), Budget(tokens=130, slabs=9, patches=28), CONFIG.vision)
    packed = sums(stack_rows([together]))
    np.testing.assert_allclose(packed.loss, apart.loss, rtol=1e-5)
    assert float(packed.tokens) == float(apart.tokens)
    assert set(np.unique(together.rows.segment_ids)) == {0, 1, 2, 3, 4}


def test_what_does_not_fit_a_row_is_named():
    long = sample(np.random.default_rng(0), 40, VisionGrid(2, 4, 6, 1.0))
    assert long.needs == Budget(52, 2, 24)
    assert "52 tokens, a row has 48" in misfit(long.needs, BUDGET)
    assert "2 slabs, a row has 1" in misfit(long.needs, Budget(60, 1, 24))
    assert "24 patches in a slab" in misfit(long.needs, Budget(60, 2, 20))
    assert misfit(long.needs, Budget(52, 2, 24)) is None
