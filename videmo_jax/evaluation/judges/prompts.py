"""What a judging model is asked: prompts of our own, or those of the authors' `eval/config.py` (PAPER.md section 6)."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import get_args

from videmo_jax.evaluation.judges.judging import Kind, Question
from videmo_jax.evaluation.scoring import kind_of
from videmo_jax.evaluation.tables.columns import TEST_FILES
from videmo_jax.files.errors import UserError
from videmo_jax.files.json_records import json_digest
from videmo_jax.tasks.taxonomy import TASKS, Form

KINDS: tuple[Kind, ...] = get_args(Kind)
KIND_OF_FILE: dict[str, Kind] = {file: kind_of(file) for file in TEST_FILES}

# What a prompt may ask to be filled in, by the names in the authors' file, and `names`, which is ours.
FIELDS = {"query": "the question", "labels": "the truth", "answer": "the response", "names": "the possible labels"}
NEEDED: dict[Kind, tuple[str, ...]] = {
    "match": ("labels", "answer"),
    "score": ("labels", "answer"),
    "labels": ("answer",),
    "six": ("labels", "answer"),
}

# Of the prompts in the authors' release, as `JudgePrompts.hash` gives it.
OFFICIAL_HASH = "bbe4afc003199910"
OFFICIAL_MODEL = "gpt-4o-2024-08-06"

# Files of ours below prompts/: by the form of the answers where it matters, else by kind.
_EMBEDDED: dict[Kind, str] = {"match": "match", "score": "score", "labels": "names", "six": "six"}
_EMBEDDED_OF_FORM: dict[Form, str] = {"open_qa": "open_qa", "multi_label": "letters"}


class PromptError(UserError):
    """Prompts cannot be used; the message says which, what is wrong and what to do."""


@dataclass(frozen=True)
class JudgePrompts:
    """Prompts with fields in braces (`FIELDS`).

    Attributes:
      by_file: prompt of a test file, by its stem.
      by_kind: of all other files.
    """

    by_file: Mapping[str, str]
    by_kind: Mapping[Kind, str]

    def __post_init__(self) -> None:
        for kind in KINDS:
            if missing := self._missing(kind):
                raise PromptError(f"no prompt for {kind} ({', '.join(missing)})")
        for file, prompt in self.by_file.items():
            check_fields(prompt, KIND_OF_FILE.get(file), file)
        for kind, prompt in self.by_kind.items():
            check_fields(prompt, kind, kind)

    def _missing(self, kind: Kind) -> list[str]:
        """The test files of a kind that have no prompt."""
        if kind in self.by_kind:
            return []
        return [file for file, its in KIND_OF_FILE.items() if its == kind and file not in self.by_file]

    @cached_property
    def hash(self) -> str:
        """Of the prompts themselves, whatever file they come from."""
        by_file = {file: self.by_file.get(file) or self.by_kind[kind] for file, kind in KIND_OF_FILE.items()}
        return json_digest([by_file | dict(self.by_file), dict(self.by_kind)])[:16]

    @property
    def official(self) -> bool:
        """Whether these are the prompts of the authors' release, to the letter."""
        return self.hash == OFFICIAL_HASH

    def write(self, question: Question) -> str:
        """The text that a judge is sent.

        Raises:
          PromptError: the authors' prompts have none for this file.
        """
        prompt = self.by_file.get(question.file) or self.by_kind.get(question.kind)
        if prompt is None:
            raise PromptError(
                f"{question.id}: no prompt for {question.kind} questions of this file; name one with "
                f"--judge-prompt-names {question.file}=NAME"
            )
        return prompt.format(
            query=question.query, labels=question.truth, answer=question.response, names=", ".join(question.labels)
        )


def check_fields(prompt: str, kind: Kind | None, called: str) -> None:
    """Checks that a prompt can be filled in, by plain names alone.

    Raises:
      PromptError: it has another field, lacks one, or has a brace alone.
    """
    try:
        parts = [part for part in string.Formatter().parse(prompt) if part[1] is not None]
    except ValueError as error:
        raise PromptError(f"the prompt for {called}: {error}; a brace in the text is written twice") from None
    fields = {name for _, name, *_ in parts}
    for _, name, form, conversion in parts:
        if name not in FIELDS or form or conversion:
            there_are = ", ".join(f"{{{field}}} ({what})" for field, what in FIELDS.items())
            raise PromptError(f"the prompt for {called} has a field {name!r} of another form; there are: {there_are}")
    for name in NEEDED[kind] if kind else ("answer",):
        if name not in fields:
            raise PromptError(f"the prompt for {called} lacks {{{name}}} ({FIELDS[name]})")


def embedded_prompts() -> JudgePrompts:
    """Our own: they ask for exactly the forms of reply that the official rules read."""
    folder = resources.files(__package__) / "texts"
    names = {*_EMBEDDED.values(), *_EMBEDDED_OF_FORM.values()}
    texts = {name: (folder / f"{name}.txt").read_text(encoding="utf-8") for name in names}
    by_file = {
        file: texts[_EMBEDDED_OF_FORM[task.form]]
        for task in TASKS
        if task.form in _EMBEDDED_OF_FORM
        for file in task.files
    }
    return JudgePrompts(by_file, {kind: texts[name] for kind, name in _EMBEDDED.items()})
