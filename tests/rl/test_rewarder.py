"""Rewards while something else is done: equal to plain ones, and what happens when a worker dies or hangs."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.chat_server import ChatServer, Do
from tests.launch.commands import ROOT
from tests.rl.test_rewards import CAPTIONS, FINE, SHORT, asked, mixed, mixture, own, same
from videmo_jax.rl.rewards.failures import FailureWatch, RewardsFail
from videmo_jax.rl.rewards.reward import Rewards
from videmo_jax.rl.rewards.rewarder import Interrupted, Rewarder
from videmo_jax.rl.rewards.spec import RewardEndpoint, RewardError, RewardSpec


def test_workers_give_what_this_process_gives():
    spec = mixture(node_credit=True)
    batches = [mixed(count, seed=count) for count in (1, 17, 40, 0)]
    with Rewarder(spec, processes=2) as workers:
        under_way = [workers.submit(*batch) for batch in batches]
        for batch, pending in zip(batches, under_way, strict=True):
            same(pending.result(), Rewards(spec)(*batch))
            assert pending.result() is pending.result()
        with pytest.raises(ValueError, match="one group"):
            workers([asked(FINE, "x")], [])


def test_failures_of_workers_keep_their_place():
    prompts, answers = mixed(20)
    prompts[3], prompts[12] = asked(FINE, "", id="third"), asked(FINE, "", id="twelfth")
    with Rewarder(RewardSpec(), processes=2) as workers:
        result = workers(prompts, answers)
    assert [(failure.group, failure.id) for failure in result.failures] == [(3, "third"), (12, "twelfth")]
    same(result, Rewards(RewardSpec())(prompts, answers))


def test_the_reference_is_asked_in_this_process():
    """Also where there is nothing to ask: of several hosts all take part."""
    asked_in, counts = [], []

    def chance(questions):
        asked_in.append(os.getpid())
        counts.append(len(questions))
        return [len(question.response) % 7 / 7 for question in questions]

    spec = RewardSpec(caption="reference")
    batch = mixed(30)
    with Rewarder(spec, processes=1, reference=chance) as workers:
        result = workers(*batch)
        assert workers([asked(FINE, CAPTIONS[0])], [["", CAPTIONS[0]]]).valid.all()
        assert workers([], []).rewards.shape == (0, 0)
    assert asked_in == [os.getpid()] * 3 and "caption" in result.branches
    assert counts == [4 * result.branches.count("caption"), 0, 0]
    same(result, Rewards(spec, reference=chance)(*batch))


def test_a_worker_that_dies_once_is_replaced(tmp_path):
    mark = tmp_path / "died"
    prompts = [asked(SHORT, CAPTIONS[at]) for at in range(12)]
    prompts[5] = asked(FINE, "", f"once {mark}")
    answers = [[CAPTIONS[0], ""]] * 12
    with Rewarder(own("dies"), processes=2) as workers:
        result = workers(prompts, answers)
        assert mark.exists() and result.valid.all() and result.rewards[5].tolist() == [0.5, 0.5]
        same(result, Rewards(own("dies"))(prompts, answers))
        same(workers(prompts[:3], answers[:3]), Rewards(own("dies"))(prompts[:3], answers[:3]))


def test_what_kills_its_worker_twice_has_failed_and_nothing_else():
    prompts = [asked(SHORT, CAPTIONS[at]) for at in range(16)]
    prompts[5] = asked(FINE, "", "always", id="deadly")
    answers = [[CAPTIONS[0], ""]] * 16
    with Rewarder(own("dies"), processes=2) as workers:
        result = workers(prompts, answers)
        lost = np.flatnonzero(~result.valid).tolist()
        assert lost == [5]
        assert {failure.reason for failure in result.failures} == {"its worker process died, twice"}
        assert np.isnan(result.rewards[lost]).all()
        rest = [at for at in range(16) if at not in lost]
        expected = Rewards(RewardSpec())([prompts[at] for at in rest], [answers[at] for at in rest])
        np.testing.assert_array_equal(result.rewards[rest], expected.rewards)
        assert workers(prompts[:4], answers[:4]).valid.all()  # life goes on


def test_workers_that_are_killed_from_outside_are_replaced():
    batch = mixed(24)
    with Rewarder(RewardSpec(), processes=2) as workers:
        workers(*batch)
        for pid in list(workers._plain._pool._processes):
            os.kill(pid, signal.SIGKILL)
        same(workers(*batch), Rewards(RewardSpec())(*batch))


def test_workers_import_no_jax():
    with Rewarder(own("says_what_is_imported"), processes=1) as workers:
        # This process has JAX, by tests/conftest.py; workers have not.
        assert workers([asked(FINE, "")], [[""]]).rewards.tolist() == [[0.0]]
    assert Rewards(own("says_what_is_imported"))([asked(FINE, "")], [[""]]).rewards.tolist() == [[1.0]]


def test_workers_are_counted_from_0():
    with pytest.raises(RewardError, match="0 or more"):
        Rewarder(RewardSpec(), processes=-1)


TRAINER = """
import time
from tests.rl.test_rewards import mixed
from videmo_jax.rl.rewards.spec import RewardSpec
from videmo_jax.rl.rewards.rewarder import Rewarder

if __name__ == "__main__":
    with Rewarder(RewardSpec(), processes=2) as workers:
        workers(*mixed(9))
        print(*workers._plain._pool._processes, flush=True)
        time.sleep(600)
"""


def test_workers_end_with_a_trainer_that_is_killed(tmp_path):
    """A run that is killed and started again must not leave processes behind, each time more."""
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    trainer = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    workers = [int(number) for number in trainer.stdout.readline().split()]
    assert len(workers) == 2 and all(map(is_running, workers))
    trainer.kill()
    trainer.wait()
    deadline = time.monotonic() + 60
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive their trainer"
        time.sleep(0.1)


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("processes", [0, 2])
def test_a_reward_that_hangs_costs_its_group_and_nothing_else(processes):
    spec = dataclasses.replace(own("hangs"), own_timeout=6.0 if processes else 0.5)  # a process takes time to start
    prompts = [asked(SHORT, CAPTIONS[at]) for at in range(4)] + [asked(FINE, "", f"go {at}") for at in range(3)]
    prompts.insert(5, asked(FINE, "", "hang on", id="hung"))
    answers = [[CAPTIONS[0], ""]] * len(prompts)
    with Rewarder(spec, processes=processes) as rewarder:
        result = rewarder(prompts, answers)
        assert [failure.id for failure in result.failures] == ["hung"] and "no reward within" in result.failures[
            0
        ].reason
        assert result.rewards[[4, 6, 7]].tolist() == [[0.5, 0.5]] * 3
        expected = Rewards(RewardSpec())(prompts[:4], answers[:4])
        np.testing.assert_array_equal(result.rewards[:4], expected.rewards)
        assert rewarder(prompts[:5], answers[:5]).valid.all()  # life goes on


def test_a_reward_that_always_hangs_costs_a_bounded_time():
    spec = dataclasses.replace(own("hangs"), own_timeout=0.2)
    with Rewarder(spec) as rewarder:
        began = time.monotonic()
        result = rewarder([asked(FINE, "", "hang")] * 50, [["a", "b"]] * 50)
        assert time.monotonic() - began < 10 and not result.valid.any()
    reasons = [failure.reason for failure in result.failures]
    assert reasons == ["no reward within 0.2 s"] * 3 + ["not computed: 3 groups before it hung"] * 47


def test_a_step_waits_no_longer_than_it_may():
    spec = dataclasses.replace(own("hangs"), own_timeout=60.0, timeout=0.5)
    with Rewarder(spec) as rewarder:
        result = rewarder([asked(FINE, "", "hang"), asked(SHORT, CAPTIONS[0])], [["a", "b"], [CAPTIONS[0], ""]])
    assert result.valid.tolist() == [False, True]


@pytest.mark.parametrize("processes", [0, 1])
def test_who_waits_hears_that_the_run_is_to_end(processes):
    with Rewarder(own("hangs"), processes=processes) as rewarder:
        pending = rewarder.submit([asked(FINE, "", "hang")], [["a", "b"]])
        began = time.monotonic()
        with pytest.raises(Interrupted):
            pending.result(lambda: time.monotonic() > began + 0.3)
    assert time.monotonic() - began < 60  # nor is the worker waited for that hangs


@pytest.mark.parametrize("processes", [0, 2])
def test_an_endpoint_is_asked_for_a_whole_batch_at_once(processes, tmp_path):
    prompts = [asked(SHORT, f"truth {number}") for number in range(6)] + [asked(FINE, CAPTIONS[0])]
    answers = [[f"{number} a", f"{number} b"] for number in range(6)] + [[CAPTIONS[0], ""]]
    with ChatServer(lambda seen: Do("100"), together=12) as server:  # nothing is answered before all wait
        endpoint = RewardEndpoint(server.url, "judge", str(tmp_path))
        with Rewarder(RewardSpec(caption="openai", endpoint=endpoint), processes=processes) as rewarder:
            result = rewarder(prompts, answers)
    assert result.valid.all() and server.most_at_once == 12


def test_an_endpoint_that_was_given_up_is_asked_once_and_taken_back(tmp_path):
    well = [False]

    def plan(seen):
        return Do("100") if well[0] else Do(status=500)

    with ChatServer(plan) as server:
        endpoint = RewardEndpoint(
            server.url, "judge", str(tmp_path), attempts=2, longest_wait=0.01, max_failures_in_a_row=3
        )
        with Rewarder(RewardSpec(caption="openai", endpoint=endpoint)) as rewarder:
            valid = []
            for step in range(4):
                well[0] = step > 2
                prompts = [asked(SHORT, f"truth {number} {step}") for number in range(8)]
                found = rewarder(prompts, [["a", "b"]] * 8)
                valid.append(int(found.valid.sum()))
    # By what was asked: a request of the first step may reach the server when the second has begun.
    asked_for = Counter(re.search(r"truth \d (\d)", seen.text)[1] for seen in server.seen)
    assert asked_for["0"] > 6 and [asked_for[step] for step in "123"] == [1, 1, 16], asked_for
    assert valid == [0, 0, 0, 8]


@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_coroutine_is_no_reward():
    with Rewarder(own("a_coroutine")) as rewarder:
        result = rewarder([asked(FINE, "")], [["a", "b"]])
    assert not result.valid.any() and "coroutine" in result.failures[0].reason


def test_a_run_ends_where_a_branch_keeps_failing():
    watch = FailureWatch(0.5)
    for step in range(1, 21):
        watch.check(step, {"tree": 8, "caption": 4}, {"caption": 2}, "HTTP 500")  # half of them may
    watch.check(21, {"tree": 8}, {}, "")
    watch.check(22, {"tree": 8, "caption": 4}, {"caption": 2}, "HTTP 500")
    with pytest.raises(RewardsFail, match=r"step 23: 19 of 36 groups of the branch 'caption'.*last 10 steps.*HTTP 500"):
        watch.check(23, {"tree": 8, "caption": 4}, {"caption": 3}, "HTTP 500")


def test_a_run_that_cannot_begin_ends_after_three_steps():
    watch = FailureWatch(0.5)
    for step in (1, 2):
        watch.check(step, {"own": 4}, {"own": 4}, "nan")
    with pytest.raises(RewardsFail, match="step 3: 12 of 12"):
        watch.check(3, {"own": 4}, {"own": 4}, "nan")
    never = FailureWatch(1)
    for step in range(9):
        never.check(step, {"own": 4}, {"own": 4}, "nan")
