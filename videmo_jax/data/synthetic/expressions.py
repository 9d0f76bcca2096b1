"""Emotions as facial action units (FACS), and how they rise and fall in a clip.

An emotion is a set of action units; a clip shows one or two emotions in time; the renderer and the answers
both read the same table, so what is asked is what is drawn.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# The units the renderer draws. AU14 is one-sided here (the sign of contempt), AU43 closes both eyes.
UNITS = (
    "AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU10", "AU12", "AU14", "AU15", "AU20", "AU23", "AU24",
    "AU25", "AU26", "AU43",
)  # fmt: skip

# The twelve of AffWild2, in the order in which its answers list them.
DETECTED_UNITS = (
    "AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26",
)  # fmt: skip

# EMFACS prototypes; for the compound feelings of MAFW a reading of our own that looks unlike all the others
# (anxiety darts its eyes, disappointment lowers them, helplessness shakes the head: see scene.MANNERS).
EMOTION_UNITS: dict[str, tuple[str, ...]] = {
    "neutral": (),
    "happiness": ("AU6", "AU12", "AU25"),
    "sadness": ("AU1", "AU4", "AU15"),
    "anger": ("AU4", "AU7", "AU23"),
    "surprise": ("AU1", "AU2", "AU5", "AU25", "AU26"),
    "fear": ("AU1", "AU2", "AU4", "AU5", "AU20", "AU25"),
    "disgust": ("AU4", "AU7", "AU9", "AU10"),
    "contempt": ("AU14",),
    "anxiety": ("AU1", "AU4", "AU24"),
    "disappointment": ("AU15", "AU24"),
    "helplessness": ("AU1", "AU15", "AU25"),
    "repression": ("AU15", "AU24"),
}

STRENGTHS = {"weak": 0.35, "medium": 0.67, "strong": 1.0}
NEGATIVE = ("sadness", "anger", "fear", "disgust")


@dataclass(frozen=True)
class Expression:
    """One emotion in a clip: what, how strong, and from when to when (shares of the clip, 0 to 1).

    It rises over `RISE` from `start`, holds, and falls over `RISE` before `end`; a start below 0 or an end
    above 1 means that it is there from the first frame, or to the last.
    """

    emotion: str
    strength: str
    start: float
    end: float

    @property
    def units(self) -> tuple[str, ...]:
        """The action units that it shows, in the order of `UNITS`."""
        units = EMOTION_UNITS[self.emotion]
        # A strong smile opens the jaw (a laugh), strong anger presses the lips: visible in the pixels too.
        extra = {"happiness": ("AU26",), "anger": ("AU24",)}.get(self.emotion, ())
        return units + extra if self.strength == "strong" else units


RISE = 0.12


def envelope(expression: Expression, t: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """How far the expression is there at the times t (shares of the clip), 0 to its strength."""
    up = np.clip((t - expression.start) / RISE, 0, 1)
    down = np.clip((expression.end - t) / RISE, 0, 1)
    ramp = np.minimum(up, down)
    return STRENGTHS[expression.strength] * ramp * ramp * (3 - 2 * ramp)


def activations(expressions: tuple[Expression, ...], t: Float[np.ndarray, "F"]) -> dict[str, np.ndarray]:
    """Activation, 0 to 1, of every unit in `UNITS` at the times t; where two ask for one the greater holds."""
    active = {unit: np.zeros_like(t) for unit in UNITS}
    for expression in expressions:
        level = envelope(expression, t)
        for unit in expression.units:
            active[unit] = np.maximum(active[unit], level)
    return active
