"""What a record of a clip and of a sample holds, as features of TensorFlow Datasets."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.example_parser import ExampleParserNp
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.proto import tf_example_pb2

from videmo_jax.data.sample import Message, Sample
from videmo_jax.data.video import Clip
from videmo_jax.files.errors import UserError

# TFDS' name of the one split of the clips, which the samples of all splits share; `all` is reserved there.
CLIP_SPLIT = "every"

Grid = tuple[int, int, int]  # of a clip: slabs, height and width in patches

CLIP_FEATURES = tfds.features.FeaturesDict(
    {
        "path": tfds.features.Text(),  # of the video, relative to the dataset's root
        "frames": tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")),
        "indices": tfds.features.Sequence(tfds.features.Scalar(np.int64)),  # which of the decoded frames these are
        "size": tfds.features.Tensor(shape=(2,), dtype=np.int64),  # height and width in pixels
        "decoded_frames": tfds.features.Scalar(np.int64),
        "average_rate": tfds.features.Scalar(np.float64),  # frames per second of the file
        "seconds_per_grid": tfds.features.Scalar(np.float64),
    }
)

SAMPLE_FEATURES = tfds.features.FeaturesDict(
    {
        "id": tfds.features.Text(),
        "file": tfds.features.Text(),
        "messages": tfds.features.Sequence({"role": tfds.features.Text(), "content": tfds.features.Text()}),
        "videos": tfds.features.Sequence(tfds.features.Text()),
        "clips": tfds.features.Sequence(tfds.features.Scalar(np.int64)),  # places of its clips in the clips' records
        "source": tfds.features.Text(),  # empty where the sample names none
    }
)


class RecordError(UserError):
    """Records cannot be written or read; the message says which file, what is wrong and what to do."""


def encode_clip(path: str, clip: Clip, quality: int) -> bytes:
    """The record of one clip; `quality` is JPEG's, from 1 to 100."""
    return _serialize(
        CLIP_FEATURES,
        {
            "path": path,
            "frames": [_jpeg(frame, quality) for frame in clip.frames],
            "indices": clip.indices,
            "size": np.array(clip.frames.shape[1:3]),
            "decoded_frames": clip.decoded_frames,
            "average_rate": clip.average_rate,
            "seconds_per_grid": clip.seconds_per_grid,
        },
    )


def decode_clip(data: bytes) -> Clip:
    """The clip of one record.

    Raises:
      RecordError: the frames are not what the record says.
    """
    record = _parse(CLIP_FEATURES, data)
    height, width = (int(side) for side in record["size"])
    frames = np.empty((len(record["frames"]), height, width, 3), np.uint8)
    for number, frame in enumerate(record["frames"]):
        with Image.open(io.BytesIO(frame), formats=("JPEG",)) as image:
            if image.size != (width, height) or image.mode != "RGB":
                raise RecordError(
                    f"clip {record['path'].decode()}: frame {number} is {image.mode} of {image.size}, its record says "
                    f"RGB of {(width, height)}; prepare the records again"
                )
            frames[number] = image
    frames.flags.writeable = False
    return Clip(
        frames,
        np.asarray(record["indices"], np.int64),
        int(record["decoded_frames"]),
        float(record["average_rate"]),
        float(record["seconds_per_grid"]),
    )


def encode_sample(sample: Sample, clips: Sequence[int]) -> bytes:
    """The record of one sample whose videos are the given clips."""
    # What TFDS writes for SAMPLE_FEATURES, made directly: its own serializer takes ten times as long.
    example = tf_example_pb2.Example()
    fields = example.features.feature
    texts = {
        "id": [sample.id],
        "file": [sample.file],
        "messages/role": [turn.role for turn in sample.messages],
        "messages/content": [turn.content for turn in sample.messages],
        "videos": sample.videos,
        "source": [sample.source or ""],
    }
    for name, values in texts.items():
        fields[name].bytes_list.value.extend([value.encode() for value in values])
    fields["clips"].int64_list.value.extend(clips)
    return example.SerializeToString(deterministic=True)


def decode_sample(data: bytes) -> tuple[Sample, tuple[int, ...]]:
    """The sample of one record, and its clips."""
    fields = tf_example_pb2.Example.FromString(data).features.feature

    def texts(name: str) -> list[str]:
        return [value.decode() for value in fields[name].bytes_list.value]

    sample = Sample(
        texts("id")[0],
        texts("file")[0],
        tuple(map(Message, texts("messages/role"), texts("messages/content"))),
        tuple(texts("videos")),
        texts("source")[0] or None,
    )
    return sample, tuple(fields["clips"].int64_list.value)


def _serialize(features: tfds.features.FeaturesDict, example: Mapping[str, Any]) -> bytes:
    # TFDS writes the fields in an order that differs from process to process; the same input must give the same bytes.
    serializer = ExampleSerializer(features.get_serialized_info())
    return serializer.get_tf_example(features.encode_example(example)).SerializeToString(deterministic=True)


def _parse(features: tfds.features.FeaturesDict, data: bytes) -> Mapping[str, Any]:
    """The fields of a record. TFDS' whole decoding would take images apart one by one through several layers."""
    return ExampleParserNp(features.get_serialized_info()).parse_example(data)


def _jpeg(frame: np.ndarray, quality: int) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    file.seek(0)
    return file
