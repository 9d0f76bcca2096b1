"""What a person does over time, as curves that the renderer follows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from videmo_jax.data.synthetic.expressions import activations
from videmo_jax.data.synthetic.scene import POSES, Person

Curve = Float[np.ndarray, "F"]


@dataclass(frozen=True)
class Motion:
    """Curves over the F frames: head angles in degrees, gaze from -1 to 1, the rest from 0 to 1.

    `units` has a curve for every action unit; `closed` how far the left and the right eye are shut.
    """

    yaw: Curve
    pitch: Curve
    roll: Curve
    gaze: tuple[Curve, Curve]
    units: dict[str, Curve]
    closed: tuple[Curve, Curve]
    lean: Curve
    shrug: Curve
    hand: Curve
    tears: Curve
    pucker: Curve
    tongue: Curve
    cup: Curve


# Oscillations per clip. Qwen samples a 2-second clip at 4 frames, 1/3 of it apart: this rate looks like movement there.
SWING = 1.25


def motion(person: Person, t: Curve) -> Motion:
    """The curves of a person at the times t (shares of the clip)."""
    phase, zero = person.phase, np.zeros_like(t)
    side = 1.0 if phase < 0.5 else -1.0
    swing = np.sin(2 * np.pi * (SWING * t + phase))
    sway = np.sin(2 * np.pi * (0.4 * t + phase))
    ramp = _smooth(np.clip(t / 0.8, 0, 1))
    yaw, pitch = POSES[person.pose]
    head = {
        "nod": (zero, 17 * swing, zero),
        "shake": (24 * swing, zero, zero),
        "turn": (side * (70 * ramp - 35), zero, zero),
        "wag": (zero, zero, 15 * swing),
        "tilt": (zero, zero, side * 20 * ramp),
    }.get(person.head, (zero, zero, zero))
    lean = ramp * side if person.body == "lean" else zero
    units = _units(person, t)
    late = _smooth(np.clip((t - 0.35) / 0.2, 0, 1))
    # Between the frames that a 2-second clip is sampled at: a blink must not look like closed eyes.
    blink = (np.abs(t - (0.44 + 0.12 * phase)) < 0.04).astype(t.dtype)
    shut = np.maximum(blink, late) if person.face in ("close_eyes", "yawn") else blink
    shut = np.ones_like(t) if person.face == "sleep" else shut
    sunk = 20 + 3 * np.sin(2 * np.pi * t) if person.face == "sleep" else zero
    # Once a clip, and on a frame that is sampled.
    flash = _smooth(np.clip(1.9 - np.abs(t - 0.68) / 0.12, 0, 1))
    return Motion(
        yaw=yaw + 2.5 * sway + head[0],
        pitch=pitch + sunk + 1.5 * np.roll(sway, 3) + head[1],
        roll=1.5 * sway + head[2] + 0.5 * side * sunk + 9 * lean,
        gaze=_gaze(person, swing),
        units=units,
        closed=(np.maximum(shut, late) if person.face == "wink" else shut, shut),
        lean=lean,
        shrug=_smooth(np.abs(np.sin(np.pi * (1.5 * t + phase)))) if person.body == "shrug" else zero,
        hand=_smooth(np.clip(t / 0.4, 0, 1)) if person.body == "raise_hand" else zero,
        tears=np.clip(t / 0.5, 0.3, 1) if person.tears else zero,
        pucker=flash if person.face == "kiss" else zero,
        tongue=flash if person.face == "make_a_face" else zero,
        cup=_smooth(np.clip(2.2 - np.abs(t - 0.5) / 0.12, 0, 1)) if person.prop == "drink" else zero,
    )


def _smooth(x: Curve) -> Curve:
    return x * x * (3 - 2 * x)


def _gaze(person: Person, swing: Curve) -> tuple[Curve, Curve]:
    still = np.zeros_like(swing)
    return {
        "left": (still - 1, still),
        "right": (still + 1, still),
        "down": (still, still + 1),
        "around": (np.clip(1.5 * swing, -1, 1), still),
    }.get(person.gaze, (still, still))


def _units(person: Person, t: Curve) -> dict[str, Curve]:
    units = activations(person.expressions, t)
    onset = _smooth(np.clip(t / 0.15 + 0.3, 0, 1))
    for unit in person.units:
        units[unit] = np.maximum(units[unit], onset)
    if person.face == "talk" or person.prop == "sing":
        mouth = np.sin(np.pi * (2.5 * t + person.phase)) ** 2
        units["AU25"] = np.maximum(units["AU25"], mouth)
        units["AU26"] = np.maximum(units["AU26"], 0.55 * mouth)
        units["AU24"] = units["AU24"] * (1 - mouth)
    if person.face == "yawn":
        wide = 1.5 * _smooth(np.clip((t - 0.1) / 0.3, 0, 1))
        units["AU25"], units["AU26"] = np.maximum(units["AU25"], wide), np.maximum(units["AU26"], wide)
    return units
