"""Checkpoints: what is saved comes back, from any path, in any dtype and layout; what is not there is said."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from videmo_jax.model.videmo import VidEmo
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    Meta,
    find_checkpoint,
    read_meta,
    read_tokenizer_files,
    require_fit,
    restore_params,
    steps,
)
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer

CONFIG = ModelConfig(
    TextConfig(32, 2, 4, 2, 8, 48, 64, (1, 1, 2), tied=False), VisionConfig(16, 2, 2, 24, 32, full_attention=(1,))
)
META = Meta(CONFIG, 3, {"seconds_per_grid": "nominal"}, {"init": "somewhere"}, "expression")


@pytest.fixture
def saved(tmp_path):
    params = nnx.state(VidEmo(CONFIG, nnx.Rngs(0)), nnx.Param)
    optimizer = make_optimizer(OptimizerSpec()).init(params)
    with Checkpoints(tmp_path / "run", keep=2) as checkpoints:
        for step in (1, 2, 3):
            meta = dataclasses.replace(META, step=step)
            checkpoints.save(meta, {"tokenizer.json": "{}"}, params, optimizer, {"row": 8 * step})
    return tmp_path / "run", params, optimizer


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_what_is_saved_comes_back(saved, monkeypatch):
    workdir, params, _ = saved
    assert steps(workdir) == [2, 3]
    monkeypatch.chdir(workdir.parent)
    for path in (workdir, "run", "run/checkpoints/3", workdir / "checkpoints" / "3"):
        assert find_checkpoint(path).name == "3"
        assert read_meta(path) == META
        assert read_tokenizer_files(path) == {"tokenizer.json": "{}"}
        assert equal(restore_params(path), params)


def test_parameters_come_back_in_another_dtype_and_layout(saved):
    workdir, params, _ = saved
    half = restore_params(workdir, dtype=jnp.bfloat16)
    assert equal(half, jax.tree.map(lambda p: p.astype(jnp.bfloat16), params))
    mesh = make_mesh({"fsdp": 2, "tensor": 2})
    split = restore_params(workdir, mesh=mesh)
    assert equal(split, params)
    gate = split["language"]["layers"]["gate"].get_value()
    assert gate.sharding.shard_shape(gate.shape) == (2, 16, 24)


def test_a_run_resumes_with_optimizer_and_data(saved):
    workdir, params, optimizer = saved
    fresh = nnx.state(VidEmo(CONFIG, nnx.Rngs(7)), nnx.Param)
    with Checkpoints(workdir, keep=2) as checkpoints:
        empty = jax.tree.map(lambda x: x + 1, optimizer)
        restored, state, data = checkpoints.restore(checkpoints.latest(), fresh, empty)
    assert equal(restored, params)
    assert equal(state, optimizer)
    assert jax.tree.structure(state) == jax.tree.structure(optimizer)
    assert data == {"row": 24}


def test_what_is_missing_or_another_is_named(saved, tmp_path):
    workdir = saved[0]
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        find_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"text\.layers: 2 there, 36 in the config"):
        require_fit(workdir, ModelConfig())
    require_fit(workdir, CONFIG)
