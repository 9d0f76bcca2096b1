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
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition
from av.video.stream import VideoStream
from einops import rearrange, repeat
from jaxtyping import Float64, Int32, Int64, UInt8
from PIL import Image

from videmo_jax.files.errors import UserError
from videmo_jax.model.positions import VisionGrid

# Containers that hold their own frames. FFmpeg also opens playlists, which would read other files of this machine.
CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegts,mpegvideo,h264,hevc,ivf,flv,asf,ogg,gif"
# Titles in other encodings are common, and nobody reads them here. PyAV 19 bears them by itself, without an option.
TITLES = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
NO_FRAME = "not a single frame can be decoded; download or convert it again"
MAX_ASPECT = 200  # qwen-vl-utils refuses beyond
RATES = (1 / 60, 480.0)  # frames per second that a clip may have; ours: a browser's clip claims 1000, its clock's ticks
SAME_RATE = 0.02  # a claimed rate this near to the measured one stays, as qwen-vl-utils samples by claims
LONGEST_GAP = 10.0  # seconds between frames; where clocks may start anew, ffmpeg, too, takes more for a jump

Stamps = list[tuple[int | None, int | None, int | None]]  # when to decode, when to show, for how long, in ticks


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
      average_rate: frames per second by the time stamps of the file (see `_rate`).
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
    """Decodes a video file and samples its frames, turned and mirrored as the file asks for.

    Of several videos in a file it is the one that ffmpeg chooses, too. The file's own frame count and rate are not
    believed: packets are counted first (no decoding), frames are taken by that count, and where the decoder gives
    another number, a second pass takes the right ones. A file that merely ends early (a cut download) is used with the
    frames it has; damage before its last packet is an error. Pixels are taken as square.

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
        frames, _ = _take(path, np.zeros(1, np.int64), spec, first_only=True)
        if not frames:
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
    frames, times = _take(path, indices, spec)
    decoded = len(times)
    if not decoded:
        raise VideoError(NO_FRAME)
    if decoded != expected:
        rate = _rate(times, [rate], spec)
        indices = sample_indices(decoded, rate, spec)
        frames, _ = _take(path, indices, spec)
    stacked = np.stack(frames)
    stacked.flags.writeable = False
    sampled_rate = len(indices) / decoded * rate
    return Clip(stacked, indices, decoded, rate, spec.temporal_patch / sampled_rate)


@contextmanager
def _open(path: Path, spec: FrameSpec) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and the video stream that the ffmpeg command takes: a default one, else the largest, else the first."""
    # Without "file:" FFmpeg takes what stands before a colon in a name for a protocol.
    with av.open(f"file:{path}", options={"format_whitelist": CONTAINERS}, **TITLES) as container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoError("holds no video stream; give a file that has one")
        stream = max(streams, key=_rank)
        decoder = stream.codec_context
        if decoder is None:
            raise VideoError("its codec cannot be decoded here; convert it, for example to H.264")
        if decoder.width * decoder.height > spec.max_source_pixels:
            raise VideoError(
                f"frames of {decoder.width} x {decoder.height} pixels, more than the limit of "
                f"{spec.max_source_pixels:,}; scale it down, or raise max_source_pixels"
            )
        decoder.thread_count = 1  # workers are the parallelism
        decoder.options = {"max_pixels": str(spec.max_source_pixels)}  # the stream may contradict the file's header
        yield container, stream


def _rank(stream: VideoStream) -> int:
    """Orders streams as ffmpeg does (map_auto_video of its fftools), but that those it cannot decode come last."""
    decoder = stream.codec_context
    if decoder is None:
        return -1
    return decoder.width * decoder.height + 5_000_000 * bool(stream.disposition & Disposition.default)


def _survey(path: Path, spec: FrameSpec) -> tuple[int, float]:
    """Counts the packets that should give a frame, without decoding, and finds the frames per second."""
    stamps: Stamps = []
    cut = trimmed = False
    with _open(path, spec) as (container, stream):
        for packet in container.demux(stream):
            trimmed |= packet.is_discard
            if not packet.size or packet.is_discard:
                continue
            if cut:
                raise VideoError(f"is damaged at frame {len(stamps)}; download or convert it again")
            cut = packet.is_corrupt
            if not cut:
                stamps.append((packet.dts, packet.pts, packet.duration))
            _bound(len(stamps), spec)
        times = _seconds(stamps, container, stream)
        if trimmed:  # by an edit list: when to decode says nothing of when to show
            times[:, 0] = times[:, 1]
        return len(stamps), _rate(times, [stream.average_rate, stream.guessed_rate], spec)


def _seconds(stamps: Stamps, container: InputContainer, stream: VideoStream) -> Float64[np.ndarray, "F 3"]:
    """Stamps in seconds, NaN where there is none, on one clock even where parts follow one another, each with its own.

    Only formats that are made for that (transport and programme streams, Ogg) may jump; elsewhere a gap is a gap.
    """
    times = np.array(stamps, np.float64).reshape(-1, 3) * float(stream.time_base or math.nan)
    if container.format.flags & Flags.ts_discont.value:
        steps = np.diff(times[:, 0])
        jumps = (steps < -0.1) | (steps > LONGEST_GAP)
        if jumps.any() and not jumps.all():
            shifts = np.where(jumps, steps - np.nanmedian(steps[~jumps]), 0.0)
            times[1:, :2] -= np.cumsum(shifts)[:, None]
    return times


def _rate(times: Float64[np.ndarray, "F 3"], claims: list[Fraction | float | None], spec: FrameSpec) -> float:
    """Frames per second: frames over the time from the first one's beginning to the last one's end.

    What the file claims stays where it agrees with that within 2 %, or with the same by the times to decode (a copied
    cut lacks frames near its end). Without time stamps the frames' lengths count, and without these the claims alone. A
    single frame has no rate: where the claim is absurd, too, it counts as sampled.

    Args:
      times: of each frame, when to decode it, when to show it, for how long, in seconds or NaN.
      claims: what the file says, the more trusted first.
      spec: its rate is a single frame's.

    Raises:
      VideoError: no rate can be found, or no video has such a one.
    """
    claimed = [float(claim) for claim in claims if claim]
    measured = [rate for column in (1, 0) if (rate := _measured(times[:, column], times[:, 2]))]
    if not measured and len(times) and (length := times[:, 2].mean()) > 0:  # a bare stream knows lengths alone
        measured = [float(1 / length)]
    agreeing = [claim for claim in claimed if any(abs(claim / rate - 1) <= SAME_RATE for rate in measured)]
    rate = next(iter(agreeing or measured or claimed), 0.0)
    if RATES[0] <= rate <= RATES[1]:
        return rate
    if len(times) < 2:
        return spec.rate
    if not rate:
        raise VideoError("declares no frame rate, and its frames carry no times; convert it")
    raise VideoError(f"its frames come at {rate:.3g} a second, beyond {RATES[0]:.2g} to {RATES[1]:g}; convert it")


def _measured(starts: Float64[np.ndarray, "F"], lengths: Float64[np.ndarray, "F"]) -> float | None:
    """Frames per second by the stamps of those frames that have one."""
    (stamped,) = np.nonzero(np.isfinite(starts))
    if not len(stamped):
        return None
    known = starts[stamped]
    ordered = np.sort(known)
    gaps = np.diff(ordered)
    if not gaps.any():
        return None
    # The last frame's length is a claim again (a browser's clip: one tick), but no frame is shorter than the shortest.
    last = np.fmax(lengths[stamped[np.argmax(known)]], gaps[gaps > 0].min())
    return float((stamped[-1] - stamped[0] + 1) / (ordered[-1] - ordered[0] + last))


def _take(
    path: Path, indices: Int64[np.ndarray, "F"], spec: FrameSpec, *, first_only: bool = False
) -> tuple[list[np.ndarray], Float64[np.ndarray, "N 3"]]:
    """Decodes the whole clip, or its first frame; gives the frames of `indices`, resized, and the times of all."""
    wanted, frames, size, turn = set(indices.tolist()), [], None, None
    stamps: Stamps = []
    with _open(path, spec) as (container, stream):
        for frame in _decode(container, stream):
            # The first frame's holds for all: within a stream it may stand there alone, and a frame that was asked for
            # its side data refers to itself, which keeps its picture in memory for long.
            turn = turn or _turn(frame)
            if len(stamps) in wanted:
                image = _turned(frame.to_image(), *turn)
                size = size or smart_resize(image.height, image.width, spec)
                frames.append(np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC)))
            stamps.append((frame.pts, frame.pts, frame.duration))
            _bound(len(stamps), spec)
            if first_only:
                break
        return frames, _seconds(stamps, container, stream)


def _turn(frame: av.VideoFrame) -> tuple[bool, int]:
    """What the frame's display matrix asks for: whether to mirror it, then to turn it by so many degrees clockwise."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # beside it stands a kind of data that this PyAV does not know
        return False, -frame.rotation
    if matrix is None:
        return False, 0
    # A point (x, y) is shown at (a x + c y, b x + d y), y downwards (libavutil/display.h).
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(np.float64)
    if a * d == b * c:  # shows nothing at all
        return False, 0
    return bool(a * d < b * c), round(math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c))))


def _turned(image: Image.Image, mirror: bool, clockwise: int) -> Image.Image:
    """The picture as the ffmpeg command shows it: no larger, with black corners, where it stands askew."""
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if not clockwise:
        return image
    return image.rotate(-clockwise, Image.Resampling.BILINEAR, expand=clockwise % 90 == 0)


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
