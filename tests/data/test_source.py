"""Videos and records are one source to the trainer: the same samples, lengths and batches, the same faults named."""

import json
import pickle
import shutil

import numpy as np
import pytest

from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.mixture import everything
from videmo_jax.data.packing import RowPlan, Sizes
from videmo_jax.data.pipeline import RowMaker, TrainingBatches
from videmo_jax.data.records import RecordError, Settings, prepare
from videmo_jax.data.rows import Budget
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.source import SampleError, SourceError, fitting, open_source
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec
from videmo_jax.model.config import VisionConfig

FRAMES = FrameSpec(min_pixels=56 * 56, max_pixels=56 * 56)
BUDGET = Budget(512, 8, 16)
TEXTS = [
    {"conversations": [{"from": "human", "value": f"Say {n}."}, {"from": "gpt", "value": "It is " + "so " * n}]}
    for n in range(6)
]


@pytest.fixture(scope="module")
def instructions(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "magpie.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in TEXTS))
    return path


@pytest.fixture(scope="module")
def records(synthetic, instructions, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "records"
    prepare(synthetic, out, Settings(frames=FRAMES, quality=100), instructions=[instructions])
    return out


@pytest.fixture(scope="module")
def sources(synthetic, instructions, records):
    tokenizer = Tokenizer.embedded()
    videos, rejected = open_source(synthetic, "train", FRAMES, tokenizer, instructions=[instructions])
    assert not rejected
    return videos, open_source(records, "train", FRAMES, tokenizer)[0]


def everyone(source):
    return np.ones(len(source), bool)


def test_both_know_the_same_samples_and_lengths(sources):
    videos, records = sources
    assert len(videos) == len(records)
    assert videos.files.names == records.files.names
    np.testing.assert_array_equal(videos.files.file, records.files.file)
    ours, theirs = (source.lengths(everyone(source)) for source in sources)
    for column in ("tokens", "slabs", "patches"):
        np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column))
    texts = videos.files.chosen(lambda name: name.startswith("instructions/"))
    assert texts.sum() == len(TEXTS) and not ours.slabs[texts].any()
    for number in (0, 57, len(videos) - 1):
        (sample, clips), (recorded, stored) = videos[number], records[number]
        assert sample == recorded and videos.id(number) == records.id(number) == sample.id
        for clip, other in zip(clips, stored, strict=True):
            assert clip.frames.shape == other.frames.shape
            assert clip.seconds_per_grid == other.seconds_per_grid


@pytest.mark.parametrize("workers", [0, 2])
def test_both_give_the_same_rows_but_for_the_losses_of_jpeg(sources, workers):
    batches = []
    for source in sources:
        skips = SkipLog(None, total=len(source), max_share=0)
        wanted = everyone(source)
        lengths = source.lengths(wanted)
        numbers = np.flatnonzero(fitting(source, lengths, wanted, BUDGET, skips)).astype(np.int32)
        plan = RowPlan(everything(numbers), Sizes(lengths.tokens, lengths.slabs), BUDGET, batch=4, seed=0)
        make = RowMaker(source, Preparer(Tokenizer.embedded(), InputSpec(FRAMES)), VisionConfig(), BUDGET)
        stream = TrainingBatches(plan, make, skips=skips, workers=workers)
        batches.append([next(stream) for _ in range(3)])
    for videos, records in zip(*batches, strict=True):
        for name in ("tokens", "segment_ids", "positions", "vision_index", "patch_hw"):
            np.testing.assert_array_equal(getattr(videos.rows, name), getattr(records.rows, name))
        np.testing.assert_array_equal(videos.weights, records.weights)
        apart = np.abs(videos.rows.patches.astype(int) - records.rows.patches)
        assert apart.mean() < 4 and apart.any()


def test_sources_travel_to_other_processes_without_what_only_the_trainer_needs(sources):
    for source in sources:
        sent = pickle.dumps(source)
        copy = pickle.loads(sent)
        assert copy[3][0] == source[3][0]
    assert len(pickle.dumps(sources[1])) < 2000


def test_records_made_another_way_are_refused(records, instructions):
    with pytest.raises(SourceError, match=r"max_frames: 16 there, 8 in the config"):
        open_source(records, "train", FrameSpec(min_pixels=56 * 56, max_pixels=56 * 56, max_frames=8),
                    Tokenizer.embedded())  # fmt: skip
    with pytest.raises(SourceError, match="prepare them with --instructions"):
        open_source(records, "train", FRAMES, Tokenizer.embedded(), instructions=[instructions])
    with pytest.raises(SourceError, match="no annotation file is named 'MAED_'; there are: CelebV"):
        open_source(records, "train", FRAMES, Tokenizer.embedded(), include=["MEAD_*", "MAED_"])
    with pytest.raises(RecordError, match="no split 'dev'"):
        open_source(records, "dev", FRAMES, Tokenizer.embedded())
    files = Tokenizer.embedded().files
    other = Tokenizer.from_files(files | {"tokenizer.json": files["tokenizer.json"] + " "})
    with pytest.raises(SourceError, match="not measured with tokenizer"):
        open_source(records, "train", FRAMES, other)


def test_a_damaged_record_costs_its_samples_and_is_named(records, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(records, copied)
    for shard in (copied / "clips").glob("*array_record*"):
        whole = bytearray(shard.read_bytes())
        whole[len(whole) // 4 : len(whole) // 4 + 40_000] = bytes(40_000)
        shard.write_bytes(whole)
    source, _ = open_source(copied, "train", FRAMES, Tokenizer.embedded())
    make = RowMaker(source, Preparer(Tokenizer.embedded(), InputSpec(FRAMES)), VisionConfig(), Budget(4096, 64, 16))
    held = left = 0
    for number in range(len(source)):
        batch, left_out = make(np.array([number], np.int32))
        held += int(batch.rows.segment_ids.max())
        left += len(left_out)
        for id, reason in left_out:
            assert id == source.id(number) and "cannot be read" in reason
            with pytest.raises(SampleError):
                source[number]
    assert held and left and held + left == len(source)


def test_lengths_are_only_measured_where_they_are_wanted(sources):
    videos, _ = sources
    wanted = np.zeros(len(videos), bool)
    wanted[[2, 5]] = True
    lengths = videos.lengths(wanted)
    assert np.flatnonzero(lengths.tokens).tolist() == [2, 5]
    skips = SkipLog(None, total=len(videos), max_share=1)
    assert np.flatnonzero(fitting(videos, lengths, wanted, Budget(10, 8, 16), skips)).tolist() == []
    assert set(skips.reasons) == {videos.id(2), videos.id(5)}
