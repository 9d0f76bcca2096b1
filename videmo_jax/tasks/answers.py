"""Free answers read by rules: the option, the letters, the tags or the action units that a text names.

Nothing is guessed: where several options are named equally, or none, there is no reading, and `Reading` says which.
The judge `rule` and the rule-based reward read answers here.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from videmo_jax.tasks.words import Word, folded, mentions, stems, words

MAX_CHARACTERS = 20_000  # of an answer that is read; 2,048 tokens have fewer

_OPTION = re.compile(r"\(([A-Z])\)[ \t]*([^\n]*?)[ \t]*(?=\([A-Z]\)|\n|$)")
_PLAIN_OPTION = re.compile(r"^[ \t]*([A-Z])[.):][ \t]+(\S[^\n]*?)[ \t]*$", re.MULTILINE)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
# «(B)» names an option everywhere, but for the plural of «emotion(s)». A bare capital does where it cannot be a word: A
# and I are, unless something stands before or behind them that never stands beside an article or a pronoun.
_IN_BRACKETS = re.compile(r"(?<!\w)\(([A-Za-z])\)")
_BARE = re.compile(
    r"""(?:^|\n)[ \t*]*([A-Z])(?:[.):](?=\s|$|\*)|[ \t*]*(?:\n|$))        # at the start of a line: «B.», «B: Sad»
    | \b(?i:option|choice|letter)[ \t:*]+([A-Z])(?!\w)                    # «option A»
    | \b(?i:answer)(?:[ \t]+is)?[ \t:*]+([A-Z])(?!\w|[ \t]+\w)            # «the answer is A.»
    | (?<![\w.(-])(A)(?=\s*(?:[.,;:!?]|$)|\s+(?:is|because|since|or|and)\b)  # «it is A.», «A is right»
    | (?<![\w.(-])([B-HJ-Z])(?![\w-])                                      # «it is B»
    """,
    re.VERBOSE,
)
_ARTICLE = re.compile(r"\b(?i:answer)(?:[ \t]+is)?[ \t:*]+(A)[ \t]+\w")  # «the answer is A sad person»
_DENIED = re.compile(r"\b(?:not|nor|neither|never)[ \t]+(?:the[ \t]+)?(?:option[ \t]+|answer[ \t]+)?$", re.IGNORECASE)
_RUN_CUE = r"\b(?i:answer|option|choice|letter)s?\b(?:\s+(?:is|are)\b)?[\s:*]+"
_CUE = re.compile(
    r"\b(?:(?:final|correct|right|best|my)[ \t]+(?:answer|option|choice)|answer|option|choice)(?:[ \t]+is\b|[ \t*]*:)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Option:
    """One of the listed options of a question."""

    letter: str
    text: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a free answer chose.

    Attributes:
      letter: of the one option that it names; None where there is none, or more than one.
      named: the letters of all options that it names, in the order of the options.
    """

    letter: str | None
    named: tuple[str, ...] = ()

    @property
    def ambiguous(self) -> bool:
        """Whether several options are named and none of them is the answer."""
        return self.letter is None and len(self.named) > 1


def final_answer(text: str) -> str:
    """The part of a response that answers: without `<think>` parts, inside the last `<answer>` if there is one."""
    text = _THOUGHT.sub("", text[:MAX_CHARACTERS])
    inside = _ANSWER.findall(text)
    return (inside[-1] if inside else text).strip()


def parse_options(question: str) -> tuple[Option, ...]:
    """The options of a question, `(A) ...`, else `A. ...` on lines of their own; none where there are not two.

    Letters must run from A on without a gap; what stands outside of the run is text of the question.
    """
    for pattern in (_OPTION, _PLAIN_OPTION):
        options: list[Option] = []
        for match in pattern.finditer(question):
            if len(options) < len(ascii_uppercase) and match[1] == ascii_uppercase[len(options)]:
                options.append(Option(match[1], match[2]))
        if len(options) > 1:
            return tuple(options)
    return ()


def read_choice(response: str, options: Sequence[Option]) -> Reading:
    """The option that a free answer names: «(B) Sad», «B», «sad», «The answer is (B) Sad.», «I think she is sad».

    A letter decides over texts, unless another option's text stands behind it; what a phrase such as «the answer is»
    announces decides over what stands elsewhere; negated texts («not sad») do not count; the longest name counts where
    one is part of another («weakly positive»).
    """
    text = folded(final_answer(response))
    exact = _whole(text, options)
    if exact:
        return Reading(exact, (exact,))
    reading = _named(text, options)
    if reading.letter is None:
        # The last announcement, where there is one: «(A) is wrong, the answer is (B)».
        announced = [match.start() for match in _CUE.finditer(text)]
        if announced:
            after = _named(re.split(r"[\n;]|\.\s", text[announced[-1] :].strip(), maxsplit=1)[0], options)
            if after.letter:
                return Reading(after.letter, reading.named)
    return reading


def _whole(text: str, options: Sequence[Option]) -> str | None:
    """The option that the whole text is: its letter in either case, its text, or both."""
    plain = text.strip().strip("*\"'`. ").casefold()
    fits = [
        option.letter
        for option in options
        if plain in _spellings(option.letter.casefold(), folded(option.text).casefold().strip(". "))
    ]
    return fits[0] if len(fits) == 1 else None


def _spellings(letter: str, text: str) -> set[str]:
    """How an option may be written out; «(b» and «b» without the dot that was stripped."""
    marks = {letter, f"({letter})", f"{letter})", f"{letter}:", f"option {letter}", f"option ({letter})"}
    both = {f"{mark} {text}" for mark in (letter, f"({letter})", f"{letter})", f"{letter}.", f"{letter}:")}
    return marks | both | {f"({letter}){text}", text} - {""}


def _named(text: str, options: Sequence[Option]) -> Reading:
    names = _names(options)
    spoken = words(text, {word for name in names.values() for word in name if len(name) == 1})
    spoken = _with_nouns(spoken, list(names.values()))  # «weak or strong anger» names two
    places = _longest({letter: mentions(spoken, name) for letter, name in names.items()})
    letters, contradicted = _letters(text, options, spoken, places)
    named = tuple(option.letter for option in options if option.letter in letters | places.keys())
    decisive = letters or set(named)
    return Reading(next(iter(decisive)) if len(decisive) == 1 and not contradicted else None, named)


def _names(options: Sequence[Option]) -> dict[str, tuple[str, ...]]:
    """The stems of each option's text; options of the same stems («cry», «cries») have no name but their letter."""
    names = {option.letter: stems(option.text) for option in options}
    counts = Counter(tuple(sorted(name)) for name in names.values())
    return {letter: name for letter, name in names.items() if name and counts[tuple(sorted(name))] == 1}


def _longest(places: dict[str, list[tuple[int, int]]]) -> dict[str, list[tuple[int, int]]]:
    """Without what lies inside a longer name; names that are left with nothing go."""
    spans = [span for found in places.values() for span in found]

    def inside(span: tuple[int, int]) -> bool:
        return any(a <= span[0] and span[1] <= b and (a, b) != span for a, b in spans)

    kept = {name: [span for span in found if not inside(span)] for name, found in places.items()}
    return {name: found for name, found in kept.items() if found}


def _letters(
    text: str, options: Sequence[Option], spoken: Sequence[Word], places: dict[str, list[tuple[int, int]]]
) -> tuple[set[str], bool]:
    """The letters that a text names as such, and whether what it says besides contradicts one of them."""
    starts = [word.start for word in spoken]  # a repeated noun stands where its adjective does, behind it
    names_at: dict[int, set[str]] = {}
    for name, spans in places.items():
        for start, _ in spans:
            names_at.setdefault(start, set()).add(name)
    found: set[str] = set()
    contradicted = False
    for letter, end, bare in _letter_places(text, {option.letter for option in options}):
        index = bisect_left(starts, end)
        follows = names_at.get(index, set())
        between = text[end : starts[index]] if index < len(starts) else ""
        if follows and letter not in follows and not re.search(r"[\n,;\w]", between):
            contradicted = True  # «(B) Happy», where (B) is Sad
        if bare and places and letter not in places:
            contradicted = True  # «A: she is sad» may be meant as the answer to a question Q
        found.add(letter)
    for match in _ARTICLE.finditer(text):
        follows = names_at.get(bisect_left(starts, match.end(1)), set())
        found |= {"A"} if "A" in follows else set()
        contradicted |= bool(follows) and "A" not in follows
    return found, contradicted


def _letter_places(text: str, valid: Collection[str]) -> Iterator[tuple[str, int, bool]]:
    """Each letter that stands for an option, where it ends, and whether it stands bare."""
    for pattern in (_IN_BRACKETS, _BARE):
        for match in pattern.finditer(text):
            letter = match[match.lastindex].upper()
            if letter in valid and not _DENIED.search(text[max(match.start() - 40, 0) : match.start()]):
                yield letter, match.end(match.lastindex), pattern is _BARE


def read_letters(response: str, options: Sequence[Option]) -> tuple[str, ...]:
    """All options that a free answer names, by their letters in order: «GI», «G, I», «(G) Surprise and fear»."""
    text = folded(final_answer(response))
    valid = [option.letter for option in options]
    if not valid:
        return ()
    one, plain = f"[{''.join(valid)}]", re.sub(r"\band\b", " ", text.strip())
    if re.fullmatch(rf"(?:{one}|[\s,;/&|+().])+", plain):
        return tuple(letter for letter in valid if letter in plain)
    if re.fullmatch(r"[\s,;/&|+().]*(?:[a-z](?:[\s,;/&|+().]+|$))+", plain):
        return tuple(letter for letter in valid if letter.lower() in plain)
    spoken = words(text)
    places = _longest({letter: mentions(spoken, name) for letter, name in _names(options).items()})
    letters = {letter for letter, _, _ in _letter_places(text, valid)}
    for match in re.finditer(rf"{_RUN_CUE}({one}(?:(?:[\s,/&]|and\b)*{one})*)(?!\w)", text):
        letters |= set(match[1]) & set(valid)  # «the answers are G and I», «answer: GI»
    return tuple(letter for letter in valid if letter in letters | places.keys())


def read_tags(response: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """All tags of a list that a free answer names, in the order of the list: «smile, close eyes», «she is nodding».

    «No beard» is the tag `no_beard`, «no glasses» is not `eyeglasses`; adjectives before one noun («long brown hair»)
    name each their tag.
    """
    text = folded(final_answer(response))
    parts = {part.strip().strip(".").casefold().replace(" ", "_") for part in text.split(",")} - {""}
    by_name = {tag.casefold(): tag for tag in allowed}
    if parts <= by_name.keys() | {"none"}:
        return tuple(tag for tag in allowed if tag.casefold() in parts)
    names = {(tag, name): stems(name) for tag in allowed for name in (tag, *_other_names(tag))}
    spoken = _with_nouns(words(text), list(names.values()))
    found = {tag for tag, _ in _longest({key: mentions(spoken, name) for key, name in names.items()})}
    return tuple(tag for tag in allowed if tag in found)


def _other_names(tag: str) -> tuple[str, ...]:
    """What else people call a tag: what is worn by its own name, and a few set phrases."""
    worn = tag.removeprefix("wearing_")
    phrases = {
        "5_o_clock_shadow": ("5 oclock shadow", "five oclock shadow", "stubble"),
        "no_beard": ("clean shaven", "beardless"),
        "wearing_necktie": ("tie",),
        "eyeglasses": ("glasses",),
    }
    return (*phrases.get(tag, ()), *((worn,) if worn != tag else ()))


def _with_nouns(spoken: Sequence[Word], names: Sequence[Sequence[str]]) -> list[Word]:
    """The words with the noun repeated behind each adjective of a run: «long brown hair» is long hair, brown hair."""
    adjectives: dict[str, set[str]] = {}
    for name in names:
        if len(name) == 2:
            adjectives.setdefault(name[1], set()).add(name[0])
    result: list[Word] = []
    for index, word in enumerate(spoken):
        result.append(word)
        for noun, those in adjectives.items():
            if word.stem not in those or word.stem == "no":
                continue
            end = index + 1
            while end < len(spoken) and spoken[end].stem in those | {"and", "or"}:
                end += 1
            if index + 1 < end < len(spoken) and spoken[end].stem == noun:
                result.append(Word(noun, spoken[end].negated, word.clause, word.start, word.end))
    return result


# What the action units of Aff-Wild2 are called in the manual of the Facial Action Coding System (Ekman and Friesen).
UNIT_NAMES: dict[str, tuple[str, ...]] = {
    "AU1": ("inner brow raiser", "inner brow raised", "raised inner brow", "inner eyebrow raiser"),
    "AU2": ("outer brow raiser", "outer brow raised", "raised outer brow", "outer eyebrow raiser"),
    "AU4": ("brow lowerer", "brow lowered", "lowered brow", "eyebrow lowered", "lowered eyebrow"),
    "AU6": ("cheek raiser", "cheek raised", "raised cheek"),
    "AU7": ("lid tightener", "lid tightened", "tightened lid", "eyelid tightener", "tightened eyelid"),
    "AU10": ("upper lip raiser", "upper lip raised", "raised upper lip"),
    "AU12": ("lip corner puller", "lip corner pulled", "lip corner pulled up"),
    "AU15": ("lip corner depressor", "lip corner depressed", "lip corner pulled down"),
    "AU23": ("lip tightener", "lip tightened", "tightened lip"),
    "AU24": ("lip pressor", "lip pressed", "pressed lip", "lip presser"),
    "AU25": ("lip part", "lip parted", "parted lip"),
    "AU26": ("jaw drop", "dropped jaw", "jaw dropped"),
}
_UNITS = re.compile(
    r"\b(?:AUs?|action[ _]units?)[ _:#-]*(?:\(AUs?\)[ :]*)?((?:\d{1,2}(?!\d)(?:[ ]*(?:,|;|/|&|\+|and)[ ]*)*)+)",
    re.IGNORECASE,
)


def read_units(response: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """All action units of a list that a free answer names: «AU 12», «AU12 and AU6», «lip corner puller»."""
    text = folded(final_answer(response))
    found: set[str] = set()
    spoken = words(text)
    denied = {word.start for word in spoken if word.negated}
    for match in _UNITS.finditer(text):
        if match.start() not in denied:
            found |= {f"AU{int(number)}" for number in re.findall(r"\d+", match[1])}
    names = {(unit, name): stems(name) for unit in allowed for name in UNIT_NAMES.get(unit, ())}
    found |= {unit for unit, _ in _longest({key: mentions(spoken, name) for key, name in names.items()})}
    return tuple(unit for unit in allowed if unit in found)
