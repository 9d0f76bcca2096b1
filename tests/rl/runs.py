"""Runs of RL in the process of a test, on a model that compiles in seconds."""

import importlib.util

import jax
import numpy as np
import pytest

from tests.launch.commands import ROOT
from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.model.config import ModelConfig
from videmo_jax.rl import programs
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.checkpoint import Checkpoints, Meta, restore_params
from videmo_jax.training.metrics import read_metrics
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import fresh_state, initial_params

OWN = "tests.rl.reward_functions"
OPTIONS = {
    "model.text.layers": 1,
    "model.text.width": 64,
    "model.text.mlp_width": 64,
    "model.vision.out_width": 64,
    "model.vision.layers": 1,
    "model.vision.width": 32,
    "model.vision.mlp_width": 32,
    "model.vision.full_attention": (0,),
    "batch": 4,
    "steps": 3,
    "checkpoint.every": 1,
    "checkpoint.keep": 9,
    "log.every": 1,
    "log.samples": 4,
    "stages.rl.weights": (),
    "held_out.samples": 0,
    "rollout.answers": 3,
    "rollout.max_new_tokens": 12,
    "optimizer.learning_rate": 1e-3,
    # Of all but fine-grained captions: rewards that differ from answer to answer, whatever the model has learned.
    "rewards.own": (("[!c]*", f"{OWN}:share_of_a"),),
}


def config_of(**more):
    """The tiny recipe with the options of these tests, and others by dotted name."""
    path = ROOT / "configs" / "quickstart_rl.py"
    spec = importlib.util.spec_from_file_location("quickstart_rl", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.update_from_flattened_dict(OPTIONS | {name.replace("__", "."): value for name, value in more.items()})
    return config


def save_policy(folder, config, scale, step=1):
    """A checkpoint to begin with, whose weights are so large that answers differ in likelihood."""
    model = ModelConfig.from_json(config.model.to_dict())
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    params = jax.tree.map(lambda x: scale * x, initial_params(model, mesh, seed=0))
    state = fresh_state(model, params, make_optimizer(OptimizerSpec()), mesh)
    with Checkpoints(folder, keep=1) as checkpoints:
        meta = Meta(model, step, InputSpec().to_json())
        checkpoints.save(meta, Tokenizer.embedded().files, params, (state.optimizer, state.guard), {})
    return folder


def steps_of(workdir):
    return [line for line in read_metrics(workdir) if "loss" in line]


CLOCK = ("seconds", "per_second", "goodput", "data_wait", "skipped")


def timeless(line):
    return {name: value for name, value in line.items() if not any(word in name for word in CLOCK)}


def arrays(checkpoint):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restore_params(checkpoint))]


def apart(one, other):
    return max(float(np.abs(a - b).max()) for a, b in zip(arrays(one), arrays(other), strict=True))


def same_runs(one, other):
    """Bit for bit, in all but the clock."""
    assert [timeless(line) for line in steps_of(one)] == [timeless(line) for line in steps_of(other)]
    assert apart(one, other) == 0


def breaks_off(train, at, *args, **more):
    """A run that ends in the middle of its update number `at`, counted from this start."""
    made, calls = programs.Programs.updated, []

    def updated(self, *args):
        calls.append(1)
        if len(calls) == at:
            raise RuntimeError("the lights went out")
        return made(self, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="lights"):
        patch.setattr(programs.Programs, "updated", updated)
        train(*args, **more)
