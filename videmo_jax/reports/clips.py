"""Frames of clips in a page: inside it, in order, with their times."""

import base64
import io
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from videmo_jax.data.video import Clip

JPEG_QUALITY = 80
CLIP_STYLE = """
.small { font-size: 13px; opacity: .75; overflow-wrap: anywhere; margin: 0; }
.frames { display: flex; gap: 2px; overflow-x: auto; margin: .5rem 0; }
.frames figcaption { font-size: 12px; font-weight: 400; opacity: .75; }
.frames img { height: 8.5rem; width: auto; border-radius: 2px; flex: none; }
.wrong { color: light-dark(#b00020, #ff8a8a); }
"""


@dataclass(frozen=True)
class Strip:
    """Frames of a clip side by side, as one small picture.

    Attributes:
      url: a data URL.
      width, height: in CSS pixels.
      label: for those who do not see it.
    """

    url: str
    width: int
    height: int
    label: str


@dataclass(frozen=True)
class ShownClip:
    """A clip to show: RGB frames and the second each stands at, or why there are none."""

    path: str
    frames: UInt8[np.ndarray, "F H W 3"] | None = None
    seconds: tuple[float, ...] = ()
    note: str = ""
    fault: str = ""


def shown_clip(path: str, clip: Clip, temporal_patch: int) -> ShownClip:
    """The clip's frames at the times at which the model sees them; `temporal_patch` of them make a slab."""
    slabs = -(-len(clip.frames) // temporal_patch)
    note = f"{clip.decoded_frames} frames at {clip.average_rate:.4g} a second, {slabs} slabs"
    return ShownClip(path, clip.frames, tuple((clip.indices / clip.average_rate).tolist()), note)


def clip_figure(clip: ShownClip, *, times: bool = False) -> str:
    """The clip as HTML, with `times` written below the frames; the page needs CLIP_STYLE."""
    about = f'<p class="small">{escape(clip.path)}{escape(clip.note and f" · {clip.note}")}</p>'
    if clip.frames is None:
        return f'{about}<p class="small wrong">{escape(clip.fault)}</p>'
    images = [
        f'<img src="{jpeg_url(frame)}" alt="{second:.1f} s" title="{second:.1f} s">'
        for frame, second in zip(clip.frames, clip.seconds, strict=True)
    ]
    if times:
        images = [
            f"<figure>{image}<figcaption>{second:.1f} s</figcaption></figure>"
            for image, second in zip(images, clip.seconds, strict=True)
        ]
    return f'{about}<div class="frames">{"".join(images)}</div>'


def strip(frames: UInt8[np.ndarray, "F H W 3"], label: str, *, height: int = 96, most: int = 6) -> Strip:
    """At most `most` frames, evenly spread over the clip, each `height` pixels high."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)]
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    small = [Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS) for frame in chosen]
    joined = np.concatenate([np.asarray(image) for image in small], axis=1)
    return Strip(jpeg_url(joined), joined.shape[1], height, label)


def jpeg_url(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """An RGB image as a data URL."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
