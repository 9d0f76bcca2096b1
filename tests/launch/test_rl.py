"""launch/train.py with a config of RL as a user meets it: what it leaves, how it resumes, what it says is wrong."""

import json
import math
import re
import shutil
import signal

import pytest

from tests.launch.commands import run, run_forked
from tests.launch.restored import restored_hash
from tests.launch.rl_runs import REWARDS, STEPS, digest, lines_of, rl_arguments, steps_of, timeless, written
from videmo_jax.evaluation.answers.answerer import identity
from videmo_jax.rl.sample_log import read_samples
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.checkpoint import read_meta, steps


@pytest.fixture(scope="module")
def arguments(synthetic, after_sft):
    def make(workdir, *more):
        return rl_arguments(workdir, synthetic, after_sft, *more)

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory, arguments):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    code, output = run(arguments(workdir), JAX_NUM_CPU_DEVICES="1", **REWARDS)
    assert code == 0, output
    return workdir


def one_device(workdir):
    """A hash of parameters, optimizer and guard of the newest checkpoint."""
    import jax

    return restored_hash(workdir, make_mesh({"data": 1}, jax.devices()[:1]))


def test_a_run_leaves_what_the_contract_names(finished, after_sft):
    lines = steps_of(finished)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line in lines:
        assert line["stage"] == "rl" and line["failed_groups"] == 0
        assert {"loss", "reward", "flat_groups", "kl", "clipped_low", "clipped_high", "entropy"} <= line.keys()
        assert {"length", "cut", "seconds_rollout", "seconds_reward", "seconds_update"} <= line.keys()
        assert line["log_prob_gap"] < 1e-4
        assert 0 < line["length"] <= 32 and 0 <= line["cut"] <= 1 and line["answers"] == 16
        branches = {name.partition("/")[2] for name in line if name.startswith("reward/")}
        assert branches and branches == {name.partition("/")[2] for name in line if name.startswith("reward_std/")}
        assert branches <= {"rule", "caption", "tree", "own"}
        assert all(0 <= line[f"reward/{branch}"] <= 1 for branch in branches)
    assert lines[0]["kl"] < 1e-6 < lines[-1]["kl"]  # the policy began as the reference, and has moved
    assert any(line["flat_groups"] < 1 for line in lines)
    measured = [line for line in lines_of(finished) if "measured" in line]
    assert [line["step"] for line in measured] == [0, 2, 4, 6]
    assert all({"held_out/caption", "held_out/tree", "held_out/length"} <= line.keys() for line in measured)

    meta = read_meta(finished)
    assert meta.step == STEPS and meta.stage == "rl" and steps(finished) == list(range(1, STEPS + 1))
    assert meta.origin["init"] == str(after_sft) and meta.origin["reference"] == identity(after_sft)["hash"]
    assert meta.origin["rewards"]["own"] == {"*Emotion-Recognition*": "tests.rl.reward_functions:share_of_a"}
    assert meta.origin["rewards"]["decay"] == 2.0
    assert json.loads((finished / "config.json").read_text())["rollout"]["answers"] == 4
    assert "reward" in (finished / "report.html").read_text()


def test_samples_and_held_out_answers_say_what_metrics_say(finished):
    """Means of what is written one by one are the means in metrics.jsonl."""
    groups = list(read_samples(finished))
    assert {group.step for group in groups} == set(range(1, STEPS + 1))
    for group in groups:
        assert len(group.answers) == 4 and group.failure is None and group.truth
        assert abs(sum(answer.advantage for answer in group.answers)) < 1e-5
    text = (finished / "samples.txt").read_text()
    assert all(group.id in text for group in groups)
    assert all(group.id in (finished / "samples.html").read_text() for group in groups)
    for line in lines_of(finished):
        if "measured" in line:
            answers = [json.loads(each) for each in (finished / f"held_out/{line['step']:06}.jsonl").open()]
            for branch in {each["branch"] for each in answers}:
                rewards = [value for each in answers if each["branch"] == branch for value in each["rewards"]]
                assert len(rewards) <= 2 * 4 and math.isclose(
                    sum(rewards) / len(rewards), line[f"held_out/{branch}"], abs_tol=1e-6
                )


def test_a_finished_run_started_again_changes_nothing(finished, arguments):
    before = digest(finished), written(finished), (finished / "metrics.jsonl").read_bytes()
    code, output = run_forked(arguments(finished))
    assert code == 0, output
    assert (digest(finished), written(finished), (finished / "metrics.jsonl").read_bytes()) == before


# Where, and in which step, each start is killed (tests/launch/killed.py), by worker processes of the rewards. It is the
# fifth batch that holds a question with a reward of the user's own.
KILLS = {
    0: (("rollout", 2), ("rollout-sent", 3), ("reward", 3), ("update", 4), ("own", 5), ("update-sent", 5)),
    2: (("reward-sent", 3), ("update-sent", 5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", KILLS)
def test_runs_killed_in_every_stage_end_bit_for_bit(workers, finished, arguments, tmp_path):
    workdir = tmp_path / "killed"
    train, *more = arguments(workdir, f"--config.rewards.workers={workers}")
    for place, step in KILLS[workers]:
        code, output = run_forked(["tests/launch/killed.py", place, step, *more])
        assert code == -signal.SIGKILL, (place, code, output)
    code, output = run_forked([train, *more])
    assert code == 0 and re.search("resumed from step [34]", output), output
    assert one_device(workdir) == one_device(finished)
    assert [timeless(line) for line in lines_of(workdir)] == [timeless(line) for line in lines_of(finished)]
    assert written(workdir) == written(finished)


@pytest.mark.slow
def test_the_policy_is_evaluated_and_exported(finished, synthetic, tmp_path):
    out = tmp_path / "scores"
    asked = ["--data", synthetic, "--tasks", "MEAD_ID", "--max-new-tokens", "16", "--out", out]
    code, output = run_forked(["launch/evaluate.py", "--checkpoint", finished, *asked])
    assert code == 0, output
    recipe = json.loads((out / "scores.json").read_text())["recipe"]
    assert str(STEPS) in json.dumps(recipe) and identity(finished)["hash"] in json.dumps(recipe)
    code, output = run_forked(["launch/convert.py", "export", "--checkpoint", finished, "--out", tmp_path / "hf"])
    assert code == 0, output
    code, output = run_forked(["launch/convert.py", "import", "--hf", tmp_path / "hf", "--out", tmp_path / "back"])
    assert code == 0, output
    assert digest(tmp_path / "back") == digest(finished)


WRONG = {
    "no init": (["--config.init="], "init is empty; RL goes on from a checkpoint of SFT"),
    "an init of another model": (["--config.model.text.layers=2"], "text.layers: 1 there, 2 in the config"),
    "an unknown reward": (["--config.rewards.own=(('*','nowhere:none'),)"], "nowhere:none cannot be imported"),
    "a typo": (["--config.rollout.answer=4"], "answers"),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_start_says_why_in_one_line(wrong, arguments, tmp_path):
    more, message = WRONG[wrong]
    code, output = run_forked(arguments(tmp_path / "run", *more))
    assert code == 1 and message in output.splitlines()[-1], output
    assert "Traceback" not in output


@pytest.mark.slow
def test_another_init_in_the_place_of_the_first_is_refused_in_one_line(finished, arguments, tmp_path):
    """The run itself, say, whose weights are no longer what the policy is to be compared with."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    code, output = run_forked(arguments(copy, f"--config.init={finished}"))
    assert code == 1 and "is not the checkpoint that this run began with" in output.splitlines()[-1], output
    assert "Traceback" not in output
