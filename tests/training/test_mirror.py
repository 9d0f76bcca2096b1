"""Files that grow: written in place, or copied whole into a bucket and taken up again from there."""

import io

import pytest
from rich.console import Console

from videmo_jax.files.errors import FileError
from videmo_jax.files.mirror import Mirror
from videmo_jax.files.paths import open_path
from videmo_jax.training.metrics import MetricsWriter, read_metrics
from videmo_jax.training.workdir import WorkdirError, claim


def test_a_local_workdir_is_written_to_directly(tmp_path):
    with Mirror(tmp_path, ("metrics.jsonl",), Console()) as mirror:
        assert mirror.local == tmp_path
        mirror.push()
        (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_other_buckets_are_refused():
    with pytest.raises(FileError, match=r"s3://bucket/run: needs gcsfs for gs://"):
        open_path("s3://bucket/run")


@pytest.mark.slow
def test_a_bucket_holds_what_was_written_and_a_new_start_goes_on_with_it(bucket):
    workdir = open_path(f"{bucket}/runs/one")
    claim(workdir, {"a": 1}, free=(), started=False)
    console = Console(file=io.StringIO())
    with (
        Mirror(workdir, ("metrics.jsonl",), console, every=0.02) as mirror,
        MetricsWriter(mirror.local, after_step=-1) as metrics,
    ):
        for step in range(1, 4):
            metrics.write({"step": step, "loss": 1 / step})
        mirror.push()
    with Mirror(workdir, ("metrics.jsonl",), console) as mirror:
        assert [line["step"] for line in read_metrics(mirror.local)] == [1, 2, 3]
        with MetricsWriter(mirror.local, after_step=2) as metrics:
            metrics.write({"step": 3, "loss": 0.0})
    assert not mirror.local.exists()
    assert (workdir / "metrics.jsonl").read_text().splitlines()[-1] == '{"step": 3, "loss": 0.0}'
    assert list((workdir / "tensorboard").iterdir())
    claim(workdir, {"a": 1}, free=(), started=True)
    with pytest.raises(WorkdirError, match="holds another run: a: 1 there, 2 now"):
        claim(workdir, {"a": 2}, free=(), started=True)
    assert console.file.getvalue() == ""
