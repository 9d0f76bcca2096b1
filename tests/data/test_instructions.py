"""Text-only instructions: both forms become samples, and what cannot is listed."""

import json
import re

import pytest

from videmo_jax.data.emo_cfg import DatasetError
from videmo_jax.data.instructions import read_instructions
from videmo_jax.data.sample import Message

MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
CONVERSATIONS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_both_forms_give_the_same_sample(tmp_path):
    system = [{"from": "system", "value": "S"}, *CONVERSATIONS]
    file = write(
        tmp_path / "magpie.jsonl",
        {"messages": MESSAGES, "uuid": 1},
        {"conversations": CONVERSATIONS, "instruction": "Hi"},
        {"conversations": system},
    )
    samples, rejected = read_instructions([file])
    assert not rejected
    assert [sample.id for sample in samples] == [f"instructions/magpie.jsonl#{line}" for line in (1, 2, 3)]
    assert {sample.file for sample in samples} == {"instructions/magpie.jsonl"}
    assert samples[0].messages == samples[1].messages == (Message("user", "Hi"), Message("assistant", "Hello"))
    assert samples[2].messages == (Message("system", "S"), *samples[0].messages) and samples[2].videos == ()


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"conversations": CONVERSATIONS[:1]}, "last message is the user's"),
        ({"conversations": [{"from": "bot", "value": "Hi"}]}, "role 'bot'"),
        ({"conversations": [{"from": [], "value": "Hi"}]}, "role \\[\\]"),
        ({"conversations": ["Hi"]}, "message 0 is text"),
        ({"conversations": [{"from": "human"}, CONVERSATIONS[1]]}, "content is missing"),
        ({"conversations": "Hi"}, "no messages"),
        ({"text": "Hi"}, "no messages"),
        ([MESSAGES], "the record is a list"),
        ({"messages": [{"role": "user", "content": "<video>"}, MESSAGES[1]]}, "holds <video>"),
    ],
)
def test_bad_lines_are_listed(tmp_path, record, reason):
    good = {"messages": MESSAGES}
    samples, rejected = read_instructions([write(tmp_path / "a.jsonl", good, record, good)])
    assert [sample.id[-2:] for sample in samples] == ["#1", "#3"]
    (bad,) = rejected
    assert bad.id == "instructions/a.jsonl#2"
    assert re.search(reason, bad.reason)


def test_broken_files_are_refused(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"messages": []}\n{"mess')
    with pytest.raises(DatasetError, match=r"a.jsonl: line 2 column 2: Unterminated string"):
        read_instructions([file])
    with pytest.raises(DatasetError, match=r"none.jsonl: no such file"):
        read_instructions([tmp_path / "none.jsonl"])
    (tmp_path / "b").mkdir()
    other = write(tmp_path / "b" / "a.jsonl", {"messages": MESSAGES})
    with pytest.raises(DatasetError, match=r"Rename one"):
        read_instructions([write(file, {"messages": MESSAGES}), other])
