"""How replies of a judge become scores: one way for every judge (PAPER.md section 6).

| | official | strict |
|---|---|---|
| before | the reply as it is | without thoughts, template tokens, fences, marks, JSON (`tasks.replies`) |
| `match` | `yes` after stripping and lower-casing (`Yes.` is wrong), over all items | the same |
| `score` | `int()` of the reply (`85.5` is unreadable), no bound, over items with a reply | the one number in the reply, or behind «score», 0 to 100, over all items |
| `labels` | split on `,`, not stripped; nothing named and nothing true counts 0; over items with a reply | stripped, letters in a run of letters alone («GI», «(G) Fear, (I) Anxiety»); counts 100; over all items |
| `six` | `[Score]: N` exactly six times, over items with a reply | the same, over all items |

An unreadable reply counts 0 by both, and is counted apart: it is the judge's fault. A file of which none can be read has
no score. A judge that gave up on an item (None), or that said nothing, gave no reply.
"""  # noqa: E501

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from videmo_jax.evaluation.judges.judging import SIX, Question
from videmo_jax.tasks.metrics import micro_f1
from videmo_jax.tasks.replies import final_answer, short_answer, unmarked

Rules = Literal["official", "strict"]
RULES: tuple[Rules, ...] = get_args(Rules)

_SIX = re.compile(r"\[?score[s]?\]?: (\d+)")
_OF_100 = r"(?:\s*/\s*100\b|\s+out of 100\b|\s*%)?"
_VALUE = rf"(?<![\w./])-?\d{{1,9}}(?:\.\d{{1,9}})?{_OF_100}(?!\w|\.\d|\s*/\s*\d)"
_NUMBER = re.compile(_VALUE, re.ASCII | re.IGNORECASE)
_SCORED = re.compile(
    rf"\b(?:score|rating)\]?(?:\s+(?:is|of)|\s*[:=])?\s+({_VALUE})(?=\s*(?:\n|\(|-\s|\.?\s*\Z|\.\s))",
    re.ASCII | re.IGNORECASE,
)
_PREFIX = re.compile(r"\A(?:final )?(?:answer|verdict|judge?ment|labels?|letters?)\s*[:=]\s*", re.IGNORECASE)
_MARKED_LETTER = re.compile(r"\(?([A-Z])(?:\)|[.:](?=\s))\s*(?:[A-Za-z]+(?:[ -][A-Za-z]+)*)?")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply is worth.

    Attributes:
      values: in percent: one, or the six of a caption in the order of `SIX`; None without a reply.
      readable: whether the reply had the form that was asked for; what is not readable counts 0.
    """

    values: tuple[float, ...] | None
    readable: bool = True


NO_REPLY = Verdict(None)


def read_reply(question: Question, reply: str | None, rules: Rules) -> Verdict:
    """Reads one reply by the rules."""
    if reply is None:
        return NO_REPLY
    reply = reply.strip()
    if reply and rules == "strict":
        # Six scores are a text, not one answer: of two boxes or fields none is all of it.
        reply = unmarked(final_answer(reply)) if question.kind == "six" else short_answer(reply)
        reply = _PREFIX.sub("", reply).strip("\"' ")
        if not reply:
            return Verdict((0.0,) * (len(SIX) if question.kind == "six" else 1), False)
    # The official code asks again where a reply is empty; with labels it reads the empty set.
    if not reply and (question.kind != "labels" or rules == "strict"):
        return NO_REPLY
    if question.kind == "match":
        return Verdict((100.0 * (reply.lower() == "yes"),), reply.lower() in ("yes", "no"))
    if question.kind == "score":
        number = _integer(reply) if rules == "official" else _number(reply)
        return Verdict((0.0,), False) if number is None else Verdict((number,))
    if question.kind == "labels":
        return _labels(question, reply, rules)
    return _six(reply)


def _integer(reply: str) -> float | None:
    """What `int()` reads: also `+8`, `8_5` and `-5`; None where it reads nothing, or more than a float holds."""
    try:
        return float(int(reply))
    except (ValueError, OverflowError):
        return None


def _number(reply: str) -> float | None:
    """The one number in a reply, such as `85.5`, `Score: 85` or `85/100`; None outside of 0 to 100."""
    found = _NUMBER.findall(reply)
    if len(found) != 1:
        found = list(dict.fromkeys(_SCORED.findall(reply)))
    if len(found) != 1:
        return None
    number = float(re.split(r"[/%\s]", found[0])[0])
    return number if 0 <= number <= 100 else None


def _labels(question: Question, reply: str, rules: Rules) -> Verdict:
    named, true = (named_labels(text, question.labels, rules) for text in (reply, question.truth))
    readable = bool(named) or reply.lower().removesuffix("." if rules == "strict" else "") == "none"
    return Verdict((micro_f1(true, named, empty=0.0 if rules == "official" else 100.0),), readable)


def named_labels(text: str, labels: Sequence[str], rules: Rules) -> frozenset[str]:
    """The labels that a reply or a truth names: of single letters every character, else parts between commas.

    Args:
      text: `GI`, `AU1,AU4` or `none`.
      labels: all there are; others are left out. Without any, every name counts.
      rules: `strict` strips the names, and knows letters only where they stand as such: «A sad man» names none.
    """
    if rules == "strict":
        text = text.strip().removesuffix(".")
        text = "" if text.lower() == "none" else text
    if labels and all(len(label) == 1 for label in labels):
        return frozenset(text if rules == "official" else _letters(text, labels)) & frozenset(labels)
    parts = frozenset(part.strip() if rules == "strict" else part for part in text.lower().split(","))
    return parts & {label.lower() for label in labels} if labels else parts - {"", "none"}


def _letters(text: str, labels: Sequence[str]) -> str:
    """The letters of a text that is a run of them («GI», «G, I and K») or lists them before names («(G) Fear»)."""
    runs = [set(run) for run in re.split(r"\band\b|[\s,;/&+.()\[\]'\"-]+", text) if run]
    capitals = all("A" <= letter <= "Z" for run in runs for letter in run)
    if capitals and all(len(run & set(labels)) >= len(run - set(labels)) for run in runs):
        return "".join(letter for run in runs for letter in run)
    parts = [part for part in re.split(r"[,;\n]", text) if part.strip()]
    marked = [_MARKED_LETTER.fullmatch(part.strip()) for part in parts]
    return "".join(match[1] for match in marked) if all(marked) else ""


def _six(reply: str) -> Verdict:
    found = _SIX.findall(reply.lower())
    numbers = [_integer(number) for number in found]
    if len(found) != len(SIX) or None in numbers:
        return Verdict((0.0,) * len(SIX), False)
    return Verdict(tuple(numbers))


class Heard(Protocol):
    """A verdict, or what holds its fields."""

    @property
    def values(self) -> tuple[float, ...] | None:
        """None without a reply."""

    @property
    def readable(self) -> bool:
        """Whether the reply could be read."""


def unreadable(items: Iterable[Heard]) -> bool:
    """Whether there are replies, and none of them can be read."""
    readable = [item.readable for item in items if item.values is not None]
    return bool(readable) and not any(readable)


def mean_of(verdicts: Iterable[Verdict], kind: str, rules: Rules, missing: int = 0) -> tuple[float, ...] | None:
    """The mean over a file or aspect, by the denominator of the kind and the rules.

    Args:
      verdicts: of its items.
      kind: of its questions.
      rules: `official` leaves out items without a reply, but for `match`.
      missing: items that have no line; they count 0 by strict rules, and officially not at all.

    Returns:
      One value, or six; None where there is nothing to divide by.
    """
    verdicts = list(verdicts)
    replies = [verdict.values for verdict in verdicts if verdict.values is not None]
    judged = len(verdicts) if kind == "match" or rules == "strict" else len(replies)
    items = judged + (missing if rules == "strict" else 0)
    if not items:
        return None
    size = len(SIX) if kind == "six" else 1
    return tuple(math.fsum(values[i] for values in replies) / items for i in range(size))
