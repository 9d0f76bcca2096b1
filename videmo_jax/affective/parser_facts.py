"""What one sentence says: its facts and feelings, in order.

A word for a state (`raised`, `brown`, `open`) belongs to a part of the body for which the lexicon knows it:
1. to the part right after it, other adjectives between allowed (`long straight brown hair`),
2. else to the subject before it, through verbs, adverbs and, once something has been said of it, `and` and commas
   (`her brows are thick and drawn together`), with all that the subject is joined to (`eyes and mouth`),
3. else to the object after it (`closes her eyes and mouth`, `turns and tilts his head`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from videmo_jax.affective.lexicon import LEXICON, Key
from videmo_jax.affective.parser_people import Who
from videmo_jax.affective.parser_words import Unit

REACH = 10  # units that a state may stand from its part
SIDES = ("left", "right")
AT_PARTS = {"mouth": "mouth", "mouth corners": "mouth", "upper lip": "mouth", "lower lip": "mouth", "eyes": "eyes"} | {
    part: part for part in ("face", "chin", "head", "nose", "hair", "forehead")
}
AT_PARTS |= {"cheeks": "cheek", "jaw": "chin"}
AT = frozenset({"at", "on", "over", "to", "against", "near", "before", "in", "touching", "toward", "towards"}) | {
    *("close", "under", "beneath", "into", "covering", "front"),
}

HAND_AT = ("attribute", "body actions", "hand at {}")


@dataclass(slots=True)
class Event:
    """Something said at a place of a sentence; a feeling's item is its bare name.

    Attributes:
      first: of a feeling: whether its sentence says that it is how things begin.
      then: of a feeling: whether its sentence goes on in time after it.
    """

    at: int
    key: Key
    people: list[Who]
    denied: bool = False
    intensity: str | None = None
    first: bool = False
    then: bool = False

    @property
    def feeling(self) -> str | None:
        """The feeling that it names, if it names one."""
        return self.key[2] if self.key[1] == "feeling" else None

    @property
    def shows(self) -> bool:
        """Whether it can show a feeling: an expression or an action, not a look."""
        return self.key[0] == "expression" or (self.key[1].endswith("actions") and self.key[2] not in POSTURES)


POSTURES = frozenset({"sits", "stands", "lies", "walks"})


def events(units: list[Unit], about: list[list[Who]]) -> list[Event]:
    """All that a sentence says of people, ordered by place."""
    denied, aside = _denied(units), _setting(units)
    _join_parts(units)
    found: list[tuple[int, Key, str | None]] = [*_hands(units), *_looks(units)]
    found.extend(_states(units))
    for at, unit in enumerate(units):
        if not unit.used and not aside[at]:
            found.extend(_alone(units, at))
    found.sort(key=lambda each: each[0])
    return [Event(at, key, about[at], denied[at], strength) for at, key, strength in found]


def _alone(units: list[Unit], at: int) -> Iterator[tuple[int, Key, str | None]]:
    """What a unit says by itself."""
    entry = units[at].entry
    for key in entry.facts:
        if key[1] != "gender":
            yield at, key, None
    if entry.feeling:
        yield at, ("emotion", "feeling", entry.feeling), _intensity(units, at)
    elif entry.sentiment:
        strength = _intensity(units, at)
        yield at, ("emotion", "sentiment", entry.sentiment + (f" ({strength})" if strength else "")), None
    if entry.garment:
        yield at, ("attribute", "accessories", " ".join([*_garment_colour(units, at), entry.garment])), None
    elif entry.colour and _dressed_in(units, at):
        yield at, ("attribute", "accessories", f"{entry.colour} clothes"), None


def _denied(units: list[Unit]) -> list[bool]:
    """Which units are denied: what follows `no`, `not`, `without`, `stops` in its clause, and a smile that fades."""
    denied, inside = [False] * len(units), False
    for at, unit in enumerate(units):
        roles = unit.entry.roles
        if "stop" in roles:
            inside = True
        elif (inside and "comma" in roles and not _list_goes_on(units, at)) or (
            inside and (roles & {"and", "break", "because"} or (unit.word in ("with", "she", "he")))
        ):
            inside = False
        denied[at] = inside
        if "fades" in roles and not unit.entry.states:
            smile = at - 2 if at > 1 and "be" in units[at - 1].entry.roles else at - 1
            if smile >= 0 and any(key[0] == "expression" for key in units[smile].entry.facts):
                denied[smile] = True
    return denied


def _list_goes_on(units: list[Unit], at: int) -> bool:
    """Whether a comma stands inside of `no glasses, beard or hat`."""
    for unit in units[at + 1 : at + 8]:
        if "or" in unit.entry.roles:
            return True
        if unit.entry.roles & {"and", "break", "be", "with"} or unit.entry.pronoun:
            return False
    return False


def _setting(units: list[Unit]) -> list[bool]:
    """Which units describe the place, the light or the camera: `warm light`, `the mood of the scene is tense`."""
    aside = [False] * len(units)
    subject = False
    for at, unit in enumerate(units):
        entry = unit.entry
        if entry.person or entry.pronoun or entry.part:
            subject = False
        elif "setting" in entry.roles and not unit.used:
            before = at - 1
            while before >= 0 and not units[before].entry.roles and not units[before].entry.person:
                aside[before] = True
                before -= 1
            following = units[at + 1].entry.roles if at + 1 < len(units) else set()
            first = all("det" in each.entry.roles or aside[place] for place, each in enumerate(units[:at]))
            subject = bool("be" in following and (first or subject))
        aside[at] = aside[at] or subject
    return aside


def _join_parts(units: list[Unit]) -> None:
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


def _states(units: list[Unit]) -> Iterator[tuple[int, Key, str | None]]:
    """The states of parts of the body."""
    told: set[int] = set()  # parts of which something has been said as a subject
    objects: set[int] = set()
    for at, unit in enumerate(units):
        if not unit.entry.states or unit.used:
            continue
        part = _right_after(units, at)
        group = _bare(units, part) if part is not None else []
        if part is None:
            part = _subject(units, at, told, objects)
            if part is not None:
                told.update(units[part].group)
            else:
                part = _object(units, at)
                if part is not None:
                    objects.update(units[part].group)
        if part is None:
            continue
        unit.used = True
        if units[part].entry.part == "teeth":
            units[part].used = True  # clenched, they are not said to be shown
        for each in group or units[part].group:
            key = unit.entry.states.get(units[each].entry.part or "")
            if key is not None:
                yield at, _directed(units, max(at, part), key), None


def _bare(units: list[Unit], part: int) -> list[int]:
    """A part and those joined to it that have no adjective or article of their own: `raised cheeks and brows`."""
    group = [part]
    for other in units[part].group:
        if other == group[-1] + 2:
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


def _subject(units: list[Unit], at: int, told: set[int], objects: set[int]) -> int | None:
    unknown = 0
    crossed = False  # an `and` or a comma
    for place in range(at - 1, max(-1, at - REACH - 4), -1):
        entry, word = units[place].entry, units[place].word
        if entry.part:
            if place in objects and (crossed or not word):
                return None
            return place if _fits(units, at, place) and (not crossed or place in told) else None
        if entry.roles & {"and", "comma"}:
            if not (place + 1 < len(units) and units[place + 1].word in ("which", "that")):
                crossed = True
        elif word in ("which", "that") or "be" in entry.roles or entry.intensity or "briefly" in entry.roles:
            continue
        elif entry.pronoun or entry.person or "setting" in entry.roles or entry.garment:
            return None
        elif units[place].used or entry.states or entry.feeling or entry.direction:
            continue
        elif entry.roles - {"grows", "fades"}:
            return None
        else:
            unknown += 1
            if unknown > 2:
                return None
    return None


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


def _directed(units: list[Unit], at: int, key: Key) -> Key:
    """A turn, tilt or lean with its direction, if one follows; a head tilted back is raised."""
    if key[2] not in ("turns head", "tilts head", "leans"):
        return key
    for direction in _directions(units, at + 1, 6):
        if key[2] != "leans" and direction in ("up", "down"):
            return (*key[:2], "raises head" if direction == "up" else "lowers head")
        if key[2] == "tilts head" and direction in ("back", "forward"):
            return (*key[:2], "raises head" if direction == "back" else "lowers head")
        if direction in SIDES or (key[2] == "leans" and direction in ("forward", "back")):
            return (*key[:2], f"{key[2]} {direction}")
    return key


def _directions(units: list[Unit], start: int, reach: int) -> list[str]:
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
        elif entry.feeling or entry.part or entry.person or entry.facts or entry.roles & {"comma", "break", "or"}:
            break
    return found


def _looks(units: list[Unit]) -> Iterator[tuple[int, Key, str | None]]:
    """Where somebody looks, turns or leans."""
    for at, unit in enumerate(units):
        roles = unit.entry.roles
        if unit.word in ("faces", "facing") and not (at and "det" in units[at - 1].entry.roles):
            for direction in _directions(units, at + 1, 3):
                yield at, _faced(direction), None
        elif "look" in roles:
            for direction in _directions(units, at + 1, 6):
                yield at, ("expression", "gaze", GAZES.get(direction, direction)), None
        elif "lean" in roles and not _takes_part(units, at):
            unit.used = True
            yield at, _directed(units, at, ("attribute", "body actions", "leans")), None
        elif "turn" in roles and not _takes_part(units, at):
            for direction in _directions(units, at + 1, 6)[:1]:
                unit.used = True
                yield at, _faced(direction), None


def _faced(direction: str) -> Key:
    """What a head that turns or points somewhere does."""
    if direction in ("at the camera", "forward"):
        return "expression", "gaze", "at the camera"
    if direction in ("up", "down"):
        return "attribute", "head actions", "raises head" if direction == "up" else "lowers head"
    return "attribute", "head actions", f"turns head {direction}" if direction in SIDES else "turns head"


GAZES = {"forward": "at the camera", "back": "away"}


def _takes_part(units: list[Unit], at: int) -> bool:
    """Whether a turn or a lean has a part of the body as its subject or object."""
    return _subject(units, at, set(), set()) is not None or _object(units, at) is not None


def _hands(units: list[Unit]) -> Iterator[tuple[int, Key, str | None]]:
    """Where hands are: `holds both hands in front of her mouth`, `behind her fingers`."""
    for at, unit in enumerate(units):
        if unit.entry.part != "hand":
            continue
        before = units[max(0, at - 3) : at]
        if any(each.word == "behind" for each in before):
            mouth = any(AT_PARTS.get(each.entry.part or "") == "mouth" for each in units[max(0, at - 7) : at])
            yield at, _hand_at("mouth" if mouth else "face"), None
            continue
        place = _hand_place(units, at)
        if place is not None:
            yield at, _hand_at(AT_PARTS[units[place].entry.part or ""]), None


def _hand_at(part: str) -> Key:
    return (*HAND_AT[:2], HAND_AT[2].format(part))


def _hand_place(units: list[Unit], at: int) -> int | None:
    """The part of the face that a hand is brought to, by its place."""
    ready, origin = False, False
    for place in range(at + 1, min(at + REACH, len(units))):
        entry, word = units[place].entry, units[place].word
        if word == "from":
            origin = True
        elif word in AT:
            ready, origin = True, False
        elif entry.part:
            if origin:
                origin = False
            elif ready and entry.part in AT_PARTS:
                return place
            else:
                return None
        elif entry.roles & {"comma", "and", "break"} or entry.person:
            return None
    return None


def _intensity(units: list[Unit], at: int) -> str | None:
    """How strong a feeling is: `deep sadness`, `sadness of medium intensity`, `her joy is intense`."""
    for place in range(at - 1, max(-1, at - 4), -1):
        unit = units[place]
        if unit.entry.intensity:
            return unit.entry.intensity
        if (
            unit.word not in ("of", "sense", "feeling", "with", "in", "a", "an", "state", "emotion")
            and unit.entry.roles
        ):
            break
        if unit.entry.facts or unit.entry.states or unit.entry.part or unit.entry.feeling:
            break
    linked, pending = False, None
    for place in range(at + 1, min(at + 7, len(units))):
        entry = units[place].entry
        if entry.intensity and pending is None:
            pending = entry.intensity
            last = place + 1 == len(units) or bool(units[place + 1].entry.roles & {"comma", "and", "break"})
            if linked and last:
                return pending
        elif "level" in entry.roles:
            if pending:
                return pending
        elif "be" in entry.roles:
            linked = True
        elif entry.feeling or entry.facts or entry.part or entry.roles & {"and", "break", "show", "because"}:
            return None
    return None


def _garment_colour(units: list[Unit], at: int) -> list[str]:
    if units[at].entry.garment in LEXICON.uncoloured:
        return []
    for place in range(at - 1, max(-1, at - 3), -1):
        entry = units[place].entry
        if entry.colour:
            return [entry.colour]
        if entry.roles or entry.part:
            break
    return []


def _dressed_in(units: list[Unit], at: int) -> bool:
    """Whether a colour stands for clothes: `dressed in black`."""
    before = [unit.word for unit in units[max(0, at - 2) : at]]
    last = at + 1 == len(units) or bool(units[at + 1].entry.roles)
    return last and bool(before) and before[-1] in ("dressed", "wearing", "wears")
