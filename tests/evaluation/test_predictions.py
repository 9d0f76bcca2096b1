"""The official format, and what other programs make of it."""

import json

import pytest
from etils import epath

from videmo_jax.data.sample import Message
from videmo_jax.evaluation.answers.predictions import (
    Prediction,
    PredictionError,
    read_folder,
    read_predictions,
    write_predictions,
)

LINES = [
    Prediction(
        "(A) Yes", "(B) No", (Message("user", "<video>.Same?\n(A) Yes\n(B) No"),), ("videos/a b.mp4",), (-0.5, -1)
    ),
    Prediction("", "笑\u2028う", (Message("user", "<video>?"),), ("videos/b.mp4",)),
]


def test_the_format_is_the_official_one(tmp_path):
    write_predictions(epath.Path(tmp_path / "MEAD_ID.json"), LINES)
    text = (tmp_path / "MEAD_ID.json").read_text(encoding="utf-8")
    assert text.count("\n") == 2 and "笑" in text
    first, second = (json.loads(line) for line in text.split("\n")[:2])
    assert list(first) == ["response", "labels", "logprobs", "messages", "videos"]
    assert first["messages"] == [{"role": "user", "content": "<video>.Same?\n(A) Yes\n(B) No"}]
    assert first["logprobs"] == [-0.5, -1] and second["logprobs"] is None
    assert second["videos"] == ["videos/b.mp4"] and second["response"] == ""


def test_reading_gives_back_what_was_written(tmp_path):
    write_predictions(epath.Path(tmp_path / "MEAD_ID.json"), LINES)
    assert read_folder(tmp_path) == {"MEAD_ID": LINES}
    assert [path.name for path in tmp_path.iterdir()] == ["MEAD_ID.json"]  # nothing half-written stays


@pytest.mark.parametrize("as_list", [False, True])
def test_lines_of_other_programs_are_read(tmp_path, as_list):
    records = [
        {"response": "a", "labels": "b", "logprobs": {"content": [{"token": "a"}]}, "images": [], "extra": 1},
        {
            "labels": "b",
            "response": "a",
            "messages": [{"role": "user", "content": [{"type": "video"}]}],
            "videos": None,
        },
    ]
    text = json.dumps(records) if as_list else "\r\n\r\n".join(map(json.dumps, records))
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_predictions(tmp_path / "x.json") == [Prediction("a", "b"), Prediction("a", "b")]


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"response": "a", "labels": "b"}\n{"response": "a"', r"x\.json: line 2: no valid JSON"),
        (b'{"response": "a", "labels": "b"}\n\n[1]', r"x\.json: line 3: not an object"),
        (b'{"response": "a"}', r"x\.json: line 1: 'labels' is missing"),
        (b'{"response": null, "labels": "a"}', r"x\.json: line 1: 'response' is missing or no text"),
        (b'[{"response": "a", "labels": "a"}, 3]', r"x\.json: item 2: not an object"),
        ('{"response": "ä"}'.encode("latin-1"), r"x\.json: byte 14: not UTF-8"),
        (b"[" * 100_000, r"x\.json: the list: no valid JSON"),
    ],
)
def test_faults_are_named_with_file_and_line(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(PredictionError, match=message):
        read_predictions(tmp_path / "x.json")


def test_halves_of_surrogate_pairs_become_question_marks(tmp_path):
    line = {
        "response": "\ud83d a",
        "labels": "b \udc00",
        "messages": [{"role": "user", "content": "\ud800?"}],
        "videos": ["\udfff.mp4"],
    }
    (tmp_path / "x.json").write_text(json.dumps(line))
    (read,) = read_predictions(tmp_path / "x.json")
    assert read == Prediction("? a", "b ?", (Message("user", "??"),), ("?.mp4",))


def test_a_file_in_the_place_of_its_folder_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"response": "a", "labels": "b"}')
    with pytest.raises(PredictionError, match=r"x\.json: is a file; give its folder"):
        read_folder(tmp_path / "x.json")


def test_a_folder_without_predictions_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(PredictionError, match="no prediction files"):
            read_folder(folder)
