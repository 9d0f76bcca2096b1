"""Streamed JSON: what json.loads gives, wherever chunks are cut, with its errors and its lines."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videmo_jax.files import json_records as module
from videmo_jax.files.json_records import DatasetError, json_lines, json_records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@pytest.fixture
def chunked(monkeypatch):
    """Reads so few characters at once that every cut is met."""
    return lambda size: monkeypatch.setattr(module, "CHUNK_CHARACTERS", size)


@given(values=st.lists(VALUES, max_size=6), indent=st.none() | st.integers(0, 2), size=st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_any_list_comes_out_whole(tmp_path_factory, values, indent, size):
    path = tmp_path_factory.getbasetemp() / "values.json"
    path.write_text(" \n" + json.dumps(values, indent=indent) + " \n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_CHARACTERS", size)
        assert list(json_records(path)) == values


@pytest.mark.parametrize("size", [1, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1},\n {"a": ]',
        '[{"a": 1}\n {"a": 2}]',
        '[{"a": 1},\n\n {"a": "b',
        '[{"a": 1},',
        "[1, 2",
        "[1] 2",
        "[tru]",
        '["\\u12"]',
        '["a\nb"]',
        "[12345678901234567890e]",
        "[",
    ],
)
def test_errors_stand_where_json_sees_them(tmp_path, chunked, text, size):
    chunked(size)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(DatasetError, match=r"a.json: ") as error:
        list(json_records(path))
    assert f"line {expected.value.lineno} column {expected.value.colno}: " in str(error.value)


@pytest.mark.parametrize("text", ['["%s"]', '[1, {"a": ["%s"]}, 2]', '{"a": "%s"}'])
def test_a_giant_record_is_refused(tmp_path, chunked, monkeypatch, text):
    monkeypatch.setattr(module, "MAX_RECORD_CHARACTERS", 1000)
    chunked(64)
    path = tmp_path / "a.json"
    path.write_text(text % ("x" * 900))
    assert len(list(json_records(path))) in (1, 3)
    path.write_text(text % ("x" * 5000))
    with pytest.raises(DatasetError, match=r"a.json: the record on line 1 has over 1,000 characters"):
        list(json_records(path))


def test_lines_are_numbered_and_foreign_bytes_are_found(tmp_path, chunked):
    chunked(4)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{}\r\n\n{}")
    assert [line for line, _ in json_lines(path)] == [1, 3] and len(list(json_records(path))) == 2
    for cut in (b"\xe9", b"\xc3", b"\xe2\x82"):
        path.write_bytes(b'["abcdefgh\xc3\xa9 ' + cut)
        with pytest.raises(DatasetError, match=re.escape("byte 13: not UTF-8")):
            list(json_records(path))
