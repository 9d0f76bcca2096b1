"""Prediction lines beside annotations: by value, by property, and with every kind of bad input through the command."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch import evaluate as command
from tests.evaluation import by_hand
from videmo_jax.data.sample import Message
from videmo_jax.evaluation.annotations import AnnotatedQuestion, match_lines, official_aspects, read_annotations
from videmo_jax.evaluation.answers.predictions import Prediction
from videmo_jax.tasks.taxonomy import ASPECTS


def line(text, video="a.mp4", truth="t"):
    return Prediction("r", truth, (Message("user", text),), (video,))


def asked(text, video="a.mp4", truth="t", aspect=""):
    return AnnotatedQuestion((text, video), text, truth, aspect)


@given(st.data())
def test_every_line_and_record_is_accounted_for(data):
    texts = st.sampled_from(["q1", "q2", "q3", "q4"])
    records = [asked(text) for text in data.draw(st.lists(texts, max_size=12))]
    lines = [line(text) for text in data.draw(st.lists(texts, max_size=12))]
    found = match_lines(lines, records)
    matched = [place for place in found.places if place is not None]
    assert sorted([*matched, *found.missing]) == list(range(len(records)))  # each exactly once
    extra = [number for number, place in enumerate(found.places) if place is None]
    assert sorted([*found.again, *found.unknown]) == extra
    for number, place in enumerate(found.places):
        if place is not None:
            assert records[place].key == (lines[number].messages[0].content, "a.mp4")
    known = {record.key[0] for record in records}
    assert all(lines[number].messages[0].content in known for number in found.again)
    assert all(lines[number].messages[0].content not in known for number in found.unknown)


def test_what_is_asked_twice_is_answered_in_order():
    records = [asked("q", truth="first"), asked("other"), asked("q", truth="second")]
    found = match_lines([line("q", truth="first"), line("q", truth="second"), line("other")], records)
    assert found.places == (0, 2, 1) and found.other_truth == () and found.moved == (1, 2)
    found = match_lines([line("q", truth="second")], records)
    assert found.places == (0,) and found.other_truth == (0,) and found.missing == (1, 2)


def test_the_video_and_the_last_user_text_tell_questions_apart():
    records = [asked("q", "a.mp4"), asked("q", "b.mp4")]
    assert match_lines([line("q", "b.mp4"), line("q", "c.mp4")], records).places == (1, None)
    turns = (Message("user", "first"), Message("assistant", "yes"), Message("user", "q"))
    assert match_lines([Prediction("r", "t", turns, ("a.mp4",))], records).places == (0,)
    assert match_lines([Prediction("r", "t")], records).unknown == (0,)
    assert official_aspects([asked("q", aspect="Hair"), asked("q", aspect="Nose")]) == {("q", "a.mp4"): "Nose"}


def test_records_of_any_form_are_read(tmp_path):
    folder = tmp_path / "jsons" / "test" / "qa" / "full"
    folder.mkdir(parents=True)
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a \ud83d"}]
    records = [
        {"messages": turns, "videos": ["v.mp4"], "source": "Emo-CFG_QA_Hair"},
        {"messages": turns, "videos": ["v.mp4"], "source": "x_QA_y_QA_Nose"},
        {"messages": turns, "videos": [3, "v.mp4"], "source": "QA_Ears"},
        {"messages": turns, "videos": None, "source": 7},
        {"messages": [{"role": "user"}, 5, {"role": "user", "content": None}]},
        3,
        None,
    ]
    (folder / "QA.json").write_text(json.dumps(records))
    found = read_annotations(tmp_path, "test", "full")["QA"]
    assert [record.aspect for record in found] == ["Hair", "Nose", "", "", "", "", ""]
    assert [record.key for record in found[:4]] == [("q", "v.mp4")] * 3 + [("q", "")]
    assert {record.key for record in found[4:]} == {("", "")} and found[0].truth == "a ?"


def test_the_aspects_are_those_of_the_data(dataset, emo_cfg_mini):
    for root in (dataset, emo_cfg_mini):
        records = read_annotations(root, "test", "full")[by_hand.QA]
        assert records and {record.aspect for record in records} <= set(ASPECTS)
    assert set(ASPECTS) == set(by_hand.ASPECTS)


# The command, on predictions that are the truth of the synthetic test files, damaged in every way.


@pytest.fixture
def predictions(dataset, tmp_path):
    """A folder as the authors' inference script would leave it."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for path in sorted((dataset / "jsons" / "test").glob("*/full/*.json")):
        lines = []
        for record in json.loads(path.read_text()):
            user, answer = record["messages"]
            lines.append(
                {
                    "response": answer["content"],
                    "labels": answer["content"],
                    "logprobs": None,
                    "messages": [user],
                    "videos": record["videos"],
                }
            )
        (folder / path.name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def run(monkeypatch, capsys, *flags):
    monkeypatch.setattr("sys.argv", ["evaluate.py", *map(str, flags)])
    command.main()
    return capsys.readouterr().out


def scores_of(out: Path):
    return json.loads((out / "scores.json").read_text())


def lines_of(path):
    return path.read_text().splitlines(keepends=True)


def test_whole_predictions(predictions, dataset, tmp_path, monkeypatch, capsys):
    shown = run(
        monkeypatch,
        capsys,
        "--predictions",
        predictions,
        "--data",
        dataset,
        "--rules",
        "strict",
        "--out",
        tmp_path / "o",
    )
    scores = scores_of(tmp_path / "o")
    assert scores["rules"] == "strict" and scores["judge"]["name"] == "rule" and len(scores["columns"]) == 40
    assert scores["missing_files"] == [] == scores["unknown_files"] and not scores["comparable_with_paper"]
    assert all(not m[kind] for m in scores["matching"].values() for kind in ("missing", "again", "unknown", "moved"))
    assert "theirs" in (tmp_path / "o" / "tables" / "table1.md").read_text()
    assert "rules strict" in shown and "NOT comparable" in shown


def test_without_annotations_the_open_questions_are_a_gap(predictions, tmp_path, monkeypatch, capsys):
    shown = run(monkeypatch, capsys, "--predictions", predictions, "--out", tmp_path / "o")
    scores = scores_of(tmp_path / "o")
    assert scores["columns"]["hair"] is None and scores["overall"] is None and scores["columns"]["identity"] == 100
    assert "without an aspect" in shown and "--data" in shown and scores["matching"] == {}


def test_damaged_lines_are_counted_and_listed(predictions, dataset, tmp_path, monkeypatch, capsys):
    """A missing, a repeated, an unknown line, and all in another order: strict scores count the records."""
    path = predictions / f"{by_hand.CAPTIONS}.json"
    lines = lines_of(path)
    assert len(lines) >= 4
    unknown = lines[0].replace("videos/", "elsewhere/")
    path.write_text("".join([*reversed(lines[1:]), lines[2], unknown]))
    flags = ("--predictions", predictions, "--data", dataset)
    shown = run(monkeypatch, capsys, *flags, "--rules", "strict", "--out", tmp_path / "strict")
    run(monkeypatch, capsys, *flags, "--out", tmp_path / "official")
    strict, official = scores_of(tmp_path / "strict"), scores_of(tmp_path / "official")
    assert strict["columns"]["clue_overlap"] == pytest.approx(100 * (len(lines) - 1) / len(lines))
    assert official["columns"]["clue_overlap"] == 100  # the lines that there are
    matching = official["matching"][by_hand.CAPTIONS]
    assert (matching["missing"], matching["again"], matching["unknown"]) == (1, 1, 1) and matching["moved"] >= 2
    assert (
        f"{by_hand.CAPTIONS}: 1 records without a line, 1 lines that come again, 1 lines that no record asks" in shown
    )


def test_missing_files_empty_files_and_unknown_names(predictions, dataset, tmp_path, monkeypatch, capsys):
    (predictions / "MEAD_ID.json").unlink()
    (predictions / "MEAD_Head-Pose.json").write_text("")
    (predictions / "AffWild2_Action_Unit_Detection.json").write_text("\n \n")
    shutil.copy(predictions / f"{by_hand.QA}.json", predictions / "own.json")
    shown = run(monkeypatch, capsys, "--predictions", predictions, "--data", dataset, "--out", tmp_path / "o")
    scores = scores_of(tmp_path / "o")
    gaps = {"identity", "head_pose", "closed_average", "action_units", "cues_average"}
    assert gaps <= set(scores["gaps"]) and all(scores["columns"][name] is None for name in gaps)
    assert set(scores["missing_files"]) == {"MEAD_ID", "MEAD_Head-Pose", "AffWild2_Action_Unit_Detection"}
    assert scores["unknown_files"] == ["own"] and scores["files"]["own"]["score"] is None
    assert "own" in shown and "empty" in shown
    assert "**-**" in (tmp_path / "o" / "tables" / "table1.md").read_text()
    for text in (tmp_path / "o" / "tables" / "table2.csv").read_text().splitlines()[-1:]:
        assert ",-," in text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_other_encodings_are_refused_in_one_line(predictions, tmp_path, monkeypatch, capsys, encoding):
    path = predictions / "MEAD_ID.json"
    records = [json.loads(text) | {"response": "d\u00e9j\u00e0 vu"} for text in lines_of(path)]
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(text.encode(encoding))
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, capsys, "--predictions", predictions, "--out", tmp_path / "o")
    assert "MEAD_ID.json" in stopped.value.code and "\n" not in stopped.value.code
    assert not (tmp_path / "o").exists()


def test_a_byte_order_mark_and_windows_lines_are_read(predictions, dataset, tmp_path, monkeypatch, capsys):
    for path in predictions.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    run(
        monkeypatch,
        capsys,
        "--predictions",
        predictions,
        "--data",
        dataset,
        "--rules",
        "strict",
        "--out",
        tmp_path / "o",
    )
    assert {value for value in scores_of(tmp_path / "o")["columns"].values() if value is not None} == {100}


def test_a_truth_that_is_no_option_is_listed(predictions, tmp_path, monkeypatch, capsys):
    path = predictions / "MEAD_ID.json"
    records = [json.loads(text) for text in lines_of(path)]
    records[0] |= {"labels": "(C) Perhaps", "response": "(A) Yes"}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    shown = run(monkeypatch, capsys, "--predictions", predictions, "--out", tmp_path / "o")
    file = scores_of(tmp_path / "o")["files"]["MEAD_ID"]
    assert file["odd_truths"] == 1
    assert file["score"] == pytest.approx(100 * (len(records) - 1) / len(records))
    assert "MEAD_ID: 1 truths that are none of the options" in shown


def test_the_annotations_must_be_there(predictions, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, capsys, "--predictions", predictions, "--data", tmp_path / "nothing", "--out", tmp_path / "o")
    assert "no such folder" in stopped.value.code and "\n" not in stopped.value.code
    assert not (tmp_path / "o").exists()


def test_the_recipe_of_an_evaluation_goes_into_the_scores(predictions, tmp_path, monkeypatch, capsys):
    run_folder = tmp_path / "run"
    shutil.copytree(predictions, run_folder / "predictions")
    (run_folder / "recipe.json").write_text('{"inputs": {"frames": 16}}')
    for place in (run_folder, run_folder / "predictions"):
        run(monkeypatch, capsys, "--predictions", place, "--out", tmp_path / "o")
        assert scores_of(tmp_path / "o")["recipe"] == {"inputs": {"frames": 16}}
        assert "**run**" in (tmp_path / "o" / "tables" / "table1.md").read_text()
    run(monkeypatch, capsys, "--predictions", predictions, "--out", tmp_path / "o", "--name", "mine")
    assert scores_of(tmp_path / "o")["recipe"] is None
    assert "**mine**" in (tmp_path / "o" / "tables" / "table3.md").read_text()


def test_some_files_only(predictions, dataset, tmp_path, monkeypatch, capsys):
    flags = ["--predictions", predictions, "--data", dataset, "--out", tmp_path / "o", "--tasks"]
    run(monkeypatch, capsys, *flags, "MEAD_ID.json", "MAFW_*")
    assert set(scores_of(tmp_path / "o")["files"]) == {
        "MEAD_ID",
        "MAFW_Multiple-Label-Emotion-Recognition",
        "MAFW_Single-Label-Emotion-Recognition",
    }
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, capsys, *flags, "MEAD_IQ")
    assert "no file is named 'MEAD_IQ'" in stopped.value.code and "\n" not in stopped.value.code
