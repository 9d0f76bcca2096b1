"""What has been answered so far: a run that is killed goes on where it was, and never mixes two recipes."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from etils import epath

from videmo_jax.evaluation.predictions import write_text
from videmo_jax.sampling.policy import Answer


class JournalError(ValueError):
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
        write_text(self._out / "recipe.json", json.dumps(self._recipe, indent=1) + "\n")

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Keeps the answers of a batch, by the items' keys."""
        lines = [json.dumps({"key": key, **asdict(answer)}) + "\n" for key, answer in answers.items()]
        write_text(self._folder / f"{next(self._number):06}.jsonl", "".join(lines))
        self.answers |= answers

    def add_reasoning(self, outcomes: Mapping[str, Any]) -> None:
        """Keeps what led to a batch of answers, in `reasoning/`; a run that goes on writes a cut one once more."""
        if outcomes:
            lines = [json.dumps({"key": key, **outcome}) + "\n" for key, outcome in outcomes.items()]
            name = hashlib.sha256("\n".join(outcomes).encode()).hexdigest()[:16]
            write_text(self._out / "reasoning" / f"{name}.jsonl", "".join(lines))


def _require_recipe(out: epath.Path, recipe: dict[str, Any]) -> None:
    path = out / "recipe.json"
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise JournalError(f"{out}: holds other files, but no recipe.json of an evaluation. Name a new folder.")
        return
    try:
        held = json.loads(path.read_text())
        differing = list(_differing(held, recipe))
    except (ValueError, TypeError, AttributeError):
        raise JournalError(f"{path}: broken. Delete {out}, or name a new folder.") from None
    if differing:
        there = "; ".join(differing)
        raise JournalError(f"{out}: holds answers of another recipe ({there}). Name a new folder, or delete this one.")


def _differing(held: Mapping[str, Any], recipe: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What differs between two recipes, fields of fields by their dotted names."""
    for name in {**held, **recipe}:
        there, now = held.get(name), recipe.get(name)
        if isinstance(there, Mapping) and isinstance(now, Mapping):
            yield from _differing(there, now, f"{prefix}{name}.")
        elif there != now:
            yield f"{prefix}{name}: {there} there, {now} now"


def _read(part: epath.Path) -> dict[str, Answer]:
    try:
        records = [json.loads(line) for line in part.read_text().split("\n") if line]
        return {r["key"]: Answer(r["text"], tuple(r["log_probs"]), r["cut"]) for r in records}
    except (ValueError, KeyError, TypeError):
        raise JournalError(f"{part}: broken. Delete this file: its items will be answered again.") from None
