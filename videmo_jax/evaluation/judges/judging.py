"""What a judge is asked and what it gives back: raw replies, which `rules` alone reads (PAPER.md section 6).

A judge answers in the forms that the authors' prompts ask for:

| kind | asks | reply |
|---|---|---|
| `match` | does the response mean the truth? | `yes` or `no` |
| `score` | how well does it match? | a bare number from 0 to 100 |
| `labels` | which labels does the response name? | letters («GI»), or names with commas («AU1,AU4»), or `none` |
| `six` | six aspects of a fine-grained caption | six times `[Score]: N`, in the order of `SIX` |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Kind = Literal["match", "score", "labels", "six"]

# The order in which a judge gives the six scores of a caption.
SIX = (
    "video_text_relevance",
    "fluency",
    "response_accuracy",
    "instruction_adherence",
    "label_overlap",
    "clue_overlap",
)

OnProgress = Callable[[int, int], None]  # called with (questions done, questions in all)


@dataclass(frozen=True, slots=True)
class Question:
    """One item to be judged.

    Attributes:
      kind: what is asked, and so the form of the reply.
      id: of the item, unique in a run: the file's stem and the line from 0, such as `MEAD_ID#12`.
      file: stem of the test file: the authors' prompts differ by file within one kind.
      query: the first user's message of the prediction line, without the literal `<video>.` (other tags stay).
      truth: the line's `labels`.
      response: the line's answer; may be empty, and is judged all the same.
      labels: names or letters that a reply to `labels` may use; for the other kinds empty.
    """

    kind: Kind
    id: str
    file: str
    query: str
    truth: str
    response: str
    labels: tuple[str, ...] = ()


NOT_COMPARABLE = "not comparable with the paper: "  # begins a judge's note that says why


@dataclass(frozen=True, slots=True)
class JudgeInfo:
    """What results say of the judge.

    Attributes:
      name: `rule` or `openai`.
      model: of the endpoint; None without one.
      prompts: SHA-256 of the prompts, in hexadecimal; None where there are none.
      comparable: whether this is the authors' judge with the authors' prompts, so that the scores may stand beside the
        paper's rows.
      notes: what else a reader of the tables should know, one line each; those that begin with NOT_COMPARABLE say why.
    """

    name: str
    model: str | None = None
    prompts: str | None = None
    comparable: bool = False
    notes: tuple[str, ...] = ()

    @property
    def obstacles(self) -> list[str]:
        """Why its scores may not stand beside the paper's, in its own words."""
        return [note.removeprefix(NOT_COMPARABLE) for note in self.notes if note.startswith(NOT_COMPARABLE)]

    @property
    def remarks(self) -> list[str]:
        """Its other notes."""
        return [note for note in self.notes if not note.startswith(NOT_COMPARABLE)]

    def to_json(self) -> dict[str, Any]:
        """What scores.json says."""
        return {
            "name": self.name,
            "model": self.model,
            "prompts": self.prompts,
            "comparable": self.comparable,
            "notes": list(self.notes),
        }


class Judge(Protocol):
    """Whoever judges."""

    @property
    def info(self) -> JudgeInfo:
        """What results say of it."""

    def judge(self, questions: Sequence[Question], on_progress: OnProgress | None = None) -> list[str | None]:
        """The raw replies, in the order of the questions; None where every retry failed."""


def judged_query(text: str) -> str:
    """The question as a judge sees it: the official code drops every literal `<video>.` and nothing else."""
    return text.replace("<video>.", "")
