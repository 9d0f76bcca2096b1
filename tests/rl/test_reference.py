"""The reference: a copy of what is trained, the policy's own arrays for the rest, and the model that init was."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.rl.groups import group_batch
from tests.sft.test_step import CONFIG
from videmo_jax.data.pipeline import to_devices
from videmo_jax.model.config import LoraConfig
from videmo_jax.model.lora import merged
from videmo_jax.rl.loss import GrpoSpec
from videmo_jax.rl.reference import reference_layout, reference_of
from videmo_jax.rl.rollout import make_gather
from videmo_jax.rl.step import make_log_prob_step, make_policy_step, numbers
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import fresh_state, initial_params, state_layout
from videmo_jax.training.step import ComputeSpec
from videmo_jax.training.trained import read_trained

ADAPTED = dataclasses.replace(CONFIG, lora=LoraConfig(rank=2, targets=("q", "o", "down")))
# Epsilon far above rounding, as in test_step.
OPTIMIZER = make_optimizer(OptimizerSpec(epsilon=1e-3))


def after_sft(config, mesh):
    """Weights whose adapters add something."""
    params = initial_params(config, mesh, seed=0)
    rng = np.random.default_rng(0)
    for path, param in nnx.to_flat_state(params):
        if str(path[-1]).endswith("_b"):
            value = param.get_value()
            param.set_value(jax.device_put(rng.normal(0, 0.2, value.shape).astype(np.float32), value.sharding))
    return params


def values(params):
    return {path: leaf.get_value() for path, leaf in nnx.to_flat_state(params)}


@pytest.fixture(scope="module")
def mesh():
    return make_mesh({"fsdp": 4})


@pytest.fixture(scope="module")
def adapted(mesh):
    """Random weights; no program is compiled for them."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jax.device_put(rng.normal(0, 0.1, leaf.shape).astype(np.float32), leaf.sharding),
        state_layout(ADAPTED, OPTIMIZER, mesh).params,
    )


def test_only_what_is_trained_is_copied_and_no_copy_goes_when_the_policy_gives_its_arrays_up(mesh, adapted):
    policy, trained = jax.tree.map(jnp.copy, adapted), read_trained(ADAPTED, (), ("vision.merger",))
    for dtype in (jnp.float32, jnp.bfloat16):
        reference = reference_of(policy, policy, trained, dtype)
        layout = reference_layout(state_layout(ADAPTED, OPTIMIZER, mesh, trained).params, trained, dtype)
        assert jax.tree.structure(reference) == jax.tree.structure(layout) == jax.tree.structure(policy)
        shared, places = values(policy), values(layout)
        for path, value in values(reference).items():
            assert (value is shared[path]) == (path not in trained), path
            place = places[path]
            assert (value.shape, value.dtype) == (place.shape, place.dtype)
            assert value.sharding.is_equivalent_to(place.sharding, value.ndim), path
    before = {path: np.asarray(value.astype(dtype)) for path, value in shared.items() if path in trained}
    for path in before:
        shared[path].delete()
    for path, value in before.items():
        np.testing.assert_array_equal(np.asarray(values(reference)[path]), value)


def test_gathered_weights_are_those_of_the_merged_model(mesh, adapted):
    found = make_gather(ADAPTED, mesh, jnp.float32)(adapted)
    plain, config = merged(jax.tree.map(jnp.copy, adapted), ADAPTED)
    assert config == CONFIG and jax.tree.structure(found) == jax.tree.structure(plain)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), found, plain)


CHOICES = {
    "fresh adapters": (ADAPTED, (), (), False),
    "adapters of init, and more": (ADAPTED, (), ("vision.merger", "language.norm"), True),
    "frozen parts": (CONFIG, ("vision", "language.embedding", "language.layers.k"), (), False),
}


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
def test_the_reference_stays_the_model_that_was_loaded_and_the_rest_of_the_policy_too(choice):
    """A reference of its own, loaded as a plain model, has its log-probabilities before, and it after all updates."""
    config, freeze, also, trained_before = CHOICES[choice]
    mesh, trained = make_mesh({"fsdp": 2}, jax.devices()[:2]), read_trained(config, freeze, also)
    policy = after_sft(config, mesh) if trained_before else initial_params(config, mesh, seed=0)
    compute, spec = ComputeSpec("float32", loss_chunk=8), GrpoSpec()
    rows = to_devices(group_batch(0, shards=2), mesh)
    log_probs = make_log_prob_step(config, mesh, compute, spec.temperature)
    step = make_policy_step(config, OPTIMIZER, mesh, compute, GuardSpec(), spec, trained)
    reference = reference_of(policy, policy, trained, "float32")
    loaded, plain = merged(jax.tree.map(jnp.copy, policy), config)
    theirs = make_log_prob_step(plain, mesh, compute, spec.temperature)(loaded, rows)
    ours = log_probs(reference, rows)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)

    def train(state, reference_rows):
        measured = []
        for _ in range(3):
            state, metrics = step(state, dataclasses.replace(rows, reference=reference_rows()), 1e-2)
            measured.append(numbers(metrics))
        return state, measured

    copy = jax.tree.map(jnp.copy, policy)
    _, expected = train(fresh_state(config, copy, OPTIMIZER, mesh, trained), lambda: theirs)
    before, frozen = {path: np.asarray(value) for path, value in values(policy).items()}, trained.split(policy)[1]
    # The updates give the policy's arrays up; the reference is asked anew each time.
    state = fresh_state(config, policy, OPTIMIZER, mesh, trained)
    state, measured = train(state, lambda: log_probs(reference, rows))
    for found, wanted in zip(measured, expected, strict=True):
        np.testing.assert_allclose([found["loss"], found["kl"]], [wanted["loss"], wanted["kl"]], atol=1e-5)
    assert abs(measured[0]["kl"]) < 1e-6 < measured[-1]["kl"]
    np.testing.assert_array_equal(log_probs(reference, rows), ours)
    assert np.abs(np.asarray(log_probs(state.params, rows)) - np.asarray(ours)).max() > 1e-3
    after = values(state.params)
    assert {path for path, value in before.items() if not np.array_equal(value, after[path])} == {
        path for path in before if path in trained
    }
    assert all(value is after[path] for path, value in values(frozen).items())
