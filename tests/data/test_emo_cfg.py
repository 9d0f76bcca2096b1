"""Emo-CFG's files: what is read, what is refused, what is left out with a reason."""

import json
import re
from pathlib import Path

import pytest

from videmo_jax.data.emo_cfg import DatasetError, read_emo_cfg
from videmo_jax.data.sample import Message

GOOD = {
    "messages": [{"role": "user", "content": "<video>Who?"}, {"role": "assistant", "content": "(A) He"}],
    "videos": ["videos/a.mp4"],
}


def dataset(root: Path, records: object, file: str = "train/attribute/full/MEAD_ID.json") -> Path:
    (root / "videos").mkdir(parents=True, exist_ok=True)
    (root / "videos" / "a.mp4").write_bytes(b"clip")
    path = root / "jsons" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(records if isinstance(records, str) else json.dumps(records))
    return root


def with_(**changes: object) -> dict:
    return {**GOOD, **changes}


ANSWER = {"role": "assistant", "content": "A"}


def turns(*pairs: tuple[str, object]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_mini_is_read_whole(emo_cfg_mini):
    files = sorted((emo_cfg_mini / "jsons" / "train").glob("*/full/*.json"))
    expected = [
        (f"{path.relative_to(emo_cfg_mini / 'jsons').as_posix()}#{index}", record)
        for path in files
        for index, record in enumerate(json.loads(path.read_text()))
    ]
    data = read_emo_cfg(emo_cfg_mini, "train")
    assert not data.rejected and len(files) == 23
    assert [sample.id for sample in data.samples] == [id for id, _ in expected]
    for sample, (_, record) in zip(data.samples, expected, strict=True):
        assert [{"role": m.role, "content": m.content} for m in sample.messages] == record["messages"]
        assert list(sample.videos) == record["videos"] and sample.source == record.get("source")


def test_sample_fields(tmp_path):
    record = with_(source="Emo-CFG_QA_Hair", messages=turns(("system", "S"), ("user", "<video>Q"), ("assistant", "A")))
    (sample,) = read_emo_cfg(dataset(tmp_path, [record]), "train").samples
    assert sample.id == "train/attribute/full/MEAD_ID.json#0" and sample.file == "train/attribute/full/MEAD_ID.json"
    assert sample.prompt == (Message("system", "S"), Message("user", "<video>Q"))
    assert (sample.question, sample.answer, sample.source) == ("<video>Q", "A", "Emo-CFG_QA_Hair")


def test_one_object_a_line_equals_a_list(tmp_path):
    records = [GOOD, with_(messages=turns(("user", "<video>\u2028é"), ("assistant", "A")))]
    lines = "\ufeff" + "\n\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n"
    as_list = read_emo_cfg(dataset(tmp_path / "list", records), "train")
    as_lines = read_emo_cfg(dataset(tmp_path / "lines", lines), "train")
    assert as_lines.samples == as_list.samples and len(as_list.samples) == 2


def test_text_only_sample_is_kept(tmp_path):
    record = {"messages": turns(("user", "Hello"), ("assistant", "Good day"))}
    (sample,) = read_emo_cfg(dataset(tmp_path, [record]), "train").samples
    assert sample.videos == ()


def test_order_variant_and_include(tmp_path):
    for file in ("emotion/full/B.json", "emotion/full/A.json", "attribute/full/Z.json", "emotion/sampled/S.json"):
        dataset(tmp_path, [GOOD], f"train/{file}")
    ids = [sample.id for sample in read_emo_cfg(tmp_path, "train").samples]
    assert ids == [f"train/{f}#0" for f in ("attribute/full/Z.json", "emotion/full/A.json", "emotion/full/B.json")]
    sampled = read_emo_cfg(tmp_path, "train", variant="sampled").samples
    assert [sample.file for sample in sampled] == ["train/emotion/sampled/S.json"]
    chosen = read_emo_cfg(tmp_path, "train", include=["[AB].json"]).samples
    assert [Path(sample.file).name for sample in chosen] == ["A.json", "B.json"]
    with pytest.raises(DatasetError, match=r"'Q\*'; there are: Z.json, A.json, B.json"):
        read_emo_cfg(tmp_path, "train", include=["A.json", "Q*"])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (with_(messages=[]), "no messages"),
        ({"videos": ["videos/a.mp4"]}, "no messages"),
        (with_(messages=turns(("user", "<video>Q"))), "last message is the user's"),
        (with_(messages=turns(("assistant", "A"))), "no user's turn"),
        (with_(messages=turns(("human", "<video>Q"), ("assistant", "A"))), "message 0: role 'human'"),
        (with_(messages=turns(("user", ["<video>"]), ("assistant", "A"))), "message 0: content is a list"),
        (with_(messages=turns(("user", "<video>Q"), ("assistant", None))), "message 1: content is missing"),
        (with_(messages=turns(("user", "<video>\ud800"), ("assistant", "A"))), "surrogate"),
        (with_(messages=turns(("user", "<video>"), ("system", ""), ("assistant", ""))), "system message"),
        (with_(messages=["hello"]), "message 0 is text"),
        (with_(messages=turns(("user", "<video><video>Q"), ("assistant", "A"))), "2 <video> .* 1 paths"),
        (with_(videos=["videos/a.mp4", "videos/a.mp4"]), "1 <video> .* 2 paths"),
        (with_(videos=None), "1 <video> .* 0 paths"),
        (with_(videos={"a": 1}), "not a list of paths"),
        (with_(videos=[3]), "not a list of paths"),
        (with_(images=["i.png"]), "images are not supported"),
        (with_(image="i.png"), "images are not supported"),
        (with_(messages=turns(("user", "<video><image>Q"), ("assistant", "A"))), "message 0: holds <image>"),
        (with_(messages=turns(("user", "<video>Q"), ("assistant", ""))), "message 1: the assistant's answer is empty"),
        (
            with_(messages=turns(("user", "<video>Q"), ("assistant", " \n"))),
            "message 1: the assistant's answer is empty",
        ),
        (with_(messages=[*turns(("user", "<video>Q")), ANSWER | {"loss": False}]), "message 1: its loss is False"),
        (with_(messages=[*turns(("user", "<video>Q")), ANSWER | {"loss": 0.5}]), "message 1: its loss is 0.5"),
        (with_(system=3), "system is a number"),
        (with_(system="S", messages=turns(("system", "T"), ("user", "<video>Q"), ("assistant", "A"))), "another text"),
        (with_(source=5), "source is a number"),
        (with_(videos=["/etc/passwd"]), "leaves the dataset's root"),
        (with_(videos=["videos/../../a.mp4"]), "leaves the dataset's root"),
        (with_(videos=["videos/link.mp4"]), "root through a symbolic link"),
        (with_(videos=["outside/a.mp4"]), "root through a symbolic link"),
        (with_(videos=["videos/none.mp4"]), "is missing"),
        (with_(videos=["videos"]), "not a regular file"),
        (with_(videos=["videos/empty.mp4"]), "empty file"),
        (with_(videos=["videos/\0.mp4"]), "cannot be looked up"),
        (with_(videos=["v" * 5000]), "cannot be looked up|is missing"),
        ("text", "the record is text"),
    ],
)
def test_bad_sample_is_listed_and_nothing_else_is_lost(tmp_path, record, reason):
    root = dataset(tmp_path / "root", [GOOD, record, GOOD])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.mp4").write_bytes(b"clip")
    (root / "videos" / "link.mp4").symlink_to(tmp_path / "elsewhere" / "a.mp4")
    (root / "outside").symlink_to(tmp_path / "elsewhere")
    (root / "videos" / "empty.mp4").touch()
    data = read_emo_cfg(root, "train")
    assert [sample.id[-2:] for sample in data.samples] == ["#0", "#2"]
    (rejected,) = data.rejected
    assert rejected.id == "train/attribute/full/MEAD_ID.json#1"
    assert re.search(reason, rejected.reason)


def test_what_comes_twice_is_kept_or_named(tmp_path):
    other = with_(messages=turns(("user", "<video>Who"), ("assistant", "?(A) He")))
    root = dataset(tmp_path, [GOOD, other, GOOD])
    dataset(tmp_path, [GOOD], "train/emotion/full/B.json")
    assert len(read_emo_cfg(root, "train").samples) == 4
    data = read_emo_cfg(root, "train", duplicates="reject")
    assert len(data.samples) == 3
    assert [(each.id, each.reason) for each in data.rejected] == [
        ("train/attribute/full/MEAD_ID.json#2", "the same as train/attribute/full/MEAD_ID.json#0"),
    ]


def test_which_samples_fall_does_not_depend_on_what_is_chosen(tmp_path):
    """The same question in two files: each file has the samples that it has alone."""
    for file in ("attribute/full/A.json", "expression/full/B.json", "emotion/full/C.json"):
        root = dataset(tmp_path, [GOOD, GOOD], f"train/{file}")
    whole = read_emo_cfg(root, "train", duplicates="reject").samples
    alone = [read_emo_cfg(root, "train", include=[f"{name}*"], duplicates="reject").samples for name in "ABC"]
    assert sorted(sample.id for sample in whole) == sorted(sample.id for samples in alone for sample in samples)
    assert [len(samples) for samples in alone] == [1, 1, 1]


def test_forms_of_records_that_others_write(tmp_path):
    """LLaVA's conversations, one path alone, a system of its own, a path from the disk's root: all are the same."""
    root = dataset(tmp_path, [GOOD])
    spoken = [{"from": "human", "value": "<video>Who?"}, {"from": "gpt", "value": "(A) He"}]
    forms = [
        {"conversations": spoken, "videos": ["videos/a.mp4"]},
        {"conversations": spoken, "video": "videos/a.mp4"},
        GOOD | {"videos": [str(root / "videos/a.mp4")]},
        GOOD | {"videos": "videos/a.mp4", "loss": None, "system": ""},
        GOOD | {"messages": [turn | {"loss": True} for turn in GOOD["messages"]]},
    ]
    lines = "".join(json.dumps(form) + "\n" for form in forms)
    (root / "jsons/train/attribute/full/other.jsonl").write_text(lines)
    (plain,) = read_emo_cfg(root, "train", include=["MEAD_*"]).samples
    samples = read_emo_cfg(root, "train", include=["oth*"]).samples
    assert [(each.messages, each.videos) for each in samples] == [(plain.messages, plain.videos)] * len(forms)
    assert samples[-1].id == "train/attribute/full/other.jsonl#4"
    dataset(tmp_path, [GOOD | {"system": "Be brief."}])
    (sample,) = read_emo_cfg(root, "train", include=["MEAD_ID.json"]).samples
    assert sample.messages == (Message("system", "Be brief."), *plain.messages)


def test_link_inside_the_root_is_fine(tmp_path):
    root = dataset(tmp_path, [with_(videos=["videos/b.mp4"]), with_(videos=["videos/../videos/a.mp4"])])
    (root / "videos" / "b.mp4").symlink_to(root / "videos" / "a.mp4")
    assert len(read_emo_cfg(root, "train").samples) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"messages": []},\n {"messages": ]', r"MEAD_ID.json: line 2 column 15: Expecting value"),
        ('{"messages": []}\n{"mess', r"MEAD_ID.json: line 2 column 2: Unterminated string"),
        ("not json", r"MEAD_ID.json: line 1 column 1"),
        ("[" * 200_000, r"MEAD_ID.json: from line 1 on: .*recursion"),
        ("[" + "9" * 5000 + "]", r"MEAD_ID.json: from line 1 on: "),
    ],
)
def test_broken_file_is_refused(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        read_emo_cfg(dataset(tmp_path, text), "train")


def test_foreign_encoding_and_giant_file_are_refused(tmp_path):
    root = dataset(tmp_path, [GOOD])
    with pytest.raises(DatasetError, match=r"MEAD_ID.json: [\d,]+ bytes, more than the limit of 100"):
        read_emo_cfg(root, "train", max_file_bytes=100)
    (root / "jsons/train/attribute/full/MEAD_ID.json").write_bytes(b'["caf\xe9"]')
    with pytest.raises(DatasetError, match=r"MEAD_ID.json: byte 5: not UTF-8"):
        read_emo_cfg(root, "train")


def test_missing_folders_name_what_is_there(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere: no such folder. Expected ROOT/jsons/train/GROUP/full"):
        read_emo_cfg(tmp_path / "nowhere", "train")
    (tmp_path / "clips").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"holds records, and videos are read here; name the folder"):
        read_emo_cfg(tmp_path, "train")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(DatasetError, match=r"jsons: no such folder.*holds clips\."):
        read_emo_cfg(tmp_path, "train")
    dataset(tmp_path, [GOOD])
    with pytest.raises(DatasetError, match=r"test: no such folder.*holds train\."):
        read_emo_cfg(tmp_path, "test")
    with pytest.raises(DatasetError, match=r"no GROUP/sampled/\*\.json or \*\.jsonl below it; it holds attribute"):
        read_emo_cfg(tmp_path, "train", variant="sampled")
