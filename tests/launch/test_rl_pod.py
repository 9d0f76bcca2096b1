"""RL on several devices and several hosts: five updates are those of one device."""

import jax
import numpy as np
import pytest

from tests.launch.commands import run, run_pair
from tests.launch.rl_runs import REWARDS, lines_of, rl_arguments, timeless
from videmo_jax.rl.sample_log import read_samples
from videmo_jax.training.checkpoint import restore_params

pytestmark = pytest.mark.slow

UPDATES = 5
OWN = "tests.rl.reward_functions"
ALONE = {"one": ("1", "fsdp=1"), "eight": ("8", "replica=2", "fsdp=2", "tensor=2")}
PAIRS = {"fsdp": ("fsdp=8",), "tensor": ("replica=2", "fsdp=2", "tensor=2")}


@pytest.fixture(scope="module")
def arguments(synthetic, after_sft):
    def make(workdir, *mesh):
        more = (
            "--config.batch=8",
            f"--config.steps={UPDATES}",
            f"--config.held_out.every={UPDATES}",
            f"--config.checkpoint.every={UPDATES}",
            # Adam makes a step of the learning rate of any gradient, also of one that is 0 but for rounding (biases of
            # keys), unless epsilon is far above rounding.
            "--config.optimizer.learning_rate=1e-3",
            "--config.optimizer.epsilon=1e-3",
            # Some rewards fail, on whichever host.
            f"--config.rewards.own=(('*Emotion-Recognition*','{OWN}:share_of_a'),('*','{OWN}:fails_now_and_then'))",
            # And there are too few others, on all hosts together, for a batch.
            "--config.rollout.draws=2",
            *(f"--config.mesh.{axis}" for axis in mesh),
        )
        return rl_arguments(workdir, synthetic, after_sft, *more)

    return make


@pytest.fixture(scope="module")
def one(arguments, tmp_path_factory):
    return alone(arguments, tmp_path_factory.mktemp("one") / "run", *ALONE["one"])


def alone(arguments, workdir, devices, *mesh):
    """A run of one process."""
    code, output = run(arguments(workdir, *mesh), JAX_NUM_CPU_DEVICES=devices, **REWARDS)
    assert code == 0, output
    return workdir


def arrays(checkpoint):
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(restore_params(checkpoint))]


def same_updates(workdir, one, after_sft):
    """Answers, rewards, losses and parameters."""
    lines, expected = ([timeless(line) for line in lines_of(each)] for each in (workdir, one))
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    assert sum("loss" in line for line in lines) == UPDATES
    for line, other in zip(lines, expected, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            if name == "filled":  # rows without a token are of devices that wait for others
                assert 0 < value <= other[name]
            elif isinstance(value, float):
                assert abs(value - other[name]) <= 1e-5 * max(1, abs(value)), (line["step"], name, value, other[name])
            else:
                assert value == other[name], (line["step"], name)
    apart = [np.abs(a - b).max() for a, b in zip(arrays(workdir), arrays(one), strict=True)]
    moved = [np.abs(a - b).max() for a, b in zip(arrays(one), arrays(after_sft), strict=True)]
    assert max(apart) < 1e-5 < 1e-4 < max(moved)


def failures(workdir):
    """Groups without rewards that are listed, whichever host had them."""
    return sorted((each.step, each.id) for host in (0, 1) for each in read_samples(workdir, host) if each.failure)


def test_eight_devices_give_the_updates_of_one(one, arguments, after_sft, tmp_path):
    same_updates(alone(arguments, tmp_path / "run", *ALONE["eight"]), one, after_sft)


def test_two_processes_give_the_updates_of_one_device(one, arguments, after_sft, tmp_path):
    first, second = run_pair(arguments(tmp_path / "run", *PAIRS["tensor"]), tmp_path, **REWARDS)
    assert f"step {UPDATES}/{UPDATES}" in first and f"/{UPDATES}  loss" not in second
    same_updates(tmp_path / "run", one, after_sft)
    listed = failures(tmp_path / "run")
    assert listed == failures(one) and len(listed) == sum(line.get("failed_groups", 0) for line in lines_of(one))
    draws = {line["draws"] for line in lines_of(one) if "loss" in line}
    assert 2 in draws and sum(line.get("dropped_groups", 0) for line in lines_of(one))
    assert {step for step, _ in listed} > {1} and any(each.failure for each in read_samples(tmp_path / "run", 1))
    assert all(each.failure for each in read_samples(tmp_path / "run", 1))


def test_one_step_of_staleness_gives_the_same_on_two_processes(arguments, after_sft, tmp_path):
    """Also where the frozen reference judges captions, of which the processes have different numbers, and where two
    devices answer together."""
    mixed = f"(('caption_*',('tree',2),('caption',1)),('C*',('task',1),('{OWN}:share_of_a',3)))"
    more = ("rollout.staleness=1", "rewards.workers=1", "rewards.caption=reference", f"rewards.mixed={mixed}")
    more += ("rewards.max_failed_share=1.0", "rollout.draws=1")  # few are left that have no mixture

    def stale(name, *mesh):
        return [*arguments(tmp_path / name, *mesh), *(f"--config.{each}" for each in more)]

    code, output = run(stale("one", *ALONE["one"][1:]), JAX_NUM_CPU_DEVICES="1", **REWARDS)
    assert code == 0, output
    run_pair([*stale("pair", *PAIRS["fsdp"]), "--config.rollout.tensor=2"], tmp_path, **REWARDS)
    same_updates(tmp_path / "pair", tmp_path / "one", after_sft)
    assert {"reward/mixed/caption", "reward/mixed/tree", "held_out/mixed/caption"} <= {
        name for line in lines_of(tmp_path / "pair") for name in line
    }
    assert failures(tmp_path / "pair") == failures(tmp_path / "one")
