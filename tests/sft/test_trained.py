"""Steps that train a part of the model: the rest stays bit for bit, and the part learns what it learns in the whole."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from tests.sft.test_step import CONFIG, batch
from videmo_jax.data.pipeline import to_devices
from videmo_jax.model.config import LoraConfig
from videmo_jax.sft.step import make_train_step, numbers
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import fresh_state, initial_params
from videmo_jax.training.step import ComputeSpec
from videmo_jax.training.trained import ALL, joined, read_trained

ADAPTED = dataclasses.replace(CONFIG, lora=LoraConfig(rank=2))
FROZEN = read_trained(CONFIG, ("vision.blocks", "language.embedding", "language.layers.k"), ())
ONE, FOUR = {"data": 1}, {"fsdp": 4}


def train(shape, config, trained, count=2):
    """(losses, gradient norms, parameters before, the state after each step), after the first step unclipped."""
    mesh = make_mesh(shape, jax.devices()[: 4 if shape is not ONE else 1])
    optimizer = make_optimizer(OptimizerSpec(weight_decay=0.1, clip_norm=0))
    state = fresh_state(config, initial_params(config, mesh, seed=0), optimizer, mesh, trained)
    step = make_train_step(config, optimizer, mesh, ComputeSpec(dtype="float32", remat="full"), GuardSpec(), trained)
    before, states, measured = flat(state.params), [], []
    for seed in range(count):
        state, metrics = step(state, to_devices(batch(seed), mesh), 1e-2)
        states.append((flat(state.params), jax.device_get(state.optimizer)))
        measured.append(numbers(metrics))
    return [m["loss"] for m in measured], [m["gradient_norm"] for m in measured], before, states


def flat(params):
    return {path: np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(params)}


def moments(optimizer):
    """Adam's first moments; after one step they are a tenth of the gradient."""
    return flat(optimizer[0].mu)


def changed(before, after):
    return {path for path, value in before.items() if not np.array_equal(value, after[path])}


@pytest.fixture(scope="module")
def whole():
    return train(ONE, CONFIG, ALL, count=1)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [ONE, {"fsdp": 2, "tensor": 2}], ids=str)
def test_what_is_frozen_stays_and_the_rest_has_the_gradient_of_the_whole(shape, whole):
    losses, norms, before, states = train(shape, CONFIG, FROZEN)
    for after, optimizer in states:
        trained = {path for path in before if path in FROZEN}
        assert changed(before, after) == trained
        assert moments(optimizer).keys() == trained and flat(optimizer[0].nu).keys() == trained
    assert {path for path in before if path not in FROZEN} == {
        path
        for path in before
        if path[:2] in {("vision", "blocks"), ("language", "embedding")} or path == ("language", "layers", "k")
    }
    (loss, *_), (norm, *_), _, ((_, whole_optimizer), *_) = whole
    expected = moments(whole_optimizer)
    for path, value in moments(states[0][1]).items():
        np.testing.assert_allclose(value, expected[path], atol=1e-6 * norm, err_msg=str(path))
    assert losses[0] == pytest.approx(loss, abs=1e-5)
    trained_norm = optax.tree.norm([value for path, value in expected.items() if path in FROZEN]) * 10
    assert norms[0] == pytest.approx(float(trained_norm), rel=1e-5) and norms[0] < norm


@pytest.mark.slow
def test_adapters_alone_learn_and_begin_at_the_loss_of_the_plain_model(whole):
    trained = read_trained(ADAPTED, (), ("vision.merger",))
    losses, _, before, states = train(ONE, ADAPTED, trained)
    assert losses[0] == whole[0][0]  # bit for bit: they add zeros
    added = {path for path in before if path[2:3] == ("lora",)}
    assert len(added) == 2 * 7 and set(before) - added == set(whole[2])
    after_one, after_two = states[0][0], states[1][0]
    merger = {path for path in before if path[:2] == ("vision", "merger")}
    # While B is zero, A has no gradient; weight decay still shrinks it.
    assert changed(before, after_one) == added | merger == changed(after_one, after_two)
    assert moments(states[1][1]).keys() == added | merger
    on_four = train(FOUR, ADAPTED, trained)
    np.testing.assert_allclose(on_four[0], losses, atol=1e-5, rtol=0)
    for path, value in moments(on_four[3][1][1]).items():
        np.testing.assert_allclose(value, moments(states[1][1])[path], atol=1e-5, err_msg=str(path))


def test_adapters_do_not_go_with_a_tensor_axis():
    with pytest.raises(ValueError, match=r"mesh\.tensor is 2; with adapters \(model\.lora\.rank\) it must be 1"):
        optimizer = make_optimizer(OptimizerSpec())
        make_train_step(ADAPTED, optimizer, make_mesh({"fsdp": 2, "tensor": 2}), ComputeSpec(), GuardSpec())


def test_parts_are_put_together_again():
    params = nnx.state(nnx.eval_shape(lambda: nnx.Linear(2, 2, rngs=nnx.Rngs(0))), nnx.Param)
    for frozen in ((), ("kernel",), ("kern",)):
        parts = dataclasses.replace(ALL, frozen=frozen).split(params)
        assert joined(*parts) == params
        assert len(nnx.to_flat_state(parts[1])) == (frozen == ("kernel",))


@pytest.mark.parametrize(
    ("config", "freeze", "train_also", "message"),
    [
        (CONFIG, ("vison.merger",), (), "freeze: the model has no parameters 'vison.merger'; did you mean 'vision.m"),
        (CONFIG, ("language.layer",), (), "did you mean 'language.layers'"),
        (CONFIG, "vision", (), r"a tuple of names, such as \('vision',\)"),
        (CONFIG, ("language", "vision"), (), "leaves no parameter to train"),
        (CONFIG, (), ("vision",), "set model.lora.rank, or use freeze"),
        (ADAPTED, (), ("visoin",), "train_also: the model has no parameters 'visoin'"),
        (ADAPTED, ("language.layers.lora",), (), "leaves no parameter to train"),
    ],
    ids=str,
)
def test_names_that_choose_nothing_are_refused(config, freeze, train_also, message):
    with pytest.raises(ValueError, match=message):
        read_trained(config, freeze, train_also)
