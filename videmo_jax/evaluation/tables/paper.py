"""What the paper prints: its rows for the tables, its ablations, and where it does not add up.

The numbers lie in `data/paper_results.json`: VidEmo (NeurIPS 2025), Tables 1 to 4 and 8 to 10, cells as printed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from videmo_jax.evaluation.tables.columns import CAPTIONS, COLUMNS, GROUPS, QA, columns_of, mean
from videmo_jax.tasks.taxonomy import ASPECTS, task_of

# Cells are cut off after one digit, so a mean of cells may lie 0.1 below the print, and a little more by rounding.
TOLERANCE = 0.15


@dataclass(frozen=True)
class Fault:
    """A printed average that its row does not give.

    Attributes:
      row: model or setting.
      name: of the average.
      printed: what stands in the paper.
      recomputed: the mean of the row's cells.
    """

    row: str
    name: str
    printed: float
    recomputed: float

    def __str__(self) -> str:
        return f"{self.row}, {self.name}: the paper prints {self.printed}, its cells average {self.recomputed:.2f}"


@cache
def paper_results() -> dict[str, Any]:
    """The whole file."""
    return json.loads(resources.files(__package__).joinpath("paper_results.json").read_text("utf-8"))


def paper_rows(table: int) -> dict[str, dict[str, float]]:
    """The paper's rows for one table by model: those that have all of its columns."""
    names = [column.name for column in columns_of(table)]
    rows = paper_results()["models"].items()
    return {model: {name: row[name] for name in names} for model, row in rows if all(name in row for name in names)}


# Items of the paper's test files; 300 where nothing else is said.
_SIZES = {
    "AffWild2_Action_Unit_Detection": 87,
    "CAS_Single-Label-Micro-Expression-Recognition": 246,
    CAPTIONS: 2600,
}
_ASPECT_SIZES = {"Body_actions": 107, "Head_actions": 4, "Facial_actions": 189}


def paper_sizes(file: str) -> dict[str, int]:
    """How many items of a test file the paper's scores are over: by aspect, or under the empty name for the whole."""
    if file == QA:
        return {aspect: _ASPECT_SIZES.get(aspect, 300) for aspect in ASPECTS}
    task = task_of(file)
    return {"": 500 if task and task.stage == "attribute" else _SIZES.get(file, 300)}


def paper_models() -> dict[str, dict[str, float]]:
    """The models for which the paper prints all 40 columns."""
    rows = paper_results()["models"].items()
    return {model: row for model, row in rows if all(column.name in row for column in COLUMNS)}


def paper_ablations() -> dict[str, dict[str, float]]:
    """The paper's ablations (7B) by «what: setting»: attribute, expression, emotion and their mean."""
    ablations = paper_results()["ablations_7b"]
    names = ablations["columns"]
    return {
        f"{what}: {setting}": dict(zip(names, row, strict=True))
        for what, settings in ablations.items()
        if what != "columns"
        for setting, row in settings.items()
    }


def print_faults(tolerance: float = TOLERANCE) -> list[Fault]:
    """All averages of the paper's tables that differ from the mean of their cells by more than the tolerance."""
    return [fault for fault in _averages() if abs(fault.printed - fault.recomputed) > tolerance]


def _averages() -> Iterator[Fault]:
    """Every printed average with what its row gives."""
    results = paper_results()
    for model, row in results["models"].items():
        for name, group in GROUPS.items():
            cells = [row.get(column.name) for column in group]
            if name in row and None not in cells:
                yield Fault(model, name, row[name], mean(cells))
    for model, printed in results["overall_mean_of_40_columns"].items():
        row = results["models"][model]
        yield Fault(model, "mean of the 40 columns", printed, mean([row[column.name] for column in COLUMNS]))
    for setting, row in paper_ablations().items():
        yield Fault(setting, "mean", row["mean"], mean([row[name] for name in ("attribute", "expression", "emotion")]))
