"""The command as a user gives it: a page of everything, or one line that says what is wrong."""

import json
import shutil
from collections import Counter

import pytest

from launch.look import choose
from tests.launch.commands import run_forked
from videmo_jax.data.records import Settings, prepare
from videmo_jax.data.video import FrameSpec


def look(data, out, *more):
    return run_forked(["launch/look.py", "--data", data, "--out", out, *more])


def test_a_page_shows_every_task_and_what_is_wrong(synthetic, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(synthetic, data)
    path = data / "jsons/test/attribute/full/MEAD_ID.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps([*records, {"messages": [], "videos": []}]))
    pose = json.loads((data / "jsons/test/attribute/full/MEAD_Head-Pose.json").read_text())[0]
    (data / pose["videos"][0]).write_text("no video")
    code, output = look(data, tmp_path / "page.html", "--samples", "22")
    assert code == 0, output
    assert "22 of" in output and "1 left out" in output and "1 clips could not be read" in output
    assert "of split test shown" in output and "1 left out (no messages" in output and "cannot be read as" in output
    text = (tmp_path / "page.html").read_text()
    assert text.count("<article>") == 22 and text.count("data:image/jpeg") >= 21 * 4
    assert "no messages" in text and "cannot be read as a video" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "page.html"]


def test_the_same_seed_gives_the_same_page_and_tasks_choose_files(synthetic, tmp_path):
    pages = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        code, output = look(
            synthetic, tmp_path / name, "--split", "train", "--tasks", "QA_*", "--samples", "3", "--seed", str(seed)
        )
        assert code == 0, output
        pages.append((tmp_path / name).read_text())
    assert pages[0] == pages[1] != pages[2]
    assert "QA_train" in pages[0] and "MEAD_ID" not in pages[0]


def test_samples_are_spread_evenly_over_files():
    files = ["many"] * 100 + ["few"] * 2 + ["some"] * 30
    chosen = choose(files, 12, seed=0)
    assert Counter(files[number] for number in chosen) == {"many": 5, "few": 2, "some": 5}
    assert len(set(chosen)) == 12 and [files[number] for number in chosen] == sorted(
        (files[number] for number in chosen), key=["many", "few", "some"].index
    )
    assert len(choose(files, 500, seed=0)) == 132


def test_records_are_shown_as_the_model_sees_them(synthetic, tmp_path):
    out = tmp_path / "records"
    instructions = tmp_path / "chat.jsonl"
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    instructions.write_text(json.dumps({"conversations": turns}) + "\n" + json.dumps({"conversations": []}) + "\n")
    prepare(synthetic, out, Settings(frames=FrameSpec(min_pixels=784, max_pixels=12_544)), instructions=[instructions])
    code, output = look(out, tmp_path / "page.html", "--split", "train", "--samples", "30")
    assert code == 0, output
    assert "30 of" in output and "1 left out" in output
    text = (tmp_path / "page.html").read_text()
    assert text.count("<article>") == 30 and text.count("data:image/jpeg") >= 29 * 4
    assert "instructions/chat.jsonl#1" in text and "instructions/chat.jsonl#2" in text and "no messages" in text
    code, output = look(out, tmp_path / "page.html", "--split", "train", "--tasks", "MEAD_*", "--samples", "3")
    assert code == 0 and "QA_train" not in (tmp_path / "page.html").read_text()
    for more, said in ((["--variant", "full"], "leave it out"), (["--tasks", "none"], "no file is named none")):
        code, output = look(out, tmp_path / "new.html", *more)
        assert code == 1 and said in output and len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--split", "train", "--tasks", "nothing_*"], "no full file is named 'nothing_*'"),
        (["--samples", "-1"], "give a number from 0 to 1000"),
        (["--variant", "sampled"], "Choose another variant"),
    ],
)
def test_wrong_arguments_are_one_line(synthetic, tmp_path, more, said):
    code, output = look(synthetic, tmp_path / "page.html", *more)
    assert code != 0 and said in output and "Traceback" not in output
    assert not list(tmp_path.iterdir())


def test_wrong_folders_are_one_line(synthetic, tmp_path):
    for data, out, said in (
        (tmp_path / "none", tmp_path / "p.html", "no such folder"),
        (synthetic, tmp_path, "is a folder"),
    ):
        code, output = look(data, out)
        assert code == 1 and said in output and len(output.splitlines()) == 1
