"""The update of the policy: the same on any mesh, and it does what its advantages say."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.rl.groups import group_batch
from tests.sft.test_step import CONFIG
from videmo_jax.data.pipeline import to_devices
from videmo_jax.rl.loss import GrpoSpec
from videmo_jax.rl.step import make_log_prob_step, make_policy_step, numbers
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import fresh_state, initial_params
from videmo_jax.training.step import ComputeSpec

SPEC = GrpoSpec(clip_high=0.28)


def batch():
    """Two rollouts of four prompts, in rows for up to four devices."""
    return jax.tree.map(lambda *x: np.concatenate(x), group_batch(0, shards=4), group_batch(1, shards=4))


def halves(rows):
    """The rows of each of the two rollouts."""
    half = len(rows.drawn) // 2
    return slice(0, half), slice(half, 2 * half)


def mesh_of_one():
    return make_mesh({"data": 1}, jax.devices()[:1])


def train(shape, devices=None, count=2):
    mesh = make_mesh(shape, devices)
    # Adam makes a step of the learning rate of any gradient, also of one that is 0 but for rounding (biases of keys),
    # unless epsilon is far above rounding.
    optimizer = make_optimizer(OptimizerSpec(epsilon=1e-3))
    compute = ComputeSpec("float32", remat="full", loss_chunk=8)
    params = initial_params(CONFIG, mesh, seed=0)
    rows = to_devices(batch(), mesh)
    log_probs = make_log_prob_step(CONFIG, mesh, compute, SPEC.temperature)
    # The reference is the policy before the first update: KL and its gradient are 0 then.
    rows = dataclasses.replace(rows, reference=log_probs(params, rows))
    state = fresh_state(CONFIG, params, optimizer, mesh)
    step = make_policy_step(CONFIG, optimizer, mesh, compute, GuardSpec(), SPEC)
    found = []
    for _ in range(count):  # several updates from one rollout
        state, metrics = step(state, rows, 1e-3)
        found.append(numbers(metrics))
    return found, np.asarray(rows.reference), np.asarray(log_probs(state.params, rows)), state, step, log_probs


@pytest.fixture(scope="module")
def on_one_device():
    return train({"data": 1}, jax.devices()[:1])


def same(ours, theirs):
    for a, b in zip(ours[0], theirs[0], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=name)
    for a, b in zip(ours[1:3], theirs[1:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [{"fsdp": 2, "tensor": 2}, {"replica": 2, "fsdp": 2}], ids=str)
def test_a_mesh_of_four_gives_the_update_of_one_device(shape, on_one_device):
    found = train(shape)
    same(found, on_one_device)
    assert found[4].compiled._cache_size() == 1


def test_what_is_measured_is_that_of_the_answers_that_count(on_one_device):
    (first, second), reference, *_ = on_one_device
    rows = batch()
    assert first["trained_tokens"] == rows.weights.sum() and first["answers"] == 16
    assert first["length"] == pytest.approx(rows.weights.sum() / 16)
    assert first["samples"] == 8 and first["tokens"] == (rows.rows.segment_ids > 0).sum()
    gap = np.abs(reference - rows.sampled)[rows.weights > 0].mean()
    assert first["log_prob_gap"] == pytest.approx(gap, rel=1e-4)
    assert abs(first["kl"]) < 1e-6 < second["kl"]
    assert second["loss"] < first["loss"]


def test_better_answers_become_likelier_and_worse_ones_less(on_one_device):
    _, _, before, state, step, log_probs = on_one_device
    rows = to_devices(dataclasses.replace(batch(), sampled=before, reference=before), mesh_of_one())
    state, metrics = step(jax.tree.map(jax.numpy.copy, state), rows, 1e-3)
    assert numbers(metrics)["ratio"] == pytest.approx(1, abs=1e-5)  # drawn from the policy itself
    after, rows = np.asarray(log_probs(state.params, rows)), jax.device_get(rows)
    moved, answered = [], [rows.drawn[half] // rows.limit + (half.start > 0) * 12 for half in halves(rows)]
    answered = np.concatenate(answered)
    for answer in np.unique(answered[rows.weights > 0]):
        own = (answered == answer) & (rows.weights > 0)
        moved.append(((after - before)[own].mean(), rows.advantages[own][0]))
    assert len(moved) == 16 and np.corrcoef(*zip(*moved, strict=True))[0, 1] > 0.7


def test_a_batch_whose_rewards_all_failed_changes_nothing(on_one_device):
    *_, state, step, _ = on_one_device
    rows = batch()
    rows = to_devices(dataclasses.replace(rows, weights=np.zeros_like(rows.weights)), mesh_of_one())
    before = jax.device_get(state)
    after, metrics = step(jax.tree.map(jax.numpy.copy, state), rows, 1e-3)
    assert not numbers(metrics)["halted"] and numbers(metrics)["loss"] == 0
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after), before)
