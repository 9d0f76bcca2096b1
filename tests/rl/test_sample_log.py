"""The log of samples: what stands there after kills and restarts, and what a person reads in it."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.cells import cell_len

from videmo_jax.affective.parser import parse_caption
from videmo_jax.affective.text import to_text
from videmo_jax.files.errors import FileError
from videmo_jax.rl.advantages import group_advantages
from videmo_jax.rl.rewards.reward import Rewards
from videmo_jax.rl.rewards.spec import Query, RewardSpec
from videmo_jax.rl.sample_log import (
    COLUMNS,
    END,
    LINES,
    TEXT,
    LoggedAnswer,
    LoggedGroup,
    SampleLog,
    read_samples,
    write_samples_page,
)
from videmo_jax.tasks.taxonomy import task_of

FINE, CHOICE = "caption/caption_train.json", "emotion/DFEW_Single-Label-Emotion-Recognition.json"
TRUTH = (
    "A young woman with long straight brown hair and fair skin looks down. Her eyebrows are drawn together and the "
    "corners of her mouth are pulled down. She begins to cry. She feels deep sadness."
)
OTHER = "A man with short black hair and glasses raises his eyebrows and opens his mouth. He is surprised and happy."


def group(step, answers, *, file=FINE, truth=TRUTH, id="s#1", spec=None):
    """A group with real rewards."""
    asked = Query(id, file, task_of(file), "<video>Describe the video.", truth)
    spec = spec or RewardSpec()
    found = Rewards(spec)([asked], [answers])
    advantages = group_advantages(found.rewards).values[0]
    failure = found.failures[0].reason if found.failures else None
    logged = [
        LoggedAnswer(text, None if failure else float(reward), float(advantage), len(text.split()) + 1, number == 1)
        for number, (text, reward, advantage) in enumerate(zip(answers, found.rewards[0], advantages, strict=True))
    ]
    branch = spec.describe(asked)
    return LoggedGroup(
        step, id, file, asked.task.name, branch, ("a.mp4",), asked.question, truth, tuple(logged), failure
    )


def steps(count, seed=0):
    """Groups of steps 0, 10, 20 ...: of each a caption and a choice."""
    rng = random.Random(seed)
    found = []
    for step in range(0, 10 * count, 10):
        words = TRUTH.split()
        mixed = [" ".join(words[: rng.randint(0, 30)] + OTHER.split()[rng.randint(0, 15) :]) for _ in range(3)]
        choice = group(step, ["(A) happy", "(B)", "I do not know", "\x1b[31m"], file=CHOICE, truth="(A) happy", id="d")
        found.append([group(step, [*mixed, TRUTH], id=f"s#{step}"), choice])
    return found


def written(folder):
    return (folder / LINES).read_bytes(), (folder / TEXT).read_bytes()


def log(folder, batches, *, after_step=-1, host=0):
    samples = SampleLog(folder, after_step=after_step, host=host)
    for groups in batches:
        samples.write(groups)


@pytest.fixture(scope="module")
def run():
    return steps(6)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    log(folder, run)
    return written(folder)


def test_what_is_logged_is_read_back(run, tmp_path):
    log(tmp_path, run)
    assert read_samples(tmp_path) == [each for groups in run for each in groups]
    for line in (tmp_path / LINES).read_text().splitlines():
        assert LoggedGroup.from_json(line).to_json() == line
        assert set(json.loads(line)) >= {"step", "id", "question", "truth", "answers", "branch", "videos"}
    assert read_samples(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("after", [-1, 0, 9, 20, 50, 999])
def test_a_resumed_run_writes_what_an_uninterrupted_one_does(run, whole, tmp_path, after):
    log(tmp_path, run)
    log(tmp_path, [groups for groups in run if groups[0].step > after], after_step=after)
    assert written(tmp_path) == whole


def test_files_cut_anywhere_become_whole(run, whole, tmp_path):
    """Whichever bytes of either file a kill or a copy of another moment left behind."""
    rng, after = random.Random(5), 20
    kept = b"".join(f"{each.to_json()}\n".encode() for groups in run[:3] for each in groups)
    for _ in range(20):
        lines, text = whole
        (tmp_path / LINES).write_bytes(lines[: rng.randint(len(kept), len(lines))])
        (tmp_path / TEXT).write_bytes(text[: rng.randint(0, len(text))])
        log(tmp_path, run[3:], after_step=after)
        assert written(tmp_path) == whole
    (tmp_path / TEXT).unlink()
    log(tmp_path, run[3:], after_step=after)
    assert written(tmp_path) == whole
    (tmp_path / TEXT).write_bytes(b"step 0 \xff\n" + END.encode())  # something else
    log(tmp_path, run[3:], after_step=after)
    assert written(tmp_path) == whole


def test_a_kill_loses_nothing_that_was_written(run, whole, tmp_path):
    source = tmp_path / "source.jsonl"
    source.write_bytes(whole[0])
    (work := tmp_path / "work").mkdir()
    script = (
        "import sys, time; from pathlib import Path\n"
        "from videmo_jax.rl.sample_log import *\n"
        "groups = [LoggedGroup.from_json(line) for line in open(sys.argv[1])][:8]\n"
        "log = SampleLog(Path(sys.argv[2]), after_step=-1)\n"
        "for place in range(0, 8, 2): log.write(groups[place : place + 2])\n"
        "assert 'jax' not in sys.modules and 'torch' not in sys.modules\n"
        "print('there', flush=True); time.sleep(600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, source, work], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "there\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert read_samples(work) == [each for groups in run[:4] for each in groups]
    log(work, run[4:], after_step=30)
    assert written(work) == whole


def test_the_text_ranks_answers_and_shows_their_trees_and_what_differs(tmp_path):
    short = TRUTH.replace("long", "short").replace("She begins to cry. ", "")
    logged = group(7, [OTHER, TRUTH, short, short, ""])
    log(tmp_path, [[logged]])
    text = (tmp_path / TEXT).read_text()
    assert re.findall(r"ANSWER (\d), rank (\d) of 5", text) == [
        ("2", "1"),
        ("3", "2"),
        ("4", "3"),
        ("1", "4"),
        ("5", "5"),
    ]
    rewards = [float(value) for value in re.findall(r"reward (\d\.\d+)", text)]
    assert rewards == sorted(rewards, reverse=True) and rewards[0] == 1.0
    assert "54 tokens" not in text and f"{len(TRUTH.split()) + 1} tokens, cut off by the limit" in text
    assert "the same text as answer 3" in text and "(nothing)" in text
    truth = "".join(f"      {line}\n" for line in to_text(parse_caption(TRUTH)).splitlines())
    assert text.count(truth) == 2  # the truth's, and of the perfect answer, whose lines have no sign
    assert re.search(r"~ +attribute \| hair: short +<- the truth has hair: long: 1\.00", text)
    assert re.search(r"- +expression \| expression: crying +<- missing here: 1\.00", text)
    distances = [float(value) for value in re.findall(r"edit distance ([\d.]+)", text)]
    assert distances[:2] == [0.0, 2.0] and len(distances) == 4
    costs = [float(value) for value in re.findall(r"<- .*: (\d\.\d\d)$", text, re.MULTILINE)]
    assert sum(costs) == pytest.approx(sum(distances), abs=0.05)
    # The distance that is shown is the one that the reward was made of: exp(-2 x distance / nodes).
    nodes = len(parse_caption(TRUTH))
    assert logged.answers[2].reward == pytest.approx(2.718281828 ** (-2 * 2.0 / nodes))


def test_trees_are_read_and_compared_as_the_run_is_configured(tmp_path):
    spec = RewardSpec.from_config({"costs": {"attribute": 3.0}})
    SampleLog(tmp_path, after_step=-1, spec=spec).write([group(0, [TRUTH.replace("long", "short")], spec=spec)])
    assert "the truth has hair: long: 3.00" in (tmp_path / TEXT).read_text()
    mixed = RewardSpec(mixed=(("caption_*", (("task", 2), ("caption", 0.5))),))
    log(tmp_path, [[group(0, [TRUTH], spec=mixed)]])
    text = (tmp_path / TEXT).read_text()
    assert text.startswith("step 0 · 2 tree + 0.5 caption ·") and text.count("edit distance 0.00") == 1
    # A truth in the written form of trees has answers in that form, too.
    tree = to_text(parse_caption(TRUTH))
    log(tmp_path, [[group(0, [tree, TRUTH], truth=tree)]])
    assert (tmp_path / TEXT).read_text().count("edit distance 0.00") == 2


def test_a_failed_group_says_why_and_has_no_rewards(tmp_path):
    failed = group(3, ["some", "words"], truth="nothing of the kind")
    assert failed.failure and failed.answers[0].reward is None
    log(tmp_path, [[failed]])
    assert read_samples(tmp_path) == [failed]
    text = (tmp_path / TEXT).read_text()
    assert "! left out, no rewards: the truth holds nothing" in text and "no reward, advantage +0.000" in text
    page = write_samples_page(tmp_path, title="run").read_text()
    assert 'data-failed="yes"' in page and "the truth holds nothing" in page


EVIL = (
    "\x1b]0;owned\x07\u2028\r<script>alert(1)</script>\t"
    + END
    + "\nstep 0 · tree\n"
    + END
    + "\n"
    + "中文" * 99
    + "x" * 300
)


def test_odd_texts_stay_inside_of_their_group_and_of_the_columns(run, tmp_path):
    answers = tuple(LoggedAnswer(EVIL, 0.5, 0.0, 9, False) for _ in range(2))
    odd = LoggedGroup(5, EVIL, EVIL, EVIL, "tree", (EVIL,), EVIL, TRUTH + EVIL, answers, EVIL)
    half = replace(odd, truth="\ud800 half", failure=None)
    log(tmp_path, [[odd, half], run[1]])
    before = written(tmp_path)
    text = before[1].decode()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028]", text)
    assert max(map(cell_len, text.split("\n"))) <= COLUMNS
    assert text.count(f"\n{END}\n") == 4
    log(tmp_path, [], after_step=99)
    assert written(tmp_path) == before and read_samples(tmp_path)[:2] == [odd, half]
    page = write_samples_page(tmp_path, title="odd").read_text()
    assert "<script>alert" not in page


def test_each_host_has_files_of_its_own_and_none_where_it_has_nothing_to_say(run, whole, tmp_path):
    log(tmp_path, run)
    log(tmp_path, [[], []], host=1)
    log(tmp_path, run[:2], host=2)
    assert written(tmp_path) == whole
    assert {path.name for path in tmp_path.iterdir()} == {LINES, TEXT, "samples.2.jsonl", "samples.2.txt"}
    assert read_samples(tmp_path, 2) == [each for groups in run[:2] for each in groups]
    log(tmp_path, [], after_step=0, host=2)
    assert read_samples(tmp_path, 2) == run[0]
    log(tmp_path, [], host=2)  # a run that begins anew
    assert {path.name for path in tmp_path.iterdir()} == {LINES, TEXT}


def test_a_log_that_cannot_be_read_is_not_lost_in_silence(run, tmp_path):
    log(tmp_path, run[:2])
    good = (tmp_path / LINES).read_text()
    first = json.loads(good.splitlines()[0])
    bad = [
        "not json",
        "[]",
        json.dumps(first | {"step": "1"}),
        json.dumps(first | {"step": True}),
        json.dumps(first | {"more": 1}),
        json.dumps({key: value for key, value in first.items() if key != "truth"}),
        json.dumps(first | {"answers": [{"text": "a"}]}),
        json.dumps(first | {"videos": [1]}),
        json.dumps(first | {"answers": [first["answers"][0] | {"advantage": float("nan")}]}),
        "[" * 100_000,
    ]
    for line in bad:
        (tmp_path / LINES).write_text(f"{good}{line}\n{good}")
        with pytest.raises(FileError, match=r"samples\.jsonl, line 5: "):
            SampleLog(tmp_path, after_step=10)
    log(tmp_path, run[:2])  # a run that begins anew does not care
    assert (tmp_path / LINES).read_text() == good


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_reward_is_none_and_not_nan(value):
    with pytest.raises(ValueError, match="reward is"):
        LoggedAnswer("a", value, 0.0, 1, False)
    with pytest.raises(ValueError, match="advantage is"):
        LoggedAnswer("a", None, value, 1, False)


def test_of_a_long_run_the_page_shows_some_groups(tmp_path):
    template = group(0, [TRUTH, OTHER])
    lines = [replace(template, step=step, truth=f"{TRUTH} {step}").to_json() for step in range(1000)]
    (tmp_path / LINES).write_text("".join(f"{line}\n" for line in lines))
    page = write_samples_page(tmp_path, title="long run").read_text()
    shown = [int(step) for step in re.findall(r'data-step="(\d+)"', page)]
    assert len(shown) == 200 and shown[:2] == [999, 998] and shown[-1] == 0
    assert "200 of 1,000 groups" in page
