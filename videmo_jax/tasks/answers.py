"""Free answers read by rules: the option, the letters, the tags or the action units that a text names.

Nothing is guessed: where several options are named equally, or none, there is no reading, and `Reading` says which.
The judge `rule` and the rule-based reward read answers here.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from string import ascii_uppercase

from videmo_jax.tasks.options import Mention, Option, find_options, longest, with_nouns
from videmo_jax.tasks.replies import final_answer, short_answer
from videmo_jax.tasks.words import folded, mentions, stems, words

__all__ = [
    "Option",
    "Reading",
    "final_answer",
    "parse_options",
    "read_choice",
    "read_letters",
    "read_tags",
    "read_units",
]

_OPTION = re.compile(r"\(([A-Z])\)[ \t]*([^\n]*?)[ \t]*(?=\([A-Z]\)|\n|$)")
_PLAIN_OPTION = re.compile(r"^[ \t]*([A-Z])[.):][ \t]+(\S[^\n]*?)[ \t]*$", re.MULTILINE)

# Chinese, Japanese and Korean have no spaces around a letter: «答案是B».
_BESIDE_LATIN = re.compile(
    r"(?<=[\u2e80-\u9fff\uac00-\ud7af])(?=[A-Za-z])|(?<=[A-Za-z])(?=[\u2e80-\u9fff\uac00-\ud7af])"
)
# What a model says of itself: «I'd be happy to take another look».
_COURTESY = re.compile(
    r"\b(?:i|im|id|ill|i (?:am|would|will)|we|were|wed|we (?:are|would))(?: be)?(?: more than)?"
    r" (?:happy|glad|pleased|sorry|sad|afraid) (?:to|but|that|i|we|for)\b",
    re.IGNORECASE,
)
# «A: (C) Lovers» answers a «Q:».
_ANSWER_OF_Q = re.compile(r"^A: ?(?=(?:option )?\(?[A-Z][).:](?:\s|$))", re.MULTILINE)
_BULLET = re.compile(r"^(?:(?:[-\u2013\u2022>+]+|\d{1,2}[.)]) )+", re.MULTILINE)
# A line that begins with an option («(B) Sad», «Option B: Sad»), and an option with no more than its text behind it.
_MARKED = re.compile(r"(?:option )?(?:[(\[]([A-Z])[)\]]|([A-Z])(?:[.:)](?=\s|$)| [-\u2013\u2014] ))", re.IGNORECASE)
_SPELLED = re.compile(
    r"(?:(?:option|choice|answer) )?(?:[(\[]([a-z])[)\]]|([a-z])(?!\w)\)?)[\s.:,)=\u2013\u2014-]*(.*)", re.DOTALL
)
_QUOTES = "\"'\u201c\u201d\u2018\u2019`. "

_STOP = re.compile(r"[\n;]|[.!?](?=\s|$)")
# Commas behind what holds for the clause after them («initially, ...») end none.
_CLAUSE = re.compile(
    r"[\n;:.!?]|(?<!nitially)(?<!glance)(?<!erhaps)(?<!aybe),|\b(?:but|however|yet|whereas|although|though|while)\b",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:could|might|may|possibl[ey]|perhaps|maybe|consider(?:ed|ing)?|tempt(?:ed|ing)|torn|plausible|mistaken"
    r"|alternatives?|(?:at )?first (?:glance|sight|thought|guess|impression|i\b)|initial (?:thought|guess|impression)"
    r"|initially[^\n]{0,30} (?:seem|thought|guess|suspect|lean)|going to say|hints? of|can(?:not|t)? be excluded)",
    re.IGNORECASE,
)
# What announces the answer that stands behind it; a `final` one decides over others.
_ANNOUNCED = re.compile(
    r"""(?:\b(?P<other>wrong|incorrect|worst|other|another|second(?:ary)?|third|next|alternative|each|any|every|no
        |which)[ ])?
    \b(?P<final>(?:final|primary|main|dominant)[ ](?:correct[ ])?)?
    (?:(?P<noun>answer|option|choice|selection|verdict|prediction)\b
        (?:[ ](?:among|from|of|to|for|in|here|that)\b[^.:;\n]{0,60}?|,[^,.\n]{1,40},)?
        (?:[ ](?:is|would[ ]be|should[ ]be|must[ ]be|(?:seems|appears)(?:[ ]to[ ]be)?)\b|[ ]?[:=\u2192]|[ ]-|[ ]?(?=\n))
    |(?:correct|right|best|appropriate|likely|accurate|plausible)[ ]
        (?:one|emotion|label|category|description|explanation|interpretation|match|fit)
        (?:[ ](?:of|to|for|in)\b[^.:;\n]{0,60}?)?[ ](?:is|would[ ]be)\b
    |correct[ ]?:
    |(?:emotion|sentiment|label|category|pose|result|solution|decision|conclusion|judge?ment)[ ]?[:=\u2192]
    |(?P<verb>(?:choose|chose|choosing|select(?:ed|ing)?|pick(?:ed|ing)?|go(?:ing)?[ ](?:with|for)|went[ ](?:with|for)
        |settled?[ ](?:on|for)|opt(?:ed)?[ ]for|decided?[ ]on|prefer|(?:id|i[ ]would|ill|i[ ]will)[ ](?:say|answer)
        |(?:classify|categorize|label|describe)[ ][^.;\n]{0,40}?[ ]?as)\b))""",
    re.IGNORECASE | re.VERBOSE,
)
_UNSAID = re.compile(
    r"\b(?:not|never|dont|wont|cannot|cant|wouldnt|couldnt|could|might|may|can|to have)(?: you)? $", re.IGNORECASE
)
# What says of the option before it that it is the answer.
_CONFIRMED = re.compile(
    r"\b(?:is|are|was|seems?|must be)\b(?! (?:\w+ ){0,3}?(?:not|less|in|to|on|turned)\b)(?: \w+){0,3}?"
    r" (?:correct|right|best|accurate|answer|choice|appropriate|likely|fitting|closest"
    r"|(?:more|most) (?:convincing|plausible|probable|suitable|consistent))\b"
    r"|\bis the (?:(?:main|primary|dominant) )?emotion\b|\bfits? (?:better|best)\b|\bmatch(?:es)? best\b",
    re.IGNORECASE,
)
_REVISED = re.compile(
    r"\b(?:wait|actually|however|but|instead|correction|second thought|reconsider\w*|hmm|therefore|thus|so|finally"
    r"|ultimately|overall|hence|looking again)\b",
    re.IGNORECASE,
)
# What takes the option right before it back, where another one follows: «A... wait, actually B».
_TAKEN_BACK = re.compile(
    r"[)\].,;:!? \u2013\u2014-]{0,6}(?:no,? )?(?:(?:wait|hmm+)[,. ]|scratch that|correction\b|let me (?:re|correct))",
    re.IGNORECASE,
)
# What concludes, but says of nothing that it is the answer.
_CONCLUDES = re.compile(
    r"\b(?:therefore|thus|hence|overall|in conclusion|in summary|to sum up|ultimately|consequently|probably"
    r"|(?:most|more) likely|best (?:described|characterized|captured)|(?:dominant|primary|predominant|main) \w+"
    r"[^.\n]{0,40}? (?:is|remains)|that leaves|leaving(?: us with)?)\b|(?:^|(?<=[.\n])|(?<=[.\n,] ))so\b",
    re.IGNORECASE,
)
_RUN_CUE = r"\b(?i:answer|option|choice|letter)s?\b(?:\s+(?:is|are)\b)?[\s:*]+"


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

    A letter decides over texts, unless another option's text stands behind it; what is denied («not sad», «A and B are
    wrong») does not count; the longest name counts where one is part of another («weakly positive»). Where several are
    named, these decide, in this order: the last announcement («the answer is:», with the option there or on the next
    line; «I choose C»; «C is right»), an option that stands alone on its line or opens the answer, a conclusion
    («therefore»), and what is left without lists of all options and without what merely «could be».
    """
    text = _lines(response)
    if exact := _exact(text, options):
        return Reading(exact, (exact,))
    answer = _Answer(text, options)
    found = {mention.letter for mention in answer.named}
    named = tuple(option.letter for option in options if option.letter in found)
    if answer.unfinished:
        return Reading(answer.alone, named)
    if letter := _decided(answer.named):
        return Reading(letter, named)
    if answer.events:
        return Reading(answer.announced, named)
    return Reading(answer.alone or answer.concluded or answer.left, named)


def read_letters(response: str, options: Sequence[Option]) -> tuple[str, ...]:
    """All options that a free answer names, by their letters in order: «GI», «G, I», «(G) Surprise and fear»."""
    text = _lines(response)
    valid = [option.letter for option in options]
    if not valid:
        return ()
    one, plain = f"[{''.join(valid)}]", re.sub(r"\band\b", " ", text)
    if re.fullmatch(rf"(?:{one}|[\s,;/&|+().])+", plain):
        return tuple(letter for letter in valid if letter in plain)
    if re.fullmatch(r"[\s,;/&|+().]*(?:[a-z](?:[\s,;/&|+().]+|$))+", plain):
        return tuple(letter for letter in valid if letter.lower() in plain)
    answer = _Answer(text, options)
    runs = re.findall(rf"{_RUN_CUE}({one}(?:(?:[\s,/&]|and\b)*{one})*)(?!\w)", text)
    letters = {letter for run in runs for letter in run} & set(valid)  # «the answers are G and I», «answer: GI»
    if answer.events:
        letters |= {mention.letter for mention in answer.events[-1].named}
    else:
        letters |= {mention.letter for mention in answer.unlisted}
    return tuple(letter for letter in valid if letter in letters)


def _lines(response: str) -> str:
    """The short answer in one form of its characters, without bullets, runs of spaces and blank lines."""
    text = _BESIDE_LATIN.sub(" ", folded(short_answer(response)))
    text = re.sub(r"[^\S\n]+", " ", _COURTESY.sub(" ", text))
    text = _ANSWER_OF_Q.sub("Answer: ", text)
    return _BULLET.sub("", re.sub(r" ?\n[ \n]*", "\n", text).strip()).strip()


def _exact(text: str, options: Sequence[Option]) -> str | None:
    """The option that the whole text is: its letter in either case, its text, or both."""
    plain = text.strip(_QUOTES).casefold()
    spelled = _SPELLED.fullmatch(plain)
    texts = {option.letter: folded(option.text).casefold().strip(". ") for option in options}
    fits = {letter for letter, own in texts.items() if own and own == plain}
    if spelled:
        letter, rest = (spelled[1] or spelled[2]).upper(), spelled[3].strip(_QUOTES)
        fits |= {letter} if letter in texts and rest in ("", texts[letter]) else set()
    return fits.pop() if len(fits) == 1 else None


def _decided(named: Sequence[Mention]) -> str | None:
    """The one option that is meant where these are named; None where it is open."""
    marks, texts = ({mention.letter for mention in named if mention.mark == mark} for mark in (True, False))
    # «(B) Happy», where (B) is Sad; «A: she is sad» may be meant as the answer to a question Q.
    contradicted = any(each.odd or (each.bare and texts and each.letter not in texts) for each in named)
    letters = marks or texts
    decided = len(letters) == 1 and not contradicted and not all(each.weak for each in named)
    return next(iter(letters)) if decided else None


@dataclass(frozen=True, slots=True)
class _Event:
    """An announcement: where it stands, whether it is final, and what it names."""

    start: int
    end: int
    final: bool
    named: tuple[Mention, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line: where it stands, the option that it begins with, and whether there is no more in it."""

    start: int
    end: int
    letter: str | None
    exact: bool


class _Answer:
    """An answer that is more than one option, and where in it which options stand.

    Attributes:
      named: all mentions that are not denied, by place.
      events: announcements that name anything, by place.
      unfinished: whether the last announcement has nothing behind it: the answer was cut.
    """

    def __init__(self, text: str, options: Sequence[Option]) -> None:
        self._text, self._options = text, options
        self._stops = [*(stop.start() for stop in _STOP.finditer(text)), len(text)]
        self._clauses = [0, *(clause.end() for clause in _CLAUSE.finditer(text)), len(text) + 1]
        self._hedges = [hedge.start() for hedge in _HEDGED.finditer(text)]
        found = [mention for mention in find_options(text, options) if not mention.denied]
        # What is only asked («Is it A?») counts where nothing is said.
        said = [mention for mention in found if not text.startswith("?", self._stop(mention.end))]
        self._take(said or found)
        passed_over = self._passed_over() | self._taken_back()
        self._take([mention for mention in self.named if mention not in passed_over])
        self.unfinished = False
        self.events = sorted((*self._announcements(), *self._confirmations()), key=lambda event: event.start)

    def _take(self, named: list[Mention]) -> None:
        self.named, self._starts = named, [mention.start for mention in named]

    def _passed_over(self) -> set[Mention]:
        """What is announced as another choice than the answer: «the wrong option is A», «second choice: B»."""
        cues = [
            cue
            for cue in _ANNOUNCED.finditer(self._text)
            if cue["other"] and (cue["noun"] or cue["other"].lower() == "secondary")
        ]
        return {mention for cue in cues for mention in self._between(cue.end(), self._stop(cue.end()))}

    def _taken_back(self) -> set[Mention]:
        last = self.named[-1].start if self.named else 0
        return {each for each in self.named if each.start < last and _TAKEN_BACK.match(self._text, each.end)}

    def _between(self, start: int, end: int) -> list[Mention]:
        return self.named[bisect_left(self._starts, start) : bisect_left(self._starts, end)]

    def _stop(self, start: int) -> int:
        """Where the sentence ends; a letter and a full stop end it, too."""
        return self._stops[bisect_left(self._stops, start)]

    def _announcements(self) -> Iterable[_Event]:
        text = self._text
        for cue in _ANNOUNCED.finditer(text):
            if cue["other"] or (cue["verb"] and _UNSAID.search(text[max(cue.start() - 16, 0) : cue.start()])):
                continue
            stop = self._stop(cue.end())
            named, rest = self._between(cue.end(), stop), text[cue.end() : stop].strip(" :=*\"'([-\u2013\u2014")
            self.unfinished = False
            if not named and (not rest or text[stop - 1] == ":"):
                self.unfinished = stop == len(text) and not cue["verb"]
                if text[stop : stop + 1] == "\n":
                    named = self._opening(stop + 1)
            if any(not mention.weak for mention in named):
                yield _Event(cue.start(), stop, bool(cue["final"]), tuple(named))

    def _confirmations(self) -> Iterable[_Event]:
        for mention in self.named:
            if mention.ticked:
                yield _Event(mention.start, mention.end, False, (mention,))
        for cue in _CONFIRMED.finditer(self._text):
            named = self._between(self._clauses[bisect_left(self._clauses, cue.start()) - 1], cue.start())
            if named and not any(map(self._hedged, named)):
                yield _Event(cue.start(), cue.end(), False, tuple(named))

    def _opening(self, start: int) -> list[Mention]:
        """What is named where a part begins: on lines of options, or in the first sentence."""
        number = bisect_left([line.start for line in self._all_lines], start)
        lines = list(takewhile(lambda line: line.letter, self._all_lines[number : number + len(self._options)]))
        if len(lines) < 2:
            return self._sentence(start)
        own = {line.start: line.letter for line in lines}
        return [each for each in self._between(start, lines[-1].end) if own.get(each.start) == each.letter]

    def _sentence(self, start: int) -> list[Mention]:
        """What the sentence that begins here names; «B.» before it is a part of it."""
        marked = _MARKED.match(self._text, start)
        return self._between(start, self._stop(marked.end() if marked else start))

    @property
    def announced(self) -> str | None:
        """The option of the last announcement, or of the last final one; None where that leaves it open."""
        events = [event for event in self.events if event.final] or self.events
        letters = [_decided(event.named) for event in events]
        others = [number for number, letter in enumerate(letters) if letter not in (None, letters[-1])]
        # Of two announcements the later counts only where it takes the earlier back.
        if others and not _REVISED.search(self._text, events[others[-1]].end, events[-1].start):
            return None
        return letters[-1]

    @cached_property
    def _all_lines(self) -> list[_Line]:
        lines, start = [], 0
        for text in self._text.split("\n"):
            exact = None if text.endswith(":") else _exact(text, self._options)
            marked = _MARKED.match(text)
            letter = exact or (marked and (marked[1] or marked[2]).upper())
            valid = any(option.letter == letter for option in self._options)
            lines.append(_Line(start, start + len(text), letter if valid else None, bool(exact)))
            start += len(text) + 1
        return lines

    @cached_property
    def _listed(self) -> list[list[_Line]]:
        """Lines of different options, one after the other."""
        runs: list[list[_Line]] = [[]]
        for line in self._all_lines:
            if line.letter is None or line.letter in {each.letter for each in runs[-1]}:
                runs.append([])
            if line.letter is not None:
                runs[-1].append(line)
        return [run for run in runs if len(run) > 1]

    @property
    def alone(self) -> str | None:
        """The one option that stands alone on a line, or that the answer begins with."""
        listed = {line.start for run in self._listed for line in run}
        lines = [line for line in self._all_lines if line.start not in listed]
        letters = {line.letter for line in lines if line.exact}
        first = self._all_lines[0]
        if first.start not in listed:
            if first.letter:
                letters.add(_decided(self._sentence(0)))
            else:
                letters |= self._opens()
        letters &= {mention.letter for mention in self.named}
        return letters.pop() if len(letters) == 1 else None

    def _opens(self) -> set[str | None]:
        """The options that are the first sentence («No. ...», «No, ...», «Sad: ...») and other whole sentences."""
        text, ends = self._text, self._stops
        spans = zip([0, *(stop + 1 for stop in ends)], ends, strict=False)
        sentences = [text[start:end] for start, end in spans if text[end : end + 1] != "?"]
        short = re.match(r"(\w[\w ]{0,40}?) ?(?:[:(\u2013\u2014]| - )|(yes|no),(?! (?:yes|no)\b)", text, re.IGNORECASE)
        first = (text.startswith(sentences[0]) and _exact(sentences[0], self._options)) or (
            short and _exact(short[1] or short[2], self._options)
        )
        return {first, *(_exact(each, self._options) for each in sentences[1:])} if first else set()

    @property
    def concluded(self) -> str | None:
        """The one option that conclusions name."""
        scopes = [self._between(cue.end(), self._stop(cue.end())) for cue in _CONCLUDES.finditer(self._text)]
        letters = {_decided(scope) for scope in scopes if scope}
        return letters.pop() if len(letters) == 1 else None

    @cached_property
    def unlisted(self) -> list[Mention]:
        """The mentions without lists of all options, be they lines or a sentence."""
        count = len(self._options)
        spans = [(run[0].start, run[-1].end) for run in self._listed if len(run) == count]
        for start, end in zip([0, *self._stops], self._stops, strict=False):
            if len({mention.letter for mention in self._between(start, end)}) == count:
                spans.append((start, end))
        dropped = {id(mention) for span in spans for mention in self._between(*span)}
        return [mention for mention in self.named if id(mention) not in dropped]

    @property
    def left(self) -> str | None:
        """The one option that is named elsewhere than in lists of all, and not as something that could be."""
        sure = [mention for mention in self.named if not self._hedged(mention)]
        unlisted = self.unlisted
        return (
            _decided(sure)
            or _decided(unlisted)
            or _decided([mention for mention in unlisted if not self._hedged(mention)])
        )

    def _hedged(self, mention: Mention) -> bool:
        number = bisect_left(self._clauses, mention.start + 1)
        begin, end = self._clauses[number - 1], self._clauses[number]
        return bisect_left(self._hedges, begin) < bisect_left(self._hedges, end)


def read_tags(response: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """All tags of a list that a free answer names, in the order of the list: «smile, close eyes», «she is nodding».

    «No beard» is the tag `no_beard`, «no glasses» is not `eyeglasses`; adjectives before one noun («long brown hair»)
    name each their tag.
    """
    text = folded(short_answer(response))
    parts = {part.strip().strip(".").casefold().replace(" ", "_") for part in text.split(",")} - {""}
    by_name = {tag.casefold(): tag for tag in allowed}
    if parts <= by_name.keys() | {"none"}:
        return tuple(tag for tag in allowed if tag.casefold() in parts)
    names = {(tag, name): stems(name) for tag in allowed for name in (tag, *_other_names(tag))}
    spoken = with_nouns(words(text), list(names.values()))
    found = {tag for tag, _ in longest({key: mentions(spoken, name) for key, name in names.items()})}
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
    text = folded(short_answer(response))
    found: set[str] = set()
    spoken = words(text)
    denied = {word.start for word in spoken if word.negated}
    for match in _UNITS.finditer(text):
        if match.start() not in denied:
            found |= {f"AU{int(number)}" for number in re.findall(r"\d+", match[1])}
    names = {(unit, name): stems(name) for unit in allowed for name in UNIT_NAMES.get(unit, ())}
    found |= {unit for unit, _ in longest({key: mentions(spoken, name) for key, name in names.items()})}
    return tuple(unit for unit in allowed if unit in found)
