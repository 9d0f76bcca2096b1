"""Runs of RL in this process, each with another option: what it changes, and what nothing may change."""

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import threading
import time

import jax
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from tests.launch.commands import ROOT
from tests.rl import reward_functions
from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.records.prepare import prepare
from videmo_jax.data.records.settings import Settings as RecordSettings
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec
from videmo_jax.evaluation.answers.answerer import identity
from videmo_jax.model.config import ModelConfig
from videmo_jax.rl import answered, programs, run
from videmo_jax.rl.sample_log import read_samples
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.checkpoint import Checkpoints, Meta, restore_params, steps
from videmo_jax.training.cluster import Preempted
from videmo_jax.training.metrics import read_metrics
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.settings import ConfigError
from videmo_jax.training.state import fresh_state, initial_params
from videmo_jax.training.stopped import TrainingStopped

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Programs are compiled once for all runs of this module."""
    if jax.config.jax_compilation_cache_dir:  # kept by the developer
        yield
        return
    names = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled"))}
    names["jax_persistent_cache_min_compile_time_secs"] = 0.3
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


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


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("policy"), config_of(), 2)


@pytest.fixture(scope="module")
def trained(policy, synthetic):
    """Runs with options: (workdir, options) -> what it printed."""

    def train(workdir, **more):
        config = config_of(**{"init": str(policy), "data__root": str(synthetic)} | more)
        console = Console(record=True, width=1000, quiet=False, file=(workdir.parent / f"{workdir.name}.txt").open("w"))
        run.run(config, workdir, console)
        return console.export_text()

    return train


@pytest.fixture(scope="module")
def plain(trained, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "plain"
    trained(workdir)
    return workdir


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


def test_a_plain_run_moves_the_policy_and_measures_it(plain, policy):
    lines = steps_of(plain)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(line["log_prob_gap"] < 1e-4 and line["failed_groups"] == 0 for line in lines)
    assert min(line["flat_groups"] for line in lines) < 1
    assert lines[0]["kl"] < 1e-6 < lines[-1]["kl"]
    assert 1e-4 < apart(plain, policy) < 0.1


def test_staleness_is_none_at_the_first_step_and_one_update_later(trained, plain, tmp_path):
    """The second step is answered by the policy of the first: its ratio is not 1. A run that breaks off comes back."""
    workdir = tmp_path / "stale"
    trained(workdir, rollout__staleness=1)
    fresh, stale = steps_of(plain), steps_of(workdir)
    assert timeless(stale[0]) == timeless(fresh[0])
    assert fresh[1]["log_prob_gap"] < 1e-4 < stale[1]["log_prob_gap"]

    broken = tmp_path / "broken"
    breaks_off(trained, 3, broken, rollout__staleness=1)
    assert steps(broken) == [1, 2]
    trained(broken, rollout__staleness=1)
    back = steps_of(broken)
    assert [line["step"] for line in back] == [1, 2, 3]
    assert [timeless(line) for line in back[:2]] == [timeless(line) for line in stale[:2]]
    assert back[2]["log_prob_gap"] < 1e-4 < stale[2]["log_prob_gap"]  # its first batch has the newest policy
    assert back[2]["epoch"] == stale[2]["epoch"]


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


def test_a_run_whose_rewards_keep_failing_saves_what_it_has_and_ends(trained, policy, tmp_path):
    workdir = tmp_path / "failing"
    with pytest.raises(TrainingStopped, match=r"step 3: .* of the branch 'own' had no reward .*no such sensor"):
        trained(workdir, rewards__own=(("*", f"{OWN}:never"),), checkpoint__every=100)
    assert steps(workdir) == [2]
    assert [line["failed_groups"] for line in steps_of(workdir)] == [4, 4]
    assert apart(workdir, policy) == 0  # groups without rewards move nothing


def test_sigterm_is_heard_while_a_reward_hangs_and_the_run_goes_on_bit_for_bit(trained, tmp_path, monkeypatch):
    mark = tmp_path / "hangs"
    monkeypatch.setenv("VIDEMO_TEST_HANGS", str(mark))
    own = {"rewards__own": (("[!c]*", f"{OWN}:hangs_for_a_while"),), "rewards__own_timeout": 600.0}
    reward_functions.calls[:] = [1] * 9
    trained(tmp_path / "whole", **own)
    reward_functions.calls.clear()

    def told():
        while not mark.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=told)
    thread.start()
    with pytest.raises(Preempted, match="asked to end while its rewards were computed"):
        trained(tmp_path / "told", checkpoint__every=100, **own)
    thread.join()
    mark.unlink()
    trained(tmp_path / "told", checkpoint__every=100, **own)
    whole, told = (steps_of(tmp_path / name) for name in ("whole", "told"))
    assert [timeless(line) for line in told] == [timeless(line) for line in whole]
    assert apart(tmp_path / "told", tmp_path / "whole") == 0


def test_a_guard_that_stops_at_the_second_update_takes_the_first_back(trained, tmp_path, monkeypatch):
    made, calls = programs.make_policy_step, []

    def broken(*args):
        update = made(*args)

        def second_of_step_two_is_bad(state, batch, rate):
            calls.append(1)
            nan = np.float32("nan" if len(calls) == 4 else 1)
            return update(state, dataclasses.replace(batch, advantages=batch.advantages * nan), rate)

        return second_of_step_two_is_bad

    trained(tmp_path / "plain", grpo__updates=2)
    monkeypatch.setattr(programs, "make_policy_step", broken)
    with pytest.raises(TrainingStopped, match=r"step 2: .*was not taken"):
        trained(tmp_path / "run", grpo__updates=2, checkpoint__every=100)
    assert len(calls) == 4 and steps(tmp_path / "run") == [1]
    assert apart(tmp_path / "run", tmp_path / "plain/checkpoints/1") == 0
    monkeypatch.undo()
    trained(tmp_path / "run", grpo__updates=2, checkpoint__every=100)
    assert apart(tmp_path / "run", tmp_path / "plain") == 0


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


def test_workers_give_the_same_run(trained, plain, tmp_path):
    workdir = tmp_path / "workers"
    trained(workdir, rewards__workers=2)
    assert [timeless(line) for line in steps_of(workdir)] == [timeless(line) for line in steps_of(plain)]
    assert apart(workdir, plain) == 0
    assert list(read_samples(workdir)) == list(read_samples(plain))


def test_groups_whose_reward_fails_are_left_out_counted_and_listed(trained, tmp_path):
    """Those of a file fail, all others count; where all fail, nothing changes, and the run goes on."""
    workdir = tmp_path / "some"
    own = (("[D-M]*", f"{OWN}:not_a_number"), ("[!c]*", f"{OWN}:share_of_a"))  # DFEW, MAFW, MEAD, MER2023
    said = trained(workdir, rewards__own=own)
    lines, groups = steps_of(workdir), list(read_samples(workdir))
    assert [line["step"] for line in lines] == [1, 2, 3] and {group.step for group in groups} == {1, 2, 3}
    assert sum(line["failed_groups"] for line in lines) > 0
    for line in lines:
        failed = [group for group in groups if group.step == line["step"] and group.failure]
        assert len(failed) == line["failed_groups"] == line.get("failed_groups/own", 0)
        assert line["answers"] == 3 * (4 - len(failed))
        for group in failed:
            assert "D" <= group.file.rpartition("/")[2] < "N" and "nan" in group.failure
            assert all(answer.reward is None for answer in group.answers)
            assert group.id in (workdir / "samples.txt").read_text()
            assert f"step {group.step}: rewards of {len(failed)} groups failed" in said


def test_where_all_rewards_fail_nothing_changes_and_the_run_goes_on(trained, policy, tmp_path):
    workdir = tmp_path / "all"
    trained(
        workdir,
        rewards__own=(("*", f"{OWN}:not_a_number"),),
        optimizer__weight_decay=0.1,
        held_out__samples=2,
        rewards__max_failed_share=1.0,
    )
    lines = steps_of(workdir)
    assert [(line["step"], line["failed_groups"], line["answers"]) for line in lines] == [(n, 4, 0) for n in (1, 2, 3)]
    assert all("reward" not in line and line["length"] == 0 for line in lines)
    assert apart(workdir, policy) == 0


@pytest.fixture(scope="module")
def damaged(synthetic, tmp_path_factory):
    """The synthetic set, in which all clips of two files cannot be decoded, whose beginnings are whole."""
    root = tmp_path_factory.mktemp("data") / "damaged"
    shutil.copytree(synthetic, root)
    for file in root.glob("jsons/*/attribute/full/MEAD_Head-Pose.json"):
        for sample in json.loads(file.read_text()):
            damage(root / sample["videos"][0])
    return root


def damage(video):
    """Zeroes in the frames; what says how many there are stays."""
    content = video.read_bytes()
    begin = content.index(b"mdat") + 4
    end = content.find(b"moov") if content.find(b"moov") > begin else len(content)
    video.write_bytes(content[:begin] + bytes(end - 4 - begin) + content[end - 4 :])


def test_clips_that_cannot_be_read_are_listed_and_the_run_goes_on(damaged, trained, tmp_path):
    """Also where they are all clips of a batch: nothing is learned then. Held-out prompts are counted apart."""
    workdir = tmp_path / "run"
    more = {"data__include": ("MEAD_Head-Pose*", "MEAD_ID*"), "data__max_skipped_share": 1.0, "held_out__samples": 99}
    said = trained(workdir, data__root=str(damaged), **more)
    lines, skipped = steps_of(workdir), [json.loads(line) for line in (workdir / "skipped.jsonl").open()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    poses = [each for each in skipped if "MEAD_Head-Pose" in each["id"]]
    assert poses and len({each["id"] for each in skipped}) == len(skipped) == lines[-1]["skipped"]
    assert f"{len(skipped)} of" in said
    asked = {group.id for group in read_samples(workdir)}
    assert asked.isdisjoint(each["id"] for each in skipped)
    files = [
        json.loads((damaged / f"jsons/test/attribute/full/MEAD_{name}.json").read_text())
        for name in ("Head-Pose", "ID")
    ]
    bad = {sample["videos"][0] for sample in files[0]}
    left_out = sum(sample["videos"][0] in bad for file in files for sample in file)
    assert read_metrics(workdir)[0]["held_out/left_out"] == left_out > 0
    assert f"{left_out} held-out prompts were left out; the first" in said


def test_a_batch_without_a_single_prompt_changes_nothing(trained, policy, tmp_path):
    """That a prompt does not fit is seen when its row is built."""
    workdir = tmp_path / "run"
    trained(workdir, data__row__tokens=24, data__max_skipped_share=1.0, steps=1)
    (line,) = steps_of(workdir)
    assert line["answers"] == 0 and line["length"] == 0 and "reward" not in line
    assert apart(workdir, policy) == 0
    reasons = [json.loads(each)["reason"] for each in (workdir / "skipped.jsonl").open()]
    assert len(reasons) >= 4 and all("its prompt needs" in reason for reason in reasons)


def test_records_are_as_good_as_the_folder_that_they_were_made_of(synthetic, trained, tmp_path):
    records, workdir = tmp_path / "records", tmp_path / "run"
    prepare(synthetic, records, RecordSettings(frames=FrameSpec(min_pixels=112 * 112, max_pixels=112 * 112)))
    trained(workdir, data__root=str(records), steps=1, held_out__samples=1)
    (line,) = steps_of(workdir)
    assert line["failed_groups"] == 0 and line["log_prob_gap"] < 1e-4 and line["answers"] == 12
    assert {"held_out/own", "held_out/tree"} <= read_metrics(workdir)[0].keys()
    texts = [
        sample["messages"]
        for file in synthetic.glob("jsons/train/**/*.json")
        for sample in json.loads(file.read_text())
    ]
    known = {(question["content"], answer["content"]) for question, answer in texts}
    groups = list(read_samples(workdir))
    assert len(groups) == 4 and {(group.question, group.truth) for group in groups} <= known


REFUSED = {
    "no init": ({"init": ""}, "init is empty; RL goes on from a checkpoint of SFT"),
    "another model": ({"model__text__layers": 2}, "text.layers: 1 there, 2 in the config"),
    "one answer": ({"rollout__answers": 1}, "rollout.answers is 1"),
    "adapters on a tensor axis": ({"model__lora__rank": 4, "mesh__tensor": 2}, "with adapters (model.lora.rank) it"),
    "a negative number of steps": ({"grpo__reference_every": -1}, "grpo.reference_every is -1"),
    "no reference to renew": ({"grpo__reference_every": 2, "grpo__beta": 0.0}, "without the KL term there is no ref"),
    "a row too long": ({"rollout__max_new_tokens": 40_000}, "data.row.tokens + rollout.max_new_tokens is 40224"),
    "a file nobody knows": ({"data__include": ("MEAD_*", "Mine*")}, "declare it in data.tasks"),
    "a row too short": (
        {"packed": ((768, 12), (200, 12))},
        "packed has the row (200, 12); it must be at least (236, 4)",
    ),
    "a row of one number": ({"packed": ((768,),)}, "a row is (tokens, slabs)"),
    "no row": ({"packed": ()}, "packed is empty"),
    "a staleness": ({"rollout__staleness": 2}, "rollout.staleness is 2"),
    "no draw": ({"rollout__draws": 0}, "rollout.draws is 0"),
    "stale draws": ({"rollout__draws": 2, "rollout__staleness": 1}, "rollout.draws is 2, rollout.staleness 1"),
    "a temperature": ({"rollout__temperature": 0.0}, "rollout.temperature is 0"),
    "a measurement": ({"held_out__every": 0}, "held_out.every is 0"),
    "a reward": ({"rewards__own": (("*", "nowhere:none"),)}, "nowhere:none cannot be imported"),
    "a mixture": (
        {"rewards__mixed": (("MEAD_*", ("task", 1.0), ("tree", 1.0)),)},
        "the component 'tree' cannot score",
    ),
    "a credit": ({"grpo__node_credit": -1.0}, "grpo.node_credit is -1"),
    "a batch": ({"batch": 6}, "batch is 6"),
}


@pytest.fixture(scope="module")
def with_own(synthetic, tmp_path_factory):
    """The synthetic set and a file of one's own beside the official ones."""
    root = tmp_path_factory.mktemp("data") / "own"
    shutil.copytree(synthetic, root)
    folder = root / "jsons/train/attribute/full"
    (folder / "Mine.json").write_text((folder / "MEAD_ID.json").read_text().replace("<video>", "<video>Look. "))
    return root


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_cannot_be_is_refused(wrong, with_own, trained, tmp_path):
    more, message = REFUSED[wrong]
    with pytest.raises(ValueError) as refused:
        trained(tmp_path / "run", data__root=str(with_own), **more)
    assert message in str(refused.value)


def test_a_run_goes_on_from_its_own_init_alone(trained, policy, tmp_path):
    """Another checkpoint in its place is refused; the same one elsewhere is not."""
    workdir, copy = tmp_path / "run", tmp_path / "copy"
    trained(workdir, steps=1)
    shutil.copytree(policy, copy)
    trained(workdir, steps=1, init=str(copy))
    other = save_policy(tmp_path / "other", config_of(), 2.5)
    assert identity(other)["hash"] != identity(policy)["hash"] == identity(copy)["hash"]
    with pytest.raises(ConfigError, match="is not the checkpoint that this run began with"):
        trained(workdir, steps=1, init=str(other))


def test_damage_to_the_newest_checkpoint_is_fallen_back_from(trained, plain, tmp_path):
    """Also to what it says of itself, in which the hash of init stands."""
    workdir = tmp_path / "run"
    shutil.copytree(plain, workdir)
    for path in (workdir / "checkpoints/3/meta").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-20])
    said = trained(workdir)
    assert "resumed from step 2" in said and (workdir / "damaged/3").exists()
    assert apart(workdir, plain) == 0
    assert [timeless(line) for line in steps_of(workdir)] == [timeless(line) for line in steps_of(plain)]
