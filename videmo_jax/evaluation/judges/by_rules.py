"""The judge `rule`: embedded, deterministic, free of charge. It answers in the forms of the authors' prompts.

Choices, letters, tags and action units are read by `tasks.answers`; captions are compared by `caption_overlap`. Its
scores are NOT comparable with the paper's rows, which a language model judged; see `JudgeInfo.comparable`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from videmo_jax.affective.parser import parse_caption
from videmo_jax.evaluation.judges.caption_overlap import CueReader, compare, tree_cues
from videmo_jax.evaluation.judges.judging import NOT_COMPARABLE, SIX, JudgeInfo, OnProgress, Question
from videmo_jax.tasks.answers import (
    Option,
    parse_options,
    read_choice,
    read_letters,
    read_tags,
    read_units,
)
from videmo_jax.tasks.replies import short_answer
from videmo_jax.tasks.words import folded, mentions, stems, words

NOTES = (
    "The judge `rule` reads answers by rules and compares captions by shared words and cues.",
    f"{NOT_COMPARABLE}a language model judged its rows",
)


@dataclass(frozen=True)
class RuleJudge:
    """Judges by rules.

    Attributes:
      cues: what a caption says of emotions and of what shows them: the nodes of its affective tree, or words
        (`token_cues`).
    """

    cues: CueReader = field(default_factory=partial(tree_cues, parse_caption))

    @property
    def info(self) -> JudgeInfo:
        """What results say of it."""
        return JudgeInfo("rule", notes=NOTES)

    def judge(self, questions: Sequence[Question], on_progress: OnProgress | None = None) -> list[str | None]:
        """The replies, in the order of the questions."""
        replies: list[str | None] = []
        for number, question in enumerate(questions, start=1):
            replies.append(self._reply(question))
            if on_progress and (number % 100 == 0 or number == len(questions)):
                on_progress(number, len(questions))
        return replies

    def _reply(self, question: Question) -> str:
        if question.kind == "match":
            return "yes" if _matches(question) else "no"
        if question.kind == "labels":
            return _labels(question)
        if question.kind == "score" and parse_options(question.query):
            return "100" if _matches(question) else "0"
        scores = compare(question.truth, question.response, self.cues)
        if question.kind == "score":
            return str(scores.whole)
        return "\n".join(
            f"{number}. {name.replace('_', ' ')}, [Score]: {getattr(scores, name)}"
            for number, name in enumerate(SIX, start=1)
        )


def remarks(questions: Sequence[Question]) -> dict[str, str]:
    """What a person should look at, by the questions' ids: answers that name several options equally."""
    found = {}
    for question in questions:
        if question.kind not in ("match", "score"):
            continue
        reading = read_choice(question.response, parse_options(question.query))
        if reading.ambiguous:
            found[question.id] = f"ambiguous: names the options {', '.join(reading.named)}"
    return found


def true_option(query: str, truth: str) -> Option | None:
    """The option that is the truth; None where the query has none, or none of them is."""
    options = parse_options(query)
    letter = read_choice(truth, options).letter
    return next((option for option in options if option.letter == letter), None)


def _matches(question: Question) -> bool:
    """Whether the response names the truth."""
    options = parse_options(question.query)
    if options:
        option = true_option(question.query, question.truth)
        # A truth that is none of the options can only be said word by word.
        same = short_answer(question.response).casefold() == question.truth.strip().casefold() != ""
        return read_choice(question.response, options).letter == option.letter if option else same
    truth = stems(question.truth)
    return bool(truth) and bool(mentions(words(folded(short_answer(question.response))), truth))


def _labels(question: Question) -> str:
    """The labels that the response names, as the prompts ask for them."""
    labels = question.labels
    if labels and all(len(label) == 1 for label in labels):
        options = [option for option in parse_options(question.query) if option.letter in labels]
        return "".join(read_letters(question.response, options or [Option(label, "") for label in labels])) or "none"
    if labels and all(label.startswith("AU") for label in labels):
        return ",".join(read_units(question.response, labels)) or "none"
    return ",".join(read_tags(question.response, labels)) or "none"
