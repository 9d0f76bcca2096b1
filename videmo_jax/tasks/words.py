"""Words of free answers: stems and negation, small and fixed, so that a reading is the same everywhere."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

# Words that say nothing by themselves: they may stand inside a name («close her eyes») without changing it.
FILLERS = frozenset(
    (
        "a", "an", "the", "of", "to", "by", "at", "on", "in", "her", "his", "their", "its", "this",
        "that", "these", "those", "is", "are", "was", "were", "be", "being", "been", "very",
        "about", "approximately", "roughly",
    )
)  # fmt: skip
DEGREES = frozenset(("very",))  # a filler, unless it tells names apart («positive», «very positive»)
NEGATIONS = frozenset(
    (
        "no", "not", "never", "neither", "nor", "none", "without", "lack", "lacks", "lacking",
        "cannot", "isnt", "arent", "wasnt", "werent", "doesnt", "dont", "didnt"
    )
)  # fmt: skip
# How many words after a negation it reaches, and what ends it earlier.
REACH = 3
STOPS = frozenset(".;:!?,\n") | {"but", "however"}

# Words of one meaning that no common ending shows, by their stems.
_FAMILIES = {
    "happi": ("joi", "joyous"),
    "anger": ("angri",),
    "fear": ("afraid", "scar"),
    "anxieti": ("anxious",),
    "contempt": ("contemptuous",),
    "hostil": ("hostiliti",),
    "mal": ("man", "boy", "gentleman"),
    "femal": ("woman", "girl", "ladi"),
    "glass": ("eyeglass", "spectacl"),
    "mustach": ("moustach",),
    "grai": ("grei",),
    "degre": ("°",),
}
_FAMILY = {word: family for family, others in _FAMILIES.items() for word in others}

_TOKEN = re.compile(r"[^\W_]+|°|[.;:!?,+/|&()\n]")
_INSTEAD = re.compile(r"\b(?:rather than|instead of)\b", re.IGNORECASE)
_APOSTROPHE = re.compile(r"(?<=\w)['\u2019](?=\w)")
_ENDINGS = ("ness", "ment", "ful", "ly", "ing", "ed")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text.

    Attributes:
      stem: equal for all forms of the word.
      negated: whether a negation reaches it.
      clause: number of the part between punctuation that it stands in.
      start: of its half-open place in the folded text.
      end: of the same.
    """

    stem: str
    negated: bool
    clause: int
    start: int
    end: int


def folded(text: str) -> str:
    """The text in one form of its characters, each apostrophe within a word left out («isnt»)."""
    return _INSTEAD.sub("not", _APOSTROPHE.sub("", unicodedata.normalize("NFKC", text)))


@lru_cache(maxsize=2**16)
def stem(word: str) -> str:
    """The stem of a lower-case word: equal for `smile`, `smiles`, `smiling` and `smiled`, for `sad` and `sadness`."""
    if len(word) > 3 and word.isascii() and word.isalpha():
        if word[-1] == "s" and word[-2] not in "su":
            word = word[:-1]
        word = _without_ending(word)
        if word.endswith("ion") and word[-4:-3] in ("s", "t"):
            word = word[:-3]
        if len(word) > 3:
            word = word.removesuffix("e")
    if len(word) > 2 and word.endswith("y"):
        word = word[:-1] + "i"
    return _FAMILY.get(word, word)


def _without_ending(word: str) -> str:
    for ending in _ENDINGS:
        rest = word.removesuffix(ending)
        if rest == word or len(rest) < 3:
            continue
        if ending in ("ing", "ed"):
            if not re.search("[aeiouy]", rest):
                continue
            if rest[-1] == rest[-2] and rest[-1] not in "lsz":
                rest = rest[:-1]  # nodding
        return _without_ending(rest)
    return word


def words(text: str, names: Collection[str] = (), fillers: Collection[str] = FILLERS) -> list[Word]:
    """The words of a folded text, without fillers; punctuation ends the reach of a negation and is left out.

    Args:
      text: as `folded` gives it.
      names: stems of names that are a negation themselves, such as the option «No»: they negate nothing.
      fillers: what is left out.
    """
    found: list[Word] = []
    reach = clause = 0
    for match in _TOKEN.finditer(text):
        token = match.group().lower()
        if token in STOPS:
            reach = 0
        if not (token[0].isalnum() or token == "°"):
            clause += 1
            continue
        if token in fillers:
            continue
        negation = token in NEGATIONS and token not in names
        if token == "or" and reach:
            reach = REACH  # «no sign of sadness or fear»
        found.append(Word(stem(token), reach > 0 and not negation, clause, match.start(), match.end()))
        reach = REACH if negation else max(reach - 1, 0)
    return found


@lru_cache(maxsize=2**12)
def stems(name: str, fillers: frozenset[str] = FILLERS) -> tuple[str, ...]:
    """The stems of a name; of a name that has only fillers, its words as they are."""
    text = folded(name)
    return tuple(word.stem for word in words(text, fillers=fillers)) or tuple(text.lower().split())


def mentions(text: Sequence[Word], name: Sequence[str]) -> list[tuple[int, int]]:
    """Where the words of a name stand together, not negated: half-open ranges of words.

    Within a clause they may stand in any order («60 degrees to the right»). A negation that belongs to the name itself
    («no beard») does not negate it.
    """
    size, wanted, name = len(name), sorted(name), list(name)
    ranges: list[tuple[int, int]] = []
    for start in range(len(text) - size + 1):
        part = text[start : start + size]
        said = [word.stem for word in part]
        any_order = part[0].clause == part[-1].clause and sorted(said) == wanted
        if not part[0].negated and (any_order or said == name):
            ranges.append((start, start + size))
    return ranges
