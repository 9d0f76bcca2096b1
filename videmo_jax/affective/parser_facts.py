"""What one sentence says: its facts and feelings, in order."""

from collections.abc import Iterator
from dataclasses import dataclass

from videmo_jax.affective.lexicon import LEXICON, Key
from videmo_jax.affective.parser_denials import denials
from videmo_jax.affective.parser_moves import directed, directions, faced
from videmo_jax.affective.parser_people import Who
from videmo_jax.affective.parser_states import join_parts, states, takes_part
from videmo_jax.affective.parser_words import Unit

REACH = 10  # units that a hand may stand from where it is
WITHIN = frozenset({"of", "sense", "feeling", "with", "in", "a", "an", "state", "emotion", "sign"}) | {
    *("level", "degree", "amount", "intensity", "kind"),
}  # `a sense of`
AT_PARTS = {"mouth": "mouth", "mouth corners": "mouth", "upper lip": "mouth", "lower lip": "mouth", "eyes": "eyes"} | {
    part: part for part in ("face", "chin", "head", "nose", "hair", "forehead")
}
AT_PARTS |= {"cheeks": "cheek", "jaw": "chin"}
AT = frozenset({"at", "on", "over", "to", "against", "near", "before", "in", "touching", "toward", "towards"}) | {
    *("close", "under", "beneath", "into", "covering", "front"),
}

HAND_AT = ("attribute", "body actions", "hand at {}")


@dataclass(slots=True, eq=False)
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
    denied, aside = denials(units), _setting(units)
    join_parts(units)
    found: list[tuple[int, Key, str | None]] = [*_hands(units), *_looks(units)]
    found.extend(states(units))
    for at, unit in enumerate(units):
        if not unit.used and not aside[at]:
            found.extend(_alone(units, at))
    found.sort(key=lambda each: each[0])
    return [Event(at, key, about[at], denied[at], strength) for at, key, strength in found]


def event_place(event: Event, units: list[Unit]) -> tuple[int, int]:
    """The words of an event: its own, the part that a state is of, the strength or colour and the denial before it."""
    unit = units[event.at]
    first = last = event.at
    if unit.parts and event.key in unit.parts:
        first, last = min(first, unit.parts[event.key]), max(last, unit.parts[event.key])
    while first and first > event.at - 3 and (units[first - 1].entry.intensity or units[first - 1].entry.colour):
        first -= 1
    if event.denied:
        stops = (at for at in range(first - 1, max(-1, first - 5), -1) if "stop" in units[at].entry.roles)
        first = next(stops, first)
    return units[first].place[0], units[last].place[1]


def _alone(units: list[Unit], at: int) -> Iterator[tuple[int, Key, str | None]]:
    """What a unit says by itself."""
    entry = units[at].entry
    for key in entry.facts:
        sits_on_somebody = key[2] == "sits" and at > 0 and units[at - 1].entry.garment in ("hat", "cap", "glasses")
        if key[1] != "gender" and not sits_on_somebody:
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
            while before >= 0 and not (units[before].entry.roles or units[before].entry.person):
                aside[before] = not units[before].entry.facts
                before -= 1
            following = units[at + 1].entry.roles if at + 1 < len(units) else set()
            first = all("det" in each.entry.roles or aside[place] for place, each in enumerate(units[:at]))
            subject = bool("be" in following and (first or subject))
        aside[at] = aside[at] or subject
    return aside


def _looks(units: list[Unit]) -> Iterator[tuple[int, Key, str | None]]:
    """Where somebody looks, turns or leans."""
    for at, unit in enumerate(units):
        roles = unit.entry.roles
        if unit.word in ("faces", "facing") and not (at and "det" in units[at - 1].entry.roles):
            for direction in directions(units, at + 1, 3):
                yield at, faced(direction), None
        elif "look" in roles:
            for direction in directions(units, at + 1, 6):
                yield at, ("expression", "gaze", GAZES.get(direction, direction)), None
        elif "lean" in roles and not takes_part(units, at):
            unit.used = True
            yield at, directed(units, at, ("attribute", "body actions", "leans")), None
        elif "turn" in roles and not takes_part(units, at):
            for direction in directions(units, at + 1, 6)[:1]:
                unit.used = True
                yield at, faced(direction), None


GAZES = {"forward": "at the camera", "back": "away"}


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
        if "comma" in unit.entry.roles and place == at - 1:
            continue  # `a faint, embarrassed smile`
        if unit.entry.roles and unit.word not in WITHIN:
            break
        if unit.entry.facts or unit.entry.states or unit.entry.part or unit.entry.feeling:
            break
    if _word(units, at + 1) == "(" and at + 2 < len(units) and units[at + 2].entry.intensity:
        return units[at + 2].entry.intensity
    linked, pending = False, None
    for place in range(at + 1, min(at + 7, len(units))):
        entry = units[place].entry
        if entry.intensity and pending is None:
            pending = entry.intensity
            last = place + 1 == len(units) or bool(
                units[place + 1].entry.roles & {"comma", "and", "break", "with", "first"}
            )
            if linked and last:
                return pending
        elif "level" in entry.roles:
            if pending:
                return pending
        elif "be" in entry.roles:
            linked = True
        elif units[place].word == "it" or ("and" in entry.roles and _word(units, place + 1) == "it"):
            continue  # `she is angry, and it is strong`
        elif entry.feeling or entry.facts or entry.part or entry.roles & {"and", "break", "show", "because"}:
            return None
    return None


def _word(units: list[Unit], at: int) -> str:
    return units[at].word if at < len(units) else ""


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
