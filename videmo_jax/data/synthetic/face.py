"""The features of the face, which follow the action units."""

import numpy as np

from videmo_jax.data.synthetic.head import Colour, Head, mix, shade

EYE_COLOURS = {"brown": (92, 54, 24), "blue": (50, 112, 200), "green": (54, 140, 72)}
MOUTH_Y = 0.54
# The activation from which a unit creases the skin: more than a weak feeling has, so that its strength shows.
CREASE = 0.5
# And the one from which it creases the skin deeply, which only a strong feeling has.
DEEP = 0.85


def eye(head: Head, side: float) -> None:
    """An eye between its lids, with lashes and tears."""
    units, (x0, half) = head.motion.units, head.eye_place(side)
    open_ = 1 - head.motion.closed[0 if side < 0 else 1][:, None]
    wide, tight, raised = (units[u][:, None] for u in ("AU5", "AU7", "AU6"))
    u = np.linspace(-1, 1, 11)[None]
    # The gaze down takes the upper lid along.
    sink = 0.72 * np.maximum(0, head.motion.gaze[1][:, None])
    upper = half * 0.62 * (1 + 0.55 * wide - 0.4 * tight - sink) * open_ * (1 - u * u) ** 0.7
    lower = half * 0.42 * (1 + 0.3 * wide - np.maximum(0.95 * tight, 0.55 * raised)) * open_ * (1 - u * u)
    lower = lower - half * 0.22 * raised * (1 - u * u) + half * 0.2 * (1 - open_)
    _lids(head, x0, half, upper, lower)
    x, y0 = x0 + half * u, head.eye_y
    edge_x = np.broadcast_to(np.concatenate([x, x[:, ::-1]], axis=1), (len(upper), 22))
    head.add(head.at(edge_x, y0 + np.concatenate([-upper, lower[:, ::-1]], axis=1)), (250, 250, 250))
    gx, gy = (g[:, None] * half for g in head.motion.gaze)
    for radius, colour in ((0.52, EYE_COLOURS[head.id.eye_colour]), (0.26, (12, 10, 12))):
        _disc(head, x0 + 0.4 * gx, 0.62 * gy, radius * half, colour, x0, half, upper, lower)
    _disc(
        head, x0 + 0.4 * gx - 0.18 * half, 0.62 * gy - 0.2 * half, 0.12 * half, (255, 255, 255), x0, half, upper, lower
    )
    lash = 0.055 if head.id.gender == "female" else 0.032
    lid_x = np.broadcast_to(x, upper.shape)
    head.add(head.at(lid_x, y0 - upper), (34, 22, 22), lash)
    if head.id.gender == "female":
        corner = np.array([[x0 + side * half, x0 + side * half * 1.35]])
        head.add(head.at(corner, np.array([[y0, y0 - 0.07]])), (34, 22, 22), 0.045)
    head.add(head.at(lid_x, y0 + lower), shade(head.skin, 0.62), 0.02)
    if head.person.tears:
        fall = head.motion.tears[:, None] * np.linspace(0.12, 0.5, 5)[None]
        for shift in (-0.05, 0.07):
            tear = head.at(np.full_like(fall, x0 + shift), y0 + 0.04 + fall, 0.01)
            head.add(tear, (150, 205, 250), 0.07)


def _lids(head: Head, x0: float, half: float, upper: np.ndarray, lower: np.ndarray) -> None:
    """The skin of the lids where they cover the eye, and the bulge below it that tight lids make."""
    u = np.linspace(-1, 1, upper.shape[1])[None]
    x, crease = x0 + half * u, half * 0.74 * (1 - u * u) ** 0.7
    edge = np.concatenate([x, x[:, ::-1]], axis=1)
    down = np.concatenate([-np.broadcast_to(crease, upper.shape), -upper[:, ::-1]], axis=1)
    head.add(head.at(edge, head.eye_y + down), (126, 66, 150) if head.person.makeup else shade(head.skin, 0.8))
    tight = head.motion.units["AU7"]
    below = half * 0.5 * (1 - u * u)
    up = np.concatenate([lower, np.broadcast_to(below, lower.shape)[:, ::-1]], axis=1)
    head.add(head.at(edge, head.eye_y + up), shade(head.skin, 0.84), shown=tight > 0.3)
    head.add(head.at(x, head.eye_y + 0.04 + below), shade(head.skin, 0.55), 0.035, tight > 0.3)


def _disc(
    head: Head,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
    colour: Colour,
    x0: float,
    half: float,
    upper: np.ndarray,
    lower: np.ndarray,
) -> None:
    """A disc in an eye, cut by the lids: each edge point is held between them."""
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)[None]
    px, py = x + radius * np.cos(angle), y + radius * np.sin(angle)
    place = (px - x0) / half
    u = np.linspace(-1, 1, upper.shape[1])
    top = np.stack([np.interp(p, u, row) for p, row in zip(place, upper, strict=True)])
    bottom = np.stack([np.interp(p, u, row) for p, row in zip(place, lower, strict=True)])
    head.add(head.at(px, head.eye_y + np.clip(py, -top, np.maximum(bottom, -top))), colour)


def brow(head: Head, side: float) -> None:
    """An eyebrow: its inner end follows AU1 and AU4, its outer end AU2."""
    units, (x0, half) = head.motion.units, head.eye_place(side)
    inner_up, outer_up, drawn = (units[u][:, None] for u in ("AU1", "AU2", "AU4"))
    bushy = head.id.brows == "bushy"
    u = np.linspace(-1, 1, 7)[None]  # From the inner end to the outer one.
    inner, outer = (1 - u) / 2, (1 + u) / 2
    y = head.eye_y - 0.25 - 0.05 * (1 - u * u) + 0.03 * outer
    y = y - 0.17 * inner_up * inner**1.3 - 0.15 * outer_up * outer**0.8
    y = (
        y
        + drawn * (0.16 * inner * (1 - 0.75 * inner_up) + 0.05 * outer * (1 - outer_up))
        - 0.02 * units["AU5"][:, None]
    )
    x = x0 + side * (1.3 * half * u + 0.02) - side * 0.05 * drawn * inner
    thick = (0.075 if bushy else 0.028) * (1.15 - 0.5 * outer)
    points = head.at(np.concatenate([x, x[:, ::-1]], axis=1), np.concatenate([y - thick, (y + thick)[:, ::-1]], axis=1))
    colour = mix(head.hair, (40, 30, 26), 0.45) if head.id.hair_colour != "gray" else (120, 120, 124)
    head.add(points, colour)


def brow_wrinkles(head: Head) -> None:
    """Lines between the brows (AU4), on the forehead (AU1, AU2) and on the nose (AU9)."""
    units, line = head.motion.units, shade(head.skin, 0.66)
    frown = units["AU4"] * (1 - 0.5 * units["AU1"]) > 0.3
    for x in (-0.05, 0.05):
        y = np.array([[head.eye_y - 0.3, head.eye_y - 0.13]])
        head.add(head.at(np.array([[x * 1.2, x]]), y), line, 0.03, frown)
    middle = head.at(np.zeros((1, 2)), np.array([[head.eye_y - 0.32, head.eye_y - 0.1]]))
    head.add(middle, shade(head.skin, 0.56), 0.04, units["AU4"] > DEEP)
    for unit, reach, y, least in (
        *(("AU1", 0.2, y, CREASE) for y in (-0.52, -0.6)),
        *(("AU2", 0.45, y, CREASE) for y in (-0.52, -0.6)),
        ("AU1", 0.3, -0.44, DEEP),
    ):
        x = np.linspace(-reach, reach, 5)[None]
        head.add(head.at(x, np.full((1, 5), y + head.eye_y + 0.04)), line, 0.025, units[unit] > least)
    for y in (0.02, 0.1):
        x, edge = np.array([[-0.1, 0, 0.1]]), np.array([[0.03, -0.01, 0.03]])
        head.add(head.at(x, head.eye_y + y + edge, 0.05), line, 0.03, units["AU9"] > CREASE)


def cheek(head: Head, side: float) -> None:
    """Blush, the raised cheek with crow's feet (AU6) and the fold beside the nose."""
    units, (x0, half) = head.motion.units, head.eye_place(side)
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)[None]
    if head.id.rosy:
        head.add(
            head.at(x0 * 1.25 + 0.15 * np.cos(angle), 0.3 + 0.1 * np.sin(angle)),
            mix(head.skin, (230, 84, 84), 0.4),
        )
    line, raised = shade(head.skin, 0.72), units["AU6"] > CREASE
    arc = np.linspace(-1, 1, 6)[None]
    head.add(head.at(x0 + 0.2 * arc, head.eye_y + 0.2 + 0.05 * arc**2), line, 0.03, raised)
    for fan in (-0.06, 0.0, 0.06):
        x = x0 + side * (half + np.array([[0.07, 0.17]]))
        head.add(head.at(x, head.eye_y + np.array([[fan * 0.5, fan * 1.5]])), line, 0.025, raised)
    fold = np.array([[0.14, 0.24, 0.32]]) * side
    height = np.array([[0.22, 0.36, 0.52]])
    pulled = np.maximum(np.maximum(units["AU10"], units["AU9"]), units["AU12"])
    head.add(head.at(fold * 1.1, height), line, 0.03, pulled > CREASE)
    # A strong pull folds the cheek once more; AU14 pulls one side only, but the fold is the same.
    pulled = np.maximum(pulled, units["AU14"] * (side == (1.0 if head.person.phase < 0.5 else -1.0)))
    second = head.at(fold * 1.1 + 0.1 * side, height + np.array([[0.04, 0.05, 0.06]]))
    head.add(second, shade(head.skin, 0.58), 0.04, pulled > DEEP)


def nose(head: Head) -> None:
    """The nose, the only feature that stands out far: it shows the turn of the head."""
    large = head.id.nose == "large"
    size = (1.6 if large else 0.78) * (0.8 if head.child else 1.0)
    wing, tip_y, top = 0.1 * size, 0.24 + 0.05 * size - 0.05, head.eye_y + 0.02
    lift = np.array([[0.02, 0.3 * size, 0.02]])
    up = -0.03 * head.motion.units["AU9"][:, None]
    for side, tone in ((-1.0, 1.05), (1.0, 0.84)):
        x = np.array([[side * 0.03, 0.0, side * wing]])
        y = np.array([[top, tip_y, tip_y + 0.02]]) + up * [[0, 1, 1]]
        head.add(head.at(np.broadcast_to(x, y.shape), y, lift), shade(head.skin, tone))
    x, y = (
        np.array([[-wing, 0.0, wing, 0.0]]),
        np.array([[tip_y + 0.02, tip_y - 0.01, tip_y + 0.02, tip_y + 0.07]]) + up,
    )
    head.add(
        head.at(np.broadcast_to(x, y.shape), y, np.array([[0.02, 0.3 * size, 0.02, 0.16 * size]])),
        shade(head.skin, 0.74),
    )
    for side in (-1.0, 1.0):
        x = np.array([[0.4, 0.75]]) * side * wing
        head.add(head.at(x, np.full((1, 2), tip_y + 0.03), 0.08), shade(head.skin, 0.4), 0.035)


def mouth(head: Head) -> None:
    """Lips, the gap between them and the teeth."""
    units = {name: curve[:, None] for name, curve in head.motion.units.items()}
    smile, sad, tight, press = units["AU12"], units["AU15"], units["AU23"], units["AU24"]
    half = 0.22 + 0.05 * head.id.mouth_width
    half = half * (1 + 0.34 * smile + 0.3 * units["AU20"] - 0.36 * tight + 0.05 * sad)
    pucker = head.motion.pucker[:, None]
    half = half * (1 - 0.5 * pucker)
    u = np.linspace(-1, 1, 13)[None]
    lone = 1.0 if head.person.phase < 0.5 else -1.0
    middle = MOUTH_Y + 0.05 * smile * (1 - u * u) - 0.15 * smile * u * u + 0.17 * sad * (u * u - 0.25)
    middle = middle - 0.26 * units["AU14"] * np.clip(lone * u, 0, 1) ** 1.6 + 0.02 * units["AU20"]
    opening = (0.085 * np.minimum(units["AU25"], 1) + 0.24 * units["AU26"]) * (1 - 0.8 * pucker) * (1 - u * u) ** 0.6
    full = 2.1 if head.id.lips == "full" else 0.55
    shape = (1 - np.abs(u) ** 2.4) * full * (1 - 0.82 * press) * (1 - 0.45 * tight)
    shape = shape + 1.1 * pucker * (1 - np.abs(u) ** 2.4)
    dip = 1 - 0.25 * np.exp(-((u / 0.18) ** 2))
    sneer = 0.1 * units["AU10"] * (1 - u * u) ** 0.5
    top_in, bottom_in = middle - 0.3 * opening - sneer, middle + 0.7 * opening
    top, bottom = top_in - 0.055 * shape * dip - 0.006, bottom_in + 0.075 * shape + 0.006
    x = half * u + 0.03 * lone * units["AU14"] * np.clip(lone * u, 0, 1)
    natural = mix(head.skin, (176, 60, 66), 0.7 if head.id.gender == "female" else 0.54)
    lips = (196, 22, 50) if head.person.lipstick else natural
    both = np.concatenate([x, x[:, ::-1]], axis=1)
    head.add(head.at(both, np.concatenate([top, bottom[:, ::-1]], axis=1)), lips)
    gap = np.concatenate([top_in, bottom_in[:, ::-1]], axis=1)
    seen = (opening + sneer).max(axis=1) > 0.02
    head.add(head.at(both, gap), (72, 18, 24), shown=seen)
    bared = np.maximum(np.maximum(smile, units["AU10"]), 0.8 * units["AU20"])
    teeth = np.minimum(0.62 * (bottom_in - top_in), 0.02 + 0.1 * bared) * np.clip(bared * 2, 0.5, 1)
    row = np.concatenate([top_in, (top_in + teeth)[:, ::-1]], axis=1)
    head.add(head.at(both * 0.92, row), (248, 246, 240), shown=seen)
    line = shade(lips, 0.5)
    head.add(head.at(np.broadcast_to(x, middle.shape), middle), line, 0.035, ~seen)
    if head.motion.tongue.any():
        out, angle = head.motion.tongue[:, None], np.linspace(0, np.pi, 9)[None]
        tongue = head.at(0.13 * np.cos(angle) + 0 * out, MOUTH_Y + 0.02 + 0.34 * out * np.sin(angle) ** 0.7, 0.05)
        head.add(tongue, (226, 96, 112), shown=head.motion.tongue > 0.2)
        middle_line = head.at(np.zeros((1, 2)) + 0 * out, MOUTH_Y + np.array([[0.04, 0.22]]) * out, 0.05)
        head.add(middle_line, (160, 50, 70), 0.025, head.motion.tongue > 0.2)
    _pressed(head)


def _pressed(head: Head) -> None:
    """What lips that are pressed together (AU24) do to the skin: bulges above and below, a pit at each corner."""
    pressed, dark = head.motion.units["AU24"] > 0.3, shade(head.skin, 0.66)
    if not pressed.any():
        return
    u = np.linspace(-1, 1, 7)[None]
    for width, y, bend in ((0.2, MOUTH_Y - 0.11, 0.03), (0.24, MOUTH_Y + 0.13, -0.04), (0.13, MOUTH_Y + 0.25, -0.05)):
        head.add(head.at(width * u, y - bend * (1 - u * u)), dark, 0.03, pressed)
    for side in (-1.0, 1.0):
        x = side * (0.3 + 0.05 * head.id.mouth_width) + np.zeros((1, 3))
        head.add(head.at(x, MOUTH_Y + np.array([[-0.08, 0.0, 0.08]])), dark, 0.05, pressed)


def beard(head: Head) -> None:
    """Beard or mustache."""
    beard, colour = head.id.beard, mix(head.hair, head.skin, 0.08)
    if beard == "full beard":
        outer = np.array([88, 86, 84, 75, 55, 25, 0])
        low = np.array([0.1, 0.4, 0.65, 0.86, 0.96, 1.0, 1.0])
        inner = np.array([0, 18, 34, 50, 62, 72])
        high = np.array([0.36, 0.37, 0.42, 0.4, 0.26, 0.08])
        azimuth = np.concatenate([outer, -outer[-2::-1], -inner[::-1], inner[1:]])
        y = np.concatenate([low, low[-2::-1], high[::-1], high[1:]])
        head.add(head.skin_point(np.radians(azimuth)[None], y[None], 0.03), colour)
    if beard == "stubble":
        outer, low = np.array([86, 84, 75, 55, 25, 0]), np.array([0.3, 0.62, 0.84, 0.94, 0.98, 0.98])
        inner, high = np.array([0, 18, 34, 50, 66]), np.array([0.37, 0.38, 0.44, 0.46, 0.4])
        azimuth = np.concatenate([outer, -outer[-2::-1], -inner[::-1], inner[1:]])
        y = np.concatenate([low, low[-2::-1], high[::-1], high[1:]])
        head.add(head.skin_point(np.radians(azimuth)[None], y[None], 0.01), mix(head.skin, (64, 66, 74), 0.34))
    if beard == "goatee":
        x = np.array([[-0.2, -0.1, 0.1, 0.2, 0.14, 0.0, -0.14]])
        y = np.array([[0.74, 0.7, 0.7, 0.74, 0.96, 1.0, 0.96]])
        head.add(head.at(x, y, 0.03), colour)
    if beard == "mustache":
        x = np.array([[-0.3, -0.12, 0.0, 0.12, 0.3, 0.1, 0.0, -0.1]])
        y = np.array([[0.5, 0.36, 0.35, 0.36, 0.5, 0.46, 0.44, 0.46]])
        head.add(head.at(x, y, 0.04), colour)


def ageing(head: Head) -> None:
    """Wrinkles of the elderly."""
    if head.id.age != "elderly":
        return
    line, bag, pouch = shade(head.skin, 0.78), shade(head.skin, 0.6), shade(head.skin, 0.86)
    for y in (-0.44, -0.55):
        x = np.linspace(-0.32, 0.32, 7)[None]
        head.add(head.at(x, head.eye_y + y + 0.02 * np.cos(x * 20)), line, 0.022)
    for side in (-1.0, 1.0):
        x0, half = head.eye_place(side)
        arc = np.linspace(-1, 1, 6)[None]
        head.add(head.at(x0 + half * arc, head.eye_y + 0.21 - 0.05 * arc**2), bag, 0.03)
        bulge = np.concatenate([0.2 - 0.05 * arc**2, np.full_like(arc, 0.12)], axis=1)
        head.add(head.at(x0 + half * np.concatenate([arc, arc[:, ::-1]], axis=1), head.eye_y + bulge), pouch)
        for x in (0.24, 0.36):
            fold = side * (x + np.array([[0.0, 0.04, 0.06]]))
            head.add(head.at(fold, np.array([[0.34, 0.46, 0.6]]) + 0.6 * (x - 0.24)), line, 0.024)


def glasses(head: Head) -> None:
    """Eyeglasses or sunglasses."""
    if head.id.glasses == "none":
        return
    frame, dark = (26, 26, 32), head.id.glasses == "sunglasses"
    angle = np.linspace(0, 2 * np.pi, 17)[None]
    for side in (-1.0, 1.0):
        x0, half = head.eye_place(side)
        width = half * 1.4
        rim = head.at(x0 + width * np.cos(angle), head.eye_y + 0.02 + 0.2 * np.sin(angle), 0.06)
        if dark:
            head.add(rim, (22, 22, 26))
        head.add(rim, frame, 0.05)
        outer = x0 + side * width
        arm = head.at(np.array([[outer, side * 0.72]]), np.array([[head.eye_y - 0.03, head.eye_y + 0.02]]), 0.06)
        head.add(arm, frame, 0.05)
    inner = abs(x0) - width
    head.add(head.at(np.array([[-inner, 0, inner]]), head.eye_y + np.array([[0.0, -0.04, 0.0]]), 0.09), frame, 0.05)
