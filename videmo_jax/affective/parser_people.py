"""Who is spoken of: people are introduced by nouns and taken up again by nouns, pronouns and where they are."""

from dataclasses import dataclass, field

from videmo_jax.affective.lexicon import ACTIONS, LEXICON, Key
from videmo_jax.affective.parser_words import Unit

MAX_PEOPLE = 64  # further ones are taken for the last
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "couple": 2, "2": 2, "3": 3, "4": 4}
ORDINALS = {"first": 0, "second": 1, "third": 2, "former": 0, "latter": 1}
NEW = frozenset({"a", "an", "another", "one", "other", "some"})
OWNERS = frozenset({"her", "his", "their", "my", "our"})
ANYBODY = frozenset({"person", "people", "individual", "subject", "figure", "human"})
COPULAS = frozenset({"is", "was", "are", "were", "be", "as", "like", "of"})


@dataclass(slots=True, eq=False)
class Who:
    """A person while the caption is being read.

    Attributes:
      number: the place among the people.
      gender: female, male or None where nothing tells.
      place: the word that tells them from another (`left`, `second`), or None.
      nouns: those that have named them, in their base form; none as long as only pronouns have.
      facts: what is said, in order of mention, without feelings; a denied item begins with `no `.
      feelings: name to intensity or None, in order of mention.
      denied: feelings that are denied.
      edges: from what shows a feeling to the feeling, where the caption says so.
      since: the sentence that named them first.
      numbered: named by a number (`two people`), so that those who are introduced later are these.
      places: of each fact and feeling, by its key, the words that it was read from (`parser_words.Unit.place`).
    """

    number: int
    gender: str | None = None
    place: str | None = None
    nouns: set[str] = field(default_factory=set)
    facts: dict[Key, None] = field(default_factory=dict)
    feelings: dict[str, str | None] = field(default_factory=dict)
    denied: dict[str, None] = field(default_factory=dict)
    edges: dict[Key, str] = field(default_factory=dict)
    since: int = 0
    numbered: bool = False
    places: dict[Key, tuple[int, int]] = field(default_factory=dict)

    def awaits(self, sentence: int) -> bool:
        """Whether an earlier sentence told that somebody is there and nothing of who: `The clip shows a person.`"""
        unknown = self.gender is None and self.nouns <= ANYBODY and not self.feelings
        return unknown and self.since < sentence and (self.numbered or not self.facts)


class People:
    """The people of a caption and whom its words are about at the moment."""

    def __init__(self) -> None:
        self.all: list[Who] = []
        self.now: list[Who] = []
        self._sentence = 0

    def current(self) -> list[Who]:
        """Whom something is said of; somebody, where nobody has been named."""
        if not self.now:
            self.now = [self._add()]
        return self.now

    def follow(self, units: list[Unit]) -> list[list[Who]]:
        """Whom each unit of a sentence is about; what stands before anybody is named belongs to the first named."""
        self._sentence += 1
        starts = {_phrase_start(units, at): at for at, unit in enumerate(units) if unit.entry.person}
        about: list[list[Who]] = []
        joined: list[Who] = []  # the people that `and` has joined
        subject: list[Who] | None = None  # while an object (`looks at the man`) is spoken of
        spoken = False
        for at, unit in enumerate(units):
            if at in starts:
                object_of = spoken and at > 0 and not units[at - 1].entry.roles & {"and", "or", "comma", "break"}
                before, self.now = self.now, self._noun(units, at, starts[at])
                subject = (subject or before) if object_of else None
                spoken = True
                joined = [*(joined if at and "and" in units[at - 1].entry.roles else ()), *self.now]
            elif unit.word in ("are", "were") and len(joined) > 1 and not _has_part_subject(units, at):
                self.now, joined = joined, []
            elif unit.entry.pronoun:
                self._pronoun(units, at)
                if "nominative" in unit.entry.roles:
                    spoken, subject = True, None
            elif "both" in unit.entry.roles or (unit.word == "both" and _follows_nobody(units, at)):
                self.now, subject = list(self.all) or self.current(), None
            elif subject and _goes_on(units, at):
                self.now, subject = subject, None
            about.append(self.now)
        first = next((each for each in about if each), [])
        return [each or first for each in about]

    def _add(self, gender: str | None = None, place: str | None = None) -> Who:
        if len(self.all) >= MAX_PEOPLE:
            return self.all[-1]
        self.all.append(Who(len(self.all), gender, place, since=self._sentence))
        return self.all[-1]

    def _noun(self, units: list[Unit], start: int, at: int) -> list[Who]:
        gender = next((key[2] for key in units[at].entry.facts if key[1] == "gender"), None)
        noun = LEXICON.bases.get(units[at].word, units[at].word)
        before = [unit.word for unit in units[start:at]]
        place = _place(units, start, at)
        if place == "other" and len(self.all) == 1 and start > 0 and "with" in units[start - 1].entry.roles:
            return self.now  # `talks to the other person`, of whom nothing has been said
        count = next((NUMBERS[word] for word in before if word in NUMBERS), 0)
        if count and "the" not in before:
            numbered = [self._named(self._fresh(gender), gender, noun) for _ in range(count)]
            for who in numbered:
                who.numbered = True
            return numbered
        if count:
            return list(self.all) or self.current()
        after_copula = start > 0 and units[start - 1].word in COPULAS and "another" not in before
        if after_copula and self.now and _agrees(self.now[-1], gender):
            return [self._named(self.now[-1], gender, noun)]
        if start > 1 and "comma" in units[start - 1].entry.roles and _is_same(units, start - 2, gender):
            return [self._named(self.now[-1], gender, noun)]
        if OWNERS & set(before):
            known = [who for who in self.all if noun in who.nouns]
            return [self._named(known[-1] if known else self._add(gender), gender, noun)]
        if (NEW & set(before) and place not in ("first", "former")) or place in ("other", "another"):
            return [self._named(self._fresh(gender, place, place == "other" and "the" in before), gender, noun)]
        return [self._named(self._known(gender, place, noun), gender, noun)]

    def _named(self, who: Who, gender: str | None, noun: str) -> Who:
        who.nouns.add(noun)
        if gender and who.gender is None:
            who.gender = gender
        return who

    def _fresh(self, gender: str | None, place: str | None = None, other: bool = False) -> Who:
        """Somebody new, unless somebody has been told of but not introduced, or is the other of two."""
        for who in self.all:
            if not who.nouns and _agrees(who, gender):
                return who
        for who in self.all:
            if who.awaits(self._sentence):
                who.numbered = False
                return who
        if other and len(self.all) > 1:
            others = [who for who in self.all if who not in self.now and _agrees(who, gender)]
            if len(others) == 1:
                return others[0]
        return self._add(gender, place)

    def _known(self, gender: str | None, place: str | None, noun: str) -> Who:
        """Whom `the woman`, `the man on the left` or `the person` takes up."""
        fitting = [who for who in self.all if _agrees(who, gender)]
        if place:
            for who in fitting:
                if who.place == place:
                    return who
            same = [who for who in fitting if gender is None or who.gender == gender]
            if place in ORDINALS and len(same) > ORDINALS[place]:
                return same[ORDINALS[place]]
            fitting = [who for who in fitting if who.place is None]
            same = [who for who in fitting if gender is None or who.gender == gender]
            who = (same or fitting or [None])[0]
            if who is None:
                return self._add(gender, place)
            who.place = place
            return who
        so_named = [who for who in fitting if noun in who.nouns]
        now = [who for who in self.now if who in fitting and (gender is None or who.gender == gender)]
        for who in (*(who for who in now if who in so_named), *reversed(so_named), *now):
            return who
        same = [who for who in fitting if gender and who.gender == gender]
        if same or fitting:
            return (same or fitting)[-1]
        return self._add(gender)

    def _pronoun(self, units: list[Unit], at: int) -> None:
        gender, word = units[at].entry.pronoun, units[at].word
        if gender == "plural":
            if word == "they" and len(self.all) > 1 and len(self.now) == 1 and self.now[0].gender:
                self.now = list(self.all)
            return
        if any(who.gender == gender for who in self.now) and len(self.now) == 1:
            return
        fitting = [who for who in self.all if who.gender == gender]
        unknown = [who for who in (*self.now, *reversed(self.all)) if who.gender is None]
        nominative = word in ("she", "he")
        if fitting:
            if nominative or (word in ("her", "his") and not _is_object(units, at)):
                self.now = [fitting[-1]]
        elif unknown:
            unknown[0].gender = gender
            self.now = [unknown[0]]
        elif nominative or not self.all:
            self.now = [self._add(gender)]


def _goes_on(units: list[Unit], at: int) -> bool:
    """Whether the subject takes over again: a comma or `and` and something done follow."""
    if not units[at].entry.roles & {"and", "comma"} or at + 1 == len(units):
        return False
    entry = units[at + 1].entry
    does = any(key[0] == "expression" or key[1] in ACTIONS for key in entry.facts)
    return bool(does or (entry.states and not entry.colour) or entry.roles & {"look", "turn", "show", "lean"})


def _has_part_subject(units: list[Unit], at: int) -> bool:
    """Whether a verb belongs to a part of the body (`whose eyes are`), and not to who has it (`with red hair are`)."""
    return bool(units[at - 1].entry.part) and not any("with" in unit.entry.roles for unit in units[max(0, at - 5) : at])


def _is_same(units: list[Unit], at: int, gender: str | None) -> bool:
    """Whether a person right before a comma is named again after it: `the speaker, a young woman`."""
    entry = units[at].entry
    gendered = any(key[1] == "gender" for key in entry.facts)
    return entry.person and (not gendered or gender is None)


def _agrees(who: Who, gender: str | None) -> bool:
    return gender is None or who.gender is None or who.gender == gender


def _follows_nobody(units: list[Unit], at: int) -> bool:
    """Whether `both` stands for people: it is not followed by a part or a noun (`both hands`)."""
    following = units[at + 1 : at + 3]
    return not any(unit.entry.part or unit.entry.garment for unit in following)


def _is_object(units: list[Unit], at: int) -> bool:
    """Whether `her` stands alone (`looks at her`) and owns nothing that follows."""
    if units[at].word != "her" or at + 1 == len(units):
        return units[at].word == "her"
    entry = units[at + 1].entry
    return bool(entry.roles & {"comma", "and", "or", "break", "with"})


def _phrase_start(units: list[Unit], at: int) -> int:
    """Where the noun phrase begins whose noun stands at a place: `a tall, smiling young woman`."""
    start = at
    while start > 0:
        entry, word = units[start - 1].entry, units[start - 1].word
        if "det" in entry.roles or word in NUMBERS:
            start -= 1
            if word not in ("of",):
                if start > 0 and units[start - 1].word in ("the", "both", *NUMBERS):
                    start -= 1
                break
        elif "comma" in entry.roles:
            if start < 2 or not _describes(units[start - 2]) or at - start > 4:
                break
            start -= 1
        elif _describes(units[start - 1]) or (entry.roles <= {"be"} and units[start - 1].word == "very"):
            start -= 1
        elif not entry.roles and at - start < 3 and not entry.person and not entry.part and start > 1:
            if "det" not in units[start - 2].entry.roles:
                break
            start -= 1
        else:
            break
    return start


def _describes(unit: Unit) -> bool:
    entry = unit.entry
    if entry.person or entry.pronoun or entry.roles & {"with", "break", "look", "show", "comma"}:
        return False
    age = any(key[1] in ("age", "skin", "hair", "face shape", "gender", "chin") for key in entry.facts)
    smiling = bool(entry.facts) and unit.word.endswith("ing")
    part = entry.part and not entry.garment
    return bool(age or smiling or entry.feeling or entry.colour or entry.intensity or entry.position or part)


def _place(units: list[Unit], start: int, at: int) -> str | None:
    """The word that tells a person from another: before the noun, or after it as `on the left`."""
    for unit in units[start:at]:
        if unit.entry.position and unit.entry.position != "young":
            return unit.entry.position
    after = units[at + 1 : at + 5]
    if after and after[0].word in ("on", "in", "to", "at"):
        for unit in after[1:]:
            if unit.entry.position:
                for taken in after[: after.index(unit) + 1]:
                    taken.used = True
                return unit.entry.position
            if not (unit.entry.roles & {"det", "with"}):
                return None
    return None
