"""What scoring leaves for users: scores.json, judged.jsonl, the tables and the page."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etils import epath

from videmo_jax.evaluation.annotations import read_annotations
from videmo_jax.evaluation.answers.predictions import Prediction, PredictionError, read_folder
from videmo_jax.evaluation.judges.by_rules import RuleJudge
from videmo_jax.evaluation.judges.judging import Judge, OnProgress
from videmo_jax.evaluation.judges.rules import Rules
from videmo_jax.evaluation.report import report
from videmo_jax.evaluation.scoring import score
from videmo_jax.evaluation.tables.layout import tables_of, write_tables
from videmo_jax.evaluation.tables.scores import Results
from videmo_jax.files.errors import FileError
from videmo_jax.files.json_records import read_json, to_line
from videmo_jax.files.paths import open_path
from videmo_jax.files.writing import write_json, write_text
from videmo_jax.tasks.taxonomy import is_named


@dataclass(frozen=True)
class Scoring:
    """How predictions are scored.

    Attributes:
      judge: who judges.
      rules: by which replies are read.
      name: of this run's row in the tables.
      on_progress: called with (questions judged, questions in all).
    """

    judge: Judge = field(default_factory=RuleJudge)
    rules: Rules = "official"
    name: str = "this run"
    on_progress: OnProgress | None = None


def score_run(
    out: epath.PathLike | None,
    predictions: Mapping[str, Sequence[Prediction]],
    scoring: Scoring,
    *,
    data: Path | None = None,
    split: str = "test",
    variant: str = "full",
    cut: Mapping[str, int] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Results:
    """Scores predictions and writes what there is to see.

    Args:
      out: gets scores.json, judged.jsonl, tables/ and report.html; None writes nothing.
      predictions: lines by file, named by stem.
      scoring: how.
      data: the folder of Emo-CFG; without it the open questions have no aspects.
      split: of the annotations.
      variant: of the annotations.
      cut: by file, how many answers had not ended.
      about: what scores.json says of how the answers were made.

    Raises:
      DatasetError: the annotations cannot be read.
    """
    results = score(
        predictions,
        scoring.judge,
        scoring.rules,
        annotations=read_annotations(data, split, variant, predictions) if data else None,
        cut=cut,
        on_progress=scoring.on_progress,
    )
    if out is not None:
        write_results(out, results, scoring.name, **(about or {}))
        page = report(results, predictions, scoring.name, about or {}, data)
        write_text(open_path(out) / "report.html", page)
    return results


def write_results(out: epath.PathLike, results: Results, name: str, **about: Any) -> None:
    """Writes scores.json, judged.jsonl (a line for each judged item) and tables/; `name` is that of our row."""
    out = open_path(out)
    write_tables(out / "tables", tables_of(results, name))
    write_text(out / "judged.jsonl", (to_line(item.to_json()) for item in results.items))
    write_json(out / "scores.json", results.to_json(**about))


def score_folder(
    folder: epath.PathLike,
    out: epath.PathLike | None,
    scoring: Scoring,
    *,
    data: Path | None = None,
    split: str = "test",
    variant: str = "full",
    tasks: Sequence[str] | None = None,
) -> Results:
    """Scores the prediction files of one method, as `score_run` does.

    A `recipe.json` beside the files, which an evaluation leaves, goes into scores.json.

    Args:
      folder: what holds the files.
      out: as in `score_run`, like `data`, `split` and `variant`.
      scoring: how.
      tasks: names of files, with or without `.json`, also shell patterns; None takes all.

    Raises:
      PredictionError: there are no files, one of them is not valid, or a name matches nothing.
      DatasetError: the annotations cannot be read.
    """
    predictions = _chosen(read_folder(folder), tasks, folder)
    about = {"predictions": os.fspath(folder), **_recipe(open_path(folder))}
    return score_run(out, predictions, scoring, data=data, split=split, variant=variant, about=about)


def _chosen(
    predictions: dict[str, list[Prediction]], tasks: Sequence[str] | None, folder: epath.PathLike
) -> dict[str, list[Prediction]]:
    """The files that one of the patterns matches."""
    if tasks is None:
        return predictions
    for pattern in tasks:
        if not any(is_named(name, pattern) for name in predictions):
            raise PredictionError(f"{folder}: no file is named {pattern!r}; there are: {', '.join(predictions)}.")
    return {name: lines for name, lines in predictions.items() if any(is_named(name, pattern) for pattern in tasks)}


def _recipe(folder: epath.Path) -> dict[str, Any]:
    """How the answers were made, where the folder says so."""
    for place in (folder, folder.parent):
        path = place / "recipe.json"
        if path.exists() and (place == folder or folder.name == "predictions"):
            with suppress(FileError):
                return {"recipe": read_json(path, "")}
    return {"recipe": None}
