"""Files are there whole or not at all, and what keeps one from being written is said with its path."""

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import videmo_jax
from videmo_jax.files.errors import FileError
from videmo_jax.files.json_records import json_lines, read_journal, read_json, to_line
from videmo_jax.files.paths import writable_folder
from videmo_jax.files.writing import append_text, whole_file, whole_folder, write_json, write_text

PACKAGE = Path(videmo_jax.__file__).parent
ROOT = PACKAGE.parent


FULL = """
import resource, signal, sys
from pathlib import Path
from videmo_jax.files.errors import FileError
from videmo_jax.files.writing import append_text, write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a disk with room for so many bytes a file
for write, name in ((write_text, "page.html"), (append_text, "lines.jsonl")):
    try:
        write(Path(sys.argv[1]) / "new" / name, "x" * 100_000)
    except FileError as error:
        print(error)
"""


def test_what_does_not_fit_the_disk_is_told_with_its_path(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    folder = tmp_path / "new"
    names = ("page.html", "lines.jsonl")
    assert done.stdout.splitlines() == [f"{folder / name}: cannot be written (File too large)" for name in names]
    assert [each.name for each in folder.iterdir()] == ["lines.jsonl"]


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_text("half")
        _ = 1 / 0
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    for name in ("one", "two"):
        with whole_folder(tmp_path / "above" / name) as folder:
            write_text(folder / "sub" / "a.txt", "a")
            assert not (tmp_path / "above" / name).exists()
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "above" / "three") as folder:
        write_text(folder / "a.txt", "a")
        _ = 1 / 0
    with pytest.raises(FileError, match=r"one: cannot be written"), whole_folder(tmp_path / "above" / "one") as folder:
        write_text(folder / "a.txt", "other")
    assert sorted(each.name for each in (tmp_path / "above").iterdir()) == ["one", "two"]
    assert (tmp_path / "above" / "one" / "sub" / "a.txt").read_text() == "a"


def test_what_a_killed_process_left_of_a_folder_goes_and_what_a_living_one_writes_stays(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    host = socket.gethostname()
    left, alive = (tmp_path / f".out.partial-{host}-{process}" for process in (dead.pid, os.getppid()))
    for folder in (left, alive):
        (folder / "sub").mkdir(parents=True)
    with whole_folder(tmp_path / "out"):
        pass
    assert {each.name for each in tmp_path.iterdir()} == {"out", alive.name}


def test_a_folder_for_results_is_looked_at_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FileError, match="is a file; name a folder"):
            writable_folder(wrong)
    with pytest.raises(FileError, match=r"^/proc/nowhere/out: cannot be written"):
        writable_folder("/proc/nowhere/out")
    assert writable_folder(tmp_path / "a" / "b").name == "b"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_line_ends_at_a_line_feed_alone(tmp_path):
    path, odd = tmp_path / "a.jsonl", "a\u2028b\u2029c\x0bd\x0ce\x1cf\x1dg\x1eh\x85i\rj\nk"
    for _ in range(2):
        append_text(path, to_line({"reason": odd}))
    append_text(path, '{"reason": "cut by a ki')
    assert read_journal(path, "") == [{"reason": odd}] * 2
    write_text(path, [to_line({"reason": odd})] * 2)
    assert [record for _, record in json_lines(path)] == [{"reason": odd}] * 2


def test_half_a_surrogate_pair_costs_no_file(tmp_path):
    for write, text in ((write_text, "a\ud800b"), (append_text, to_line({"a": "\ud800"}))):
        write(tmp_path / "a", text)
        assert "?" in (tmp_path / "a").read_text()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "no valid JSON"),
        (b"[1]", "holds a JSON list, not an object"),
        (b'{"a": "\xff"}', "no valid JSON"),
        (b"[" * 100_000, "no valid JSON"),
        (b'{"a": "' + b"b" * 100 + b'"}', "109 bytes, more than 64"),
    ],
)
def test_what_is_no_object_is_refused_with_what_to_do(tmp_path, data, said):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(FileError, match=rf"a\.json: {said}.*; fetch it again"):
        read_json(path, "fetch it again", 64 if len(data) < 1000 and len(data) > 64 else 10**6)
    with pytest.raises(FileError, match=r"none\.json: No such file.*; fetch it again"):
        read_json(tmp_path / "none.json", "fetch it again")


def test_a_broken_line_is_named(tmp_path):
    for bad in ("not json", "[]", "", "[" * 100_000):
        write_text(tmp_path / "a.jsonl", ["{}\n", f"{bad}\n", "{}\n"])
        with pytest.raises(FileError, match=r"a\.jsonl, line 2: no .*; delete it"):
            read_journal(tmp_path / "a.jsonl", "delete it")


def test_json_that_others_cannot_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    write_json(tmp_path / "a.json", {"ä": [1]})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"ä": [1]}


def test_nobody_else_writes_or_renames():
    """The ground floor is the one place; the rest of the package asks it."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                values = [*node.args, *(word.value for word in node.keywords)]
                modes = {each.value for each in values if isinstance(each, ast.Constant)} & {"w", "wb", "a", "ab", "x"}
                if ast.unparse(node.func) == "epath.Path" and path.parent.name != "files":
                    found.add(f"{path.relative_to(PACKAGE)}: {ast.unparse(node)}")
                if node.func.attr in ("write_text", "write_bytes", "rename", "fsync") or (
                    node.func.attr == "open" and modes
                ):
                    found.add(path.relative_to(PACKAGE).as_posix())
    assert found == {
        "files/writing.py",
        "data/embedded/train_tokenizer.py",  # makes the package's own files
        "data/synthetic/write.py",  # PyAV, into a whole_folder
        "interop/safetensors_files.py",  # blocks of bytes, into a whole_file
    }
