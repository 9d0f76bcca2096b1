"""Where a text names the options of a question: by letter, by text, or both; what it denies is not named."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from videmo_jax.tasks.words import DEGREES, FILLERS, Word, mentions, stems, words

# «(B)» names an option everywhere, but for the plural of «emotion(s)». A bare capital does where it cannot be a word: A
# and I are, unless something stands before or behind them that never stands beside an article or a pronoun.
_IN_BRACKETS = re.compile(r"(?<!\w)[(\[]([A-Za-z])[)\]]")
_BARE = re.compile(
    r"""(?:^|\n)([A-Z])(?:[.):](?=\s|$)|[ ]?(?=\n|$))                      # at the start of a line: «B.», «B: Sad»
    | (?:^|\n)([a-z])(?:\)(?=\s|$)|\.?[ ]?(?=\n|$))                        # «b) sad», «b»
    | \b(?i:option|choice|letter)(?:[ ]is)?[ :=]{1,3}([A-Z])(?!\w)          # «option A»
    | \b(?i:answer|option|choice)(?:[ ]is)?(?:[ ]option)?[ :=]{1,3}([a-z])(?=[.,;)]?(?:\n|$))  # «the answer is b»
    | \b(?i:answer)(?:[ ]is)?[ :=]{1,3}([A-Z])(?!\w|[ ]\w)                  # «the answer is A.»
    | (?<![\w.(-])(A)(?![\w-]|[ ](?!(?:is|because|since|or|and|as|vs)\b)[0-9A-Za-z])  # «it is A.», «A is right»
    | (?<![\w.(-])([B-HJ-Z])(?![\w-])                                      # «it is B»
    """,
    re.VERBOSE,
)
_ARTICLE = re.compile(r"\b(?i:answer)(?: is)?[ :]{1,3}(A) \w")  # «the answer is A sad person»
_DETERMINER = re.compile(r" (?!(?:and|or|but|is|because|since|as)\b)\w", re.IGNORECASE)  # behind «no»: «no doubt»

# What denies the options behind it, what denies those before it, and what joins options to one group.
_DENIED = re.compile(
    r"\b(?:not|nor|neither|never|isnt|arent|wasnt|rul(?:e[sd]?|ing) out|exclud(?:e[sd]?|ing)|eliminat(?:e[sd]?|ing)"
    r"|reject(?:s|ed)?|discard(?:s|ed)?|dismiss(?:es|ed)?|unlike|as opposed to|over|less|than(?: to)?)(?: (?:the|an?))?"
    r"(?: options?| answers?)? ?[(\[]?$",
    re.IGNORECASE,
)
_LESS = re.compile(r"\bless [\w ()]{1,24} than(?: to)? ?$", re.IGNORECASE)  # «less angry than sad» names the second
_REFUTED = re.compile(
    r"[)\].\"' ]{0,3} (?:(?:is|are|was|were|seems?|looks?|does|do|did|would|will|can|could|may|might|has|have)"
    r"(?: \w+){0,2}? (?:not|wrong|incorrect|false|unlikely|less likely|ruled out|excluded|eliminated|discarded|rejected"
    r"|dismissed|inaccurate|implausible|unsuitable|unsupported)|(?:isnt|arent|wasnt|doesnt|dont|didnt|cant|cannot))\b",
    re.IGNORECASE,
)
# «Happy: no», «A - yes», beside other options than these words.
_TICKED = re.compile(
    r"[)\].]? ?[:\u2013\u2014-]? ?(?:"
    r"(?P<no>(?:no|unlikely|less likely|implausible|incorrect|wrong|false)(?=[.,;\n]|$)"
    r"|[\u2717\u2718\u2716\u274c])|(?:yes|correct|true|(?:most )?likely|(?:best )?(?:match|fit)(?:es|s)?)(?=[.,;\n]|$)"
    r"|[\u2705\u2713\u2714])",
    re.IGNORECASE,
)
_JOINED = re.compile(r"[ ,:()\[\]/&\"'\u2013-]*(and|or|nor)?[ (\[\"']*(?:options?\b)?[ (\[\"']*", re.IGNORECASE)
_LONGEST_JOINT = 16  # characters


@dataclass(frozen=True, slots=True)
class Option:
    """One of the listed options of a question."""

    letter: str
    text: str


@dataclass(frozen=True, slots=True)
class Mention:
    """One place where a text names an option.

    Attributes:
      letter: of the option.
      start: of its half-open place in the text.
      end: of the same.
      mark: whether it is the letter that stands there, not the text.
      bare: whether that letter has no brackets.
      odd: whether another option's text stands behind that letter.
      weak: whether it may mean nothing: «no» before a noun.
      denied: whether the text says that it is not this one.
      ticked: whether «yes» stands behind it.
    """

    letter: str
    start: int
    end: int
    mark: bool
    bare: bool = False
    odd: bool = False
    weak: bool = False
    denied: bool = False
    ticked: bool = False


def find_options(text: str, options: Sequence[Option]) -> list[Mention]:
    """Every mention of an option in a folded text without runs of spaces, by place; denied ones among them."""
    plain = {stems(option.text) for option in options}
    fillers = FILLERS if len(plain) == len(options) else FILLERS - DEGREES
    names = names_of(options, fillers)
    spoken = words(text, {word for name in names.values() for word in name if len(name) == 1}, fillers)
    spoken = with_nouns(spoken, list(names.values()))  # «weak or strong anger» names two
    said = [replace(word, negated=False) if word.negated else word for word in spoken]
    places = longest({letter: _places(said, name) for letter, name in names.items()})
    found = [
        Mention(
            letter,
            spoken[start].start,
            max(word.end for word in spoken[start:end]),
            mark=False,
            weak=names[letter] == ("no",) and bool(_DETERMINER.match(text, spoken[start].end)),
            denied=spoken[start].negated,
        )
        for letter, spans in places.items()
        for start, end in spans
    ]
    found += _letters(text, {option.letter for option in options}, spoken, places)
    words_of_ticks = {"yes", "no"} & {option.text.casefold() for option in options}
    return _marked(text, sorted(found, key=lambda mention: (mention.start, mention.end)), not words_of_ticks)


def _places(said: Sequence[Word], name: tuple[str, ...]) -> list[tuple[int, int]]:
    """Where a name stands; «doctor and patient» stands in «a doctor-patient relationship», too."""
    pair = tuple(word for word in name if word != "and")
    return [*mentions(said, name), *(mentions(said, pair) if 1 < len(pair) < len(name) else ())]


def names_of(options: Sequence[Option], fillers: frozenset[str] = FILLERS) -> dict[str, tuple[str, ...]]:
    """The stems of each option's text; options of the same stems («cry», «cries») have no name but their letter."""
    names = {option.letter: stems(option.text, fillers) for option in options}
    counts = Counter(tuple(sorted(name)) for name in names.values())
    return {letter: name for letter, name in names.items() if name and counts[tuple(sorted(name))] == 1}


def longest(places: dict[str, list[tuple[int, int]]]) -> dict[str, list[tuple[int, int]]]:
    """Without what lies inside a longer name; names that are left with nothing go."""
    spans = {span for found in places.values() for span in found}
    inside, farthest = set(), -1
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if span[1] <= farthest:
            inside.add(span)
        farthest = max(farthest, span[1])
    kept = {name: [span for span in found if span not in inside] for name, found in places.items()}
    return {name: found for name, found in kept.items() if found}


def with_nouns(spoken: Sequence[Word], names: Sequence[Sequence[str]]) -> list[Word]:
    """The words with the noun repeated behind each adjective of a run: «long brown hair» is long hair, brown hair."""
    adjectives: dict[str, set[str]] = {}
    for name in names:
        if len(name) == 2:
            adjectives.setdefault(name[1], set()).add(name[0])
    result: list[Word] = []
    ends = dict.fromkeys(adjectives, 0)  # of the run of adjectives that the last word stood in
    for index, word in enumerate(spoken):
        result.append(word)
        for noun, those in adjectives.items():
            if word.stem not in those or word.stem == "no":
                continue
            end = max(ends[noun], index + 1)
            while end < len(spoken) and spoken[end].stem in those | {"and", "or"}:
                end += 1
            ends[noun] = end
            if index + 1 < end < len(spoken) and spoken[end].stem == noun:
                result.append(Word(noun, spoken[end].negated, word.clause, word.start, word.end))
    return result


def _letters(
    text: str, valid: Collection[str], spoken: Sequence[Word], places: dict[str, list[tuple[int, int]]]
) -> Iterator[Mention]:
    """The letters that a text names as such."""
    starts = [word.start for word in spoken]  # a repeated noun stands where its adjective does, behind it
    names_at: dict[int, set[str]] = {}
    for name, spans in places.items():
        for start, _ in spans:
            names_at.setdefault(start, set()).add(name)
    for pattern in (_IN_BRACKETS, _BARE):
        for match in pattern.finditer(text):
            letter, end = match[match.lastindex].upper(), match.end(match.lastindex)
            if letter in valid:
                index = bisect_left(starts, end)
                follows = names_at.get(index, set())
                between = text[end : starts[index]] if index < len(starts) else ""
                odd = bool(follows) and letter not in follows and not re.search(r"[\n,;\w]", between)
                yield Mention(letter, match.start(match.lastindex), end, True, bare=pattern is _BARE, odd=odd)
    if "A" in valid:
        for match in _ARTICLE.finditer(text):
            if follows := names_at.get(bisect_left(starts, match.end(1)), set()):
                yield Mention("A", match.start(1), match.end(1), True, bare=True, odd="A" not in follows)


def _marked(text: str, found: Sequence[Mention], ticks: bool) -> list[Mention]:
    """The mentions, those marked that belong to a group of which the text says that it is none of them, or is."""
    groups: list[list[Mention]] = []
    joined_by_or: list[bool] = []
    for mention in found:
        joint = None
        if groups:
            between = text[groups[-1][-1].end : mention.start]
            if mention.letter == groups[-1][-1].letter:
                between = between.replace(".", "")  # «B. Sad»
            joint = _JOINED.fullmatch(between) if len(between) <= _LONGEST_JOINT else None
        if joint or (groups and mention.start < groups[-1][-1].end):
            groups[-1].append(mention)
            joined_by_or[-1] |= bool(joint and joint[1] and joint[1].lower() != "and")
        else:
            groups.append([mention])
            joined_by_or.append(False)
    result = []
    for group, either in zip(groups, joined_by_or, strict=True):
        first, end = group[0].start, max(mention.end for mention in group)
        before = text[max(first - 40, 0) : first]
        denied = bool(_DENIED.search(before)) and not _LESS.search(before)
        denied |= bool(_REFUTED.match(text[end : end + 60]))
        denied |= either and group[0].denied  # «not happy, sad or angry»
        tick = _TICKED.match(text, end) if ticks else None
        denied |= bool(tick and tick["no"])
        ticked = bool(tick and not tick["no"])
        result += [
            replace(mention, denied=denied or mention.denied, ticked=ticked) if denied or ticked else mention
            for mention in group
        ]
    return result
