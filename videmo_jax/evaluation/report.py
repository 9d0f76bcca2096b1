"""What the page of an evaluation shows, gathered from scores, predictions and videos."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from videmo_jax.data.emo_cfg import VideoFolder
from videmo_jax.data.video import FrameSpec, VideoError, read_clip
from videmo_jax.evaluation.answers.predictions import Prediction
from videmo_jax.evaluation.tables.columns import COLUMNS, GROUPS, LEVELS
from videmo_jax.evaluation.tables.layout import (
    OURS,
    Table,
    cell,
    common_notes,
    tables_of,
    troubles,
)
from videmo_jax.evaluation.tables.paper import paper_models
from videmo_jax.evaluation.tables.scores import ItemScore, Results
from videmo_jax.reports.clips import Strip, strip
from videmo_jax.reports.evaluation import EvaluationView, ShownItem, ShownTable, evaluation_page
from videmo_jax.reports.figures import Row
from videmo_jax.tasks.taxonomy import task_of

ITEMS_PER_FILE = 24  # of each test file that can be looked through: they bound the page
SHOWN = FrameSpec(max_frames=6, min_pixels=20_000, max_pixels=40_000)
BESIDE = ("VidEmo-Base 3B", "VidEmo-Base 7B", "VidEmo-T1 7B", "Qwen2.5-VL 7B")  # those of them that the paper has whole
RIGHT = 50.0  # percent from which a judged score counts as right


def report(
    results: Results,
    predictions: Mapping[str, Sequence[Prediction]],
    name: str,
    about: Mapping[str, Any],
    data: Path | None,
) -> str:
    """The page, as one HTML document.

    Args:
      results: the scores.
      predictions: the lines they are of, by file.
      name: of this run's row.
      about: how the answers were made, as in scores.json.
      data: the folder of Emo-CFG; without it no frames are shown.
    """
    chosen = [item for items in _by_file(results.items).values() for item in choose(items, ITEMS_PER_FILE)]
    shown = [_item(item, predictions) for item in chosen]
    strips = read_strips(data, dict.fromkeys(clip for item in shown for clip in item.clips)) if data else {}
    terms = common_notes(results)
    judge = {name: value for name, value in results.judge.to_json().items() if name not in ("comparable", "notes")}
    view = EvaluationView(
        f"Evaluation of {name}",
        _facts({"rules": results.rules, "judge": judge, **about}),
        troubles(results),
        _comparison(results),
        [_table(table, terms) for table in tables_of(results, name)],
        shown,
        len(results.items),
        strips,
        headline=", ".join(f"{level} {cell(value)}" for level, value in _levels(results).items()),
        terms=terms,
    )
    return evaluation_page(view)


def choose(items: Sequence[ItemScore], most: int) -> list[ItemScore]:
    """At most so many of a file's items, in order: half of them wrong where there are enough, evenly spread."""
    wrong = [item for item in items if is_right(item) is not True]
    right = [item for item in items if is_right(item) is True]
    count = min(len(wrong), max(most // 2, most - len(right)))
    chosen = {item.id for item in (*_spread(wrong, count), *_spread(right, most - count))}
    return [item for item in items if item.id in chosen]


def is_right(item: ItemScore) -> bool | None:
    """Whether an item counts as right: its mean score is at least RIGHT; None without a reply that can be read."""
    return None if not (item.values and item.readable) else bool(np.mean(item.values) >= RIGHT)


def _spread(items: Sequence[ItemScore], count: int) -> list[ItemScore]:
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def read_strips(root: Path, clips: Iterable[str]) -> dict[str, Strip]:
    """Frames of the clips that lie below `root` and can be read."""
    videos, strips = VideoFolder(root), {}
    for clip in clips:
        if videos.fault(clip) is None:
            try:
                frames = read_clip(root / clip, SHOWN).frames
            except VideoError:
                continue
            strips[clip] = strip(frames, clip)
    return strips


def _by_file(items: Iterable[ItemScore]) -> dict[str, list[ItemScore]]:
    found: dict[str, list[ItemScore]] = defaultdict(list)
    for item in items:
        found[item.file].append(item)
    return found


def _item(item: ItemScore, predictions: Mapping[str, Sequence[Prediction]]) -> ShownItem:
    line = predictions[item.file][int(item.id.rpartition("#")[2])]
    task = task_of(item.file)
    question = "\n".join(message.content for message in line.messages if message.role == "user")
    scored = " ".join(f"{value:.4g}" for value in item.values or ())
    values = "no reply" if not item.values else scored if item.readable else "unreadable reply"
    reply = f"the judge replied {item.reply!r}" if item.reply is not None else ""
    remark = " · ".join(filter(None, (item.remark, reply)))
    name = task.name if task else item.file
    return ShownItem(
        item.id,
        f"{name}: {item.part.replace('_', ' ')}" if item.part else name,
        question.replace("<video>", "").lstrip(". \n"),
        line.response,
        line.labels,
        values,
        is_right(item),
        remark,
        line.videos,
    )


def _comparison(results: Results) -> list[Row]:
    models = paper_models()
    beside = {name: models[name] for name in BESIDE if name in models}
    rows = []
    for column in COLUMNS:
        average = column.name in GROUPS
        label = column.name.replace("_", " ") if average else column.title
        others = {name: row[column.name] for name, row in beside.items()}
        value = results.columns[column.name]
        rows.append(Row(label, value, cell(value), others, strong=average))
    return rows


def _levels(results: Results) -> dict[str, float | None]:
    """The results in short: overall, and by level."""
    return {"overall": results.overall} | {level: results.summary[level] for level in LEVELS.values()}


def _table(table: Table, terms: Sequence[str]) -> ShownTable:
    """A table without the notes that are told once for all."""
    rows = [
        (label if source == OURS else f"{label} ({source})", source == OURS, cells)
        for label, source, cells in table.rows
    ]
    return ShownTable(table.title, table.heading, rows, [note for note in table.notes if note not in terms])


def _facts(about: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested fields by their dotted names."""
    facts: dict[str, str] = {}
    for name, value in about.items():
        if isinstance(value, Mapping):
            facts |= _facts(value, f"{prefix}{name}.")
        else:
            texts = value if isinstance(value, list | tuple) else [value]
            shown = " ".join(text if isinstance(text, str) else json.dumps(text) for text in texts)
            facts |= {prefix + name: shown} if value is not None else {}
    return facts
