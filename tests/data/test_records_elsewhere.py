"""Records made by Apache Beam and records in a bucket: the bytes of a local run. Needs packages beyond our own."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from videmo_jax.data.records import RecordError, Settings, prepare, read_records
from videmo_jax.data.records.beam import BeamRunner
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec
from videmo_jax.files import paths
from videmo_jax.files.errors import FileError

SETTINGS = Settings(frames=FrameSpec(min_pixels=784, max_pixels=12_544), shard_size=5, splits=("test",))


def contents(folder):
    """Every file below a folder and its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def local(synthetic, tmp_path_factory):
    out = tmp_path_factory.mktemp("records") / "records"
    prepare(synthetic, out, SETTINGS)
    return out


class Stopped(Exception):
    """The run is stopped here."""


def test_beam_writes_the_same_bytes_and_a_local_run_goes_on(synthetic, local, tmp_path):
    pytest.importorskip("apache_beam", reason="apache-beam is not installed (extra beam)")
    out = tmp_path / "out"

    def stop(kind, done, total):
        if kind == "test samples":
            raise Stopped

    with pytest.raises(Stopped):
        prepare(synthetic, out, SETTINGS, runner=BeamRunner(), on_shard=stop)
    before = {path: path.stat().st_mtime_ns for path in (out / "clips").glob("*array_record*")}
    assert len(before) > 1
    prepare(synthetic, out, SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert contents(out) == contents(local)


def test_missing_packages_are_named(synthetic, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(RecordError, match=r"pip install 'videmo-jax\[beam\]'"):
        prepare(synthetic, tmp_path / "out", SETTINGS, runner=BeamRunner())
    monkeypatch.setattr(paths, "find_spec", lambda name: None)
    for call in (lambda path: prepare(synthetic, path, SETTINGS), read_records):
        with pytest.raises(FileError, match=r"pip install 'videmo-jax\[gcs\]'"):
            call("gs://bucket/records")
    with pytest.raises(FileError, match=r"no other bucket"):
        read_records("s3://bucket/records")


def test_a_bucket_holds_the_same_bytes(synthetic, local, bucket, tmp_path):
    from etils import epath

    def stop(kind, done, total):
        if kind == "clips" and done == 2:
            raise Stopped

    out = f"{bucket}/records"
    with pytest.raises(Stopped):
        prepare(synthetic, out, SETTINGS, on_shard=stop)
    with pytest.raises(RecordError, match=r"no manifest.json"):
        read_records(out, "test")
    prepare(synthetic, out, SETTINGS)
    for path, data in contents(local).items():
        assert (epath.Path(out) / path).read_bytes() == data, path
    remote, here = pickle.loads(pickle.dumps(read_records(out, "test"))), read_records(local, "test")
    assert list(remote.samples) == list(here.samples)
    assert np.array_equal(remote.example(0)[1][0].frames, here.example(0)[1][0].frames)
    lengths = [each.lengths(Tokenizer.embedded()).text for each in (remote, here)]
    assert np.array_equal(*lengths)
    remote.verify()
