"""launch/prepare.py as a user meets it: killed and started again, on the synthetic set, with wrong arguments."""

import shutil
import signal
import time

import pytest

from tests.launch.commands import run, run_forked, start

FRAMES = ("--frames", "min_pixels=784", "max_pixels=12544")


def arguments(data, out, *more):
    return ["launch/prepare.py", f"--emo-cfg={data}", f"--out={out}", "--workers=2", "--shard-size=2", *more, *FRAMES]


def contents(folder):
    """Every file below a folder and its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(synthetic, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, output = run(arguments(synthetic, whole))
    assert code == 0, output
    assert "left out: nothing" in output

    process = start(arguments(synthetic, killed))
    while len(list((killed / "progress").glob("*.json"))) < 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "manifest.json").exists()
    finished = [killed / "clips" / path.stem for path in (killed / "progress").glob("*.json")]
    (killed / "clips/.clips-every.array_record-00016-of-00017.partial-1").write_text("half a shard")
    before = {path: path.stat().st_mtime_ns for path in finished}
    code, output = run(arguments(synthetic, killed))
    assert code == 0, output
    assert {path: path.stat().st_mtime_ns for path in finished} == before
    assert contents(killed) == contents(whole)


def test_wrong_arguments_end_in_one_line(synthetic, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    code, output = run_forked(arguments(synthetic, out))
    assert code == 1 and "holds something else" in output and "Traceback" not in output
    code, output = run_forked(arguments(tmp_path / "nowhere", tmp_path / "new"))
    assert code == 1 and "nowhere: no such folder" in output and "Traceback" not in output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--emo-cfg=gs://bucket/data"], "--emo-cfg gs://bucket/data: is read from a local path"),
        (["--instructions", "none.jsonl"], "none.jsonl"),
        (["--tokenizer", "nowhere"], "no tokenizer.json"),
        (["--out=s3://bucket/records"], "no other bucket"),
        (["--quality=0"], "quality is 0"),
    ],
)
def test_wrong_flags_are_named(synthetic, tmp_path, more, said):
    code, output = run_forked(["launch/prepare.py", f"--emo-cfg={synthetic}", f"--out={tmp_path / 'out'}", *more])
    assert code != 0 and said in output and "Traceback" not in output
    assert not (tmp_path / "out").exists()


def test_unknown_tasks_are_named_and_a_giant_file_is_refused(synthetic, tmp_path):
    data, out = shutil.copytree(synthetic, tmp_path / "data"), tmp_path / "out"
    known = data / "jsons/test/attribute/full/MEAD_ID.json"
    shutil.copy(known, known.with_name("Mine.json"))
    code, output = run(arguments(data, out, "--split=test"))
    assert code == 0, output
    (line,) = [line for line in output.splitlines() if line.startswith("of unknown tasks")]
    assert line.endswith("samples, of test/attribute/full/Mine.json")
    with known.open("r+b") as file:
        file.truncate(2**31 + 1)
    code, output = run_forked(arguments(data, tmp_path / "new", "--split=test"))
    assert code == 1 and "MEAD_ID.json: 2,147,483,649 bytes, more than the limit" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("pair", "named"),
    [("speed=1", "no such field"), ("rate=fast", "not a number"), ("max_pixels=1", "max_pixels is 1")],
)
def test_wrong_frames_are_named(synthetic, tmp_path, pair, named):
    code, output = run_forked(
        ["launch/prepare.py", f"--emo-cfg={synthetic}", f"--out={tmp_path / 'out'}", "--frames", pair]
    )
    assert code == 1 and named in output and "Traceback" not in output


def test_the_synthetic_set_is_rendered_first(tmp_path):
    out = tmp_path / "records"
    command = ["launch/prepare.py", "--synthetic=34", f"--out={out}", "--workers=2", "--split=test", *FRAMES]
    code, output = run(command)
    assert code == 0, output
    assert (tmp_path / "records-emo-cfg/jsons").is_dir()
    assert (out / "samples/samples-test.array_record-00000-of-00001").is_file()
    shutil.rmtree(tmp_path / "records-emo-cfg/videos")  # what is finished needs no video
    assert run(command)[0] == 0
