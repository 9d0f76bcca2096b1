"""The 40 columns of the paper's tables, from scores of single files (PAPER.md section 6).

20 columns on attributes, 13 on expressions, 7 on emotion understanding. A column is sum(score x weight) / sum(weight)
over parts: test files, aspects of the open questions, or scores of the captions. A part that is missing makes every
column that needs it a gap.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from videmo_jax.tasks.taxonomy import TASKS

Part = tuple[str, str]  # stem of a test file, and what of it: an aspect, one of the six scores, or nothing
Level = Literal["attribute", "expression", "emotion"]

QA = "QA_test_sampling_all"
CAPTIONS = "caption_test_sampling_v2_all_example"

# The stems of the 22 official test files.
TEST_FILES = tuple(task.files[0] for task in TASKS if task.metric != "none")

# The level of each table, as the summary of the ablations calls it.
LEVELS: dict[int, Level] = {1: "attribute", 2: "expression", 3: "emotion"}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
      name: as `paper_results.json` calls it.
      title: the heading in a table.
      table: 1, 2 or 3, of the official code.
      weights: of its parts.
    """

    name: str
    title: str
    table: int
    weights: Mapping[Part, float]

    def value(self, scores: Mapping[Part, float | None]) -> float | None:
        """The weighted mean; None where a part has no score."""
        found = [(scores.get(part), weight) for part, weight in self.weights.items()]
        if any(score is None for score, _ in found):
            return None
        return math.fsum(score * weight for score, weight in found) / math.fsum(self.weights.values())

    def missing(self, scores: Mapping[Part, float | None]) -> list[Part]:
        """The parts that have no score."""
        return [part for part in self.weights if scores.get(part) is None]


def _mean(table: int, name: str, title: str, *parts: str | Part) -> Column:
    """A column whose parts count the same; a bare name is a whole file."""
    return Column(name, title, table, {(part, "") if isinstance(part, str) else part: 1.0 for part in parts})


def _average(name: str, columns: Iterable[Column]) -> Column:
    """The mean of columns, each counting the same."""
    weights: dict[Part, float] = {}
    columns = list(columns)
    for column in columns:
        total = sum(column.weights.values())
        weights |= {part: weight / total for part, weight in column.weights.items()}
    return Column(name, "AVG", columns[0].table, weights)


def _open(name: str, title: str, *aspects: str) -> Column:
    return _mean(1, name, title, *((QA, aspect) for aspect in aspects))


def _judged(score: str, title: str) -> Column:
    return _mean(3, score, title, (CAPTIONS, score))


_CLOSED = (
    _mean(1, "appearance_recognition", "Appearance Rec.", "CelebV-HQ_Appearance-Recognition"),
    _mean(1, "appearance_caption", "Appearance Cap.", "CelebV-Text_Appearance-Caption"),
    _mean(1, "action_recognition", "Action Rec.", "CelebV-HQ_Action-Recognition"),
    _mean(1, "action_caption", "Action Cap.", "CelebV-Text_Action-Caption"),
    _mean(1, "identity", "Identity", "MEAD_ID"),
    _mean(1, "head_pose", "Head Pose", "MEAD_Head-Pose"),
)
_OPEN = (
    _open("eye", "Eye", "Eyes", "Eyebrows"),
    _open("mouth", "Mouth", "Mouth"),
    _open("nose", "Nose", "Nose"),
    _open("hair", "Hair", "Hair"),
    _open("chin", "Chin", "Chin"),
    _open("shape", "Shape", "Face_shape"),
    _open("feature", "Feature", "Facial_features"),
    _open("accessory", "Accessory", "Accessories"),
    _open("age", "Age", "Age"),
    _open("gender", "Gender", "Gender"),
    _open("skin", "Skin", "Skin"),
    _open("action", "Action", "Body_actions", "Facial_actions", "Head_actions"),
)
_EMOTION = (
    _mean(
        2,
        "emotion_single",
        "Emotion Single",
        *(f"{name}_Single-Label-Emotion-Recognition" for name in ("DFEW", "MAFW", "MER2023")),
    ),
    _mean(2, "emotion_multi", "Emotion Multi", "MAFW_Multiple-Label-Emotion-Recognition"),
    _mean(
        2,
        "emotion_fine",
        "Emotion Fine",
        *(f"{name}_Fine-grained-Emotion-Recognition" for name in ("MEAD", "RAVDESS")),
    ),
)
_SENTIMENT = (
    _mean(
        2,
        "sentiment_single",
        "Sentiment Single",
        *(f"{name}_Single-Label-Sentiment-Recognition" for name in ("MOSEI", "MOSI")),
    ),
    _mean(2, "sentiment_fine", "Sentiment Fine", "CHSIMIv1_Fine-grained-Sentiment-Recognition"),
)
_CUES = (
    _mean(2, "micro_expression", "Micro", "CAS_Single-Label-Micro-Expression-Recognition"),
    _mean(2, "action_units", "AU", "AffWild2_Action_Unit_Detection"),
)
_COMPLEX = (
    _mean(2, "emotion_caption", "Caption", "CelebV-Text_Emotion-Caption"),
    _mean(
        2,
        "conversation",
        "Conversation",
        "PERR_Single-Label-Conversational-Emotion-Recognition",
        "MELD_Single-Label-Conversational-Emotion-Recognition_new",
    ),
)
_UNDERSTANDING = (
    _judged("label_overlap", "Label"),
    _judged("clue_overlap", "Clue"),
    _judged("instruction_adherence", "Instruction"),
    _judged("response_accuracy", "Accuracy"),
    _judged("video_text_relevance", "Relevance"),
    _judged("fluency", "Fluency"),
)

# The groups of columns, each before its average; in the order of the tables.
GROUPS: dict[str, tuple[Column, ...]] = {
    "closed_average": _CLOSED,
    "open_average": _OPEN,
    "emotion_average": _EMOTION,
    "sentiment_average": _SENTIMENT,
    "cues_average": _CUES,
    "complex_average": _COMPLEX,
    "understanding_average": _UNDERSTANDING,
}
COLUMNS: tuple[Column, ...] = tuple(
    column for name, group in GROUPS.items() for column in (*group, _average(name, group))
)


def columns_of(table: int) -> tuple[Column, ...]:
    """The columns of one table, in its order."""
    return tuple(column for column in COLUMNS if column.table == table)


def column_values(scores: Mapping[Part, float | None]) -> dict[str, float | None]:
    """All 40 columns by name, None where there is a gap."""
    return {column.name: column.value(scores) for column in COLUMNS}


def summary_of(columns: Mapping[str, float | None]) -> dict[str, float | None]:
    """The summary of the ablation tables: means over all 20, 13 and 7 columns, averages included, and their mean."""
    levels = {level: mean([columns[column.name] for column in columns_of(table)]) for table, level in LEVELS.items()}
    return {**levels, "mean": mean(list(levels.values()))}


def overall_of(columns: Mapping[str, float | None]) -> float | None:
    """The mean of all 40 columns; None where one is a gap."""
    return mean([columns[column.name] for column in COLUMNS])


def mean(values: list[float | None]) -> float | None:
    """The mean of values; None where one is missing or there are none."""
    if not values or any(value is None for value in values):
        return None
    return math.fsum(values) / len(values)
