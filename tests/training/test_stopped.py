"""What a stopped run says, and the list of samples that it leaves: valid JSON, which the next start reads."""

import json
import math

import pytest

from videmo_jax.files.errors import FileError, UserError
from videmo_jax.training.stopped import Halt, read_left_out, stop


def stopped(folder, halt, **more):
    fields = dict(stage="expression", rows=(40, 44), samples=["a#1", "b#2", "c#3", "d#4", "a#1"], left_out=["e#5"])
    return str(stop(folder, halt, **fields | more))


def test_the_message_names_the_step_the_numbers_the_samples_and_the_ways_out(tmp_path):
    message = stopped(tmp_path, Halt(11, 9.5, 2.25, 3.0))
    file = tmp_path / "stopped.json"
    for part in ("step 11", "9.5", "2.25", "a#1, b#2, c#3 and 2 more", f"leave_out={file}", "guard.spike=0"):
        assert part in message
    assert f"--config.init={tmp_path}" in message and "\n" not in message
    record = json.loads(file.read_text())
    assert (record["step"], record["stage"], record["rows"]) == (11, "expression", [40, 44])
    assert record["loss"] == 9.5 and len(record["samples"]) == 5
    assert read_left_out(file) == ("a#1", "b#2", "c#3", "d#4", "e#5")


def test_what_is_no_number_can_only_be_left_out(tmp_path):
    message = stopped(tmp_path, Halt(11, math.nan, 2.25, math.inf), samples=["a#1"])
    assert "loss nan, gradient norm inf" in message and "guard.spike=0" not in message and "more (" not in message

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    record = json.loads((tmp_path / "stopped.json").read_text(), parse_constant=refuse)
    assert (record["loss"], record["gradient_norm"]) == ("nan", "inf")


def test_a_list_that_cannot_be_written_takes_nothing_from_the_message(tmp_path):
    assert "step 11" in stopped(tmp_path / "gone", Halt(11, 9.5, 2.25, 3.0))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"samples": [1]}', '{"samples": "a#1"}', "\x00"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "ids.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"ids\.json: .*data\.leave_out"):
        read_left_out(path)
    with pytest.raises(FileError, match=r"none\.json: No such file.*data\.leave_out"):
        read_left_out(tmp_path / "none.json")
