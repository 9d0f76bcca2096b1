"""The closed vocabulary of the affective tree: which aspects there are, on which level, and how items are written.

Levels. The paper has three (PAPER.md section 3), and 15 open aspects of attributes, three of which are actions.
- attribute: what a person looks like and does, whatever they feel: the 12 looks and the 3 kinds of actions.
- expression: what the face shows of a feeling: the movements of its parts (action units; a shut eye, an open mouth),
  the words for a whole expression (smile, frown, laugh, crying) and the gaze. The paper counts smiling and crying
  among facial actions, too; here they stand on the level where they explain an emotion, and once only.
- emotion: what is felt (with intensity where one is stated), the sentiment, and the course over time.

Items. One node is one fact: `long brown hair` is `hair: long` and `hair: brown`; only a garment keeps its colour, which
would else belong to nothing (`accessories: red bow tie`); the look of a beard or of glasses is a fact beside them
(`chin: beard` and `chin: gray beard`). Items are canonical: lower case, one word for all synonyms (`joyful`, `joy`,
`happily`: happiness), `no ITEM` for what is denied or has stopped (`no glasses`, `no smile`).
A feeling reads `sadness`, or with its intensity `sadness (strong)`: weak, medium or strong, as in MEAD and RAVDESS.
Intensities of expressions are left out. A course reads `sadness then surprise`, `sadness grows`, `sadness fades`,
`happiness lasts` or `happiness briefly`. `she` and `his` tell a gender as `woman` does. Left and right stay in actions
and gaze where they are stated; which hand, and how many, does not. The setting (place, light, camera) makes no node.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from importlib.resources import files
from itertools import product
from operator import or_
from typing import Any

from videmo_jax.affective.tree import Level, Node

# The paper's 12 looks and 3 kinds of actions; facial hair counts as chin, clothes and make-up as accessories.
LOOKS = (
    *("eyes", "eyebrows", "mouth", "nose", "hair", "chin"),
    *("face shape", "facial features", "accessories", "age", "gender", "skin"),
)
ACTIONS = ("body actions", "facial actions", "head actions")
ASPECTS: dict[Level, tuple[str, ...]] = {
    "attribute": LOOKS + ACTIONS,
    "expression": ("eyebrows", "eyes", "nose", "cheeks", "mouth", "chin", "face", "expression", "gaze"),
    "emotion": ("feeling", "sentiment", "course"),
}

SECTIONS = {
    **{"feeling": "feelings", "sentiment": "sentiments", "intensity": "intensities", "colour": "colours"},
    **{"direction": "directions", "garment": "garments", "part": "parts", "pronoun": "pronouns"},
    "presence": "presences",
}
HANDLED_PARTS = ("face", "mouth", "eyes", "nose", "cheeks", "chin", "forehead", "head", "hair")
ARTICLES = ("the", "a", "an")  # left out of phrases: any determiner may stand there
VOWELS = "aeiou"
NO = "no "
INTENSITIES = ("weak", "medium", "strong")
STEP = 0.15  # of similarity, for a step of intensity

Key = tuple[Level, str, str]  # level, aspect, item


@dataclass(slots=True, eq=False)
class Entry:
    """What one word or phrase may mean; which of it holds, the words around it decide.

    Attributes:
      roles: its jobs in a sentence (`det`, `and`, `with`, `stop`, `show`, `because`, `then`, ...).
      facts: said by it alone (`smile`, `woman`).
      states: said by it of a part of the body (`raise` of the eyebrows), by part.
      part, feeling, sentiment, intensity, colour, direction, garment, position, pronoun: its name as such.
      presence: whether it says that something is `present` or `absent` (`visible`, `inactive`, `gone`).
      person: whether it is a noun for a person.
    """

    roles: set[str] = field(default_factory=set)
    facts: list[Key] = field(default_factory=list)
    states: dict[str, Key] = field(default_factory=dict)
    part: str | None = None
    feeling: str | None = None
    sentiment: str | None = None
    intensity: str | None = None
    colour: str | None = None
    direction: str | None = None
    garment: str | None = None
    position: str | None = None
    pronoun: str | None = None
    presence: str | None = None
    person: bool = False


class Lexicon:
    """The vocabulary of lexicon.json, compiled for look-up by the word form and by phrase.

    Attributes:
      singles: the entry of each known word form.
      phrases: by the base form of their first word, entries of several words as (base forms, entry), longest first.
      bases: the base form of each known word form.
      determiners: words that may stand anywhere inside of a phrase.
      uncoloured: garments whose colour is left out.
      feelings: the canonical names of all.
      garments: all of them, without colours.
      described: beards and glasses, whose looks are facts of their own.
      handled: what somebody, or a hand, does to a part of the body; hair and clothes that do so do nothing.
      groups: the group of related facts that a fact is in, by a name of its own.
      action_units: the item of each action unit of FACS by its number.
      cues: the feelings that an expression is typical of, by (aspect, item), each feeling's own order kept.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        entries = _entries(data)
        self.bases = _bases(entries, data["irregular"])
        self.determiners = frozenset(_words(data["roles"]["det"]))
        self.action_units = {int(unit): _unit_key(text) for unit, text in data["action_units"].items()}
        self.cues: dict[tuple[str, str], set[str]] = {}
        for feeling, cues in data["cues"].items():
            for cue in _words(cues):
                aspect, _, item = cue.partition("|")
                self.cues.setdefault((aspect, item), set()).add(feeling)
        self.uncoloured = frozenset(data["uncoloured"])
        self.feelings = tuple(data["feelings"])
        self.garments = frozenset(data["garments"])
        self.described = frozenset(what for looks in data["described"].values() for what in _words(looks["of"]))
        self.handled = frozenset(_handled(verb, part) for verb in data["handled"] for part in HANDLED_PARTS)
        self.groups = _groups(data)
        self.singles = self._single_words(entries)
        self.phrases: dict[str, list[tuple[tuple[str, ...], Entry]]] = {}
        for phrase, entry in entries.items():
            if " " in phrase:
                words = self._base_words(phrase)
                if entry.states:
                    # `open wide` says of a jaw what `open` says.
                    parts = [self.singles[word].states for word in words if word in self.singles]
                    entry = replace(entry, states=reduce(or_, reversed(parts), {}) | entry.states)
                self.phrases.setdefault(words[0], []).append((words, entry))
        for same_start in self.phrases.values():
            same_start.sort(key=lambda phrase: -len(phrase[0]))

    def _base_words(self, phrase: str) -> tuple[str, ...]:
        first, *rest = phrase.split()
        return tuple(self.bases.get(word, word) for word in [first, *(word for word in rest if word not in ARTICLES)])

    def _single_words(self, entries: dict[str, Entry]) -> dict[str, Entry]:
        singles = {}
        for form in self.bases.keys() | {phrase for phrase in entries if " " not in phrase}:
            own, base = entries.get(form), entries.get(self.bases.get(form, form))
            if own is None:
                if base is not None:
                    singles[form] = base
            elif base is None or base is own or own.roles:
                singles[form] = own
            else:
                facts = own.facts or ([] if own.feeling else base.facts)
                singles[form] = replace(own, states=base.states | own.states, facts=facts)
        return singles

    def kin(self, key: Key) -> Key | str:
        """What a fact shares with its relatives: their group, a garment or beard without its look, or itself."""
        words = key[2].split()
        ends = (" ".join(words[at:]) for at in range(len(words)))
        if key[1] == "accessories":
            key = (*key[:2], next((end for end in ends if end in self.garments), key[2]))
        elif key[1] == "chin":
            key = (*key[:2], next((end for end in ends if end in self.described), key[2]))
        return self.groups.get(key, key)


def _groups(data: dict[str, Any]) -> dict[Key, str]:
    groups: dict[Key, str] = {}
    for level, related in data["related"].items():
        for group in related:
            groups |= {(level, *fact.split("|")): group for fact in _words(group)}
    for feelings in data["families"].values():
        groups |= {("emotion", "feeling", feeling): feelings for feeling in _words(feelings)}
    return groups


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := " ".join(part.split()))]


def _key(text: str) -> Key:
    level, aspect, item = text.split("|")
    return level, aspect, item


def _handled(verb: str, part: str) -> Key:
    return "attribute", "body actions", f"{verb} {part}"


def _unit_key(text: str) -> Key:
    aspect, item = text.split("|")
    return "expression", aspect, item


def _entries(data: dict[str, Any]) -> dict[str, Entry]:
    """The entries of all words and phrases, what several sections say of one put together."""
    entries: dict[str, Entry] = defaultdict(Entry)
    for name, section in SECTIONS.items():
        for canonical, phrases in data[section].items():
            for phrase in _words(phrases):
                setattr(entries[phrase], name, canonical)
    for phrase in [phrase for phrase, entry in entries.items() if entry.feeling and " " not in phrase]:
        adverb = phrase[:-1] + "ily" if phrase.endswith("y") else phrase + "ly"
        entries[adverb].feeling = entries[adverb].feeling or entries[phrase].feeling
    for role, phrases in data["roles"].items():
        for phrase in _words(phrases):
            entries[phrase].roles.add(role)
    for text, phrases in data["facts"].items():
        for phrase in _words(phrases):
            entries[phrase].facts.append(_key(text))
    for part, states in data["states"].items():
        for text, phrases in states.items():
            for phrase in _words(phrases):
                entries[phrase].states.setdefault(part, _key(text))
    for verb, phrases in data["handled"].items():
        for phrase in _words(phrases):
            for part in HANDLED_PARTS:
                entries[phrase].states.setdefault(part, _handled(verb, part))
    for text, looks in data["described"].items():
        level, aspect = text.split("|")
        for look, phrases in (*looks["as"].items(), *data["colours"].items()):
            for phrase, what in product(_words(phrases), _words(looks["of"])):
                entries[phrase].states.setdefault(what, (level, aspect, f"{look} {what}"))
    for part in data["coloured"]:
        for colour, phrases in data["colours"].items():
            for phrase in _words(phrases):
                entries[phrase].states.setdefault(part, ("attribute", part, colour))
    for phrase in _words(data["people"]["noun"]):
        entries[phrase].person = True
    for phrase in _words(data["people"]["position"]):
        entries[phrase].position = phrase
    return entries


def _bases(entries: dict[str, Entry], irregular: dict[str, str]) -> dict[str, str]:
    """The base form of each form that a word of the vocabulary can take."""
    bases: dict[str, str] = {}
    for base, forms in irregular.items():
        for form in (base, *forms.split()):
            bases.setdefault(form, base)
    words = sorted({word for phrase in entries for word in phrase.split()} | irregular.keys())
    for word in words:
        for form in _inflected(word):
            bases.setdefault(form, word)
    for word in words:
        # A form of a form (`tied` is known, and is a form of `tie`) goes back to the first.
        bases.setdefault(word, word)
    return bases


def _inflected(word: str) -> Iterator[str]:
    if len(word) < 3 or not word.isalpha():
        return
    yield word + "s"
    if word.endswith("y") and word[-2] not in VOWELS:
        yield from (word[:-1] + "ies", word[:-1] + "ied", word + "ing")
    elif word.endswith("e"):
        yield from (word + "d", word[:-1] + "ing")
    else:
        doubled = word[-1] not in VOWELS + "wxy" and word[-2] in VOWELS and word[-3] not in VOWELS
        if doubled:
            yield from (word + word[-1] + "ed", word + word[-1] + "ing")
        if not doubled or sum(letter in VOWELS for letter in word) > 1:  # `opened`, but no `scared` of `scar`
            yield from (word + "ed", word + "ing")
        if word.endswith(("s", "x", "z", "ch", "sh", "o")):
            yield word + "es"
    if word.endswith("ie"):
        yield word[:-2] + "ying"


def similarity(a: Node, b: Node) -> float:
    """How much of one node's item another says, in [0, 1]; what stands below them does not matter.

    1 for equals; 0.5 for relatives (`smile` and `laugh`, `sadness` and `disappointment`, two suits of other colours);
    0 for all else, other levels, and what is denied beside what is not. Each step of a feeling's intensity takes 0.15,
    as does an intensity that only one of the two has. 1 - similarity is a metric on items: groups are disjoint, so that
    the distance of names is an ultrametric; that of intensities is one of points on a line with `none` 0.15 from all;
    and a sum of metrics, cut off at 1, is a metric.
    """
    if (a.level, a.aspect, a.item) == (b.level, b.aspect, b.item):
        return 1.0
    if a.level != b.level or a.item.startswith(NO) != b.item.startswith(NO):
        return 0.0
    (one, strong), (other, weak) = _name_and_intensity(a), _name_and_intensity(b)
    distance = 0.0 if one == other else 0.5 if LEXICON.kin(one) == LEXICON.kin(other) else 1.0
    if strong != weak:
        distance += STEP if None in (strong, weak) else STEP * abs(INTENSITIES.index(strong) - INTENSITIES.index(weak))
    return max(0.0, 1.0 - distance)


def _name_and_intensity(node: Node) -> tuple[Key, str | None]:
    item = node.item.removeprefix(NO)
    if node.level == "emotion":
        name, _, rest = item.partition(" (")
        if rest[:-1] in INTENSITIES and rest.endswith(")"):
            return (node.level, node.aspect, name), rest[:-1]
    return (node.level, node.aspect, item), None


def _load() -> Lexicon:
    return Lexicon(json.loads(files("videmo_jax.affective").joinpath("lexicon.json").read_text("utf-8")))


LEXICON = _load()
