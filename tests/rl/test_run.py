"""Runs of RL in this process: what an option of the loop or of the data changes, and what nothing may change."""

import dataclasses
import json
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest

from tests.rl import reward_functions
from tests.rl.runs import OWN, apart, breaks_off, config_of, save_policy, steps_of, timeless
from videmo_jax.data.records.prepare import prepare
from videmo_jax.data.records.settings import Settings as RecordSettings
from videmo_jax.data.video import FrameSpec
from videmo_jax.evaluation.answers.answerer import identity
from videmo_jax.rl import programs
from videmo_jax.rl.sample_log import read_samples
from videmo_jax.training.checkpoint import steps
from videmo_jax.training.cluster import Preempted
from videmo_jax.training.metrics import read_metrics
from videmo_jax.training.settings import ConfigError
from videmo_jax.training.stopped import TrainingStopped

pytestmark = pytest.mark.slow


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
