"""The whole way from a checkpoint to scores, on the small synthetic set."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from launch import evaluate as command
from tests.evaluation.chat_server import ChatServer, Do
from tests.evaluation.conftest import write_checkpoint
from videmo_jax.evaluation.answers.journal import JournalError
from videmo_jax.evaluation.answers.predictions import read_folder
from videmo_jax.evaluation.answers.runner import Settings, evaluate
from videmo_jax.files.errors import FileError

TASKS = ("MEAD_*", "AffWild2_Action_Unit_Detection", "CelebV-Text_Emotion-Caption")
SETTINGS = Settings("train", tasks=TASKS, max_new_tokens=10, batch=8, threads=2)


def annotations(root, split="train"):
    """The records of the chosen annotation files by name."""
    paths = {path.stem: path for task in TASKS for path in (root / "jsons" / split).glob(f"*/full/{task}.json")}
    return {name: json.loads(path.read_text()) for name, path in paths.items()}


def files_of(out):
    """What an evaluation leaves for users, by name."""
    names = [out / "skipped.jsonl", out / "scores.json", out / "judged.jsonl"]
    names += [*(out / "predictions").iterdir(), *(out / "tables").iterdir()]
    return {path.name: path.read_text() for path in names}


def listed(out):
    return [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def results(checkpoint, dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "run"
    evaluate(checkpoint, dataset, out, SETTINGS)
    return out


@pytest.fixture
def copied(dataset, tmp_path):
    """A set of one's own to damage."""
    return shutil.copytree(dataset, tmp_path / "copied")


def test_every_record_has_its_line(results, dataset):
    expected, predicted = annotations(dataset), read_folder(results / "predictions")
    assert len(expected) == 5 and set(predicted) == set(expected)
    for name, records in expected.items():
        for line, record in zip(predicted[name], records, strict=True):
            question, answer = record["messages"]
            assert line.labels == answer["content"] and list(line.videos) == record["videos"]
            assert [(m.role, m.content) for m in line.messages] == [("user", question["content"])]
            assert 1 <= len(line.log_probs) <= 10 and max(line.log_probs) <= 0
    responses = [line.response for lines in predicted.values() for line in lines]
    assert len(set(responses)) > len(responses) / 4  # the answers are answers to something


def test_results_carry_the_recipe(results):
    scores = json.loads((results / "scores.json").read_text())
    assert scores["recipe"] == json.loads((results / "recipe.json").read_text())
    assert scores["recipe"]["model"]["step"] == 7
    assert scores["recipe"]["inputs"]["frames"]["max_frames"] == 4
    assert scores["recipe"]["decoding"]["max_new_tokens"] == 10 and scores["recipe"]["dtype"] == "float32"


def test_answers_that_had_not_ended_are_listed(results):
    cut = [line for line in listed(results) if line["kind"] == "cut"]
    scores = json.loads((results / "scores.json").read_text())
    assert len(cut) == sum(file["cut"] for file in scores["files"].values()) > 0
    predicted = read_folder(results / "predictions")
    for line in cut:
        file, index = line["id"].split("#")
        name = file.rsplit("/", 1)[1].removesuffix(".json")
        assert len(predicted[name][int(index)].log_probs) == 10


def test_an_answer_does_not_depend_on_the_batch(results, checkpoint, dataset, tmp_path):
    """Eight rows together, or one on each of the four devices."""
    evaluate(checkpoint, dataset, tmp_path / "alone", replace(SETTINGS, batch=1))
    together, alone = read_folder(results / "predictions"), read_folder(tmp_path / "alone" / "predictions")
    for name, lines in together.items():
        assert [line.response for line in lines] == [line.response for line in alone[name]]
        for line, other in zip(lines, alone[name], strict=True):
            np.testing.assert_allclose(line.log_probs, other.log_probs, atol=1e-4)


def test_a_killed_run_goes_on_where_it_was(results, checkpoint, dataset, tmp_path):
    def kill_half_way(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(checkpoint, dataset, tmp_path / "run", SETTINGS, kill_half_way)
    (tmp_path / "run" / "answers" / ".000099.jsonl.partial").write_text('{"key": ')  # as a kill would leave it
    assert not (tmp_path / "run" / "predictions").exists()
    reports = []
    evaluate(checkpoint, dataset, tmp_path / "run", SETTINGS, lambda done, total: reports.append((done, total)))
    (first, total), (last, _) = reports[0], reports[-1]
    assert total / 2 < first < last == total
    assert files_of(tmp_path / "run") == files_of(results)


def test_a_finished_run_loads_no_model_again(results, checkpoint, dataset, tmp_path):
    again = shutil.copytree(results, tmp_path / "run")
    reports = []
    evaluate(checkpoint, dataset, again, SETTINGS, lambda done, total: reports.append((done, total)))
    assert reports == [(reports[0][1], reports[0][1])]  # one report at the start: all is done
    assert files_of(again) == files_of(results)


def test_changed_questions_are_asked_again_and_others_are_not(results, checkpoint, copied, tmp_path):
    again = shutil.copytree(results, tmp_path / "run")
    (path,) = (copied / "jsons" / "train").glob("*/full/MEAD_ID.json")
    records = json.loads(path.read_text())
    records[0]["messages"][0]["content"] = "<video>Is anybody there?"
    records[1]["messages"][1]["content"] = "(C) Another truth"
    path.write_text(json.dumps(records))
    reports = []
    evaluate(checkpoint, copied, again, SETTINGS, lambda done, total: reports.append((done, total)))
    total = reports[0][1]
    assert reports == [(total - 1, total), (total, total)]
    lines = read_folder(again)["MEAD_ID"]
    assert lines[0].messages[0].content == "<video>Is anybody there?" and lines[1].labels == "(C) Another truth"


def test_exact_match_of_answers_that_are_the_truth(results, checkpoint, copied, tmp_path):
    """The model's own answers become every third truth: just those are right."""
    predicted, expected = read_folder(results), {}
    for path in (copied / "jsons" / "train").glob("*/full/*.json"):
        if path.stem not in predicted:
            continue
        records = json.loads(path.read_text())
        for index, (record, line) in enumerate(zip(records, predicted[path.stem], strict=True)):
            record["messages"][1]["content"] = line.response if index % 3 == 0 else "no model says this"
        path.write_text(json.dumps(records))
        said = [line.response.strip() != "" for line in predicted[path.stem][::3]]
        expected[path.stem] = (sum(said), len(records))
    evaluate(checkpoint, copied, tmp_path / "run", SETTINGS)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    for name, (correct, items) in expected.items():
        assert scores["files"][name]["correct"] == correct > 0
        assert scores["files"][name]["exact_match"] == pytest.approx(100 * correct / items)
    choices = [expected[name] for name in expected if name.startswith("MEAD")]
    assert len(choices) == 3
    assert scores["closed_choice"] == pytest.approx(
        100 * sum(correct for correct, _ in choices) / sum(items for _, items in choices)
    )


def test_videos_that_cannot_be_read_are_wrong_and_listed(results, checkpoint, copied, tmp_path):
    """One is missing, one is empty, one is noise; what does not ask about them is answered as before."""
    records = annotations(copied)
    videos = sorted({path for lines in records.values() for record in lines for path in record["videos"]})
    (copied / videos[0]).unlink()
    (copied / videos[1]).write_bytes(b"")
    (copied / videos[2]).write_bytes(b"noise" * 1000)
    evaluate(checkpoint, copied, tmp_path / "run", SETTINGS)
    predicted, whole = read_folder(tmp_path / "run"), read_folder(results)
    reasons = {line["id"]: line["reason"] for line in listed(tmp_path / "run") if line["kind"] == "skipped"}
    bad = 0
    for name, lines in records.items():
        for index, (record, line) in enumerate(zip(records[name], predicted[name], strict=True)):
            if record["videos"][0] not in videos[:3]:
                assert line.response == whole[name][index].response
                continue
            bad += 1
            assert (line.response, line.log_probs) == ("", None)
            assert line.labels == record["messages"][1]["content"] and list(line.videos) == record["videos"]
            (id,) = [id for id in reasons if id.endswith(f"/{name}.json#{index}")]
            wrong = ("missing", "empty", "cannot be read as a video")[videos.index(record["videos"][0])]
            assert wrong in reasons[id]
        scores = json.loads((tmp_path / "run" / "scores.json").read_text())
        assert scores["files"][name]["items"] == len(lines)
    assert len(reasons) == bad == sum(file["skipped"] for file in scores["files"].values()) >= 3


def test_records_of_another_form_are_wrong_and_listed(checkpoint, copied, tmp_path):
    (path,) = (copied / "jsons" / "train").glob("*/full/MEAD_ID.json")
    turns = [{"role": "user", "content": "<video><video>?"}, {"role": "assistant", "content": "half \ud83d"}]
    records = [3, {}, {"messages": turns, "videos": ["a.mp4", 7]}, *json.loads(path.read_text())]
    path.write_text(json.dumps(records))
    evaluate(checkpoint, copied, tmp_path / "run", replace(SETTINGS, tasks=("MEAD_ID",)))
    lines = read_folder(tmp_path / "run")["MEAD_ID"]
    assert len(lines) == len(records) and [line.response for line in lines[:3]] == ["", "", ""]
    assert (lines[2].labels, lines[2].videos) == ("half ?", ("a.mp4",))
    assert [line["id"][-1] for line in listed(tmp_path / "run") if line["kind"] == "skipped"] == ["0", "1", "2"]


def test_prompts_that_are_too_long_are_listed(checkpoint, dataset, tmp_path):
    settings = replace(SETTINGS, tasks=("MEAD_ID", "MEAD_Fine*"), max_prompt_tokens=60)
    scores = {score.name: score for score in evaluate(checkpoint, dataset, tmp_path / "run", settings).files}
    fine = scores["MEAD_Fine-grained-Emotion-Recognition"]  # 22 options
    assert fine.skipped == fine.items and scores["MEAD_ID"].skipped == 0
    reasons = [line["reason"] for line in listed(tmp_path / "run") if line["kind"] == "skipped"]
    assert len(reasons) == fine.items and all("more than the limit of 60" in reason for reason in reasons)


@pytest.mark.parametrize("change", [dict(max_new_tokens=11), dict(dtype="bfloat16"), dict(split="test")])
def test_another_recipe_is_refused(results, checkpoint, dataset, change):
    ((name, now),) = change.items()
    there, where = getattr(SETTINGS, name), "decoding." * (name == "max_new_tokens") + name
    with pytest.raises(JournalError, match=rf"another recipe \({where}: {there} there, {now} now\)"):
        evaluate(checkpoint, dataset, results, replace(SETTINGS, **change))


def test_another_checkpoint_is_refused_and_a_copy_is_not(results, checkpoint, dataset, tmp_path):
    other = write_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(JournalError, match="another recipe"):
        evaluate(other, dataset, results, SETTINGS)
    moved = shutil.copytree(checkpoint, tmp_path / "moved")
    again = shutil.copytree(results, tmp_path / "run")
    evaluate(moved, dataset, again, SETTINGS)


def test_folders_of_other_things_are_refused(checkpoint, dataset, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(JournalError, match="Name a new folder"):
        evaluate(checkpoint, dataset, tmp_path, SETTINGS)
    (tmp_path / "recipe.json").write_text("[1")
    with pytest.raises(FileError, match=r"recipe\.json: no valid JSON.*delete .*or name a new folder"):
        evaluate(checkpoint, dataset, tmp_path, SETTINGS)


def test_more_new_tokens_than_the_model_has_positions_are_refused(checkpoint, dataset, tmp_path):
    with pytest.raises(ValueError, match="lower --max-new-tokens"):
        evaluate(checkpoint, dataset, tmp_path / "run", replace(SETTINGS, max_new_tokens=5000))
    assert evaluate(checkpoint, dataset, tmp_path / "run", replace(SETTINGS, tasks=("MEAD_ID",)))  # it can be mended


def test_the_command_scores_predictions_as_the_run_did(results, tmp_path, monkeypatch, capsys):
    arguments = ["evaluate.py", "--predictions", str(results / "predictions"), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    command.main()
    shown = capsys.readouterr().out
    assert "closed-choice: " in shown and "MEAD_ID" in shown
    ours, first = (json.loads((folder / "scores.json").read_text()) for folder in (tmp_path, results))
    for name in ("columns", "summary", "overall", "closed_choice", "exact_match", "recipe"):
        assert ours[name] == first[name], name
    for name, file in first["files"].items():
        assert ours["files"][name] | {"cut": file["cut"]} == file


def test_the_command_answers_scores_and_shows(checkpoint, dataset, tmp_path, monkeypatch, capsys):
    flags = ["--checkpoint", checkpoint, "--data", dataset, "--out", tmp_path / "run", "--rules", "strict"]
    flags += ["--tasks", "MEAD_ID", "--max-new-tokens", "10", "--batch", "4", "--split", "train", "--name", "tiny"]
    monkeypatch.setattr("sys.argv", ["evaluate.py", *map(str, flags)])
    command.main()
    shown = capsys.readouterr().out
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["rules"] == "strict" and scores["judge"]["name"] == "rule"
    assert scores["columns"]["identity"] == scores["files"]["MEAD_ID"]["war"] is not None
    assert scores["columns"]["hair"] is None and scores["matching"]["MEAD_ID"]["missing"] == 0
    assert "**tiny**" in (tmp_path / "run" / "tables" / "table1.md").read_text()
    assert "identity" in shown and "closed-choice: " in shown and "gaps: no predictions for" in shown


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--predictions", "missing"], "error: missing: no prediction files"),
        (["--checkpoint", "missing", "--data", "DATA", "--out", "x"], "error: missing: no checkpoint here"),
        (["--checkpoint", "CKPT", "--data", "missing", "--out", "x"], "error: missing: no such folder"),
        (["--checkpoint", "CKPT", "--data", "DATA", "--out", "x", "--tasks", "MEAD_IQ"], "no full file is named"),
        (["--checkpoint", "CKPT", "--data", "DATA", "--out", "x", "--batch", "0"], "batch is 0"),
        (["--predictions", "missing", "--out", "file"], "error: file: is a file; name a folder"),
    ],
)
def test_errors_of_the_command_are_one_line(checkpoint, dataset, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    places = {"CKPT": str(checkpoint), "DATA": str(dataset)}
    monkeypatch.setattr("sys.argv", ["evaluate.py", *(places.get(flag, flag) for flag in flags)])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert message in stopped.value.code and "\n" not in stopped.value.code


@pytest.mark.parametrize("flags", [[], ["--checkpoint", "x"], ["--predictions", "x", "--checkpoint", "y"]])
def test_incomplete_commands_say_what_is_missing(flags, capsys):
    with pytest.raises(SystemExit):
        command.parse(flags)
    assert "--checkpoint" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--judge-url", "http://127.0.0.1/v1"], "--judge-url goes with --judge openai"),
        (["--judge-max-price", "0"], "--judge-max-price goes with --judge openai"),
        (["--judge-prompt-names", "match=YN"], "--judge-prompt-names goes with --judge openai"),
        (["--reasoning", "2"], "--reasoning and --answers-url go with --checkpoint"),
        (["--answers-url", "u", "--answers-model", "m"], "--reasoning and --answers-url go with --checkpoint"),
        (["--scorer", "mbr"], "--scorer goes with --reasoning"),
        (["--reasoning", "0"], "--reasoning: '0' is no whole number from 1 on"),
    ],
)
def test_flags_without_effect_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.parse(["--predictions", "x", *flags])
    assert stopped.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


def test_a_judge_that_never_replies_ends_the_command_with_an_error(results, tmp_path, monkeypatch, capsys):
    flags = ["--predictions", results, "--out", tmp_path / "run", "--judge", "openai", "--judge-model", "m"]
    with ChatServer(lambda seen: Do(status=404)) as server:
        monkeypatch.setattr("sys.argv", ["evaluate.py", *map(str, flags), "--judge-url", server.url])
        with pytest.raises(SystemExit, match=r"error: the judge gave no reply at all; .*failed\.jsonl says why"):
            command.main()
    assert len((tmp_path / "run/judge/failed.jsonl").read_text().splitlines()) == len(
        (tmp_path / "run/judged.jsonl").read_text().splitlines()
    )


def test_a_judge_that_cannot_be_read_ends_the_command_with_an_error(tmp_path, monkeypatch, capsys):
    line = {"response": "(A) Yes", "labels": "(A) Yes", "messages": [{"role": "user", "content": "q\n(A) Yes\n(B) No"}]}
    (tmp_path / "MEAD_ID.json").write_text(json.dumps(line) + "\n")
    flags = ["--predictions", tmp_path, "--judge", "openai", "--judge-model", "m", "--out"]
    with ChatServer(lambda seen: Do("They agree.\n</think>\n\nyes")) as server:
        for rules in ("official", "strict"):
            given = [*flags, tmp_path / rules, "--judge-url", server.url, "--rules", rules]
            monkeypatch.setattr("sys.argv", ["evaluate.py", *map(str, given)])
            if rules == "strict":
                command.main()
                break
            with pytest.raises(
                SystemExit, match=r"error: no reply of the judge about MEAD_ID can be .* --rules strict"
            ):
                command.main()
            assert " 00.0" not in capsys.readouterr().out
    columns = {
        rules: json.loads((tmp_path / rules / "scores.json").read_text())["columns"] for rules in ("official", "strict")
    }
    assert columns["official"]["identity"] is None and columns["strict"]["identity"] == 100


def test_a_run_without_any_answer_ends_with_an_error(checkpoint, copied, tmp_path, monkeypatch, capsys):
    shutil.rmtree(copied / "videos")
    flags = ["--checkpoint", checkpoint, "--data", copied, "--out", tmp_path / "run", "--tasks", "MEAD_ID"]
    monkeypatch.setattr("sys.argv", ["evaluate.py", *map(str, flags), "--max-new-tokens", "10"])
    with pytest.raises(SystemExit, match=r"error: none of \d+ items has an answer; .*skipped\.jsonl says why"):
        command.main()
    assert "items without an answer" in capsys.readouterr().out and listed(tmp_path / "run")
