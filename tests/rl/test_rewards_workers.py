"""Rewards in worker processes: equal to those of this process, and what happens when a worker dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.launch.commands import ROOT
from tests.rl.test_rewards import CAPTIONS, FINE, SHORT, asked, mixed, own, same
from videmo_jax.rl.rewards.reward import Rewards
from videmo_jax.rl.rewards.spec import RewardError, RewardSpec
from videmo_jax.rl.rewards.workers import RewardWorkers


def test_workers_give_what_this_process_gives():
    spec = RewardSpec(node_credit=True, length_slack=1.5)
    batches = [mixed(count, seed=count) for count in (1, 17, 40, 0)]
    with RewardWorkers(spec, 2) as workers:
        under_way = [workers.submit(*batch) for batch in batches]
        for batch, pending in zip(batches, under_way, strict=True):
            same(pending.result(), Rewards(spec)(*batch))
            assert pending.result() is pending.result()
        with pytest.raises(ValueError, match="one group"):
            workers([asked(FINE, "x")], [])


def test_failures_of_workers_keep_their_place():
    prompts, answers = mixed(20)
    prompts[3], prompts[12] = asked(FINE, "", id="third"), asked(FINE, "", id="twelfth")
    with RewardWorkers(RewardSpec(), 2) as workers:
        result = workers(prompts, answers)
    assert [(failure.group, failure.id) for failure in result.failures] == [(3, "third"), (12, "twelfth")]
    same(result, Rewards(RewardSpec())(prompts, answers))


def test_the_reference_is_asked_in_this_process():
    asked_in = []

    def chance(questions):
        asked_in.append(os.getpid())
        return [len(question.response) % 7 / 7 for question in questions]

    spec = RewardSpec(caption="reference")
    batch = mixed(30)
    with RewardWorkers(spec, 1, reference=chance) as workers:
        result = workers(*batch)
    assert asked_in == [os.getpid()] and "caption" in result.branches
    same(result, Rewards(spec, reference=chance)(*batch))


def test_a_worker_that_dies_once_is_replaced(tmp_path):
    mark = tmp_path / "died"
    prompts = [asked(SHORT, CAPTIONS[at]) for at in range(12)]
    prompts[5] = asked(FINE, "", f"once {mark}")
    answers = [[CAPTIONS[0], ""]] * 12
    with RewardWorkers(own("dies"), 2) as workers:
        result = workers(prompts, answers)
        assert mark.exists() and result.valid.all() and result.rewards[5].tolist() == [0.5, 0.5]
        same(result, Rewards(own("dies"))(prompts, answers))
        same(workers(prompts[:3], answers[:3]), Rewards(own("dies"))(prompts[:3], answers[:3]))


def test_what_kills_its_worker_twice_has_failed_and_nothing_else():
    prompts = [asked(SHORT, CAPTIONS[at]) for at in range(16)]
    prompts[5] = asked(FINE, "", "always", id="deadly")
    answers = [[CAPTIONS[0], ""]] * 16
    with RewardWorkers(own("dies"), 2) as workers:
        result = workers(prompts, answers)
        lost = np.flatnonzero(~result.valid).tolist()
        assert lost == [4, 5]  # its chunk: two of sixteen groups
        assert {failure.reason for failure in result.failures} == {"its worker process died, twice"}
        assert np.isnan(result.rewards[lost]).all()
        rest = [at for at in range(16) if at not in lost]
        expected = Rewards(RewardSpec())([prompts[at] for at in rest], [answers[at] for at in rest])
        np.testing.assert_array_equal(result.rewards[rest], expected.rewards)
        assert workers(prompts[:4], answers[:4]).valid.all()  # life goes on


def test_workers_that_are_killed_from_outside_are_replaced():
    batch = mixed(24)
    with RewardWorkers(RewardSpec(), 2) as workers:
        workers(*batch)
        for pid in list(workers._pool._processes):
            os.kill(pid, signal.SIGKILL)
        same(workers(*batch), Rewards(RewardSpec())(*batch))


def test_workers_import_no_jax():
    with RewardWorkers(own("says_what_is_imported"), 1) as workers:
        # This process has JAX, by tests/conftest.py; workers have not.
        assert workers([asked(FINE, "")], [[""]]).rewards.tolist() == [[0.0]]
    assert Rewards(own("says_what_is_imported"))([asked(FINE, "")], [[""]]).rewards.tolist() == [[1.0]]


def test_there_must_be_workers():
    with pytest.raises(RewardError, match="at least 1"):
        RewardWorkers(RewardSpec(), 0)


TRAINER = """
import time
from tests.rl.test_rewards import mixed
from videmo_jax.rl.rewards.spec import RewardSpec
from videmo_jax.rl.rewards.workers import RewardWorkers

if __name__ == "__main__":
    with RewardWorkers(RewardSpec(), 2) as workers:
        workers(*mixed(9))
        print(*workers._pool._processes, flush=True)
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
