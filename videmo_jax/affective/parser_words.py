"""Captions as sentences of units: the words and phrases of the lexicon, in order, with what each may mean."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from videmo_jax.affective.lexicon import LEXICON, Entry

WORD = re.compile(r"[^\W\d_]+|\d+|[,.;:!?()\n\u2026\u2013\u2014]")
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
    """

    word: str
    entry: Entry
    used: bool = False
    group: list[int] = field(default_factory=list)  # of a part: the parts named together with it


def sentences(text: str) -> Iterator[list[Unit]]:
    """The sentences of a text; a semicolon or a line's end closes one, too."""
    text = NOT.sub(" not", text.lower())
    text = ACTION_UNITS.sub(_action_units, CLITIC.sub(" ", text))
    words: list[str] = []
    for word in (*WORD.findall(text), "."):
        if word not in STOPS:
            words.append(word)
        if words and (word in STOPS or len(words) == MAX_WORDS):
            units = _units(words)
            if units:  # an action unit that there is not leaves nothing
                yield units
            words = []


def _action_units(match: re.Match[str]) -> str:
    return " ".join(f" actionunit {int(number)} " for number in re.findall(r"\d+", match[1]))


def _units(words: list[str]) -> list[Unit]:
    bases = [LEXICON.bases.get(word, word) for word in words]
    units: list[Unit] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word in PAUSES:
            units.append(Unit(word, IS if word == ":" and units and units[-1].entry.part else COMMA))
            at += 1
            continue
        if word == "actionunit":
            key = LEXICON.action_units.get(int(words[at + 1]))
            if key is not None:
                units.append(Unit(word, Entry(facts=[key])))
            at += 2
            continue
        length, entry = _phrase(words, bases, at)
        if not length or (words[at] == "a" and _is_thing(words, at + length)):  # `a little girl` is no `a little`
            length, entry = 1, LEXICON.singles.get(word, UNKNOWN)
        units.append(Unit(word, entry))
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
