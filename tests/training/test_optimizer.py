"""The update against torch's AdamW, and the schedule against values worked out by hand."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.pytorch import torch
from videmo_jax.interop.hf_names import parameters
from videmo_jax.model.config import PRESETS
from videmo_jax.training.optimizer import OptimizerSpec, _decayed, descend, learning_rate, make_optimizer


def test_schedule_warms_up_then_falls_along_a_cosine():
    schedule = learning_rate(OptimizerSpec(learning_rate=1.0, warmup_share=0.1, final_share=0.2), 99)
    assert schedule(0) == pytest.approx(0.1)
    assert schedule(9) == pytest.approx(1.0)
    assert schedule(54) == pytest.approx(0.6)  # half-way from 1.0 to 0.2
    assert schedule(98) == pytest.approx(0.6 + 0.4 * math.cos(math.pi * 89 / 90))
    assert schedule(99) == pytest.approx(0.2)


@pytest.mark.parametrize(("name", "half_way", "end"), [("linear", 0.6, 0.2), ("constant", 1.0, 1.0)])
def test_other_schedules(name, half_way, end):
    schedule = learning_rate(OptimizerSpec(learning_rate=1.0, schedule=name, warmup_share=0.1, final_share=0.2), 99)
    assert [schedule(step) for step in (0, 9, 54, 99, 200)] == pytest.approx([0.1, 1.0, half_way, end, end])


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [1, 2, 3, 40])
def test_every_step_learns(name, steps):
    schedule = learning_rate(OptimizerSpec(learning_rate=1.0, schedule=name), steps)
    rates = [schedule(step) for step in range(steps)]
    assert min(rates) > 0
    assert rates[1:] == sorted(rates[1:], reverse=True)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_last_step_is_that_of_transformers(name):
    transformers = pytest.importorskip("transformers")
    schedule = learning_rate(OptimizerSpec(learning_rate=1.0, schedule=name, warmup_share=0.25), 8)
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = getattr(transformers, f"get_{name}_schedule_with_warmup")(sgd, 2, 9)
    rates = []
    for _ in range(9):
        rates.append(theirs.get_last_lr()[0])
        sgd.step()
        theirs.step()
    assert rates[0] == 0
    assert [schedule(step) for step in range(8)] == pytest.approx(rates[1:])


def test_the_schedule_is_that_of_optax():
    spec, steps = OptimizerSpec(learning_rate=3e-4, final_share=0.1), 77
    ours, theirs = learning_rate(spec, steps), optax.warmup_cosine_decay_schedule(0, 3e-4, 2, steps + 1, 3e-5)
    assert [ours(n) for n in range(steps)] == pytest.approx([float(theirs(n + 1)) for n in range(steps)], rel=1e-5)


def test_updates_equal_those_of_torch():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(5, 3)), rng.normal(size=(20, 5, 3))
    spec = OptimizerSpec(learning_rate=1e-2, clip_norm=1.0)
    optimizer = make_optimizer(spec)
    params = jnp.asarray(start, jnp.float32)
    state = optimizer.init(params)
    theirs = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    adamw = torch.optim.AdamW([theirs], lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = learning_rate(spec, 20)
    for number, gradient in enumerate(gradients):
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = descend(params, updates, schedule(number))
        theirs.grad = torch.tensor(gradient, dtype=torch.float32)
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        adamw.param_groups[0]["lr"] = schedule(number)
        adamw.step()
    np.testing.assert_allclose(params, theirs.detach().numpy(), atol=1e-6)


def test_norms_and_biases_are_not_decayed():
    decayed = {path: v.get_value() for path, v in nnx.to_flat_state(_decayed(parameters(PRESETS["tiny"])))}
    assert decayed["language", "layers", "q"]
    assert decayed["vision", "merger", "outer"]
    assert not decayed["language", "layers", "q_bias"]
    assert not decayed["vision", "blocks", "norm1"]
    assert not decayed["vision", "merger", "norm"]


@pytest.mark.parametrize(
    "wrong", [dict(learning_rate=0.0), dict(warmup_share=1.0), dict(clip_norm=-1.0), dict(schedule="x")], ids=str
)
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="optimizer"):
        OptimizerSpec(**wrong)
