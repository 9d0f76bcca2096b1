"""A rounded head in 3D that turns, and the flat layers that are drawn of it.

Coordinates of the head: x to the viewer's right, y down, z to the viewer; half the head's height is 1. A point
of the skin is given by its azimuth (0 = front) and y. All arrays hold all frames at once (F first).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from videmo_jax.data.synthetic.motion import Motion
from videmo_jax.data.synthetic.scene import Person

Colour = tuple[int, int, int]

SKIN_COLOURS = {"pale": (250, 226, 208), "light": (235, 193, 160), "tan": (196, 142, 102), "dark": (136, 90, 62)}
HAIR_COLOURS = {
    "black": (30, 26, 28),
    "brown": (86, 50, 28),
    "blonde": (228, 190, 104),
    "red": (184, 74, 34),
    "gray": (168, 168, 172),
}
HALF_WIDTHS = {"round": 0.88, "oval": 0.74, "long": 0.62}
DEPTH = 0.86
HORIZON = np.radians(86)
EYE_Y = -0.04


@dataclass(frozen=True)
class Layer:
    """One shape in all frames, in pixels: a filled polygon, or a line where `width` is positive."""

    points: Float[np.ndarray, "F N 2"]
    colour: Colour
    width: float = 0.0
    shown: np.ndarray | None = None


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made lighter or darker."""
    return tuple(int(min(255, max(0, c * factor))) for c in colour)  # type: ignore[return-value]


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour between a and b, `share` of the way to b."""
    return tuple(int(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


class Head:
    """Shape, colours and movement of one person's head; `layers` collects what is drawn, back to front."""

    def __init__(self, person: Person, motion: Motion, centre: Float[np.ndarray, "F 2"], unit: float) -> None:
        self.person, self.motion = person, motion
        self.id = person.identity
        self.child = self.id.age == "child"
        self.unit = unit * (0.88 if self.child else 1.0)
        lean = np.stack([0.45 * motion.lean, np.zeros_like(motion.lean)], axis=-1)
        self.centre = centre + self.unit * lean
        self.skin = SKIN_COLOURS[self.id.skin]
        self.hair = HAIR_COLOURS[self.id.hair_colour]
        self.half_width = HALF_WIDTHS[self.id.face_shape]
        self.eye_y = EYE_Y + (0.1 if self.child else 0.0)
        self.layers: list[Layer] = []
        # Cosine and sine of the three turns, and the turn itself, as [F, 1]: every layer needs them.
        angles = [np.radians(a)[:, None] for a in (motion.yaw, motion.pitch, motion.roll)]
        self.yaw = angles[0]
        self.turns = [(np.cos(a), np.sin(a)) for a in angles]
        self.drop = 0.16 * motion.units["AU26"][:, None]

    def radius(self, y: np.ndarray) -> np.ndarray:
        """Radius of the head's horizontal section, relative to its width: round above, a jaw below."""
        # minimum and maximum, because clip costs several times as much on arrays this small.
        y = np.minimum(np.maximum(y, -1.0), 1.0)
        square, low = self.id.chin == "square", np.maximum(y, 0.0)
        below = np.sqrt(1 - (low**3.2 if square else low * low))
        return np.where(y < 0, np.sqrt(1 - y * y), below * (1 - low * (0.06 if square else 0.26)))

    def skin_point(self, azimuth: np.ndarray, y: np.ndarray, lift: float | np.ndarray = 0.0) -> np.ndarray:
        """Pixels [F, N, 2] of points of the skin; what has turned out of sight is held at the horizon."""
        azimuth = np.minimum(np.maximum(azimuth + self.yaw, -HORIZON), HORIZON) - self.yaw
        radius = self.radius(y) * (1 + lift)
        drop = self.drop * np.minimum(np.maximum((y - 0.45) / 0.4, 0.0), 1.0)
        x, z = self.half_width * radius * np.sin(azimuth), DEPTH * radius * np.cos(azimuth)
        return self.project(x, y + drop, z)

    def at(self, x: np.ndarray, y: np.ndarray, lift: float | np.ndarray = 0.0) -> np.ndarray:
        """The same for points given by x as seen from the front, in head units of an oval face."""
        share = x / 0.74 / np.maximum(self.radius(np.asarray(y)), 0.3)
        return self.skin_point(np.arcsin(np.minimum(np.maximum(share, -0.98), 0.98)), y, lift)

    def project(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Turn by yaw, pitch and roll, and drop z. Roll turns about the neck."""
        (yaw, yaw_sin), (pitch, pitch_sin), (roll, roll_sin) = self.turns
        x, z = x * yaw + z * yaw_sin, z * yaw - x * yaw_sin
        below = y * pitch + z * pitch_sin - 0.9
        points = np.empty((*np.broadcast_shapes(x.shape, below.shape), 2))
        points[..., 0] = x * roll - below * roll_sin
        points[..., 1] = x * roll_sin + below * roll + 0.9
        points *= self.unit
        points += self.centre[:, None, :]
        return points

    def fixed(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Pixels of points of the body, which does not turn with the head."""
        x, y = np.broadcast_arrays(x, y, subok=False)
        points = np.stack([x, y], axis=-1)
        return self.centre[:, None, :] + self.unit * points

    def shell(self, top: float, bottom: float, swell: float, azimuths: np.ndarray) -> np.ndarray:
        """Outline [F, 40, 2] of the part of the head between two heights, swollen by a factor."""
        heights = np.sin(np.linspace(np.arcsin(top), np.arcsin(bottom), 12))
        y, azimuth = (a.reshape(1, -1) for a in np.meshgrid(heights, azimuths))
        radius = self.radius(y) * swell
        x, z = self.half_width * radius * np.sin(azimuth), DEPTH * radius * np.cos(azimuth)
        return outline(self.project(x, np.where(y < 0, y * swell, y), z))

    def ring(self, bearing: np.ndarray, y: float, swell: float) -> np.ndarray:
        """A horizontal ring round the forehead, swollen; bearings are seen from the viewer, 0 towards them."""
        radius = float(self.radius(np.array(-0.6))) * swell
        azimuth = bearing[None] - np.radians(self.motion.yaw)[:, None]
        x, z = self.half_width * radius * np.sin(azimuth), DEPTH * radius * np.cos(azimuth)
        return self.project(x, np.full_like(x, y), z)

    def add(self, points: np.ndarray, colour: Colour, width: float = 0.0, shown: np.ndarray | None = None) -> None:
        """Puts a layer on top; `width` in head units makes it a line."""
        self.layers.append(Layer(points, colour, width * self.unit, shown))

    def wavy(self, points: np.ndarray) -> np.ndarray:
        """The outline with waves, if the hair is wavy."""
        if self.id.hair_texture != "wavy":
            return points
        middle = points.mean(axis=1, keepdims=True)
        bumps = 1 + 0.075 * np.cos(np.arange(points.shape[1]) * np.pi / 2)[None, :, None]
        return middle + (points - middle) * bumps

    def eye_place(self, side: float) -> tuple[float, float]:
        """x of the eye's middle and its half width."""
        half = 0.15 + 0.03 * self.id.eye_size + (0.03 if self.child else 0.0)
        return side * (0.29 + 0.04 * self.id.eye_distance), half


_DIRECTIONS = np.stack([f(np.linspace(0, 2 * np.pi, 40, endpoint=False)) for f in (np.cos, np.sin)])


def outline(*points: Float[np.ndarray, "F M 2"]) -> Float[np.ndarray, "F 40 2"]:
    """The convex outline of points: the farthest one in each of 40 directions."""
    joined = np.concatenate(points, axis=1)
    farthest = np.argmax(joined @ _DIRECTIONS, axis=1)
    return np.take_along_axis(joined, farthest[..., None], axis=1)
