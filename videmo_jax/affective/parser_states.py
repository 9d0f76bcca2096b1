"""States of parts of the body: which part a word such as `raised`, `brown` or `open` belongs to.

It belongs to a part for which the lexicon knows it:
1. to the part right after it, other adjectives between allowed (`long straight brown hair`),
2. else to the subject before it, through verbs, adverbs and, once something has been said of it, `and` and commas
   (`her brows are thick and drawn together`), with all that the subject is joined to (`eyes and mouth`),
3. else to the object after it (`closes her eyes and mouth`, `turns and tilts his head`).
"""

from collections.abc import Iterator

from videmo_jax.affective.lexicon import LEXICON, Key
from videmo_jax.affective.parser_moves import SIDES, directed
from videmo_jax.affective.parser_words import Unit

OWNERS = frozenset({"his", "her", "their", "its", "the", "both"})
TONES = frozenset({"tone", "colour", "color", "shade", "hue", "tint", "shape", "size"}) | {
    *("frame", "frames", "rim", "rims"),
}
COVERING = LEXICON.described | {"hair"}  # parts that may hide others
REACH = 10  # units that a state may stand from its part


def join_parts(units: list[Unit]) -> None:
    """Parts that are named together (`her eyes and mouth`) know each other."""
    last: int | None = None
    for at, unit in enumerate(units):
        if unit.entry.part:
            unit.group = [*(units[last].group if last is not None else []), at]
            if last is not None:
                for other in unit.group[:-1]:
                    units[other].group = unit.group
            last = at
        elif last is not None and not (unit.entry.roles & {"and", "or", "det"} or unit.word == "then"):
            last = None


def states(units: list[Unit]) -> Iterator[tuple[int, Key, str | None]]:
    """The states of parts of the body."""
    subjects: set[int] = set()  # parts of which something has been said as a subject
    objects: set[int] = set()
    for at, unit in enumerate(units):
        if not unit.entry.states or unit.used:
            continue
        # `her right eye` looks nowhere.
        part = None if unit.entry.direction in SIDES else _right_after(units, at)
        group = _bare(units, part) if part is not None else []
        if part is None and not _has_object(units, at):
            part = _subject(units, at, subjects, objects)
            subjects.update(units[part].group if part is not None else [])
        if part is None:
            part = _object(units, at)
            objects.update(units[part].group if part is not None else [])
        if part is None:
            continue
        unit.used = True
        if units[part].entry.part == "teeth":
            units[part].used = True  # clenched, they are not said to be shown
        for each in group or units[part].group:
            key = unit.entry.states.get(units[each].entry.part or "")
            if key is not None and (key not in LEXICON.handled or _by_somebody(units, at)):
                key = directed(units, max(at, part), key)
                unit.parts = (unit.parts or {}) | {key: each}
                yield at, key, None


def _bare(units: list[Unit], part: int) -> list[int]:
    """A part and those joined to it that have no adjective or article of their own: `raised cheeks and brows`.

    Beards and glasses are not: `blue eyes and glasses`.
    """
    group = [part]
    for other in units[part].group:
        if other == group[-1] + 2 and units[other].entry.part not in LEXICON.described:
            group.append(other)
    return group


def _fits(units: list[Unit], at: int, part: int) -> bool:
    """Whether a state is known of a part, or of one named together with it."""
    return any(units[each].entry.part in units[at].entry.states for each in units[part].group)


def _right_after(units: list[Unit], at: int) -> int | None:
    unknown = 0
    for place in range(at + 1, min(at + REACH, len(units))):
        entry = units[place].entry
        if entry.part:
            return place if entry.part in units[at].entry.states else None
        if entry.roles & {"comma", "and"}:
            # `long, straight brown hair`: only adjectives stand between.
            if place == at + 1 and place + 1 < len(units) and _adjective(units[place + 1]) and _right_of(units, place):
                continue
            return None
        if entry.roles and not (entry.intensity or entry.states):
            return None
        if not _adjective(units[place]):
            unknown += 1
            if unknown > 1 or entry.person or entry.garment:
                return None
    return None


def _right_of(units: list[Unit], at: int) -> bool:
    """Whether nothing but adjectives and `and` leads from a place to a part of the body."""
    for place in range(at + 1, min(at + REACH, len(units))):
        entry = units[place].entry
        if entry.part:
            return True
        if not (_adjective(units[place]) or "and" in entry.roles or "comma" in entry.roles):
            return False
        if entry.states and units[place].word.endswith("s") and not entry.colour:
            return False  # a verb: `open, closes her eyes`
    return False


def _adjective(unit: Unit) -> bool:
    entry = unit.entry
    return bool(entry.states or entry.colour or entry.intensity or entry.feeling or entry.direction) or (
        bool(entry.facts) and not entry.person
    )


def _subject(units: list[Unit], at: int, subjects: set[int], objects: set[int]) -> int | None:
    unknown = 0
    crossed = False  # an `and` or a comma
    aimed = False  # a direction
    behind = next((unit.word for unit in units[at + 1 : at + REACH] if not unit.entry.states), None)
    toned = behind in TONES  # `a thick black frame`
    for place in range(at - 1, max(-1, at - REACH - 4), -1):
        entry, word = units[place].entry, units[place].word
        if entry.part:
            if place in objects and crossed:
                return None
            return place if _fits(units, at, place) and (not crossed or place in subjects) else None
        if entry.roles & {"and", "comma"} or word == "but":
            if not (place + 1 < len(units) and units[place + 1].word in ("which", "that")):
                crossed = True
        elif word in ("which", "that") or entry.roles & {"be", "stop"} or entry.intensity or "briefly" in entry.roles:
            continue
        elif entry.pronoun or entry.person or "setting" in entry.roles or entry.garment:
            return None
        elif units[place].used or entry.states or entry.feeling or entry.direction:
            aimed = aimed or bool(entry.direction)
        elif (entry.roles & {"det", "with", "level"} and aimed) or (entry.roles & {"det", "with"} and toned):
            continue  # `turned to the right and tilted`, `has a reddish tone`, `with a black frame`
        elif entry.roles - {"grows", "fades"}:
            return None
        else:
            unknown += 1
            if unknown > 3:
                return None
    return None


def _has_object(units: list[Unit], at: int) -> bool:
    """Whether a verb takes what follows right after it, whatever its subject: `lowers his brows`."""
    active = at == 0 or "be" not in units[at - 1].entry.roles
    owned = at + 1 < len(units) and units[at + 1].word in OWNERS
    return active and owned and _object(units, at) is not None


def _object(units: list[Unit], at: int) -> int | None:
    if units[at].entry.direction:
        return None
    unknown = 0
    for place in range(at + 1, min(at + REACH, len(units))):
        entry = units[place].entry
        if entry.part:
            return place if _fits(units, at, place) else None
        if "and" in entry.roles or "or" in entry.roles:
            if units[at].entry.facts:
                return None
        elif _closes(units[place]):
            return None
        elif not (entry.roles or _adjective(units[place])):
            unknown += 1
            if unknown > 1:
                return None
    return None


def _closes(unit: Unit) -> bool:
    """Whether no object of a verb before it stands behind a unit: a clause, a person or a garment begins there."""
    entry = unit.entry
    clause = entry.roles & {"comma", "break", "with", "because", "show", "then"} and not entry.states
    return bool(clause or entry.person or entry.garment or (entry.pronoun and "det" not in entry.roles))


def _by_somebody(units: list[Unit], at: int) -> bool:
    """Whether a person or a hand covers or touches something, and not hair, clothes or a shadow."""
    if _participle(units, at):  # `hidden behind her hand`
        agent = False
        for unit in units[at + 1 : at + REACH]:
            if unit.entry.part == "hand" or unit.entry.person or "nominative" in unit.entry.roles:
                return True
            if unit.entry.roles & {"and", "comma", "break"}:
                break
            agent = agent or "with" in unit.entry.roles
        return not agent
    nearest = units[at].word.endswith("ing") or (at > 0 and units[at - 1].word in ("that", "which"))
    crossed = False  # an `and` or a comma, behind which the subject of an earlier verb may stand
    passed = False
    for place in range(at - 1, -1, -1):
        entry = units[place].entry
        if entry.part == "hand" or entry.person or "nominative" in entry.roles or units[place].word == "who":
            return True
        if "break" in entry.roles:
            break
        if entry.part in COVERING or entry.garment or "setting" in entry.roles:
            worn = place and any("with" in unit.entry.roles for unit in units[max(0, place - 3) : place])
            if not crossed and (nearest or not worn):
                return False
            passed = True
        crossed = crossed or bool(entry.roles & {"and", "comma"})
    return not passed


def _participle(units: list[Unit], at: int) -> bool:
    """Whether a verb tells what has been done to something: no object follows."""
    following = units[at + 1].entry if at + 1 < len(units) else None
    past = units[at].word.endswith("ed") or units[at].word == "hidden"
    return past and not (following and ("det" in following.roles or following.part))


def takes_part(units: list[Unit], at: int) -> bool:
    """Whether a turn or a lean has a part of the body as its subject or object."""
    return _subject(units, at, set(), set()) is not None or _object(units, at) is not None
