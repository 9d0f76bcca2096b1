"""The command as a user gives it: a tree and a page of a real file, or one line that says what is wrong."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from launch import reason as command
from tests.evaluation.conftest import write_checkpoint
from tests.launch.commands import ROOT
from videmo_jax.affective.text import read_tree
from videmo_jax.data.sample import Message
from videmo_jax.data.video import read_clip
from videmo_jax.evaluation.answers.answerer import Answerer
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sampling.reasoning import Subject, reason


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def video(synthetic):
    return min(synthetic.rglob("*.mp4"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Short ones, so that conversations fit a small model."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.json"
    path.write_text(json.dumps({"attribute": "Look.", "expression": "What is shown?", "emotion": "Felt?"}))
    return path


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["reason.py", *map(str, arguments)])
    command.main()


@pytest.fixture(scope="module")
def written(checkpoint, video, prompts, tmp_path_factory):
    """What a run leaves: two files."""
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    flags = ["--checkpoint", checkpoint, "--video", video, "--out", out, "--candidates", 3, "--seed", 5]
    flags += ["--max-new-tokens", 8, "--scorer", "mbr+0.5*logprob", "--question", "Why?", "--prompts", prompts]
    with pytest.MonkeyPatch.context() as patch:
        run(patch, *flags)
    return out, flags


def test_tree_and_page_hold_the_search(written, checkpoint, video, prompts):
    out, flags = written
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "tree.json"]
    tree = json.loads((out / "tree.json").read_text())
    settings = command.settings_of(command.parse(list(map(str, flags))))
    policy = Answerer(checkpoint, Decoding(8), "float32").policy
    clip = read_clip(video, policy.inputs.frames)
    subject = Subject("x", (clip,), (Message("user", "Why?"),), seed=5)
    (expected,) = reason(policy, [subject], settings, read_tree)
    shown = json.loads(json.dumps(expected.to_json()))
    assert {name: tree[name] for name in shown} == shown
    assert [level["question"] for level in tree["levels"]] == ["Look.", "What is shown?", "Felt?"]
    assert tree["seed"] == 5 and tree["videos"] == [str(video)] and tree["model"]["step"] == 7
    assert tree["settings"]["scorer"] == "mbr+0.5*logprob" and tree["settings"]["temperature"] == 0.9

    page = (out / "report.html").read_text()
    assert page.count("<article") == 9 and page.count(" · kept") == 3
    assert page.count("data:image/jpeg;base64,") == len(clip.frames)
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import|<script', page)


def test_the_same_command_gives_the_same_files_and_another_seed_does_not(written, monkeypatch, tmp_path, capsys):
    out, flags = written
    flags = [tmp_path if flag == out else flag for flag in flags]
    run(monkeypatch, *flags)
    assert f"wrote {tmp_path / 'tree.json'}" in capsys.readouterr().out
    for name in ("tree.json", "report.html"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()
    run(monkeypatch, *[6 if flag == 5 else flag for flag in flags])
    assert (tmp_path / "tree.json").read_bytes() != (out / "tree.json").read_bytes()


def test_several_videos_are_one_subject(checkpoint, video, prompts, monkeypatch, tmp_path, capsys):
    flags = ["--checkpoint", checkpoint, "--video", video, video, "--out", tmp_path, "--candidates", 1]
    run(monkeypatch, *flags, "--max-new-tokens", 4, "--prompts", prompts)
    tree = json.loads((tmp_path / "tree.json").read_text())
    assert tree["videos"] == [str(video)] * 2 and tree["answer"] is None
    assert tree["settings"]["temperature"] == 0  # one candidate is the greedy one
    captured = capsys.readouterr()
    assert "attribute (candidate 1 of 1): " in captured.out
    assert ("had not ended" in captured.err) == any(level["candidates"][0]["cut"] for level in tree["levels"])


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--checkpoint", "missing", "--video", "VIDEO"], "error: missing: no checkpoint here"),
        (["--video", "missing.mp4"], "error: missing.mp4: no such file; check the path and the download"),
        (["--video", "noise.mp4"], "error: noise.mp4: cannot be read as a video"),
        (["--video", "VIDEO", "--scorer", "mode"], "error: scorer 'mode' is unknown; there are logprob, mbr, yes"),
        (["--video", "VIDEO", "--temperature", "0"], "error: 8 candidates at temperature 0"),
        (["--video", "VIDEO", "--max-new-tokens", "5000"], "lower --max-new-tokens"),
        (["--video", "VIDEO", "--max-new-tokens", "2040"], "tokens at the level attribute, more than the limit of 8"),
        (["--video", "VIDEO", "--prompts", "noise.mp4"], "error: noise.mp4: no valid JSON"),
        (["--video", "VIDEO", "--prompts", "missing.json"], "missing.json"),
        (["--video", "VIDEO", "--out", "noise.mp4"], "error: noise.mp4: is a file; name a folder"),
    ],
)
def test_errors_are_one_line(checkpoint, video, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "noise.mp4").write_bytes(b"\xff noise" * 1000)
    given = [str(video) if flag == "VIDEO" else flag for flag in flags]
    for name, value in (("--checkpoint", checkpoint), ("--out", "results")):
        given += [] if name in given else [name, value]
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *given)
    assert message in stopped.value.code and "\n" not in stopped.value.code
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--checkpoint"),
        (["--seed", "-1"], "--seed -1"),
        (["--candidates", "0"], "--candidates: '0' is no whole number from 1 on"),
        (["--max-new-tokens", "1.5"], "--max-new-tokens: '1.5' is no whole number from 1 on"),
        (["--temperature", "nan"], "--temperature nan: give a number from 0 on"),
        (["--temperature", "inf"], "--temperature inf: give a number from 0 on"),
    ],
)
def test_wrong_flags_are_named(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.parse([*(["--checkpoint", "x", "--video", "y", "--out", "z"] if flags else []), *flags])
    assert stopped.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


def test_help_comes_at_once_with_examples_and_a_bad_video_is_an_exit_code(checkpoint, tmp_path):
    helped = subprocess.run(
        [sys.executable, ROOT / "launch" / "reason.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "examples:" in helped.stdout and "--candidates 1" in helped.stdout
    flags = ["--checkpoint", checkpoint, "--video", tmp_path / "none.mp4", "--out", tmp_path / "out"]
    failed = subprocess.run(
        [sys.executable, ROOT / "launch" / "reason.py", *flags], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert failed.returncode == 1 and failed.stderr.splitlines()[-1].startswith("error: ")


def test_a_checkpoint_without_tokenizer_is_one_line(checkpoint, video, monkeypatch, tmp_path):
    damaged = shutil.copytree(checkpoint, tmp_path / "damaged")
    shutil.rmtree(next(damaged.rglob("tokenizer")))
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--checkpoint", damaged, "--video", video, "--out", tmp_path / "out")
    assert stopped.value.code.startswith("error: ") and "\n" not in stopped.value.code
    assert not (tmp_path / "out").exists()
