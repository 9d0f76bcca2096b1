"""The index of prepared records: the lengths that reading and encoding would give, measured once, found damaged."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from videmo_jax.data.chat import count_text_tokens, encode
from videmo_jax.data.records import RecordError, Settings, prepare, read_records, tokenizer_id
from videmo_jax.data.records.schema import SAMPLE_FEATURES, decode_sample, encode_sample
from videmo_jax.data.sample import Message, Sample
from videmo_jax.data.tokenizer import MAIN_FILE, Tokenizer
from videmo_jax.data.video import FrameSpec, patchify
from videmo_jax.model.positions import VisionGrid

SETTINGS = Settings(frames=FrameSpec(min_pixels=784, max_pixels=12_544), shard_size=5)


@pytest.fixture(scope="module")
def records(synthetic, tmp_path_factory):
    """The synthetic set, with some samples without a clip and with two, as records."""
    root = Path(shutil.copytree(synthetic, tmp_path_factory.mktemp("data") / "data"))
    file = sorted((root / "jsons/train").rglob("*.json"))[0]
    first = json.loads(file.read_text())[0]
    alone = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    other = next(path for path in (root / "videos").rglob("*.mp4") if not str(path).endswith(first["videos"][0]))
    two = {
        "messages": [{"role": "user", "content": "<video><video>Same?"}, {"role": "assistant", "content": "No"}],
        "videos": [*first["videos"], other.relative_to(root).as_posix()],
    }
    file.write_text(json.dumps([alone, *json.loads(file.read_text()), two, alone]))
    out = root.with_name("records")
    prepare(root, out, SETTINGS, workers=2)
    return root, out


def other_tokenizer():
    """The embedded one, without its last merges."""
    files = Tokenizer.embedded().files
    model = json.loads(files[MAIN_FILE])
    model["model"]["merges"] = model["model"]["merges"][:100]
    return Tokenizer.from_files({MAIN_FILE: json.dumps(model)})


def write(tokenizer, folder):
    folder.mkdir(parents=True)
    for name, text in tokenizer.files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("split", ["train", "test"])
def test_lengths_are_those_of_reading_and_encoding(records, split):
    opened, tokenizer = read_records(records[1], split), Tokenizer.embedded()
    lengths = opened.lengths(tokenizer)
    assert len(lengths) == len(opened.samples)
    assert (lengths.file.dtype, lengths.text.dtype) == (np.int16, np.int32)
    for number in range(len(lengths)):
        sample, clips = opened.example(number)
        slabs = [patchify(clip.frames, SETTINGS.frames)[0] for clip in clips]
        grids = [VisionGrid(len(s), c.frames.shape[1] // 14, c.frames.shape[2] // 14)
                 for s, c in zip(slabs, clips, strict=True)]  # fmt: skip
        encoded = encode(sample.messages, grids, tokenizer)
        assert lengths.files[lengths.file[number]] == sample.file
        assert lengths.vision[number] == sum(encoded.vision >= 0)
        assert lengths.text[number] == sum(encoded.vision < 0)
        assert lengths.slabs[number] == sum(map(len, slabs))
        assert lengths.patches[number] == max((s.shape[1] for s in slabs), default=0)


def test_every_form_of_conversation_is_counted_as_it_is_encoded():
    tokenizer = Tokenizer.embedded()
    conversations = [
        [Message("system", "S"), Message("user", "<video>a<video>\n"), Message("assistant", "")],
        [
            Message("user", "\n\nhi <|im_end|>"),
            Message("assistant", "<video>"),
            Message("user", "?"),
            Message("assistant", "é" * 50),
        ],
    ]
    for turns, count in zip(conversations, count_text_tokens(conversations, tokenizer), strict=True):
        tags = sum(turn.content.count("<video>") for turn in turns if turn.role == "user")
        encoded = encode(turns, [VisionGrid(3, 2, 4)] * tags, tokenizer)
        assert count == sum(encoded.vision < 0)


@pytest.mark.parametrize("videos", [(), ("a.mp4", "é.mp4")])
@pytest.mark.parametrize("source", [None, "x_QA_Hair"])
def test_samples_are_written_as_tfds_writes_them(videos, source):
    sample = Sample("a#1", "a", (Message("user", "é"), Message("assistant", "")), videos, source)
    example = {
        "id": sample.id,
        "file": sample.file,
        "messages": [{"role": turn.role, "content": turn.content} for turn in sample.messages],
        "videos": list(videos),
        "clips": list(range(len(videos))),
        "source": source or "",
    }
    theirs = ExampleSerializer(SAMPLE_FEATURES.get_serialized_info())
    written = theirs.get_tf_example(SAMPLE_FEATURES.encode_example(example))
    ours = encode_sample(sample, example["clips"])
    assert written.SerializeToString(deterministic=True) == ours
    assert decode_sample(ours) == (sample, tuple(example["clips"]))


def test_another_tokenizer_is_added_to_finished_records(records, tmp_path):
    root, out = records[0], Path(shutil.copytree(records[1], tmp_path / "records"))
    other = other_tokenizer()
    with pytest.raises(RecordError, match=rf"{tokenizer_id(other)}.*launch/prepare.py .*--tokenizer DIR"):
        read_records(out).lengths(other)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "manifest.json"}
    prepare(root, out, SETTINGS, tokenizers=[Tokenizer.from_dir(write(other, tmp_path / "tokenizer"))], workers=1)
    assert all(path.read_bytes() == whole for path, whole in before.items())
    opened = read_records(out)
    ours, theirs = opened.lengths(Tokenizer.embedded()), opened.lengths(other)
    assert (theirs.text > ours.text).all() and np.array_equal(theirs.vision, ours.vision)
    whole = tmp_path / "whole"
    prepare(root, whole, SETTINGS, tokenizers=[Tokenizer.embedded(), other], workers=1)
    files = {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert files == {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_copy_for_a_worker_is_small(records):
    opened = read_records(records[1])
    opened.lengths(Tokenizer.embedded())
    packed = pickle.dumps(opened)
    assert len(packed) < 500
    assert pickle.loads(packed).example(3)[0] == opened.example(3)[0]


def test_a_damaged_index_is_named(records, tmp_path):
    out = Path(shutil.copytree(records[1], tmp_path / "records"))
    for file in sorted((out / "index").iterdir()):
        opened, whole = read_records(out), file.read_bytes()
        file.write_bytes(whole[:-1] + b"?")
        with pytest.raises(RecordError, match=rf"{file.name}: its checksum"):
            opened.verify()
        file.write_bytes(whole[:-1])
        with pytest.raises(RecordError, match=rf"{file.name}.*cut short"):
            read_records(out)
        file.write_bytes(whole)
    file = next((out / "index").glob("text-train-*"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(RecordError, match=rf"{file.name}: its checksum"):
        read_records(out).lengths(Tokenizer.embedded())
