"""Captions as sentences of units: the words and phrases of the lexicon, in order, with what each may mean."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from videmo_jax.affective.lexicon import LEXICON, Entry, Key

WORD = re.compile(r"actionunit\d+|[^\W\d_]+|\d+(?:\.\d+)?|[,.;:!?()\n\u2026\u2013\u2014]")
CLITIC = re.compile(r"['\u2019](?:s|re|ve|ll|d|m)\b")
NOT = re.compile(r"n['\u2019]t\b")
ACTION_UNITS = re.compile(r"\b(?:action unit|au)s? ?(\d{1,2}(?:(?: ?[,+&] ?| and |, and )\d{1,2})*)\b")
STOPS = frozenset(".;!?\n\u2026")
PAUSES = frozenset(",:()\u2013\u2014")
MAX_WORDS = 200  # of a sentence; a longer one is cut, so that the time for any text grows with its length alone
MAX_DETERMINERS = 2  # that may stand between two words of a phrase
UNKNOWN = Entry()
COMMA = Entry(roles={"comma"})
IS = Entry(roles={"be"})  # `Hair: brown`


@dataclass(slots=True, eq=False)
class Unit:
    """A word or phrase in its sentence.

    Attributes:
      word: its first word as written, in lower case.
      entry: what it may mean.
      used: whether a part of the body, a look or a turn has taken it.
      parts: of each state that it says of a part, the part's number in the sentence; None without any.
      place: half-open, in characters of the text as it was cut up (`prepared`).
    """

    word: str
    entry: Entry
    used: bool = False
    group: list[int] = field(default_factory=list)  # of a part: the parts named together with it
    parts: dict[Key, int] | None = None
    place: tuple[int, int] = (0, 0)


def sentences(text: str) -> Iterator[list[Unit]]:
    """The sentences of a text; a semicolon or a line's end closes one, too."""
    text = prepared(text)
    words: list[str] = []
    places: list[tuple[int, int]] = []
    for match in WORD.finditer(text + "."):
        word = match[0]
        if word not in STOPS:
            words.append(word)
            places.append(match.span())
        if words and (word in STOPS or len(words) == MAX_WORDS):
            units = _units(words, places)
            if units:  # an action unit that there is not leaves nothing
                yield units
            words, places = [], []


def prepared(text: str) -> str:
    """The text in lower case, `n't` written out, other clitics left out, action units one by one."""
    text = text.lower()
    for pattern, written in REWRITTEN:
        text = pattern.sub(written, text)
    return text


def original_place(text: str) -> Callable[[tuple[int, int]], tuple[int, int]]:
    """From places in `prepared(text)` to those in the text; what was rewritten has the place of what it was."""
    steps: list[tuple[list[int], list[int]]] = []  # of each step: where its pieces begin in the new and in the old text
    new: list[int] = []
    old: list[int] = []
    start = 0
    for at, character in enumerate(text):  # a few characters have two in lower case
        if (size := len(character.lower())) > 1:
            new.extend((start, start + size))
            old.extend((at, at + 1))
        start += size
    steps.append((new, old))
    current = text.lower()
    for pattern, written in REWRITTEN:
        new, old, shift = [], [], 0
        for match in pattern.finditer(current):
            size = len(written if isinstance(written, str) else written(match))
            new.extend((match.start() + shift, match.start() + shift + size))
            old.extend(match.span())
            shift += size - (match.end() - match.start())
        steps.append((new, old))
        current = pattern.sub(written, current)

    def character(place: int, after: int) -> int:
        """Where a character begins (after = 0) or ends (1) in the text."""
        for begins, were in reversed(steps):
            piece = bisect_right(begins, place) - 1
            if piece < 0:
                continue
            # Pieces of an even number are what was rewritten.
            place = were[piece] + place - begins[piece] if piece % 2 else were[piece + after] - after
        return place + after

    return lambda place: (character(place[0], 0), character(place[1] - 1, 1))


def _action_units(match: re.Match[str]) -> str:
    return " ".join(f" actionunit{int(number)} " for number in re.findall(r"\d+", match[1]))


REWRITTEN: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (NOT, " not"),
    (CLITIC, " "),
    (ACTION_UNITS, _action_units),
)


def _units(words: list[str], places: list[tuple[int, int]]) -> list[Unit]:
    bases = [LEXICON.bases.get(word, word) for word in words]
    units: list[Unit] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word in PAUSES:
            entry = IS if word == ":" and units and units[-1].entry.part else COMMA
            units.append(Unit(word, entry, place=places[at]))
            at += 1
            continue
        if word.startswith("actionunit"):
            key = LEXICON.action_units.get(int(word.removeprefix("actionunit") or 0))
            if key is not None:
                units.append(Unit(word, Entry(facts=[key]), place=places[at]))
            at += 1
            continue
        length, entry = _phrase(words, bases, at)
        if not length or (words[at] == "a" and _is_thing(words, at + length)):  # `a little girl` is no `a little`
            length, entry = 1, LEXICON.singles.get(word, UNKNOWN)
        units.append(Unit(word, entry, place=(places[at][0], places[at + length - 1][1])))
        at += length
    return units


def _is_thing(words: list[str], at: int) -> bool:
    entry = LEXICON.singles.get(words[at], UNKNOWN) if at < len(words) else UNKNOWN
    return bool(entry.person or entry.part or entry.garment)


def _phrase(words: list[str], bases: list[str], at: int) -> tuple[int, Entry]:
    """The longest phrase of several words that begins at a place: how many words it takes (0: none) and its entry."""
    for phrase, entry in LEXICON.phrases.get(bases[at], ()):
        place, end = at + 1, len(words)
        for part in phrase[1:]:
            last = min(end, place + MAX_DETERMINERS)
            while place < last and words[place] in LEXICON.determiners and bases[place] != part:
                place += 1
            if place == end or bases[place] != part:
                break
            place += 1
        else:
            return place - at, entry
    return 0, UNKNOWN
