"""Adapters: nothing at first, the same model when merged, and plain weights in every file that leaves the house."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from transformers import Qwen2_5_VLForConditionalGeneration

from tests.interop.hf_directories import hf_tensors_of, small
from tests.pytorch import torch
from tests.reference import our_parameters
from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.interop.export_hf import export_hf
from videmo_jax.interop.import_hf import import_hf
from videmo_jax.model.config import LoraConfig, ModelConfig
from videmo_jax.model.lora import merged
from videmo_jax.model.videmo import Rows, abstract_model
from videmo_jax.sampling.decode import generate
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.checkpoint import Checkpoints, Meta, require_fit, restore_params, restore_plain
from videmo_jax.training.state import initial_params

PLAIN = small(tied=False)
CONFIG = dataclasses.replace(PLAIN, lora=LoraConfig(rank=3, alpha=6.0))
NO_VIDEO = np.zeros((2, 0, 4, PLAIN.vision.patch_values), np.uint8), np.zeros((2, 0, 4, 2), np.int32)


def parameters(config, *, random_b, seed=0):
    """Initial values; with `random_b` the adapters add as much as the kernels themselves."""
    params = initial_params(config, make_mesh({"data": 1}, jax.devices()[:1]), seed=seed)
    rng = np.random.default_rng(seed)
    for path, param in nnx.to_flat_state(params):
        if random_b and str(path[-1]).endswith("_b"):
            param.set_value(jnp.asarray(rng.normal(0, 0.5, param.shape), jnp.float32))
    return params


def rows():
    tokens = np.random.default_rng(0).integers(0, PLAIN.text.vocab, (2, 9)).astype(np.int32)
    positions = np.broadcast_to(np.arange(9, dtype=np.int32), (2, 3, 9))
    return Rows(tokens, np.ones((2, 9), np.int32), positions, np.full((2, 9), -1, np.int32), *NO_VIDEO)


@jax.jit
def run(model, rows):
    return model.logits(model(rows)[0])


def logits(config, params):
    return np.asarray(run(nnx.merge(nnx.graphdef(abstract_model(config)), params), rows()))


def copied(params):
    return jax.tree.map(jnp.copy, params)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint with adapters that were trained, and its parameters."""
    workdir, params = tmp_path_factory.mktemp("trained"), parameters(CONFIG, random_b=True)
    with Checkpoints(workdir, keep=1) as checkpoints:
        meta = Meta(CONFIG, 4, InputSpec().to_json())
        checkpoints.save(meta, Tokenizer.embedded().files, params, {"count": jnp.zeros(1)}, {})
    return workdir, params


def test_fresh_adapters_change_no_bit():
    base, adapted = parameters(PLAIN, random_b=False), parameters(CONFIG, random_b=False)
    np.testing.assert_array_equal(logits(CONFIG, adapted), logits(PLAIN, base))
    params, config = merged(adapted, CONFIG)
    assert config == PLAIN and jax.tree.structure(params) == jax.tree.structure(base)
    jax.tree.map(np.testing.assert_array_equal, params, base)
    assert merged(base, PLAIN) == (base, PLAIN)


@pytest.mark.parametrize("targets", [LoraConfig().targets, ("o", "down", "v")], ids=str)
def test_a_merged_model_computes_what_adapters_do(targets):
    config = dataclasses.replace(CONFIG, lora=dataclasses.replace(CONFIG.lora, targets=targets))
    params = parameters(config, random_b=True)
    assert sum(path[2:3] == ("lora",) for path, _ in nnx.to_flat_state(params)) == 2 * len(targets)
    adapted, base = logits(config, params), logits(PLAIN, parameters(PLAIN, random_b=False))
    assert np.abs(adapted - base).max() > 1e-2
    plain, plain_config = merged(copied(params), config)
    np.testing.assert_allclose(logits(plain_config, plain), adapted, atol=1e-5)


def test_a_sum_is_that_of_numpy():
    params = parameters(CONFIG, random_b=True)
    layers = params["language"]["layers"]
    a, b = (np.asarray(layers["lora"][f"o_{part}"].get_value(), np.float64) for part in "ab")
    kernel = np.asarray(layers["o"].get_value(), np.float64)
    expected = kernel + 6.0 / 3 * np.einsum("lir,lrd->lid", a, b).reshape(kernel.shape)
    found = merged(params, CONFIG)[0]["language"]["layers"]["o"].get_value()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_is_exported_are_the_merged_weights(trained, tmp_path):
    workdir, params = trained
    export_hf(workdir, tmp_path / "hf")
    wanted = merged(copied(params), CONFIG)[0]
    tensors = hf_tensors_of(tmp_path / "hf")
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), our_parameters(PLAIN, tensors), wanted)
    import_hf(tmp_path / "hf", tmp_path / "again")
    again = restore_params(tmp_path / "again")
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), again, wanted)
    theirs = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "hf").float().eval()
    with torch.no_grad():
        positions = torch.tensor(np.moveaxis(rows().positions, 1, 0).copy(), dtype=torch.long)
        found = theirs(input_ids=torch.tensor(rows().tokens, dtype=torch.long), position_ids=positions).logits
    np.testing.assert_allclose(found.numpy(), logits(CONFIG, params), atol=1e-4)


def test_a_checkpoint_with_adapters_answers_as_its_plain_model(trained):
    workdir, params = trained
    plain, config = restore_plain(workdir, dtype=jnp.bfloat16)
    wanted, _ = merged(copied(params), CONFIG)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y.astype(jnp.bfloat16)), plain, wanted)
    assert config == PLAIN
    with pytest.raises(ValueError, match="a model with adapters does not decode"):
        graph = nnx.graphdef(abstract_model(CONFIG))
        generate(graph, params, rows(), jnp.zeros(2, jnp.uint32), decoding=Decoding(2), stop_ids=(0,))


def test_runs_start_from_checkpoints_with_and_without_adapters(trained, tmp_path):
    workdir, params = trained
    mesh = make_mesh({"fsdp": 4})
    require_fit(workdir, PLAIN)
    same = initial_params(CONFIG, mesh, seed=5, checkpoint=workdir)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    plain = merged(copied(params), CONFIG)[0]
    others = (PLAIN, dataclasses.replace(PLAIN, lora=LoraConfig(rank=4, targets=("q", "down"))))
    for config in others:
        started = initial_params(config, mesh, seed=5, checkpoint=workdir)
        assert jax.tree.structure(started) == jax.tree.structure(nnx.state(abstract_model(config), nnx.Param))
        if config.lora.rank:
            lora = started["language"]["layers"].pop("lora")
            assert set(lora) == {"q_a", "q_b", "down_a", "down_b"}
            assert not np.any(lora["q_b"].get_value()) and np.std(lora["q_a"].get_value()) > 0.01
            a = lora["down_a"].get_value()
            assert a.sharding.shard_shape(a.shape) == (3, 12, 4)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), started, plain)


def test_adapters_are_described_in_json():
    assert ModelConfig.from_json(CONFIG.to_json()) == CONFIG
    older = CONFIG.to_json()
    del older["lora"]
    assert ModelConfig.from_json(older) == PLAIN
    for wrong in ({"rank": -1}, {"alpha": 0.0}, {"targets": ()}, {"targets": ("q", "q")}, {"targets": ("qkv",)}):
        with pytest.raises(ValueError, match=rf"model config: lora\.{next(iter(wrong))} is "):
            LoraConfig(**wrong)
    with pytest.raises(ValueError, match=r"model\.lora has no field 'rang'; did you mean 'rank'"):
        ModelConfig.from_json({"lora": {"rang": 2}})
