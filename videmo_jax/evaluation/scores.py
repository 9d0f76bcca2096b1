"""What predictions are worth: exact match, file by file, over the closed-choice files and over all."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from videmo_jax.evaluation.predictions import Prediction
from videmo_jax.tasks.taxonomy import task_of

RULES = "exact"


@dataclass(frozen=True)
class FileScore:
    """One file's result.

    Attributes:
      name: of the file, without `.json`.
      items: lines of the file: all count, also those without an answer.
      correct: responses that equal their label.
      skipped: lines without a response, because the item could not be asked.
      cut: answers that had not ended at the limit of new tokens.
    """

    name: str
    items: int
    correct: int
    skipped: int
    cut: int = 0

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
        }


def is_exact(prediction: Prediction) -> bool:
    """Whether the response is the label, but for white space around; an empty response never is."""
    response = prediction.response.strip()
    return bool(response) and response == prediction.labels.strip()


def score_file(name: str, predictions: Sequence[Prediction], cut: int = 0) -> FileScore:
    """Scores one file."""
    correct = sum(is_exact(prediction) for prediction in predictions)
    skipped = sum(not prediction.response and prediction.log_probs is None for prediction in predictions)
    return FileScore(name, len(predictions), correct, skipped, cut)


def percent(scores: Iterable[FileScore]) -> float | None:
    """Correct answers in percent of all items of these files; None where there are no items."""
    scores = list(scores)
    items = sum(score.items for score in scores)
    return 100 * sum(score.correct for score in scores) / items if items else None


def closed_choice(scores: Iterable[FileScore]) -> float | None:
    """The same over the files whose answer is one of the listed options."""
    return percent(score for score in scores if score.form == "choice")


def to_json(scores: Collection[FileScore], **about: Any) -> dict[str, Any]:
    """The content of scores.json; `about` says how the answers were made, such as the recipe."""
    return {
        "rules": RULES,
        **about,
        "files": {score.name: score.to_json() for score in scores},
        "closed_choice": closed_choice(scores),
        "overall": percent(scores),
    }


def table(scores: Iterable[FileScore]) -> Table:
    """The same for a terminal, a row for each file."""
    result = Table(title="exact match")
    result.add_column("file", overflow="fold")
    result.add_column("form")
    for heading in ("items", "exact %", "skipped", "cut"):
        result.add_column(heading, justify="right")
    for score in scores:
        share = _shown(score.exact_match)
        result.add_row(score.name, score.form, str(score.items), share, str(score.skipped), str(score.cut))
    return result


def summary(scores: Collection[FileScore]) -> str:
    """The two lines below the table."""
    choices = sum(score.items for score in scores if score.form == "choice")
    items = sum(score.items for score in scores)
    return (
        f"closed-choice: {_shown(closed_choice(scores))} % of {choices} items\n"
        f"overall: {_shown(percent(scores))} % of {items} items"
    )


def _shown(share: float | None) -> str:
    return "-" if share is None else f"{share:.1f}"


def score_all(predictions: Mapping[str, Sequence[Prediction]], cut: Mapping[str, int] | None = None) -> list[FileScore]:
    """Scores every file by its name; `cut` counts the answers that had not ended."""
    return [score_file(name, lines, (cut or {}).get(name, 0)) for name, lines in predictions.items()]
