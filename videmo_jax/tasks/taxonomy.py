"""One table of Emo-CFG's tasks (PAPER.md sections 2, 5 and 6): whoever needs to know what a file asks looks here."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

Stage = Literal["attribute", "expression", "emotion"]

Form = Literal[
    "choice",  # one of the listed options: «(B) Sad»
    "multi_label",  # the letters of all options that apply: «GI»
    "tags",  # names from a list, separated by commas, or «none»
    "units",  # action units, separated by commas: «AU1,AU4», or «none»
    "caption",  # a sentence or two
    "open_qa",  # free text about one aspect
    "rationale",  # the cues that explain an emotion
    "fine_caption",  # a paragraph that ends in the emotion
]


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
      name: for people.
      files: stems of its annotation files: the official test file first, where there is one.
      stage: of the curriculum that its training data belongs to.
      form: of its answers.
    """

    name: str
    files: tuple[str, ...]
    stage: Stage
    form: Form


TASKS = (
    Task("appearance recognition", ("CelebV-HQ_Appearance-Recognition",), "attribute", "tags"),
    Task("appearance caption", ("CelebV-Text_Appearance-Caption",), "attribute", "caption"),
    Task("action recognition", ("CelebV-HQ_Action-Recognition",), "attribute", "tags"),
    Task("action caption", ("CelebV-Text_Action-Caption",), "attribute", "caption"),
    Task("identity", ("MEAD_ID",), "attribute", "choice"),
    Task("head pose", ("MEAD_Head-Pose",), "attribute", "choice"),
    Task("open attributes", ("QA_test_sampling_all", "QA_train"), "attribute", "open_qa"),
    Task("emotion, DFEW", ("DFEW_Single-Label-Emotion-Recognition",), "expression", "choice"),
    Task("emotion, MAFW", ("MAFW_Single-Label-Emotion-Recognition",), "expression", "choice"),
    Task("emotion, MER2023", ("MER2023_Single-Label-Emotion-Recognition",), "expression", "choice"),
    Task("multi-label emotion", ("MAFW_Multiple-Label-Emotion-Recognition",), "expression", "multi_label"),
    Task("fine-grained emotion, MEAD", ("MEAD_Fine-grained-Emotion-Recognition",), "expression", "choice"),
    Task("fine-grained emotion, RAVDESS", ("RAVDESS_Fine-grained-Emotion-Recognition",), "expression", "choice"),
    Task("sentiment, MOSEI", ("MOSEI_Single-Label-Sentiment-Recognition",), "expression", "choice"),
    Task("sentiment, MOSI", ("MOSI_Single-Label-Sentiment-Recognition",), "expression", "choice"),
    Task("fine-grained sentiment", ("CHSIMIv1_Fine-grained-Sentiment-Recognition",), "expression", "choice"),
    Task("micro-expression", ("CAS_Single-Label-Micro-Expression-Recognition",), "expression", "choice"),
    Task("action units", ("AffWild2_Action_Unit_Detection",), "expression", "units"),
    Task("emotion caption", ("CelebV-Text_Emotion-Caption",), "expression", "caption"),
    Task("conversation, PERR", ("PERR_Single-Label-Conversational-Emotion-Recognition",), "expression", "choice"),
    Task("conversation, MELD", ("MELD_Single-Label-Conversational-Emotion-Recognition_new",), "expression", "choice"),
    Task("fine-grained captions", ("caption_test_sampling_v2_all_example", "caption_train"), "emotion", "fine_caption"),
    Task("emotion rationales", ("rationale_train",), "emotion", "rationale"),
)

_BY_STEM = {stem: task for task in TASKS for stem in task.files}


def task_of(file: str) -> Task | None:
    """The task of an annotation or prediction file by its name; folders and `.json` do not matter. None if unknown."""
    return _BY_STEM.get(PurePath(file).name.removesuffix(".json"))
