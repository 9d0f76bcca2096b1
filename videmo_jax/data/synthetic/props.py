"""What a person holds or wears for an action: cup, cigarette, microphone, headphones and book."""

import numpy as np

from videmo_jax.data.synthetic.face import MOUTH_Y
from videmo_jax.data.synthetic.head import Head, shade


def prop(head: Head) -> None:
    """Draws the prop of the person over everything else."""
    draw = {"drink": _cup, "smoke": _cigarette, "sing": _microphone, "listen_to_music": _headphones, "read": _book}
    if head.person.prop in draw:
        draw[head.person.prop](head)


def _side(head: Head) -> float:
    return 1.0 if head.person.phase < 0.5 else -1.0


def _fist(head: Head, x: np.ndarray, y: np.ndarray) -> None:
    """A closed hand and the forearm below it."""
    side, angle = _side(head), np.linspace(0, 2 * np.pi, 12, endpoint=False)[None]
    arm = np.array([[-0.13, 0.13, 0.75, 0.4]]) * [[1, 1, side, side]]
    head.add(head.fixed(x + arm, y + np.array([[0.1, 0.1, 3.0, 3.0]])), shade(head.skin, 0.86))
    head.add(head.fixed(x + 0.19 * np.cos(angle), y + 0.17 * np.sin(angle)), shade(head.skin, 0.94))
    for finger in (-0.07, 0.0, 0.07):
        knuckle = head.fixed(x + np.array([[-0.13, 0.13]]), y + finger + np.zeros((1, 2)))
        head.add(knuckle, shade(head.skin, 0.7), 0.02)


def _mouth(head: Head) -> np.ndarray:
    """The mouth [F, 1, 2] in head units from the middle of the head."""
    return (head.at(np.zeros((1, 1)), np.full((1, 1), MOUTH_Y)) - head.centre[:, None]) / head.unit


def _cup(head: Head) -> None:
    mouth, up, side = _mouth(head), head.motion.cup[:, None], _side(head)
    x = mouth[..., 0] * up + 0.75 * side * (1 - up)
    y = (mouth[..., 1] + 0.12) * up + 1.4 * (1 - up)
    _fist(head, x + 0.2 * side, y + 0.16)
    wall = np.array([[-0.26, 0.26, 0.2, -0.2]])
    head.add(head.fixed(x + wall, y + np.array([[-0.24, -0.24, 0.34, 0.34]])), (240, 240, 244))
    head.add(head.fixed(x + 0.94 * wall[:, :2], y + np.array([[-0.1, -0.1]])), (40, 120, 200), 0.1)
    head.add(head.fixed(x + wall[:, :2], y + np.array([[-0.24, -0.24]])), (120, 120, 130), 0.04)


def _cigarette(head: Head) -> None:
    side = _side(head)
    tip = np.array([[0.1, 0.5]]) * side
    head.add(head.at(tip[:, :1], np.full((1, 1), MOUTH_Y)).repeat(2, axis=1), head.skin)
    start = head.at(tip[:, :1], np.full((1, 1), MOUTH_Y + 0.02), 0.1)
    end = start + head.unit * np.array([0.5 * side, 0.12])
    ember = start + head.unit * np.array([0.41 * side, 0.1])
    head.add(np.concatenate([start, end], axis=1), (250, 250, 250), 0.09)
    head.add(np.concatenate([ember, end], axis=1), (244, 96, 24), 0.1)
    time = np.arange(len(end))[:, None] / max(len(end) - 1, 1)
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    for puff in range(3):
        rise = (time * 1.4 + puff / 3 + head.person.phase) % 1
        place = np.array([0.12 * side, -0.9]) * rise[..., None]
        round_ = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * (0.07 + 0.13 * rise[..., None])
        head.add(end + head.unit * (place + round_), (206, 208, 214))


def _microphone(head: Head) -> None:
    mouth, side = _mouth(head), _side(head)
    x, y = mouth[..., 0] + 0.12 * side, mouth[..., 1] + 0.52
    _fist(head, x + 0.2 * side, y + 0.5)
    head.add(head.fixed(x + np.array([[0.0, 0.3 * side]]), y + np.array([[0.0, 0.8]])), (40, 40, 46), 0.17)
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)[None]
    head.add(head.fixed(x + 0.17 * np.cos(angle), y + 0.19 * np.sin(angle)), (150, 152, 160))
    for line in (-0.08, 0.0, 0.08):
        head.add(head.fixed(x + np.array([[-0.15, 0.15]]), y + line + np.zeros((1, 2))), (70, 72, 80), 0.025)


def _headphones(head: Head) -> None:
    angle = np.linspace(-np.pi, 0, 15)
    wide = head.half_width * 1.16
    band = head.project(wide * np.cos(angle)[None], 1.22 * np.sin(angle)[None] + 0.02, np.zeros((1, 15)))
    head.add(band, (36, 36, 42), 0.13)
    around = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for side in (-1.0, 1.0):
        seen = side * head.motion.yaw < 30
        for size, colour in ((1.0, (36, 36, 42)), (0.6, (220, 48, 60))):
            x, y = side * wide + 0.15 * size * np.cos(around), 0.1 + 0.27 * size * np.sin(around)
            head.add(head.project(x[None], y[None], np.zeros((1, 12))), colour, shown=seen)


def _book(head: Head) -> None:
    cover, still = (150, 36, 40) if head.person.clothes != "red" else (36, 60, 140), np.zeros((len(head.centre), 1))
    for side in (-1.0, 1.0):
        x = side * np.array([[0.0, 0.86, 0.92, 0.0]])
        y = np.array([[1.3, 1.18, 2.0, 2.1]])
        head.add(head.fixed(x + still, y), cover)
        head.add(head.fixed(0.94 * x + still, y + np.array([[-0.05, -0.06, -0.06, -0.06]])), (246, 242, 226))
        for line in (0.16, 0.28, 0.4, 0.52):
            row = side * np.array([[0.12, 0.72]])
            head.add(head.fixed(row + still, np.array([[1.24, 1.16]]) + line), (120, 116, 110), 0.03)
        angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)[None]
        thumb = head.fixed(side * 0.86 + 0.12 * np.cos(angle) + still, 1.62 + 0.16 * np.sin(angle))
        head.add(thumb, shade(head.skin, 0.92))
