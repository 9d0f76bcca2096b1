"""Runs of RL in this process, with options of the objective, the reference and the judge."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from tests.rl import reward_functions
from tests.rl.runs import OWN, apart, arrays, breaks_off, same_runs, steps_of, timeless
from videmo_jax.rl import answered, programs, run
from videmo_jax.rl.sample_log import read_samples
from videmo_jax.training.checkpoint import restore_params, steps
from videmo_jax.training.stopped import TrainingStopped

pytestmark = pytest.mark.slow

ADAPTERS = {"model__lora__rank": 2, "model__lora__targets": ("q", "o", "down"), "optimizer__learning_rate": 1e-2}


@pytest.fixture(scope="module")
def adapted(trained, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "adapted"
    said = trained(workdir, **ADAPTERS)
    assert "M parameters, 0.00" in said and "M of them trained," in said
    return workdir


def test_adapters_begin_as_the_policy_of_init_and_are_all_that_moves(adapted, policy, plain):
    lines = steps_of(adapted)
    assert lines[0]["kl"] == 0 and lines[-1]["kl"] > 1e-6
    assert lines[0]["reward"] == steps_of(plain)[0]["reward"]  # the same answers
    # The sampler has merged weights, and the trainer adds what adapters find.
    assert all(line["log_prob_gap"] < 1e-5 for line in lines)
    ends = [nnx.to_flat_state(restore_params(each)) for each in (adapted, policy)]
    after, before = ({tuple(path): np.asarray(leaf.get_value()) for path, leaf in flat} for flat in ends)
    for path, value in before.items():
        np.testing.assert_array_equal(after.pop(path), value)
    assert len(after) == 6 and all(np.any(value) for value in after.values())


def test_a_run_with_adapters_breaks_off_and_goes_on_bit_for_bit(adapted, trained, tmp_path):
    workdir = tmp_path / "broken"
    breaks_off(trained, 3, workdir, **ADAPTERS)
    assert "resumed from step 2" in trained(workdir, **ADAPTERS)
    same_runs(workdir, adapted)


def test_adapters_of_init_are_those_of_the_reference(adapted, trained, tmp_path):
    """As after SFT with adapters. Others than the run's own are merged, and fresh ones begin."""
    for name, rank in (("same", 2), ("other", 3)):
        trained(tmp_path / name, **ADAPTERS | {"init": str(adapted), "model__lora__rank": rank}, steps=2)
        lines = steps_of(tmp_path / name)
        assert lines[0]["kl"] == 0 and lines[1]["kl"] > 1e-6
        assert lines[0]["log_prob_gap"] < 1e-5
    assert steps_of(tmp_path / "same")[0]["reward"] == steps_of(tmp_path / "other")[0]["reward"]


def test_a_reference_that_is_renewed_is_the_policy_and_known_to_a_run_that_comes_back(trained, tmp_path):
    """After steps 2 and 4; the run breaks off in steps 3 and 4, so that it comes back at a renewal and after it."""
    more = {"steps": 5, "grpo__reference_every": 2}
    trained(tmp_path / "whole", **more)
    kl = [line["kl"] for line in steps_of(tmp_path / "whole")]
    assert max(kl[0], kl[2], kl[4]) < 1e-6 < min(kl[1], kl[3])
    for at in (3, 2):
        breaks_off(trained, at, tmp_path / "broken", **more)
    assert steps(tmp_path / "broken") == [1, 2, 3]
    trained(tmp_path / "broken", **more)
    same_runs(tmp_path / "broken", tmp_path / "whole")


def test_groups_left_out_are_no_part_of_the_mean(trained, tmp_path):
    """Without a KL term a flat group adds 0: the sums stay, and the denominators are those of the others."""
    some = {"rewards__own": (("*", f"{OWN}:flat_for_some"),), "grpo__beta": 0.0, "steps": 1, "batch": 8}
    trained(tmp_path / "all", **some)
    trained(tmp_path / "left_out", **some, grpo__leave_out_flat=True)
    (whole,), (line,) = (steps_of(tmp_path / name) for name in ("all", "left_out"))
    assert line["reward"] == whole["reward"] and line["flat_groups"] == whole["flat_groups"] > 0
    assert (line["draws"], line["dropped_groups"]) == (1, 0) and "draws" not in whole
    assert line["left_out_flat"] == whole["flat_groups"] * (8 - whole["failed_groups"]) > 0
    assert line["answers"] == whole["answers"] - 3 * line["left_out_flat"] > 0
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(line[name] * line["answers"], whole[name] * whole["answers"], rtol=1e-4, atol=1e-6)


def test_prompts_are_drawn_until_a_batch_of_groups_teaches_and_a_run_that_breaks_off_goes_on(
    trained, tmp_path, monkeypatch
):
    """Stopped by the guard at its second step, broken off in its fourth, it ends as the run that was left alone."""
    some = {"rewards__own": (("*", f"{OWN}:flat_for_some"),), "rollout__draws": 3, "steps": 4, "log__samples": 99}
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    trained(whole, **some)
    lines, groups, drawn = steps_of(whole), list(read_samples(whole)), 0
    for line in lines:
        own = [group for group in groups if group.step == line["step"]]
        spread = [group for group in own if not group.failure and len({each.reward for each in group.answers}) > 1]
        assert len(own) == 4 * line["draws"] and len({group.id for group in own}) == len(own)
        assert line["failed_groups"] == sum(group.failure is not None for group in own)
        assert line["left_out_flat"] == len(own) - len(spread) - line["failed_groups"]
        assert line["answers"] == 3 * min(len(spread), 4) and line["dropped_groups"] == max(len(spread) - 4, 0)
        assert line["draws"] == 3 or len(spread) >= 4
        assert line["log_prob_gap"] < 1e-4
        drawn += line["draws"]
        assert line["epoch"] / lines[0]["epoch"] == pytest.approx(drawn / lines[0]["draws"])
    assert max(line["draws"] for line in lines) > 1 and sum(line["dropped_groups"] for line in lines)

    made, updated, calls = programs.make_policy_step, programs.Programs.updated, []

    def second_is_bad(*args):
        update = made(*args)

        def broken(state, batch, rate):
            calls.append(1)
            nan = np.float32("nan" if len(calls) == 2 else 1)
            return update(state, dataclasses.replace(batch, advantages=batch.advantages * nan), rate)

        return broken

    monkeypatch.setattr(programs, "make_policy_step", second_is_bad)
    with pytest.raises(TrainingStopped, match=r"step 2: .*was not taken"):
        trained(workdir, **some, checkpoint__every=100)
    assert steps(workdir) == [1]
    second = [group for group in groups if group.step == 2 and not group.failure]
    taken = [group.id for group in second if len({each.reward for each in group.answers}) > 1][:4]
    assert json.loads((workdir / "stopped.json").read_text())["samples"] == taken
    monkeypatch.undo()

    def breaks(self, *args):
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("the lights went out")
        return updated(self, *args)

    monkeypatch.setattr(programs.Programs, "updated", breaks)
    with pytest.raises(RuntimeError, match="lights"):
        trained(workdir, **some)
    assert steps(workdir) == [1, 2, 3]
    trained(workdir, **some)
    assert [timeless(line) for line in steps_of(workdir)] == [timeless(line) for line in lines]
    assert list(read_samples(workdir)) == groups and apart(workdir, whole) == 0


def test_two_updates_from_a_rollout_and_no_reference(trained, plain, policy, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "reference_of", None)  # nobody makes a reference
    workdir = tmp_path / "twice"
    trained(workdir, grpo__updates=2, grpo__beta=0.0)
    lines = steps_of(workdir)
    assert all(line["kl"] == 0 for line in lines)
    assert lines[0]["reward"] == steps_of(plain)[0]["reward"]
    # The gap is that of the first update; the ratio, of the second, has moved.
    assert all(line["log_prob_gap"] < 1e-4 for line in lines)
    assert abs(lines[0]["ratio"] - 1) > 1e-5 > abs(steps_of(plain)[0]["ratio"] - 1)


def test_node_credit_moves_advantages_within_answers_alone(trained, tmp_path, monkeypatch):
    """The mean over an answer's tokens stays the answer's advantage, and in some the tokens differ."""
    seen = []
    made = answered.Answered.by_token

    def spy(self, advantages, found, weight):
        tokens = made(self, advantages, found, weight)
        seen.append((self, advantages, found, tokens))
        return tokens

    monkeypatch.setattr(answered.Answered, "by_token", spy)
    trained(tmp_path / "credit", grpo__node_credit=0.5, data__include=("caption_*",), rollout__max_new_tokens=24)
    spread = 0
    for rollout, advantages, found, tokens in seen:
        assert set(found.branches) <= {"tree"}
        for row in rollout.filled:
            for number, length in enumerate(rollout.lengths[row]):
                own = tokens[row, number, :length].astype(np.float64)
                assert abs(own.mean() - advantages.values[row, number]) < 1e-5
                spread += np.ptp(own) > 1e-4
    assert spread


def test_the_frozen_reference_judges_captions_and_mixtures(trained, tmp_path):
    workdir, share = tmp_path / "judged", f"{OWN}:share_of_a"
    mixed = {"rewards__mixed": (("*_Emotion*", ("caption", 3.0), (share, 1.0)),)}
    data = {"data__include": ("CelebV-Text_*",), "steps": 1}
    trained(workdir, rewards__caption="reference", rewards__own=(), **mixed, **data)
    (line,), groups = steps_of(workdir), list(read_samples(workdir))
    assert line["failed_groups"] == 0 and 0 < line["reward/caption"] < 1 and line["flat_groups"] < 1
    names = {"reward/caption", "reward/mixed", "reward/mixed/caption", f"reward/mixed/{share}"}
    assert {name for name in line if name.startswith("reward/")} == names
    assert {group.branch for group in groups} == {"caption", f"3 caption + 1 {share}"}
    answers = [answer for group in groups if group.branch != "caption" for answer in group.answers]
    shares = reward_functions.share_of_a(None, [answer.text for answer in answers])
    judged = [(4 * answer.reward - share) / 3 for answer, share in zip(answers, shares, strict=True)]
    assert all(0 < value < 1 for value in judged) and len(set(judged)) > 1
    assert line["reward/mixed/caption"] == pytest.approx(np.mean(judged), rel=1e-6)
    assert line[f"reward/mixed/{share}"] == pytest.approx(np.mean(shares), rel=1e-6)


def test_the_judge_stays_the_model_of_init_where_the_reference_is_renewed(trained, policy, tmp_path, monkeypatch):
    judges, made = [], run.ReferenceJudge
    monkeypatch.setattr(run, "ReferenceJudge", lambda *args: judges.append(args[1]) or made(*args))
    more = {"rewards__caption": "reference", "rewards__own": (), "data__include": ("CelebV-Text_*",), "steps": 2}
    more |= {"grpo__reference_every": 1}
    breaks_off(trained, 2, tmp_path / "run", **more)
    trained(tmp_path / "run", **more)  # it has the reference of its checkpoint, and the judge of init
    assert len(judges) == 2 and apart(tmp_path / "run", policy) > 1e-4
    assert all(line["kl"] < 1e-6 for line in steps_of(tmp_path / "run"))
    for judge in judges:
        for ours, its in zip(map(np.asarray, jax.tree.leaves(judge)), arrays(policy), strict=True):
            np.testing.assert_array_equal(ours, its)
