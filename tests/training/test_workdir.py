"""What a work directory keeps: one run's config, each step once, each skipped sample once."""

import json

import pytest

from videmo_jax.data.skips import SkipLog, SkippedTooMuch
from videmo_jax.files.errors import FileError
from videmo_jax.training.metrics import MetricsWriter, read_metrics
from videmo_jax.training.workdir import WorkdirError, claim


def test_a_workdir_belongs_to_one_run(tmp_path):
    claim(tmp_path / "run", {"a": {"b": 1}, "log": {"every": 1}}, free=("log.",), started=True)
    claim(tmp_path / "run", {"a": {"b": 1}, "log": {"every": 2}}, free=("log.",), started=True)
    with pytest.raises(WorkdirError, match=r"another run: a\.b: 1 there, 2 now"):
        claim(tmp_path / "run", {"a": {"b": 2}, "log": {"every": 1}}, free=("log.",), started=True)


def test_before_the_first_checkpoint_a_config_may_be_corrected(tmp_path):
    claim(tmp_path / "run", {"a": 1}, free=(), started=False)
    claim(tmp_path / "run", {"a": 2}, free=(), started=False)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"a": 2}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(WorkdirError, match="not empty"):
        claim(tmp_path, {}, free=(), started=True)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FileError, match=r"config\.json: no valid JSON"):
        claim(tmp_path, {}, free=(), started=True)


def test_metrics_hold_each_step_once_after_a_kill(tmp_path):
    with MetricsWriter(tmp_path, after_step=0) as metrics:
        for step in range(1, 6):
            metrics.write({"step": step, "loss": 1 / step})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    with MetricsWriter(tmp_path, after_step=3) as metrics:
        metrics.write({"step": 4, "loss": 0.0})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert read_metrics(tmp_path)[-1]["loss"] == 0.0


def test_skips_are_listed_once_and_refused_beyond_the_limit(tmp_path):
    path = tmp_path / "skipped.jsonl"
    log = SkipLog(path, total=10, max_share=0.2)
    log.add("a#0", "no video")
    log.add("a#0", "no video")
    log.add("ü#1", "broken")
    path.write_text(path.read_text() + '{"id": "cut')
    again = SkipLog(path, total=10, max_share=0.2)
    assert again.reasons == {"a#0": "no video", "ü#1": "broken"}
    with pytest.raises(SkippedTooMuch, match=r"3 of 10 samples .* the last: b#2: gone"):
        again.add("b#2", "gone")
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a#0", "ü#1", "b#2"]
