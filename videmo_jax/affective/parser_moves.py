"""Directions: where a look, a turn, a tilt or a lean goes."""

from videmo_jax.affective.lexicon import Key
from videmo_jax.affective.parser_words import Unit

SIDES = ("left", "right")


def directed(units: list[Unit], at: int, key: Key) -> Key:
    """A turn, tilt or lean with its direction, if one follows; a head tilted back is raised."""
    if key[2] not in ("turns head", "tilts head", "leans"):
        return key
    for direction in directions(units, at + 1, 6):
        if key[2] != "leans" and direction in ("up", "down"):
            return (*key[:2], "raises head" if direction == "up" else "lowers head")
        if key[2] == "tilts head" and direction in ("back", "forward"):
            return (*key[:2], "raises head" if direction == "back" else "lowers head")
        if direction in SIDES or (key[2] == "leans" and direction in ("forward", "back")):
            return (*key[:2], f"{key[2]} {direction}")
    return key


def directions(units: list[Unit], start: int, reach: int) -> list[str]:
    """The directions named from a place on, and marks their words as used."""
    found: list[str] = []
    for place in range(start, min(start + reach, len(units))):
        entry = units[place].entry
        if entry.direction and not units[place].used:
            following = units[place + 1].entry if place + 1 < len(units) else None
            if following is not None and following.part:
                break  # `her left hand`
            found.append(entry.direction)
            units[place].used = True
        elif "and" in entry.roles:
            following = units[place + 1].entry if place + 1 < len(units) else None
            if following is None or not (following.direction or following.roles & {"with"}):
                break
        elif entry.garment:
            continue  # `over her glasses to the left`
        elif entry.feeling or entry.part or entry.person or entry.facts or entry.roles & {"comma", "break", "or"}:
            break
    return found


def faced(direction: str) -> Key:
    """What a head that turns or points somewhere does."""
    if direction in ("at the camera", "forward"):
        return "expression", "gaze", "at the camera"
    if direction in ("up", "down"):
        return "attribute", "head actions", "raises head" if direction == "up" else "lowers head"
    return "attribute", "head actions", f"turns head {direction}" if direction in SIDES else "turns head"
