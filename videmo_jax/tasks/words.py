"""Words of free answers: stems and negation, small and fixed, so that a reading is the same everywhere."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

# Words that say nothing by themselves: they may stand inside a name («close her eyes») without changing it.
FILLERS = frozenset(
    (
        "a", "an", "the", "of", "to", "by", "at", "on", "in", "her", "his", "their", "its", "this",
        "that", "these", "those", "is", "are", "was", "were", "be", "being", "been", "very"
    )
)  # fmt: skip
NEGATIONS = frozenset(
    (
        "no", "not", "never", "neither", "nor", "none", "without", "lack", "lacks", "lacking",
        "cannot", "isnt", "arent", "wasnt", "werent", "doesnt", "dont", "didnt"
    )
)  # fmt: skip
# How many words after a negation it reaches, and what ends it earlier.
REACH = 3
STOPS = frozenset(".;:!?,") | {"but", "however"}

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

_TOKEN = re.compile(r"[^\W_]+|°|[.;:!?,]")
_INSTEAD = re.compile(r"\b(?:rather than|instead of)\b", re.IGNORECASE)
_APOSTROPHE = re.compile(r"(?<=\w)['\u2019](?=\w)")
_ENDINGS = ("ness", "ment", "ful", "ly", "ing", "ed")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text: its stem, whether a negation reaches it, and its half-open place in the folded text."""

    stem: str
    negated: bool
    start: int
    end: int


def folded(text: str) -> str:
    """The text in one form of its characters, each apostrophe within a word left out («isnt»)."""
    return _INSTEAD.sub("not", _APOSTROPHE.sub("", unicodedata.normalize("NFKC", text)))


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


def words(text: str, names: Collection[str] = ()) -> list[Word]:
    """The words of a folded text, without fillers; punctuation ends the reach of a negation and is left out.

    Args:
      text: as `folded` gives it.
      names: stems of names that are a negation themselves, such as the option «No»: they negate nothing.
    """
    found: list[Word] = []
    reach = 0
    for match in _TOKEN.finditer(text):
        token = match.group().lower()
        if token in STOPS:
            reach = 0
        if token in FILLERS or not (token[0].isalnum() or token == "°"):
            continue
        negation = token in NEGATIONS and token not in names
        found.append(Word(stem(token), reach > 0 and not negation, match.start(), match.end()))
        reach = REACH if negation else max(reach - 1, 0)
    return found


def stems(name: str) -> tuple[str, ...]:
    """The stems of a name; of a name that has only fillers, its words as they are."""
    text = folded(name)
    return tuple(word.stem for word in words(text)) or tuple(text.lower().split())


def mentions(text: Sequence[Word], name: Sequence[str]) -> list[tuple[int, int]]:
    """Where the words of a name stand together, in any order, not negated: half-open ranges of words.

    A negation that belongs to the name itself («no beard») does not negate it.
    """
    size, wanted = len(name), sorted(name)
    return [
        (start, start + size)
        for start in range(len(text) - size + 1)
        if not text[start].negated and sorted(word.stem for word in text[start : start + size]) == wanted
    ]
