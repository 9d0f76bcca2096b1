"""Frames of a clip side by side, as one small picture inside a page."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image


@dataclass(frozen=True)
class Strip:
    """A picture.

    Attributes:
      url: a data URL.
      width, height: in CSS pixels.
      label: for those who do not see it.
    """

    url: str
    width: int
    height: int
    label: str


def jpeg_url(image: UInt8[np.ndarray, "H W 3"], quality: int) -> str:
    """An RGB image as a data URL."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def strip(frames: UInt8[np.ndarray, "F H W 3"], label: str, *, height: int = 96, most: int = 6) -> Strip:
    """At most `most` frames, evenly spread over the clip, each `height` pixels high."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)]
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    small = [Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS) for frame in chosen]
    joined = np.concatenate([np.asarray(image) for image in small], axis=1)
    return Strip(jpeg_url(joined, quality=72), joined.shape[1], height, label)
