"""RL runs on a small model: their arguments, and what of a run must not depend on how it went."""

import hashlib
import json

import jax
import numpy as np

from tests.launch.commands import ROOT, SMALL_MODEL, train_arguments
from videmo_jax.rl.sample_log import LINES, TEXT
from videmo_jax.training.checkpoint import restore_params

STEPS = 6
# What depends on the clock, and what the thread that reads ahead may have met already.
OF_THE_CLOCK = ("seconds", "per_second", "goodput", "data_wait", "skipped")
HEADS = "--config.model.text.heads=2"  # of 32, so that the model has a place in Qwen2.5-VL's config.json
REWARDS = {"PYTHONPATH": str(ROOT)}  # where rewards of one's own are found: they lie in the tests


def sft_arguments(workdir, data):
    """The supervised run that RL begins with: short, but its answers are words."""
    return [
        "launch/train.py",
        "--config=configs/quickstart_rl.py:sft",
        f"--workdir={workdir}",
        f"--config.data.root={data}",
        "--config.batch=4",
        "--config.held_out.samples=0",
        "--config.steps=60",
        "--config.optimizer.learning_rate=1e-2",
        *SMALL_MODEL,
        HEADS,
    ]


def rl_arguments(workdir, data, init, *more):
    """A run of STEPS steps, saved at each, measured at every other one: four answers to each of four prompts."""
    plan = (f"--config.steps={STEPS}", "--config.checkpoint.every=1", "--config.checkpoint.keep=9")
    return train_arguments(
        workdir,
        data,
        f"--config.init={init}",
        *plan,
        HEADS,
        "--config.log.every=1",
        "--config.held_out.samples=2",
        "--config.held_out.every=2",
        "--config.rollout.answers=4",
        "--config.rollout.max_new_tokens=32",
        # Rewards that differ from answer to answer, whatever the model has learned.
        "--config.rewards.own=(('*Emotion-Recognition*','tests.rl.reward_functions:share_of_a'),)",
        *more,
        config="configs/quickstart_rl.py",
    )


def lines_of(workdir):
    """metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def steps_of(workdir):
    """The lines of training steps."""
    return [line for line in lines_of(workdir) if "loss" in line]


def timeless(line):
    """A line of metrics without what depends on the clock."""
    return {name: value for name, value in line.items() if not any(word in name for word in OF_THE_CLOCK)}


def digest(workdir):
    """A hash over all parameters, bit for bit."""
    whole = hashlib.sha256()
    for leaf in jax.tree.leaves(restore_params(workdir)):
        whole.update(np.asarray(leaf).tobytes())
    return whole.hexdigest()


def written(workdir):
    """All that a run writes of its answers, by file, byte for byte."""
    paths = [workdir / name for name in (LINES, TEXT)] + sorted((workdir / "held_out").glob("*.jsonl"))
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}
