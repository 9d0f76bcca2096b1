"""What has been answered so far: a run that is killed goes on where it was, and never mixes two recipes."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from etils import epath

from videmo_jax.files.errors import UserError
from videmo_jax.files.json_records import read_journal, read_json, to_line
from videmo_jax.files.writing import write_json, write_text
from videmo_jax.sampling.policy import Answer


class JournalError(UserError):
    """The folder of an evaluation holds something else; the message says what and what to do."""


class Journal:
    """The answers below an output folder: `recipe.json`, and `answers/*.jsonl`, one file for each batch.

    Each file is written whole, so that a kill never leaves half a line, also in buckets, where nothing can be appended.
    Nothing is written before `begin`: a run that cannot start claims no folder.
    """

    def __init__(self, out: epath.Path, recipe: Mapping[str, Any]) -> None:
        """Opens a new folder, or goes on with one of the same recipe.

        Args:
          out: the evaluation's folder.
          recipe: everything that the answers depend on.

        Raises:
          JournalError: the folder holds answers of another recipe, or files that are no evaluation's.
        """
        self._out, self._folder = out, out / "answers"
        self._recipe = json.loads(json.dumps(recipe))
        _require_recipe(out, self._recipe)
        self.answers: dict[str, Answer] = {}
        parts = sorted(self._folder.glob("*.jsonl")) if self._folder.exists() else []
        for part in parts:
            self.answers |= _read(part)
        self._number = itertools.count(1 + max((int(part.stem) for part in parts), default=0))

    def begin(self) -> None:
        """Makes the folder this recipe's."""
        write_json(self._out / "recipe.json", self._recipe)

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Keeps the answers of a batch, by the items' keys."""
        lines = (to_line({"key": key, **asdict(answer)}) for key, answer in answers.items())
        write_text(self._folder / f"{next(self._number):06}.jsonl", lines)
        self.answers |= answers

    def add_reasoning(self, outcomes: Mapping[str, Any]) -> None:
        """Keeps what led to a batch of answers, in `reasoning/`; a run that goes on writes a cut one once more."""
        if outcomes:
            lines = (to_line({"key": key, **outcome}) for key, outcome in outcomes.items())
            name = hashlib.sha256("\n".join(outcomes).encode()).hexdigest()[:16]
            write_text(self._out / "reasoning" / f"{name}.jsonl", lines)


def _require_recipe(out: epath.Path, recipe: dict[str, Any]) -> None:
    path = out / "recipe.json"
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise JournalError(f"{out}: holds other files, but no recipe.json of an evaluation. Name a new folder.")
        return
    if differing := "; ".join(_differing(read_json(path, f"delete {out}, or name a new folder"), recipe)):
        raise JournalError(
            f"{out}: holds answers of another recipe ({differing}). Name a new folder, or delete this one."
        )


def _differing(held: Mapping[str, Any], recipe: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What differs between two recipes, fields of fields by their dotted names."""
    for name in {**held, **recipe}:
        before, now = held.get(name), recipe.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differing(before, now, f"{prefix}{name}.")
        elif before != now:
            yield f"{prefix}{name}: {before} there, {now} now"


def _read(part: epath.Path) -> dict[str, Answer]:
    mend = "delete this file: its items will be answered again"
    try:
        return {r["key"]: Answer(r["text"], tuple(r["log_probs"]), r["cut"]) for r in read_journal(part, mend)}
    except (KeyError, TypeError):
        raise JournalError(f"{part}: broken; {mend}") from None
