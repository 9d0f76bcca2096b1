"""Records: read back by TFDS and by us, the same bytes for any workers, damage found, nothing lost unsaid."""

import fcntl
import json
import os
import pickle
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import tensorflow_datasets as tfds

from videmo_jax.data.emo_cfg import read_emo_cfg
from videmo_jax.data.records import RecordError, Settings, prepare, read_records
from videmo_jax.data.records.decoder import ClipDecoder, ClipRecipe
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec, VideoError, read_clip
from videmo_jax.files.errors import FileError

SMALL = FrameSpec(min_pixels=784, max_pixels=12_544)
SETTINGS = Settings(frames=SMALL, shard_size=5)


def contents(folder):
    """Every file below a folder and its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def report(out):
    lines = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    return {(line["kind"], line["id"]): line["reason"] for line in lines}


@pytest.fixture(scope="module")
def records(synthetic, tmp_path_factory):
    """The synthetic set as records."""
    out = tmp_path_factory.mktemp("records") / "records"
    prepare(synthetic, out, SETTINGS, workers=1)
    return out


@pytest.fixture
def copied(records, tmp_path):
    """The same records, to be damaged."""
    return Path(shutil.copytree(records, tmp_path / "copied"))


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_sample_comes_back_with_its_clips(synthetic, records, split):
    opened = pickle.loads(pickle.dumps(read_records(records, split)))
    expected = read_emo_cfg(synthetic, split).samples
    assert [opened.samples[index].sample for index in range(len(opened.samples))] == expected
    for index in range(0, len(expected), 20):
        for video, id in zip(expected[index].videos, opened.samples[index].clips, strict=True):
            decoded, stored = read_clip(synthetic / video, SMALL), opened.clip(id)
            assert stored.indices.tolist() == decoded.indices.tolist()
            assert (stored.decoded_frames, stored.average_rate) == (decoded.decoded_frames, decoded.average_rate)
            assert stored.seconds_per_grid == decoded.seconds_per_grid
            assert stored.frames.shape == decoded.frames.shape and not stored.frames.flags.writeable
            assert np.abs(stored.frames.astype(int) - decoded.frames).mean() < 4
    assert opened.frames == SMALL
    opened.verify()


def test_real_clips_are_stored_once_and_near_the_original(emo_cfg_mini, tmp_path):
    manifest = prepare(emo_cfg_mini, tmp_path / "out", Settings())
    opened = read_records(tmp_path / "out", "test")
    train = read_emo_cfg(emo_cfg_mini, "train", duplicates="reject")
    samples = read_emo_cfg(emo_cfg_mini, "test").samples + train.samples
    assert manifest["counts"]["left_out"] == ({"samples": len(train.rejected)} if train.rejected else {})
    assert manifest["counts"]["clips"] == len({video for sample in samples for video in sample.videos})
    assert sum(manifest["counts"]["tasks"].values()) == len(samples)
    recorded = opened.samples[0]
    frames = read_clip(emo_cfg_mini / recorded.sample.videos[0], FrameSpec()).frames
    assert np.abs(opened.clip(recorded.clips[0]).frames.astype(int) - frames).mean() < 2


def test_tfds_reads_the_records(synthetic, records):
    samples = tfds.builder_from_directory(records / "samples").as_data_source("train")
    clips = tfds.builder_from_directory(records / "clips").as_data_source("every")
    expected = read_emo_cfg(synthetic, "train").samples
    assert len(samples) == len(expected)
    opened = read_records(records, "train")
    for index in (0, len(samples) - 1):
        sample = samples[index]
        assert sample["id"].decode() == expected[index].id
        assert [text.decode() for text in sample["messages"]["content"]] == [
            m.content for m in expected[index].messages
        ]
        clip = clips[sample["clips"][0]]
        assert clip["path"].decode() == expected[index].videos[0]
        assert np.array_equal(np.stack(clip["frames"]), opened.clip(opened.samples[index].clips[0]).frames)


def test_two_workers_write_the_same_bytes(synthetic, records, tmp_path):
    prepare(synthetic, tmp_path / "out", SETTINGS, workers=2)
    assert contents(tmp_path / "out") == contents(records)


def test_a_finished_folder_is_left_as_it_is(synthetic, copied):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    prepare(synthetic, copied, SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (Settings(frames=SMALL, shard_size=5, quality=80), r"quality \(90, asked for 80\)"),
        (Settings(frames=SMALL, shard_size=6), "shard_size"),
        (Settings(frames=FrameSpec(min_pixels=784, max_pixels=12_544, max_frames=8), shard_size=5), "frames"),
        (Settings(frames=SMALL, shard_size=5, splits=("train",)), "splits"),
    ],
)
def test_another_recipe_is_refused(synthetic, copied, settings, named):
    with pytest.raises(RecordError, match=f"another recipe.*{named}"):
        prepare(synthetic, copied, settings)


def test_other_annotations_take_the_clips_and_other_folders_are_refused(synthetic, copied, tmp_path):
    other = Path(shutil.copytree(synthetic, tmp_path / "other"))
    file = sorted((other / "jsons/train").rglob("*.json"))[0]
    file.write_text(json.dumps(json.loads(file.read_text())[1:]))
    shards = {path: path.stat().st_mtime_ns for path in (copied / "clips").glob("*array_record*")}
    manifest = prepare(other, copied, SETTINGS)
    # Its samples are written again, and no clip is.
    assert {path: path.stat().st_mtime_ns for path in (copied / "clips").glob("*array_record*")} == shards
    assert manifest["counts"]["samples"] == {
        split: len(read_emo_cfg(other, split).samples) for split in SETTINGS.splits
    }
    prepare(other, tmp_path / "anew", SETTINGS)
    assert contents(copied) == contents(tmp_path / "anew")
    with pytest.raises(RecordError, match="holds something else"):
        prepare(synthetic, other, SETTINGS)


def test_finished_records_outlive_an_upgrade_and_unfinished_ones_do_not(synthetic, copied, monkeypatch):
    monkeypatch.setattr(sys.modules[prepare.__module__], "version", lambda name: "99")
    manifest = prepare(synthetic, copied, SETTINGS)
    assert "99" not in manifest["recipe"]["versions"].values()
    (copied / "manifest.json").unlink()
    with pytest.raises(RecordError, match="another recipe: versions"):
        prepare(synthetic, copied, SETTINGS)
    with pytest.raises(RecordError, match=r"launch/prepare\.py has not finished these records"):
        read_records(copied)


def test_two_runs_do_not_share_a_folder(synthetic, copied):
    (copied / "manifest.json").unlink()
    held = os.open(copied, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(RecordError, match="another run is writing there"):
        prepare(synthetic, copied, SETTINGS)
    os.close(held)


def test_damaged_records_are_named(copied):
    shard = sorted((copied / "clips").glob("*array_record*"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1000])
    with pytest.raises(RecordError, match=rf"{shard.name}.*cut short"):
        read_records(copied)
    shard.write_bytes(whole[:30_000] + bytes(100) + whole[30_100:])
    with pytest.raises(RecordError, match=rf"{shard.name}: its checksum"):
        read_records(copied).verify()
    shard.unlink()
    with pytest.raises(RecordError, match=rf"{shard.name}: missing"):
        read_records(copied)
    (copied / "manifest.json").write_text("{")
    with pytest.raises(FileError, match=r"manifest.json: no valid JSON.*prepare the records again"):
        read_records(copied)
    with pytest.raises(RecordError, match=r"no manifest.json"):
        read_records(copied / "clips")


def test_what_is_not_there_is_refused(records):
    with pytest.raises(RecordError, match="no split 'dev', only train, test"):
        read_records(records, "dev")
    opened = read_records(records)
    for id in (-1, opened.manifest["counts"]["clips"]):
        with pytest.raises(IndexError, match=f"clip {id}"):
            opened.clip(id)
    with pytest.raises(IndexError):
        opened.samples[len(opened.samples)]


def audio_only(path):
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def encode(path, count, width, height):
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8))))
        container.mux(stream.encode())


def link_out(path):
    outside = path.parents[3] / "outside.mp4"
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)


def folder(path):
    path.unlink()
    path.mkdir()


BREAK = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "a folder": folder,
    "a link out of the root": link_out,
    "text": lambda path: path.write_text("<html>404 Not Found</html>"),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "without its index": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "audio alone": audio_only,
    "a playlist": lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\n/etc/hostname\n"),
    "too many frames": lambda path: encode(path, 60, 64, 64),
    "a strip": lambda path: encode(path, 4, 2 * 202, 2),
    "giant frames": lambda path: encode(path, 4, 512, 512),
}


@pytest.fixture(scope="module")
def crowd(synthetic, tmp_path_factory):
    """240 clips, each with one sample of training, and some with one of test."""
    root = tmp_path_factory.mktemp("crowd") / "data"
    clips = sorted((synthetic / "videos").rglob("*.mp4"))
    records = []
    for number in range(20 * len(BREAK)):
        video = root / f"videos/MEAD/{number:03d}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips[number % len(clips)], video)
        turns = [{"role": "user", "content": f"<video>Who is {number}?"}, {"role": "assistant", "content": "A"}]
        records.append({"messages": turns, "videos": [video.relative_to(root).as_posix()]})
    for file, held in (("train/attribute/full/MEAD_ID", records), ("test/attribute/full/MEAD_ID", records[::7])):
        path = root / f"jsons/{file}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(held))
    return root


def test_broken_clips_are_listed_and_nothing_else_is_lost(crowd, tmp_path):
    root, out = Path(shutil.copytree(crowd, tmp_path / "data")), tmp_path / "out"
    whole = [sample for split in ("train", "test") for sample in read_emo_cfg(root, split).samples]
    videos = sorted({video for sample in whole for video in sample.videos})
    broken = dict(zip(videos[3::20], BREAK, strict=True))  # one in twenty, each in a way of its own
    for video, way in broken.items():
        BREAK[way](root / video)
    spec = FrameSpec(min_pixels=784, max_pixels=12_544, max_decoded_frames=50, max_source_pixels=256 * 256)
    settings = Settings(frames=spec, shard_size=40)
    with pytest.raises(RecordError, match=r"of train had to be left out, more than max_skipped_share = 0\.04 allows"):
        prepare(root, out, settings, workers=2, max_skipped_share=0.04)
    manifest = prepare(root, out, settings, workers=2, max_skipped_share=0.1)

    listed = report(out)
    lost = {sample.id for sample in whole if broken.keys() & set(sample.videos)}
    assert {id for kind, id in listed if kind == "sample"} == lost and len(lost) > len(broken)
    for sample in whole:
        if sample.id in lost:
            assert repr(sample.videos[0]) in listed["sample", sample.id]
    seen = {video for video, way in broken.items() if ("clip", video) in listed}
    # What the folder shows without decoding makes no clip, so that the samples alone are listed.
    early = {"missing", "empty", "a folder", "a link out of the root"}
    assert {broken[video] for video in seen} == set(BREAK) - early
    assert all(str(tmp_path) not in reason and len(reason) > 10 for reason in listed.values())
    assert manifest["counts"]["left_out"] == {"clips": len(seen), "samples": len(lost)}
    kept = []
    for opened in (read_records(out, split) for split in ("train", "test")):
        kept += [recorded.sample for recorded in opened.samples]
        lengths = opened.lengths(Tokenizer.embedded())
        assert len(lengths) == len(opened.samples) and (lengths.slabs > 0).all()
        for number in range(0, len(lengths), 10):
            sample, (clip,) = opened.example(number)
            assert clip.decoded_frames == read_clip(root / sample.videos[0], spec).decoded_frames
    assert kept == [sample for sample in whole if sample.id not in lost]


@dataclass(frozen=True, slots=True)
class Stubborn(ClipRecipe):
    """A decoder that hangs or dies, where the clip's name says so."""

    def __call__(self, path):
        if path == "hangs":
            time.sleep(3600)
        if path == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        return path.encode(), (1, 2, 2)


def test_a_decoder_that_hangs_or_dies_costs_one_clip():
    with ClipDecoder(Stubborn(Path(), SMALL, 90), seconds=2) as decoder:
        assert decoder("a") == (b"a", (1, 2, 2))
        with pytest.raises(VideoError, match="more than 2 s"):
            decoder("hangs")
        assert decoder("b") == (b"b", (1, 2, 2))
        with pytest.raises(VideoError, match=r"exit code -11"):
            decoder("dies")
        assert decoder("c") == (b"c", (1, 2, 2))


def test_what_comes_twice_in_training_is_left_out(synthetic, tmp_path):
    root, out = Path(shutil.copytree(synthetic, tmp_path / "data")), tmp_path / "out"
    for split in ("train", "test"):
        file = sorted((root / "jsons" / split).rglob("*.json"))[0]
        held = json.loads(file.read_text())
        file.write_text(json.dumps([*held, held[0]]))
    counts = {split: len(read_emo_cfg(root, split).samples) for split in ("train", "test")}
    manifest = prepare(root, out, SETTINGS, workers=2)
    assert manifest["counts"]["samples"] == counts | {"train": counts["train"] - 1}
    ((_, reason),) = report(out).items()
    assert reason.startswith("the same as train/") and reason.endswith(".json#0")


def test_instructions_follow_the_training_samples(synthetic, records, tmp_path):
    file = tmp_path / "magpie.jsonl"
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    bad = [{"from": "human", "value": "<video>Hi"}, {"from": "gpt", "value": "Hello"}]
    lines = [{"conversations": turns}, {"conversations": bad}, {"conversations": turns}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out"
    manifest = prepare(synthetic, out, SETTINGS, instructions=[file], workers=2)
    whole, plain = read_records(out), read_records(records)
    assert (
        len(whole.samples) == len(plain.samples) + 1 and manifest["files"]["train"][-1] == "instructions/magpie.jsonl"
    )
    assert [whole.samples[n] for n in range(len(plain.samples))] == list(plain.samples)
    sample, clips = whole.example(len(plain.samples))
    assert (sample.id, clips) == ("instructions/magpie.jsonl#1", ())
    assert report(out) == {
        ("sample", "instructions/magpie.jsonl#2"): "holds <video>, and instructions have no clips",
        ("sample", "instructions/magpie.jsonl#3"): "the same as instructions/magpie.jsonl#1",
    }
    with pytest.raises(RecordError, match=r"another recipe: instructions"):
        prepare(synthetic, out, SETTINGS)
    with pytest.raises(RecordError, match="belong to the split train"):
        prepare(synthetic, tmp_path / "new", Settings(splits=("test",), frames=SMALL), instructions=[file])


def test_no_usable_sample_is_an_error_with_a_report(tmp_path):
    annotations, video = tmp_path / "data/jsons/train/emotion/full/MEAD.json", tmp_path / "data/videos/a.mp4"
    annotations.parent.mkdir(parents=True)
    video.parent.mkdir()
    turns = [{"role": "user", "content": "<video>Who?"}, {"role": "assistant", "content": "A"}]
    annotations.write_text(json.dumps([{"messages": turns, "videos": ["videos/a.mp4"]}]))
    encode(video, 8, 64, 64)
    settings = Settings(splits=("train",), frames=SMALL)
    with pytest.raises(RecordError, match=r"no usable sample in train; .*report.jsonl says why"):
        prepare(tmp_path / "data", tmp_path / "out", settings, clip_seconds=0)
    slow = "decoding takes more than 0 s; convert it again"
    assert report(tmp_path / "out") == {
        ("clip", "videos/a.mp4"): slow,
        ("sample", "train/emotion/full/MEAD.json#0"): f"video 'videos/a.mp4' {slow}",
    }


@pytest.mark.parametrize("fields", [{"quality": 0}, {"quality": 101}, {"shard_size": 0}, {"splits": ()}])
def test_settings_are_checked(fields):
    with pytest.raises(RecordError):
        Settings(**fields)
