"""What predictions are worth: file by file, in the paper's 40 columns, and over all.

Beside the judged scores stands exact match: how many responses are their label, letter by letter.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from videmo_jax.evaluation.annotations import Matching
from videmo_jax.evaluation.answers.predictions import Prediction
from videmo_jax.evaluation.judges.judging import JudgeInfo
from videmo_jax.evaluation.judges.rules import Rules, unreadable
from videmo_jax.evaluation.tables.columns import (
    COLUMNS,
    TEST_FILES,
    Part,
    column_values,
    overall_of,
    summary_of,
)
from videmo_jax.evaluation.tables.paper import paper_sizes
from videmo_jax.tasks.taxonomy import task_of


@dataclass(frozen=True)
class PartScore:
    """The score of a file, or of one of its aspects or of a caption's six scores.

    Attributes:
      items: how many were judged, or are missing and count.
      score: in percent by the rules; None where there is nothing to divide by.
    """

    items: int
    score: float | None


@dataclass(frozen=True)
class Judged:
    """What the judge made of an official test file.

    Attributes:
      kind: of its questions.
      parts: by aspect, by name of the six scores, or under the empty name.
      failed: items without a reply.
      unreadable: replies in another form, which count 0; where all are, the parts have no score.
      strict_reads: those of them that the rules `strict` read, where the rules are `official`.
      odd_truths: items of a choice whose truth is none of the options.
      ambiguous: responses that name several options equally (judge `rule`); they are wrong.
      no_aspect: lines of the open questions that no aspect can be found for; they are in no part.
      uar: unweighted average recall of a single-label task, over the classes of the truth; None elsewhere.
      war: weighted average recall, which is the accuracy over all items; None elsewhere.
    """

    kind: str
    parts: Mapping[str, PartScore]
    failed: int = 0
    unreadable: int = 0
    strict_reads: int = 0
    odd_truths: int = 0
    ambiguous: int = 0
    no_aspect: int = 0
    uar: float | None = None
    war: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What scores.json says beside exact match."""
        whole = self.parts.get("")
        parts = {name: {"items": part.items, "score": part.score} for name, part in self.parts.items() if name}
        counts = ("failed", "unreadable", "strict_reads", "odd_truths", "ambiguous", "no_aspect")
        return {
            "kind": self.kind,
            "score": whole and whole.score,
            "parts": parts,
            **{name: getattr(self, name) for name in counts},
            "uar": self.uar,
            "war": self.war,
        }


@dataclass(frozen=True)
class FileScore:
    """One file's result.

    Attributes:
      name: of the file, without `.json`.
      items: lines of the file: all count, also those without an answer.
      correct: responses that equal their label.
      skipped: lines without a response, because the item could not be asked.
      cut: answers that had not ended at the limit of new tokens.
      judged: by the rules; None of a file that is no official test file.
    """

    name: str
    items: int
    correct: int
    skipped: int
    cut: int = 0
    judged: Judged | None = None

    @property
    def form(self) -> str:
        """The form of its answers, `unknown` for a file that no task has."""
        task = task_of(self.name)
        return task.form if task else "unknown"

    @property
    def exact_match(self) -> float | None:
        """Correct answers in percent of all items; None of an empty file."""
        return percent([self])

    def to_json(self) -> dict[str, Any]:
        """What scores.json says of the file."""
        task = task_of(self.name)
        return {
            "task": task and task.name,
            "stage": task and task.stage,
            "form": task and task.form,
            "items": self.items,
            "correct": self.correct,
            "exact_match": self.exact_match,
            "skipped": self.skipped,
            "cut": self.cut,
            **(self.judged.to_json() if self.judged else {"kind": None, "score": None}),
        }


@dataclass(frozen=True)
class ItemScore:
    """One judged item: what stands in `judged.jsonl`, for people and for the report."""

    id: str
    file: str
    part: str
    kind: str
    reply: str | None
    values: tuple[float, ...] | None
    readable: bool
    remark: str = ""

    def to_json(self) -> dict[str, Any]:
        """The line of the item."""
        values = None if self.values is None else list(self.values)
        fields = ("id", "file", "part", "kind", "reply")
        return {
            **{name: getattr(self, name) for name in fields},
            "values": values,
            "readable": self.readable,
            "remark": self.remark,
        }


@dataclass(frozen=True)
class Results:
    """The scores of one method.

    Attributes:
      rules: by which replies were read.
      judge: who judged.
      files: every prediction file, also those that are no official test file.
      items: every judged item.
      matching: of each file that has an annotation file; empty without annotations.
    """

    rules: Rules
    judge: JudgeInfo
    files: Sequence[FileScore]
    items: Sequence[ItemScore] = ()
    matching: Mapping[str, Matching] = field(default_factory=dict)

    @cached_property
    def part_scores(self) -> dict[Part, float | None]:
        """The score of every part of the official files that are there."""
        judged = {file.name: file.judged for file in self.files if file.judged}
        return {(name, part): each.score for name, file in judged.items() for part, each in file.parts.items()}

    @cached_property
    def columns(self) -> dict[str, float | None]:
        """The 40 columns, None where there is a gap."""
        return column_values(self.part_scores)

    @property
    def summary(self) -> dict[str, float | None]:
        """As the ablation tables summarise: attribute, expression, emotion and their mean."""
        return summary_of(self.columns)

    @property
    def overall(self) -> float | None:
        """The mean of the 40 columns; None where one is a gap."""
        return overall_of(self.columns)

    @property
    def gaps(self) -> dict[str, list[str]]:
        """Columns without a value, and what they lack."""
        lacking = {column.name: column.missing(self.part_scores) for column in COLUMNS}
        return {name: ["/".join(filter(None, part)) for part in parts] for name, parts in lacking.items() if parts}

    @property
    def missing_files(self) -> list[str]:
        """Official test files without a prediction."""
        scored = {file.name for file in self.files if file.items}
        return [name for name in TEST_FILES if name not in scored]

    @property
    def unread_files(self) -> list[str]:
        """Files with replies of the judge of which none can be read; they have no score."""
        by_file: dict[str, list[ItemScore]] = defaultdict(list)
        for item in self.items:
            by_file[item.file].append(item)
        return [name for name, items in by_file.items() if unreadable(items)]

    @property
    def unknown_files(self) -> list[str]:
        """Prediction files that are no official test file; they count in no column."""
        return [file.name for file in self.files if file.name not in TEST_FILES]

    @property
    def obstacles(self) -> list[str]:
        """Why these scores may not be compared with the paper's rows; none where they may."""
        reasons = []
        if self.rules != "official":
            reasons.append(f"the rules are `{self.rules}`, not `official`")
        if not self.judge.comparable:
            own = f" ({'; '.join(self.judge.obstacles)})" if self.judge.obstacles else ""
            reasons.append(f"the judge `{self.judge.name}` is not the authors' judge with the authors' prompts{own}")
        return reasons

    @property
    def other_sizes(self) -> dict[str, tuple[int, int]]:
        """Files and aspects that have another number of items than the paper's, and both numbers.

        Where there are any, the questions are not the paper's, whoever judges the answers.
        """
        sizes: dict[str, tuple[int, int]] = {}
        for file in self.files:
            if not file.judged:
                continue
            parts = {part: score.items for part, score in file.judged.parts.items()}
            for part, wanted in paper_sizes(file.name).items():
                here = parts.get(part, max(parts.values(), default=0))
                if here != wanted:
                    sizes["/".join(filter(None, (file.name, part)))] = (here, wanted)
        return sizes

    @property
    def comparable(self) -> bool:
        """Whether these scores may be compared with the paper's rows."""
        return not self.obstacles

    def to_json(self, **about: Any) -> dict[str, Any]:
        """The content of scores.json; `about` says how the answers were made, such as the recipe."""
        return {
            "rules": self.rules,
            "judge": self.judge.to_json(),
            "comparable_with_paper": self.comparable,
            "not_comparable_because": self.obstacles,
            "other_sizes_than_paper": {name: list(sizes) for name, sizes in self.other_sizes.items()},
            **about,
            "columns": self.columns,
            "summary": self.summary,
            "overall": self.overall,
            "gaps": self.gaps,
            "missing_files": self.missing_files,
            "unread_files": self.unread_files,
            "unknown_files": self.unknown_files,
            "files": {file.name: file.to_json() for file in self.files},
            "matching": {name: matching.to_json() for name, matching in self.matching.items()},
            "closed_choice": closed_choice(self.files),
            "exact_match": percent(self.files),
        }


def is_exact(prediction: Prediction) -> bool:
    """Whether the response is the label, but for white space around; an empty response never is."""
    response = prediction.response.strip()
    return bool(response) and response == prediction.labels.strip()


def exact_score(name: str, predictions: Sequence[Prediction], cut: int = 0, judged: Judged | None = None) -> FileScore:
    """Counts the exact matches of one file."""
    correct = sum(is_exact(prediction) for prediction in predictions)
    skipped = sum(not prediction.response and prediction.log_probs is None for prediction in predictions)
    return FileScore(name, len(predictions), correct, skipped, cut, judged)


def percent(scores: Iterable[FileScore]) -> float | None:
    """Exact matches in percent of all items of these files; None where there are no items."""
    scores = list(scores)
    items = sum(score.items for score in scores)
    return 100 * sum(score.correct for score in scores) / items if items else None


def closed_choice(scores: Collection[FileScore]) -> float | None:
    """The same over the files whose answer is one of the listed options."""
    return percent(score for score in scores if score.form == "choice")
