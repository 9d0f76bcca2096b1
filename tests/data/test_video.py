"""Frames, sizes and patches against other people's values; bad files against clear messages."""

import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.conftest import golden
from videmo_jax.data.video import (
    ClipCache,
    FrameSpec,
    VideoError,
    patchify,
    read_clip,
    sample_indices,
    smart_resize,
)

GOLDEN = golden("frames")
SPEC = FrameSpec()


def write_video(path: Path, count: int = 30, size: tuple[int, int] = (64, 48), rotation: int = 0) -> Path:
    """A clip whose brightness tells the frame's number (8 a frame), with a white upper left quarter."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(count):
            frame = np.full((height, width, 3), number * 8 % 256, np.uint8)
            frame[: height // 2, : width // 2] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def remux(source: Path, target: Path, skip: int = 0, **options: str) -> Path:
    """Copies the packets of a clip, without the first `skip`."""
    with av.open(str(source)) as before, av.open(str(target), "w", options=options) as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in [packet for packet in before.demux(video=0) if packet.size][skip:]:
            packet.stream = stream
            after.mux(packet)
    return target


def write_audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_cover(path: Path) -> Path:
    """A picture that players show beside sound is a video stream too, but no video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        stream.disposition = Disposition.attached_pic
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuvj420p")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", GOLDEN["clips"])
def test_clip_equals_the_golden_one(emo_cfg_mini, name):
    expected, tolerance = GOLDEN["clips"][name], GOLDEN["tolerance"]
    clip = read_clip(emo_cfg_mini / name, SPEC)
    assert clip.decoded_frames == expected["decoded_frames"]
    assert clip.indices.tolist() == expected["indices"]
    assert clip.average_rate == pytest.approx(expected["average_rate"], abs=1e-6)
    assert clip.seconds_per_grid == pytest.approx(expected["seconds_per_grid"], abs=1e-6)
    assert list(clip.frames.shape) == [len(expected["indices"]), *expected["resized"], 3]
    means = np.array(expected["frame_mean_rgb"])
    np.testing.assert_allclose(clip.frames.mean((1, 2)), means, atol=tolerance["frame_mean_rgb"], rtol=0)
    for pixel in expected["pixels"]:
        difference = clip.frames[tuple(pixel["at"])].astype(int) - pixel["rgb"]
        assert np.abs(difference).max() <= tolerance["pixels"]
    patches, patch_hw = patchify(clip.frames, SPEC)
    slabs, rows, columns = expected["grid_thw"]
    assert patches.shape == (slabs, rows * columns, 1176) and patches.dtype == np.uint8
    assert (patch_hw.max((0, 1)) + 1).tolist() == [rows, columns]
    assert patches.shape[0] * patches.shape[1] // 4 == expected["video_tokens"]


@pytest.mark.parametrize("rate", [12.0, 24000 / 1001, 25.0, 26.397925, 30000 / 1001, 60.0])
def test_indices_equal_those_of_torch(rate):
    torch = pytest.importorskip("torch")
    for total in [*range(2, 1200), 5_001, 35_999]:
        # The rule of qwen-vl-utils, written out.
        count = min(min(max(total / rate * 2.0, 4), 16), total)
        count = math.floor(count / 2) * 2
        expected = torch.linspace(0, total - 1, count).round().long().tolist()
        assert sample_indices(total, rate, SPEC).tolist() == expected, (total, rate)


@given(
    total=st.integers(1, 36_000),
    rate=st.floats(0.5, 240),
    limits=st.lists(st.integers(1, 64), min_size=2, max_size=2).map(sorted),
)
def test_indices_are_within_the_clip_and_rise(total, rate, limits):
    assume(limits[1] >= 2)
    spec = FrameSpec(min_frames=limits[0], max_frames=limits[1])
    indices = sample_indices(total, rate, spec)
    assert indices[0] == 0 and indices[-1] == (total - 1 if len(indices) > 1 else 0)
    assert len(indices) == 1 if total == 1 else len(indices) % 2 == 0
    assert len(indices) <= limits[1] and (np.diff(indices) > 0).all()


@settings(deadline=None)  # the first example imports transformers
@given(st.integers(1, 8000), st.integers(1, 8000))
def test_size_equals_that_of_transformers(height, width):
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    assume(max(height, width) / min(height, width) <= 200)
    theirs = module.smart_resize(height, width, 28, SPEC.min_pixels, SPEC.max_pixels)
    assert smart_resize(height, width, SPEC) == theirs


def test_sizes_stay_within_the_limits():
    assert smart_resize(270, 480, SPEC) == (224, 420)
    assert smart_resize(28, 28, SPEC) == (336, 336)  # enlarged: 336 x 336 is above 105,369 but that's the oracle's rule
    with pytest.raises(VideoError, match="one side is over 200 times the other"):
        smart_resize(10, 2001, SPEC)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0.0}, "rate is 0.0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"min_frames": 20}, "max_frames is 16"),
        ({"min_frames": 1, "max_frames": 1}, "max_frames is 1"),
        ({"max_pixels": 100_000}, "max_pixels is 100000"),
    ],
)
def test_impossible_spec_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        FrameSpec(**values)


def random_frames(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_patch_order_is_that_of_the_video_processor(count):
    try:
        from transformers import Qwen2VLVideoProcessor

        processor = Qwen2VLVideoProcessor(cap_pixels_per_frame=False)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"transformers' video processor needs a torchvision that loads here: {str(error).strip()[:80]}")
    torch = pytest.importorskip("torch")
    frames = random_frames(count, 84, 112)
    channels_first = torch.from_numpy(frames).permute(0, 3, 1, 2)
    switches = dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_sample_frames"), False)
    theirs = processor(videos=[channels_first], return_tensors="np", **switches)
    patches, patch_hw = patchify(frames, SPEC)
    np.testing.assert_array_equal(patches.reshape(-1, 1176), theirs["pixel_values_videos"])
    assert theirs["video_grid_thw"].tolist() == [[len(patches), *(patch_hw.max((0, 1)) + 1).tolist()]]


def test_patch_order_is_that_of_the_image_processor():
    """The processor without torchvision knows single images, each repeated in time: compare frame by frame."""
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    processor = module.Qwen2VLImageProcessorPil(do_resize=False, do_rescale=False, do_normalize=False)
    frames = random_frames(4, 84, 112)
    theirs = processor(list(frames), return_tensors="np")
    slabs, rows, columns = 2, 6, 8
    assert theirs["image_grid_thw"].tolist() == [[1, rows, columns]] * 4
    theirs_by_frame = theirs["pixel_values"].reshape(slabs, 2, rows * columns, 3, 2, 14, 14)
    ours = patchify(frames, SPEC)[0].reshape(slabs, rows * columns, 3, 2, 14, 14)
    for time in range(2):
        np.testing.assert_array_equal(ours[:, :, :, time], theirs_by_frame[:, time, :, :, 0])


def test_patches_know_their_place():
    rows, columns = np.indices((4, 6))
    place = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    frames = np.repeat(np.repeat(place, 14, axis=0), 14, axis=1)[None]
    patches, patch_hw = patchify(frames, SPEC)
    assert patch_hw.dtype == np.int32 and patch_hw.shape == (1, 24, 2)
    corners = patches.reshape(1, 24, 3, 2, 196)[:, :, :2, 0, 0]
    np.testing.assert_array_equal(corners, patch_hw)
    assert patch_hw[0, :5].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2]]


def test_odd_last_frame_is_repeated():
    frames = random_frames(3, 28, 28)
    np.testing.assert_array_equal(patchify(frames, SPEC)[0], patchify(frames[[0, 1, 2, 2]], SPEC)[0])


@pytest.mark.parametrize("shape", [(0, 28, 28, 3), (2, 27, 28, 3), (2, 28, 42, 3)])
def test_frames_that_do_not_divide_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 28"):
        patchify(np.zeros(shape, np.uint8), SPEC)


@pytest.mark.parametrize(("count", "indices"), [(1, [0]), (2, [0, 1]), (3, [0, 2]), (5, [0, 1, 3, 4])])
def test_short_clip_gives_what_it_has(tmp_path, count, indices):
    clip = read_clip(write_video(tmp_path / "short.mp4", count), SPEC)
    assert clip.indices.tolist() == indices and clip.decoded_frames == count
    brightness = clip.frames[:, -1, -1].mean(-1)
    np.testing.assert_allclose(brightness, 8 * np.array(indices), atol=4)
    assert len(patchify(clip.frames, SPEC)[0]) == (len(indices) + 1) // 2


def test_frames_are_counted_not_believed(tmp_path):
    """Without its first key frame the decoder drops frames that are in the file: the second pass corrects."""
    cut = remux(write_video(tmp_path / "whole.mkv", 30), tmp_path / "cut.mkv", skip=1)
    clip = read_clip(cut, SPEC)
    assert clip.decoded_frames < 29
    assert clip.indices.tolist() == sample_indices(clip.decoded_frames, 25.0, SPEC).tolist()
    first = 30 - clip.decoded_frames
    np.testing.assert_allclose(clip.frames[:, -1, -1].mean(-1), 8 * (clip.indices + first), atol=4)


def test_file_that_ends_early_is_used_as_far_as_it_goes(tmp_path):
    whole = remux(write_video(tmp_path / "whole.mp4", 30), tmp_path / "fast.mp4", movflags="faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:-20])
    clip = read_clip(cut, SPEC)
    assert clip.decoded_frames == 29 and clip.indices[-1] == 28
    np.testing.assert_allclose(clip.frames[:, -1, -1].mean(-1), 8 * clip.indices, atol=4)


def test_rotation_is_applied(tmp_path):
    upright = read_clip(write_video(tmp_path / "upright.mp4", 4, (128, 64)), SPEC).frames
    turned = read_clip(write_video(tmp_path / "turned.mp4", 4, (128, 64), rotation=90), SPEC).frames
    assert turned.shape[1:3] == upright.shape[2:0:-1]
    np.testing.assert_allclose(
        turned.astype(int), np.rot90(upright, axes=(1, 2)), atol=16
    )  # resized before or after turning


def test_frames_are_read_only(tmp_path):
    clip = read_clip(write_video(tmp_path / "a.mp4", 4), SPEC)
    with pytest.raises(ValueError, match="read-only"):
        clip.frames[0] = 0


def missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def empty(path: Path) -> None:
    path.touch()


def folder(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("not a video\n" * 500)


def truncated_index(path: Path) -> None:
    write_video(path)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov")])  # the index of this file stands at its end


def only_a_header(path: Path) -> None:
    whole = remux(write_video(path), path.with_name("fast.mp4"), movflags="faststart").read_bytes()
    path.write_bytes(whole[: whole.index(b"mdat") + 4])


def damaged(path: Path) -> None:
    with av.open(str(write_video(path))) as container:
        packet = list(container.demux(video=0))[20]
    content = bytearray(path.read_bytes())
    content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(content)


def playlist(path: Path) -> None:
    write_video(path.with_name("other.mp4"))
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")


def narrow(path: Path) -> None:
    write_video(path, 2, (4000, 16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "no such file"),
        (folder, "no such file"),
        (empty, "the file is empty"),
        (text, "cannot be read as a video"),
        (truncated_index, "cannot be read as a video"),
        (only_a_header, "not a single frame can be decoded"),
        (damaged, "is damaged a"),
        (playlist, "cannot be read as a video"),
        (write_audio, "holds no video stream"),
        (write_cover, "holds no video stream"),
        (narrow, "4000 x 16 pixels: one side is over 200 times the other"),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path, make, message):
    path = tmp_path / "clip.mp4"
    make(path)
    with pytest.raises(VideoError, match=f"clip.mp4: .*{message}"):
        read_clip(path, SPEC)


def test_giant_input_is_refused(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 30, (128, 64))
    with pytest.raises(VideoError, match=r"clip.mp4: frames of 128 x 64 pixels, more than the limit of 8,191"):
        read_clip(path, FrameSpec(max_source_pixels=128 * 64 - 1))
    with pytest.raises(VideoError, match=r"clip.mp4: holds more than 29 frames"):
        read_clip(path, FrameSpec(max_decoded_frames=29))
    assert read_clip(path, FrameSpec(max_source_pixels=128 * 64, max_decoded_frames=30)).decoded_frames == 30


def test_frame_size_may_not_grow_beyond_the_limit(tmp_path):
    """The header tells the first frames' size only."""
    parts = [write_video(tmp_path / f"{width}.h264", 30, (width, 48)).read_bytes() for width in (64, 640)]
    path = tmp_path / "clip.h264"
    path.write_bytes(b"".join(parts))
    assert read_clip(path, SPEC).decoded_frames == 60
    with pytest.raises(VideoError, match=r"clip\.h264: is damaged after frame 30"):
        read_clip(path, FrameSpec(max_source_pixels=2 * 64 * 48))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_random_damage_gives_a_clip_or_a_video_error(tmp_path, suffix):
    whole = write_video(tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"damaged{suffix}"
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        content = np.frombuffer(whole, np.uint8).copy()
        content[random.integers(0, len(whole), 8)] = random.integers(0, 256, 8)
        path.write_bytes(content[: random.integers(1, 2 * len(whole))].tobytes())
        try:
            assert read_clip(path, SPEC).decoded_frames > 0
        except VideoError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert 0 < refused < 60


def test_cache_gives_one_clip_to_all_threads(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    cache = ClipCache(10**8)
    with ThreadPoolExecutor(8) as pool:
        clips = list(pool.map(lambda _: cache.read(path, SPEC), range(32)))
    assert all(clip is clips[0] for clip in clips)
    other = cache.read(path, FrameSpec(max_frames=2, min_frames=2))
    assert len(other.frames) == 2 and cache.read(str(path), SPEC) is clips[0]


def test_cache_forgets_what_was_asked_for_longest_ago(tmp_path):
    a, b, c = (write_video(tmp_path / f"{name}.mp4", 4) for name in "abc")
    cache = ClipCache(2 * read_clip(a, SPEC).frames.nbytes)
    first_a, first_b = cache.read(a, SPEC), cache.read(b, SPEC)
    assert cache.read(a, SPEC) is first_a
    cache.read(c, SPEC)
    assert cache.read(a, SPEC) is first_a
    assert cache.read(b, SPEC) is not first_b
    tiny = ClipCache(1)
    assert tiny.read(a, SPEC) is tiny.read(a, SPEC)


def test_cache_remembers_failures(tmp_path):
    path = tmp_path / "late.mp4"
    cache = ClipCache(10**8)
    messages = []
    for _ in range(2):
        with pytest.raises(VideoError, match="no such file") as caught:
            cache.read(path, SPEC)
        messages.append(str(caught.value))
        write_video(path, 4)
    assert messages[0] == messages[1]
    assert pickle.loads(pickle.dumps(cache)).read(path, SPEC).decoded_frames == 4
