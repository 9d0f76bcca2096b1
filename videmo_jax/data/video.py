"""From a video file to Qwen2.5-VL's patches, as the vision tower was trained on them (PAPER.md section 7).

`read_clip` decodes, samples and resizes; `patchify` cuts the frames; `ClipCache` shares clips between the many samples
that ask about one. Frames stay uint8: scaling and normalising run on the device.
"""

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from einops import rearrange, repeat
from jaxtyping import Int32, Int64, UInt8
from PIL import Image

from videmo_jax.files.errors import UserError
from videmo_jax.model.positions import VisionGrid

# Containers that hold their own frames. FFmpeg also opens playlists, which would read other files of this machine.
CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegts,mpegvideo,h264,hevc,ivf,flv,asf,ogg,gif"
# Titles in other encodings are common, and nobody reads them here. PyAV 19 bears them by itself, without an option.
TITLES = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
NO_FRAME = "not a single frame can be decoded; download or convert it again"
MAX_ASPECT = 200  # qwen-vl-utils refuses beyond


class VideoError(UserError):
    """A video cannot be used; the message says which, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """How a clip becomes frames and patches; the defaults are VidEmo's evaluation setting (PAPER.md section 7)."""

    rate: float = 2.0  # frames sampled per second of video
    min_frames: int = 4  # frames; a clip that has fewer gives what it has
    max_frames: int = 16  # frames; the paper's limit
    min_pixels: int = 100_352  # pixels of a resized frame; VIDEO_MAX_PIXELS of the paper acts as the minimum
    max_pixels: int = 105_369  # pixels of a resized frame; qwen-vl-utils raises it to 1.05 x the minimum
    patch: int = 14  # pixels along each side of a patch
    merge: int = 2  # patches along each side of a merged token
    temporal_patch: int = 2  # frames of a slab
    max_decoded_frames: int = 36_000  # frames of the file, 20 minutes at 30 a second; ours: bounds time
    max_source_pixels: int = 7680 * 4320  # pixels of a frame of the file, 8K; ours: bounds memory

    def __post_init__(self) -> None:
        for item in fields(self):
            if not getattr(self, item.name) > 0:
                raise UserError(f"FrameSpec.{item.name} is {getattr(self, item.name)}, must be above 0")
        if self.min_frames > self.max_frames or self.max_frames < self.temporal_patch:
            raise UserError(
                f"FrameSpec.max_frames is {self.max_frames}, must be at least min_frames ({self.min_frames}) "
                f"and temporal_patch ({self.temporal_patch})"
            )
        if self.min_pixels > self.max_pixels:
            raise UserError(f"FrameSpec.max_pixels is {self.max_pixels}, below min_pixels ({self.min_pixels})")

    @property
    def factor(self) -> int:
        """Pixels along each side of a merged token: a frame's sides are multiples of it."""
        return self.patch * self.merge


@dataclass(frozen=True, slots=True)
class Clip:
    """The sampled frames of one video.

    Attributes:
      frames: RGB, resized; read-only, because clips are shared.
      indices: which of the decoded frames these are.
      decoded_frames: frames that the file really holds, whatever it declares.
      average_rate: frames per second of the file.
      seconds_per_grid: seconds from one slab to the next at the rate really sampled.
    """

    frames: UInt8[np.ndarray, "F H W 3"]
    indices: Int64[np.ndarray, "F"]
    decoded_frames: int
    average_rate: float
    seconds_per_grid: float


def sample_indices(decoded_frames: int, average_rate: float, spec: FrameSpec) -> Int64[np.ndarray, "F"]:
    """Which frames of a clip the model sees: evenly spread, first and last included (qwen-vl-utils).

    Args:
      decoded_frames: frames of the clip, at least 1.
      average_rate: frames per second of the clip.
      spec: rate and limits; the count is floored to whole slabs, but a clip of a single frame gives that frame.
    """
    slab = spec.temporal_patch
    lowest = math.ceil(spec.min_frames / slab) * slab
    highest = math.floor(spec.max_frames / slab) * slab
    count = min(max(decoded_frames / average_rate * spec.rate, lowest), highest, decoded_frames)
    count = max(math.floor(count / slab) * slab, 1)
    # The oracle rounds torch's float32 linspace, half to even. With an even count no value lies half-way, and float32
    # errs by less than the distance to it, so that float64 gives the same frames.
    return np.linspace(0, decoded_frames - 1, count).round().astype(np.int64)


def smart_resize(height: int, width: int, spec: FrameSpec) -> tuple[int, int]:
    """Height and width in pixels nearest the aspect, multiples of `spec.factor`, within the limits of `spec`.

    Raises:
      VideoError: one side is more than 200 times the other.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise VideoError(f"frames of {width} x {height} pixels: one side is over {MAX_ASPECT} times the other; crop it")
    factor = spec.factor
    resized = [max(factor, round(side / factor) * factor) for side in (height, width)]
    if math.prod(resized) > spec.max_pixels:
        shrink = math.sqrt(height * width / spec.max_pixels)
        resized = [max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)]
    elif math.prod(resized) < spec.min_pixels:
        grow = math.sqrt(spec.min_pixels / (height * width))
        resized = [math.ceil(side * grow / factor) * factor for side in (height, width)]
    return resized[0], resized[1]


def read_clip(path: str | os.PathLike[str], spec: FrameSpec) -> Clip:
    """Decodes a video file and samples its frames; the display rotation that the file asks for is applied.

    The file's own frame count is not believed: packets are counted first (no decoding), frames are taken by that count,
    and where the decoder gives another number, a second pass takes the right ones. A file that merely ends early (a cut
    download) is used with the frames it has; damage before its last packet is an error. Pixels are taken as square.

    Raises:
      VideoError: the file is missing, empty, no video, damaged, beyond the limits, or without a frame.
    """
    path = Path(path)
    with _named_faults(path):
        return _read(path, spec)


def clip_grid(path: str | os.PathLike[str], spec: FrameSpec) -> VisionGrid:
    """The patches that `read_clip` and `patchify` will give, by the file's packets and its first frame.

    A file whose packets do not all give a frame may hold another number of slabs.

    Raises:
      VideoError: as `read_clip`, for what can be seen without decoding the whole.
    """
    path = Path(path)
    with _named_faults(path):
        expected, rate = _survey(path, spec)
        frames, decoded = _take(path, np.zeros(1, np.int64), spec, first_only=True)
        if not decoded:
            raise VideoError(NO_FRAME)
        count = len(sample_indices(max(expected, 1), rate, spec))
        height, width = (side // spec.patch for side in frames[0].shape[:2])
        return VisionGrid(math.ceil(count / spec.temporal_patch), height, width)


@contextmanager
def _named_faults(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong with a file into a VideoError that names it."""
    try:
        if not path.is_file():
            raise VideoError("no such file; check the path and the download")
        if not path.stat().st_size:
            raise VideoError("the file is empty; download it again")
        yield
    except VideoError as error:
        raise VideoError(f"{path}: {error}") from None
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:  # PyAV stumbles in many ways
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"{path}: cannot be read as a video ({reason}); download or convert it again") from error


def _read(path: Path, spec: FrameSpec) -> Clip:
    expected, rate = _survey(path, spec)
    indices = sample_indices(max(expected, 1), rate, spec)
    frames, decoded = _take(path, indices, spec)
    if not decoded:
        raise VideoError(NO_FRAME)
    if decoded != expected:
        indices = sample_indices(decoded, rate, spec)
        frames, decoded = _take(path, indices, spec)
    stacked = np.stack(frames)
    stacked.flags.writeable = False
    sampled_rate = len(indices) / decoded * rate
    return Clip(stacked, indices, decoded, rate, spec.temporal_patch / sampled_rate)


@contextmanager
def _open(path: Path, spec: FrameSpec) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its first video stream that is no cover picture."""
    with av.open(str(path), options={"format_whitelist": CONTAINERS}, **TITLES) as container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoError("holds no video stream; give a file that has one")
        decoder = streams[0].codec_context
        if decoder is None:
            raise VideoError("its codec cannot be decoded here; convert it, for example to H.264")
        if decoder.width * decoder.height > spec.max_source_pixels:
            raise VideoError(
                f"frames of {decoder.width} x {decoder.height} pixels, more than the limit of "
                f"{spec.max_source_pixels:,}; scale it down, or raise max_source_pixels"
            )
        decoder.thread_count = 1  # workers are the parallelism
        decoder.options = {"max_pixels": str(spec.max_source_pixels)}  # the stream may contradict the file's header
        yield container, streams[0]


def _survey(path: Path, spec: FrameSpec) -> tuple[int, float]:
    """Counts the packets that should give a frame, without decoding, and finds the frames per second."""
    count, cut = 0, False
    with _open(path, spec) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise VideoError("declares no frame rate; convert it")
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            if cut:
                raise VideoError(f"is damaged at frame {count}; download or convert it again")
            cut = packet.is_corrupt
            count += not cut
            _bound(count, spec)
    return count, float(rate)


def _take(
    path: Path, indices: Int64[np.ndarray, "F"], spec: FrameSpec, *, first_only: bool = False
) -> tuple[list[np.ndarray], int]:
    """Decodes the whole clip, or its first frame, keeps the frames of `indices`, resized, and counts all."""
    wanted, frames, size, count = set(indices.tolist()), [], None, 0
    with _open(path, spec) as (container, stream):
        for frame in _decode(container, stream):
            if count in wanted:
                image = frame.to_image()
                if frame.rotation:  # counter-clockwise degrees, in FFmpeg as in Pillow
                    image = image.rotate(90 * round(frame.rotation / 90), expand=True)
                size = size or smart_resize(image.height, image.width, spec)
                frames.append(np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC)))
            count += 1
            _bound(count, spec)
            if first_only:
                break
    return frames, count


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """All frames in order of display; a last packet that was cut off is left out."""
    count = 0
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_corrupt:
                for frame in stream.decode(packet):
                    count += 1
                    yield _whole(frame, count)
        for frame in stream.decode(None):
            count += 1
            yield _whole(frame, count)
    except av.error.FFmpegError as error:
        raise VideoError(f"is damaged after frame {count} ({error.strerror}); download or convert it again") from error


def _whole(frame: av.VideoFrame, number: int) -> av.VideoFrame:
    """The frame, unless the decoder had to invent a part of it."""
    if frame.is_corrupt:
        raise VideoError(f"is damaged at frame {number}; download or convert it again")
    return frame


def _bound(frames: int, spec: FrameSpec) -> None:
    if frames > spec.max_decoded_frames:
        raise VideoError(f"holds more than {spec.max_decoded_frames:,} frames; cut it, or raise max_decoded_frames")


def patchify(
    frames: UInt8[np.ndarray, "F H W 3"], spec: FrameSpec
) -> tuple[UInt8[np.ndarray, "S P V"], Int32[np.ndarray, "S P 2"]]:
    """Cuts frames into the vision tower's patches.

    Returns:
      The patches of each slab, 1,176 values each in the order channel, time, row, column, and each patch's row and
      column in units of patches. Patches follow one another in merge groups: `merge` x `merge` patches that become
      one token stand together. An odd last frame is repeated.

    Raises:
      ValueError: height or width is no multiple of `spec.factor`.
    """
    count, height, width, _ = frames.shape
    if not count or height % spec.factor or width % spec.factor:
        raise UserError(f"{count} frames of {width} x {height} pixels; the sides must be multiples of {spec.factor}")
    if missing := -count % spec.temporal_patch:
        frames = np.concatenate([frames, repeat(frames[-1], "h w c -> n h w c", n=missing)])
    patches = rearrange(
        frames,
        "(s t) (gh mh ph) (gw mw pw) c -> s (gh gw mh mw) (c t ph pw)",
        t=spec.temporal_patch,
        mh=spec.merge,
        ph=spec.patch,
        mw=spec.merge,
        pw=spec.patch,
    )
    rows_and_columns = np.indices((height // spec.patch, width // spec.patch), dtype=np.int32)
    patch_hw = repeat(
        rows_and_columns,
        "hw (gh mh) (gw mw) -> s (gh gw mh mw) hw",
        s=len(patches),
        mh=spec.merge,
        mw=spec.merge,
    )
    return patches, patch_hw


class ClipCache:
    """The clips read last, by path and spec; threads may share one.

    A clip that several threads ask for at once is decoded once. Failures are remembered too, so that a bad video costs
    its decoding time once. A copy sent to another process starts empty.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keeps clips until their frames take more than `max_bytes`; the one asked for last is always kept."""
        self.max_bytes = max_bytes
        self._entries: OrderedDict[tuple[str, FrameSpec], Future[Clip | str]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["ClipCache"], tuple[int]]:
        return ClipCache, (self.max_bytes,)

    def read(self, path: str | os.PathLike[str], spec: FrameSpec) -> Clip:
        """As `read_clip`, from memory where possible."""
        key = (os.fspath(path), spec)
        with self._lock:
            entry = self._entries.get(key)
            mine = entry is None
            if entry is None:
                entry = self._entries[key] = Future()
            self._entries.move_to_end(key)
        if mine:
            self._fill(key, entry)
        result = entry.result()
        if isinstance(result, str):
            raise VideoError(result)
        return result

    def _fill(self, key: tuple[str, FrameSpec], entry: "Future[Clip | str]") -> None:
        try:
            result = read_clip(*key)
        except VideoError as error:
            result = str(error)  # text, because a kept exception would keep its frames alive
        except BaseException as error:  # says nothing about the file: those who wait hear it, the next one tries again
            with self._lock:
                del self._entries[key]
            entry.set_exception(error)
            return
        with self._lock:
            self._bytes += _size(result)
            # Oldest first; what is still being read, this entry among it, is not done and stays.
            for old in [other for other, future in self._entries.items() if future.done()]:
                if self._bytes <= self.max_bytes:
                    break
                self._bytes -= _size(self._entries.pop(old).result())
        entry.set_result(result)


def _size(result: Clip | str) -> int:
    return len(result) if isinstance(result, str) else result.frames.nbytes
