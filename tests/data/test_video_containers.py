"""What clips claim against what ffmpeg shows, on clips that ffmpeg makes: rates, streams, display matrices, names.

ffmpeg itself (the one that imageio-ffmpeg brings) tells which frames a clip shows and when.
"""

import itertools
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from videmo_jax.data.video import FrameSpec, VideoError, clip_grid, read_clip
from videmo_jax.reports.clips import shown_clip

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed (extra test)")

SPEC = FrameSpec()
# Every frame, at the size that it has.
ALL = FrameSpec(rate=1e6, max_frames=10_000, min_pixels=64 * 48, max_pixels=64 * 48, patch=4)

X264 = ["-c:v", "libx264", "-preset", "veryfast", "-g", "10", "-pix_fmt", "yuv420p"]
NO_B = [*X264, "-bf", "0"]
VP8 = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M"]
MPEG2 = ["-c:v", "mpeg2video", "-q:v", "2"]
# 10 frames, then every fifth one: 10 + 38 frames in 8 s.
VARYING = ["-vf", "select=lt(n\\,10)+not(mod(n\\,5))", "-fps_mode", "vfr"]


def ffmpeg(*arguments: str | Path) -> str:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def picture(rate: str = "25", seconds: float = 2, size: str = "64x48") -> list[str]:
    """Input of ffmpeg: a picture that moves and is no mirror image of itself."""
    return ["-f", "lavfi", "-i", f"testsrc=size={size}:rate={rate}:duration={seconds}"]


def shown(path: Path) -> tuple[np.ndarray, float]:
    """All frames of a clip as ffmpeg shows them, and its frames over its duration by their time stamps."""
    raw = path.with_suffix(".rgb")
    lines = ffmpeg(
        *("-i", path, "-fps_mode", "passthrough", "-enc_time_base", "demux", "-f", "framecrc", "-"),
        *("-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", raw),
    ).splitlines()
    told = dict(line[1:].split(": ") for line in lines if line.startswith("#"))
    width, height = map(int, told["dimensions 0"].split("x"))
    rows = [[int(value) for value in line.split(",")[:4]] for line in lines if not line.startswith("#")]
    start, (*_, last, length) = rows[0][2], rows[-1]
    duration = (last + max(length, 1) - start) * Fraction(told["tb 0"])
    return np.frombuffer(raw.read_bytes(), np.uint8).reshape(-1, height, width, 3), float(len(rows) / duration)


def assert_same_frames(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean((1, 2, 3)).max() < 3


MADE = {
    **{f"{rate.replace('/', '-')}.mp4": [*picture(rate, 1), *X264] for rate in ("12.5", "24000/1001", "60", "240")},
    "one-a-second.mkv": [*picture("1", 6), *X264],
    "steady.mov": [*picture(), *X264],
    "steady.avi": [*picture(), *X264],
    "steady.ts": [*picture(), *X264],
    "steady.flv": [*picture(), *NO_B],
    "steady.webm": [*picture(), *VP8],
    "steady.ivf": [*picture(), *VP8],
    "steady.mpg": [*picture(), *MPEG2],
    "steady.wmv": [*picture(), "-c:v", "wmv2", "-q:v", "2"],
    "steady.ogv": [*picture(), "-c:v", "libtheora", "-q:v", "10"],
    "steady.gif": [*picture(), "-pix_fmt", "rgb8"],
    "fragments.mp4": [*picture(), *X264, "-movflags", "frag_keyframe+empty_moov"],
    "varying.mp4": [*picture(seconds=8), *VARYING, *NO_B],
    "varying.mov": [*picture(seconds=8), *VARYING, *NO_B],
    "varying.mkv": [*picture(seconds=8), *VARYING, *X264],
    "varying.webm": [*picture(seconds=8), *VARYING, *VP8],
    "varying.ts": [*picture(seconds=8), *VARYING, *X264],
    "varying.flv": [*picture(seconds=8), *VARYING, *NO_B],
    "varying.mpg": [*picture(seconds=8), *VARYING, *MPEG2],
    "varying.wmv": [*picture(seconds=8), *VARYING, "-c:v", "wmv2", "-q:v", "2"],
    "varying.avi": [*picture(seconds=8), *VARYING, *NO_B],
    "wrapping.ts": [*picture(), *X264, "-output_ts_offset", "95442.7"],  # its clock of 33 bits starts anew amid it
}
# Copies of a clip of 25 frames a second with B-frames: input options, then output options.
COPIED = {
    "from-amid.mp4": (["-ss", "0.7"], []),  # an edit list hides what comes before
    "part.mp4": (["-ss", "0.7"], ["-t", "1.6"]),
    "part.mov": (["-ss", "0.7"], ["-t", "1.6"]),
    "from-amid.mkv": (["-ss", "0.7"], []),
    "late.mp4": (["-itsoffset", "3"], []),  # an edit list waits
    "slow.mp4": (["-itsscale", "4"], []),
    "slow.mkv": (["-itsscale", "4"], []),
    "slow.ts": (["-itsscale", "4"], []),
    "slow.flv": (["-itsscale", "4"], []),
    "fast.mkv": (["-itsscale", "0.25"], []),
}


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steady") / "clip.mp4"
    ffmpeg(*picture(seconds=4), *X264, path)
    return path


@pytest.mark.parametrize("name", [*MADE, *COPIED])
def test_rate_and_frames_are_those_that_ffmpeg_shows(tmp_path, steady, name):
    path = tmp_path / name
    if name in MADE:
        ffmpeg(*MADE[name], path)
    else:
        before, after = COPIED[name]
        ffmpeg(*before, "-i", steady, *after, "-c", "copy", path)
    frames, rate = shown(path)
    clip = read_clip(path, ALL)
    assert clip.decoded_frames == len(frames)
    assert clip.average_rate == pytest.approx(rate, rel=0.02)
    assert_same_frames(clip.frames, frames[clip.indices])


def browser_clip(path: Path, count: int = 60) -> Path:
    """As a browser's recorder writes it: about 30 frames a second, and its clock's 1000 ticks for a rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=1000, options={"deadline": "realtime", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        jitter = np.random.default_rng(0).integers(-5, 6, count)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 4 % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(number * 1000 / 30) + 5 + int(jitter[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("count", "suffix"), [(30, "webm"), (60, "webm"), (180, "webm"), (60, "mkv")])
def test_rate_of_a_browsers_clip_is_not_its_clocks(tmp_path, count, suffix):
    path = browser_clip(tmp_path / f"clip.{suffix}", count)
    clip = read_clip(path, SPEC)
    assert clip.average_rate == pytest.approx(30, rel=0.02)
    assert len(clip.indices) == min(max(count // 30 * 2, 4), 16)
    assert clip.seconds_per_grid == pytest.approx(2 * count / 30 / len(clip.indices), rel=0.02)
    assert clip_grid(path, SPEC).time == len(clip.indices) // 2
    assert shown_clip(str(path), clip, SPEC.temporal_patch).seconds[-1] == pytest.approx((count - 1) / 30, rel=0.02)


@pytest.mark.parametrize(
    ("name", "rate"), [("browser_clips/w_jitter.webm", 30), ("browser_clips/v_long.ts", 319 / 47.5)]
)
def test_rate_of_clips_that_were_seen(emo_cfg_mini, name, rate):
    path = emo_cfg_mini.parent / "cases" / name
    if not path.is_file():
        pytest.skip("the case is not beside this checkout")
    clip = read_clip(path, SPEC)
    assert clip.average_rate == pytest.approx(rate, rel=0.02)
    assert clip.seconds_per_grid == pytest.approx(2 * clip.decoded_frames / rate / len(clip.indices), rel=0.02)


def test_claim_stays_where_the_time_stamps_agree(tmp_path):
    """Milliseconds round, and qwen-vl-utils samples by the claim."""
    path = tmp_path / "clip.mkv"
    ffmpeg(*picture("24000/1001", 0.5), *NO_B, path)
    assert read_clip(path, SPEC).average_rate == pytest.approx(24000 / 1001, rel=1e-5)


@pytest.mark.parametrize("rate", ["12.5", "30000/1001", "60"])
@pytest.mark.parametrize(
    ("suffix", "codec"), [("h264", NO_B), ("hevc", ["-c:v", "libx265", "-x265-params", "log-level=0"])]
)
def test_rate_of_a_bare_stream_is_what_its_codec_says(tmp_path, rate, suffix, codec):
    """It has no time stamps; libavformat's own word for it is 25 frames a second."""
    path = tmp_path / f"clip.{suffix}"
    ffmpeg(*picture(rate, 1), *codec, path)
    assert read_clip(path, SPEC).average_rate == pytest.approx(float(Fraction(rate)), rel=1e-3)


def test_clocks_that_start_anew_change_no_rate(tmp_path):
    """Programme streams may be joined as files are."""
    ffmpeg(*picture(seconds=3), *MPEG2, tmp_path / "first.mpg")
    ffmpeg(*picture(seconds=2), *MPEG2, "-output_ts_offset", "5000", tmp_path / "late.mpg")
    first, late = ((tmp_path / f"{name}.mpg").read_bytes() for name in ("first", "late"))
    for name, parts in {"again": [first, first], "forward": [first, late], "back": [late, first]}.items():
        path = tmp_path / f"{name}.mpg"
        path.write_bytes(b"".join(parts))
        clip = read_clip(path, SPEC)
        assert clip.decoded_frames > 120 and clip.average_rate == 25, name


@pytest.mark.parametrize(("scale", "rate"), [("10000", r"0\.0025"), ("0.01", r"1\.26e\+03")])
def test_rate_that_no_video_has_is_refused(tmp_path, steady, scale, rate):
    path = tmp_path / "clip.mov"
    ffmpeg("-itsscale", scale, "-i", steady, "-c", "copy", "-video_track_timescale", "90000", path)
    for read in (read_clip, clip_grid):
        with pytest.raises(VideoError, match=rf"clip\.mov: its frames come at {rate}.* a second, beyond 0\.017"):
            read(path, SPEC)


def test_single_frame_needs_no_rate(tmp_path):
    clip = read_clip(browser_clip(tmp_path / "clip.webm", 1), SPEC)
    assert clip.decoded_frames == 1 and clip.average_rate == SPEC.rate and clip.seconds_per_grid == 1


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "avi"])
def test_stream_is_the_one_that_ffmpeg_takes(tmp_path, suffix):
    """Thumbnails of one frame a second stand first, smaller or larger than the video; either may be the default."""
    sizes = {"small": "32x24", "large": "96x72"}
    choices = list(itertools.product(sizes, ("0", "default"), ("0", "default")))
    spec = replace(ALL, min_pixels=8, max_pixels=10_000)
    inputs = [*picture("1", 3, "32x24"), *picture("1", 3, "96x72"), *picture("25", 3)]
    outputs = []
    for size, thumbnail, video in choices:
        maps = ["-map", str(list(sizes).index(size)), "-map", "2"]
        defaults = ["-disposition:v:0", thumbnail, "-disposition:v:1", video]
        outputs += [*maps, *NO_B, *defaults, str(tmp_path / f"{size}-{thumbnail}-{video}.{suffix}")]
    ffmpeg(*inputs, *outputs)
    taken = set()
    for choice in choices:
        path = tmp_path / f"{'-'.join(choice)}.{suffix}"
        frames, rate = shown(path)
        clip = read_clip(path, spec)
        assert clip.decoded_frames == len(frames) and clip.average_rate == pytest.approx(rate, rel=0.02), path.name
        assert_same_frames(clip.frames, frames[clip.indices])
        taken.add(len(frames))
    assert taken == {3, 75}


TURNS = [*itertools.product(("0", "90", "180", "270"), ([], ["-display_hflip"])), ("0", ["-display_vflip"])]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_are_turned_and_mirrored_as_by_ffmpeg(tmp_path, suffix):
    ffmpeg(*picture(seconds=0.4), *X264, tmp_path / f"plain.{suffix}")
    seen = set()
    for degrees, mirror in TURNS:
        path = tmp_path / f"{degrees}{''.join(mirror)}.{suffix}"
        ffmpeg("-display_rotation", degrees, *mirror, "-i", tmp_path / f"plain.{suffix}", "-c", "copy", path)
        frames, _ = shown(path)
        clip = read_clip(path, ALL)
        assert_same_frames(clip.frames, frames)
        seen.add(clip.frames[0].tobytes())
    assert len(seen) == 8


@pytest.mark.parametrize(("degrees", "flip"), [(0, "horizontal"), (0, "vertical"), (180, ""), (90, "vertical")])
def test_orientation_within_the_stream_holds_for_the_whole_clip(tmp_path, steady, degrees, flip):
    """H.264 has a message for it, which need not stand at each frame."""
    path = tmp_path / "clip.ts"
    orientation = f"display_orientation=insert:rotate={degrees}" + (f":flip={flip}" if flip else "")
    ffmpeg("-i", steady, "-t", "1", "-c", "copy", "-bsf:v", f"h264_metadata={orientation}", path)
    clip = read_clip(path, ALL)
    assert_same_frames(clip.frames, shown(path)[0][clip.indices])


def matrix_clip(path: Path, matrix: list[int]) -> Path:
    """A face of a kind: a white square up on the left side."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_matrix(matrix)
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


ONE = 1 << 16


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "white"),  # white: the quarter where the square is seen, row and column
    [
        (ONE, 0, 0, ONE, (0, 0)),
        (-ONE, 0, 0, ONE, (0, 1)),
        (ONE, 0, 0, -ONE, (1, 0)),
        (-ONE, 0, 0, -ONE, (1, 1)),
        (0, ONE, -ONE, 0, (0, 1)),
        (0, -ONE, ONE, 0, (1, 0)),
        (0, ONE, ONE, 0, (0, 0)),
        (0, -ONE, -ONE, 0, (1, 1)),
        (-3 * ONE, 0, 0, 2 * ONE, (0, 1)),  # not of one length
        (0, 0, 0, 0, (0, 0)),  # shows nothing at all
        (-ONE, 0, 0, 0, (0, 0)),
    ],
)
def test_display_matrix_maps_points_as_defined(tmp_path, a, b, c, d, white):
    """By libavutil/display.h: (x, y) is shown at (a x + c y, b x + d y), y downwards, and moved into view."""
    frame = read_clip(matrix_clip(tmp_path / "clip.mp4", [a, b, 0, c, d, 0, 0, 0, 1 << 30]), ALL).frames[0]
    assert frame.shape == ((64, 48, 3) if not a and b else (48, 64, 3))
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    quarters = frame[: 2 * height, : 2 * width, 0].reshape(2, height, 2, width).mean((1, 3))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == white and quarters.max() > 200


@pytest.mark.parametrize("degrees", [30, 45, -10])
def test_clip_askew_is_turned_as_by_ffmpeg(tmp_path, degrees):
    source, path = tmp_path / "plain.mp4", tmp_path / "askew.mp4"
    ffmpeg(*picture(seconds=0.4), "-vf", "gblur=4", *X264, source)
    ffmpeg("-display_rotation", degrees, "-i", source, "-c", "copy", path)
    ours, theirs = read_clip(path, ALL).frames.astype(int), shown(path)[0]
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs)[:, 16:-16, 16:-16].mean() < 6
    assert (ours[:, 0, 0] == 0).all() and (theirs[:, 0, 0] < 20).all()


def test_mirrored_face_that_was_seen_stands_upright(emo_cfg_mini):
    folder = emo_cfg_mini.parent / "cases" / "mirrored"
    if not folder.is_dir():
        pytest.skip("the case is not beside this checkout")
    plain, mirrored = (read_clip(folder / f"{name}.mp4", SPEC).frames for name in ("plain", "hflip"))
    assert np.abs(mirrored.astype(int) - plain[:, :, ::-1]).mean() < 1


def test_side_data_of_a_kind_unknown_to_this_pyav_hides_no_rotation(tmp_path):
    """A JPEG's EXIF says how the camera was held; PyAV before 19 knows no such side data."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32] = 255
    for number in range(4):
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg", exif=exif)
    path = tmp_path / "clip.avi"
    ffmpeg("-f", "image2", "-i", tmp_path / "%d.jpg", "-c", "copy", path)
    assert_same_frames(read_clip(path, ALL).frames, shown(path)[0])


@pytest.mark.parametrize("name", ["happy:1.mp4", "file:a.mp4", "concat:a|b.mp4", "100%d.mp4", "sad?.mp4"])
def test_name_is_a_files_name_and_nothing_else(tmp_path, steady, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(steady.read_bytes())
    assert read_clip(name, SPEC).decoded_frames == 100
    assert read_clip(tmp_path / name, SPEC).decoded_frames == 100
