"""A person as layers of polygons: body, hair, hat and hand round the features of `face`."""

import numpy as np
from jaxtyping import Float

from videmo_jax.data.synthetic import face
from videmo_jax.data.synthetic.head import DEPTH, Head, Layer, outline, shade
from videmo_jax.data.synthetic.motion import Motion
from videmo_jax.data.synthetic.props import prop
from videmo_jax.data.synthetic.scene import Person

CLOTH_COLOURS = {
    "red": (190, 40, 44),
    "blue": (44, 84, 180),
    "green": (44, 132, 76),
    "white": (238, 238, 236),
    "black": (40, 40, 44),
    "yellow": (226, 188, 56),
}


def figure(person: Person, motion: Motion, centre: Float[np.ndarray, "F 2"], unit: float) -> list[Layer]:
    """All layers of a person, back to front.

    Args:
      person: who and with what.
      motion: the curves to follow.
      centre: the middle of the head in pixels, frame by frame.
      unit: half the height of a grown-up's head in pixels.
    """
    head = Head(person, motion, centre, unit)
    _back_hair(head)
    _body(head)
    _ears(head)
    _skull(head)
    _earrings(head)
    face.ageing(head)
    for side in (-1.0, 1.0):
        face.cheek(head, side)
        face.eye(head, side)
    face.beard(head)
    face.mouth(head)
    face.nose(head)
    for side in (-1.0, 1.0):
        face.brow(head, side)
    face.brow_wrinkles(head)
    face.glasses(head)
    _front_hair(head)
    _hat(head)
    _hand(head)
    prop(head)
    return head.layers


def _back_hair(head: Head) -> None:
    if head.id.hair_length != "long":
        return
    y, azimuth = (
        a.reshape(1, -1) for a in np.meshgrid(np.linspace(-0.6, 1.4, 9), np.radians(np.linspace(70, 290, 12)))
    )
    radius = head.radius(np.minimum(y, 0)) * 1.2
    x, z = head.half_width * radius * np.sin(azimuth), DEPTH * radius * np.cos(azimuth)
    head.add(head.wavy(outline(head.project(x, y, z))), shade(head.hair, 0.72))


def _body(head: Head) -> None:
    lift = -0.28 * head.motion.shrug[:, None]
    man = head.id.gender == "male" and not head.child
    neck, shoulder = (0.46, 1.5) if man else (0.34, 1.25)
    head.add(
        head.fixed(np.array([-neck, neck, neck, -neck])[None], np.array([0.5, 0.5, 2, 2])[None]),
        shade(head.skin, 0.82),
    )
    x = np.array([-neck - 0.04, 0.0, neck + 0.04, shoulder * 0.8, shoulder, shoulder + 0.12])
    y = np.array([1.28, 1.62, 1.28, 1.5, 1.8, 5.0])  # 5: below the frame.
    x, y = np.concatenate([x, -x[::-1]]), np.concatenate([y, y[::-1]])
    rise = np.where(y < 4, 1.0, 0.0)[None] * lift * np.where(np.abs(x) > 0.1, 1.0, 0.0)
    cloth = CLOTH_COLOURS[head.person.clothes]
    head.add(head.fixed(x[None], y[None] + rise), cloth)
    collar = np.array([-neck - 0.04, 0.0, neck + 0.04])
    head.add(head.fixed(collar[None], np.array([[1.28, 1.62, 1.28]]) + lift * [[1, 0, 1]]), shade(cloth, 0.7), 0.07)
    if head.person.necklace:
        angle = np.linspace(0.1, np.pi - 0.1, 9)
        beads = head.fixed((neck + 0.02) * np.cos(angle)[None], 1.2 + 0.3 * np.sin(angle)[None])
        head.add(beads, (250, 214, 90), 0.09)
    if head.person.necktie:
        tie = (150, 30, 60) if head.person.clothes != "red" else (30, 40, 110)
        x, y = np.array([-0.1, 0.1, 0.07, 0.16, 0, -0.16, -0.07]), np.array([1.45, 1.45, 1.62, 2.6, 2.9, 2.6, 1.62])
        head.add(head.fixed(x[None], y[None]), tie)


def _ears(head: Head) -> None:
    if head.id.hair_length == "long":
        return
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    for side in (-1.0, 1.0):
        x = side * (head.half_width * 1.02 + 0.07 * np.cos(angle))
        y = head.eye_y + 0.14 + 0.17 * np.sin(angle)
        seen = side * head.motion.yaw < 50
        head.add(head.project(x[None], y[None], np.full((1, 10), -0.05)), shade(head.skin, 0.9), shown=seen)


def _skull(head: Head) -> None:
    """The head in skin colour, the hair as a shell over its upper part, and the face over that."""
    haired = head.id.hair_length != "bald"
    around = np.linspace(-np.pi, np.pi, 20, endpoint=False)
    jaw = np.radians(np.linspace(-95, 95, 15))
    head.add(outline(head.shell(-1, 1, 1.0, around), head.skin_point(jaw[None], np.full((1, 15), 0.97))), head.skin)
    if haired:
        head.add(head.wavy(head.shell(-1, 0.12, 1.12, around)), head.hair)
        # At the back it reaches the neck.
        low = 0.85 if head.id.hair_length == "long" else 0.5
        nape = head.shell(-0.2, low, 1.08, np.radians(np.linspace(95, 265, 9)))
        head.add(nape, head.hair, shown=np.abs(head.motion.yaw) > 20)
    # Down from the hairline, wider below the ears, with the jaw as lower edge.
    top = np.linspace(-58, 58, 9)
    hairline = -0.66 + 0.1 * (top / 58) ** 2 if haired else np.full(9, -0.9)
    sides = np.array([64, 66, 92, 92, 88, 70, 45, 20])
    heights = np.array([-0.2, 0.14, 0.18, 0.5, 0.75, 0.92, 0.98, 1.0])
    azimuth = np.radians(np.concatenate([top, sides, -sides[::-1]]))
    head.add(head.skin_point(azimuth[None], np.concatenate([hairline, heights, heights[::-1]])[None]), head.skin)
    # A darker rim on one cheek, so that the head looks round.
    rim = np.linspace(0.15, 0.85, 6)
    azimuth = np.radians(np.concatenate([np.full(6, 90.0), np.full(6, 66.0)]))
    head.add(head.skin_point(azimuth[None], np.concatenate([rim, rim[::-1]])[None]), shade(head.skin, 0.92))


def _earrings(head: Head) -> None:
    if not head.person.earrings:
        return
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    for side in (-1.0, 1.0):
        x = side * (head.half_width * 1.04 + 0.07 * np.cos(angle))
        y = head.eye_y + 0.42 + 0.09 * np.sin(angle)
        seen = side * head.motion.yaw < 15
        head.add(head.project(x[None], y[None], np.full((1, 8), 0.0)), (255, 208, 60), shown=seen)


def _front_hair(head: Head) -> None:
    if head.id.hair_length == "bald":
        return
    dark = shade(head.hair, 0.8) if head.id.hair_colour != "black" else (62, 56, 62)
    wave = 0.08 if head.id.hair_texture == "wavy" else 0.0
    if head.id.bangs:
        top = np.linspace(-60, 60, 13)
        fringe = np.linspace(60, -60, 13)
        edge = -0.42 + (0.05 if wave else 0.02) * (np.arange(13) % 2)
        azimuth = np.radians(np.concatenate([top, fringe]))
        y = np.concatenate([np.full(13, -0.72), edge])
        head.add(head.skin_point(azimuth[None], y[None], 0.04), head.hair)
    for azimuth in (-40, -20, 0, 20, 40):
        y = np.linspace(-0.97, -0.7, 5)
        bend = np.radians(azimuth + 240 * wave * np.sin(np.arange(5) * 2.2))
        head.add(head.skin_point(bend[None], y[None], 0.1), dark, 0.03)
    if head.id.hair_length == "long":
        for side in (-1.0, 1.0):
            y = np.linspace(-0.55, 1.4, 12)
            outer = head.half_width * 1.14 + wave * np.sin(y * 9)
            inner = head.half_width * np.where(y < 0.2, 0.93, 0.86) + wave * np.sin(y * 9 + 1)
            x = side * np.concatenate([outer, inner[::-1]])
            turned = side * head.motion.yaw < 15  # The farther one is behind the cheek.
            strand = head.project(x[None], np.concatenate([y, y[::-1]])[None], np.full((1, 24), 0.06))
            head.add(strand, head.hair, shown=turned)
            middle = side * (outer + inner) / 2
            head.add(head.project(middle[None], y[None], np.full((1, 12), 0.06)), dark, 0.035, shown=turned)


def _hat(head: Head) -> None:
    if not head.person.hat:
        return
    colour = CLOTH_COLOURS["blue" if head.person.clothes != "blue" else "red"]
    # Only the half towards the viewer: the other one is behind the head.
    front = np.linspace(-np.pi / 2, np.pi / 2, 15)
    dome = outline(head.ring(front, -0.52, 1.2), head.ring(front, -1.28, 0.95), head.ring(-front, -1.28, -0.95))
    head.add(dome, colour)
    head.add(outline(head.ring(front, -0.56, 1.22), head.ring(front, -0.72, 1.18)), shade(colour, 0.55))
    head.add(outline(head.ring(front, -0.52, 1.75), head.ring(front, -0.45, 1.72)), shade(colour, 0.8))


def _hand(head: Head) -> None:
    if head.person.body != "raise_hand":
        return
    side = 1.0 if head.person.phase < 0.5 else -1.0
    y0 = 2.6 - 1.75 * head.motion.hand[:, None]
    x0 = side * 1.28
    arm = np.array([-0.15, 0.15, 0.2, -0.2])
    sleeve = CLOTH_COLOURS[head.person.clothes]
    head.add(head.fixed(x0 + arm[None], y0 + np.array([0.55, 0.55, 3, 3])[None]), shade(sleeve, 0.9))
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    head.add(head.fixed(x0 + 0.22 * np.cos(angle)[None], y0 + 0.35 + 0.3 * np.sin(angle)[None]), head.skin)
    for x in (-0.17, -0.06, 0.06, 0.17):
        head.add(
            head.fixed(x0 + np.array([x, 1.25 * x])[None], y0 + np.array([0.25, -0.22 + abs(x)])[None]),
            head.skin,
            0.1,
        )
    thumb = x0 - side * np.array([0.15, 0.36])
    head.add(head.fixed(thumb[None], y0 + np.array([0.4, 0.15])[None]), head.skin, 0.1)
