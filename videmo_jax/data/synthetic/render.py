"""Frames of a scene: backdrop, figures, light, camera shake and noise; antialiased by drawing larger."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from videmo_jax.data.synthetic.figure import figure
from videmo_jax.data.synthetic.head import Layer, shade
from videmo_jax.data.synthetic.motion import motion
from videmo_jax.data.synthetic.scene import Scene, Setting, generator

# What the margin of a backdrop must hold of camera shake, as a share of the frame.
MARGIN = 0.06
LIGHTS = {"bright": 1.18, "soft": 0.9, "dim": 0.62}


def render(seed: int, scene: Scene, size: int = 112, frames: int = 16) -> UInt8[np.ndarray, "F H W 3"]:
    """The frames of a scene, square, size x size pixels, RGB.

    The same (seed, scene, size, frames) give the same bytes. Questions hold for clips of at least 4 frames.
    """
    rng = generator(seed, scene.split, scene.index, "render")
    zoom = 3 if size <= 160 else 2
    wide = size * zoom
    t = np.arange(frames) / max(frames - 1, 1)
    shake = _shake(rng, scene.setting, frames) * wide
    layers = [layer for each in _figures(scene, t, shake, wide) for layer in each]
    backdrop = _backdrop(rng, scene.setting, wide)
    if scene.kind == "mead_pair":
        layers.append(Layer(np.broadcast_to([[wide / 2, 0], [wide / 2, wide]], (frames, 2, 2)), (255, 255, 255), zoom))
    corners = [layer.points.reshape(frames, -1).tolist() for layer in layers]
    drawn = [_draw(backdrop, layers, corners, frame, shake[frame], wide).reduce(zoom) for frame in range(frames)]
    return _expose(rng, scene.setting, np.stack([np.asarray(image) for image in drawn]))


def _shake(rng: np.random.Generator, setting: Setting, frames: int) -> Float[np.ndarray, "F 2"]:
    steps = rng.normal(0, setting.shake, (frames, 2))
    return np.clip(steps, -MARGIN, MARGIN)


def head_places(scene: Scene) -> list[tuple[Float[np.ndarray, "2"], float]]:
    """Middle (x, y) and half height of each person's head in a still camera, as shares of the frame."""
    if len(scene.people) == 1:
        places, share = [0.5], 0.29
    else:
        places, share = ([0.31, 0.69] if scene.relation == "Intimate" else [0.26, 0.74]), 0.2
    across, down = scene.setting.shift
    return [(np.array([place + across, 0.46 + down]), share * scene.setting.scale) for place in places]


def _figures(scene: Scene, t: np.ndarray, shake: np.ndarray, wide: int) -> list[list[Layer]]:
    return [
        figure(person, motion(person, t), centre * wide + shake, unit * wide)
        for person, (centre, unit) in zip(scene.people, head_places(scene), strict=True)
    ]


def _draw(
    backdrop: Image.Image,
    layers: list[Layer],
    corners: list[list[list[float]]],
    frame: int,
    shake: np.ndarray,
    wide: int,
) -> Image.Image:
    """One frame; `corners` are the points of the layers as lists, layer by layer and frame by frame."""
    left, top = (round(float(MARGIN * wide - move)) for move in shake)
    image = backdrop.crop((left, top, left + wide, top + wide))
    draw = ImageDraw.Draw(image)
    for layer, points in zip(layers, corners, strict=True):
        if layer.shown is not None and not layer.shown[frame]:
            continue
        if layer.width:
            draw.line(points[frame], fill=layer.colour, width=max(1, round(layer.width)), joint="curve")
        else:
            draw.polygon(points[frame], fill=layer.colour)
    return image


def _backdrop(rng: np.random.Generator, setting: Setting, wide: int) -> Image.Image:
    """The backdrop with a margin on all sides."""
    full = wide + 2 * round(MARGIN * wide) + 2
    angle = 2 * np.pi * (setting.hue + np.array([0, 1 / 3, 2 / 3]))
    wall = tuple(int(c) for c in 150 + 45 * np.cos(angle))
    image = Image.new("RGB", (full, full), wall)
    draw = ImageDraw.Draw(image)

    def box(x0: float, y0: float, x1: float, y1: float, colour: tuple[int, ...]) -> None:
        draw.rectangle([x0 * full, y0 * full, x1 * full, y1 * full], fill=colour)

    if setting.backdrop == "panelled wall":
        for x in np.arange(rng.uniform(0, 0.12), 1, 0.14):
            box(x, 0, x + 0.07, 1, shade(wall, 0.82))
            box(x, 0, x + 0.012, 1, shade(wall, 0.6))
    elif setting.backdrop == "window":
        x = rng.uniform(0.05, 0.5)
        box(x - 0.03, 0.05, x + 0.45, 0.6, (240, 238, 230))
        box(x, 0.08, x + 0.42, 0.57, (150, 206, 246))
        box(x + 0.195, 0.08, x + 0.225, 0.57, (240, 238, 230))
        box(x, 0.31, x + 0.42, 0.34, (240, 238, 230))
    elif setting.backdrop == "park":
        box(0, 0, 1, 0.6, (140, 200, 244))
        box(0, 0.6, 1, 1, (96, 164, 74))
        for x in rng.uniform(0, 1, 5):
            y, r = rng.uniform(0.3, 0.5), rng.uniform(0.08, 0.16)
            box(x - 0.02, y, x + 0.02, 0.66, (98, 66, 40))
            draw.ellipse([(x - r) * full, (y - r) * full, (x + r) * full, (y + r) * full], fill=(52, 122, 54))
    elif setting.backdrop == "city at night":
        box(0, 0, 1, 1, (22, 26, 58))
        for x in np.arange(-0.05, 1, 0.17):
            top = rng.uniform(0.15, 0.55)
            box(x, top, x + 0.14, 1, (44, 46, 74))
            for row in np.arange(top + 0.04, 0.95, 0.09):
                for column in (0.025, 0.08):
                    if rng.random() < 0.6:
                        box(x + column, row, x + column + 0.03, row + 0.04, (250, 216, 120))
    return image


def _expose(
    rng: np.random.Generator, setting: Setting, frames: UInt8[np.ndarray, "F H W 3"]
) -> UInt8[np.ndarray, "F H W 3"]:
    """Brightness, colour and side of the light, and sensor noise."""
    count, size = frames.shape[:2]
    slope = 1 + 0.16 * setting.side * np.linspace(-1, 1, size, dtype=np.float32)
    tint = np.array([1 + 0.07 * setting.warmth, 1, 1 - 0.07 * setting.warmth], np.float32)
    gain = (LIGHTS[setting.light] * slope[:, None] * tint).astype(np.float32)
    # One grain, moved from frame to frame: as good as fresh noise to look at, and cheap.
    grain = rng.standard_normal((size, size, 1), np.float32) * np.float32(setting.noise)
    moves = rng.integers(0, size, (count, 2))
    lit, level = np.empty_like(frames), np.empty((size, size, 3), np.float32)
    for frame, move, out in zip(frames, moves, lit, strict=True):
        np.multiply(frame, gain, out=level)
        level += np.roll(grain, tuple(move), axis=(0, 1))
        np.minimum(np.maximum(level, 0, out=level), 255, out=level)
        out[...] = level
    return lit
