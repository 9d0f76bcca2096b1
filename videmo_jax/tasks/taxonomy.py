"""One table of Emo-CFG's tasks (PAPER.md sections 2, 5 and 6): whoever needs to know what a file asks looks here."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Literal, get_args

from videmo_jax.files.errors import UserError

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


Metric = Literal[
    "accuracy",  # share of right answers
    "f1",  # micro-F1 of an item's labels, mean over items
    "score",  # a judge's 0 to 100
    "six_scores",  # a judge's six scores of a fine-grained caption
    "none",  # no official test file asks it
]

Reward = Literal[
    "rule",  # accuracy or F1 against the truth
    "caption",  # a generative reward model compares short texts
    "tree",  # exp(-lambda x edit distance) between affective trees
]

# How answers of each form are scored (PAPER.md section 6) and rewarded (section 3); of open questions and rationales
# the paper names no reward: ours.
MEASURES: dict[Form, tuple[Metric, Reward]] = {
    "choice": ("accuracy", "rule"),
    "multi_label": ("f1", "rule"),
    "tags": ("f1", "rule"),
    "units": ("f1", "rule"),
    "caption": ("score", "caption"),
    "open_qa": ("score", "caption"),
    "rationale": ("none", "caption"),
    "fine_caption": ("six_scores", "tree"),
}

STAGES: tuple[Stage, ...] = get_args(Stage)  # in the order of the curriculum

# The tags of CelebV-HQ, MAFW's emotions by letter and the action units of Aff-Wild2, in the order of the questions.
APPEARANCE_TAGS = (
    "blurry", "male", "young", "chubby", "pale_skin", "rosy_cheeks", "oval_face", "receding_hairline", "bald", "bangs",
    "black_hair", "blonde_hair", "gray_hair", "brown_hair", "straight_hair", "wavy_hair", "long_hair",
    "arched_eyebrows", "bushy_eyebrows", "bags_under_eyes", "eyeglasses", "sunglasses", "narrow_eyes", "big_nose",
    "pointy_nose", "high_cheekbones", "big_lips", "double_chin", "no_beard", "5_o_clock_shadow", "goatee", "mustache",
    "sideburns", "heavy_makeup", "wearing_earrings", "wearing_hat", "wearing_lipstick", "wearing_necklace",
    "wearing_necktie", "wearing_mask",
)  # fmt: skip
ACTION_TAGS = (
    "blow", "chew", "close_eyes", "cough", "cry", "drink", "eat", "frown", "gaze", "glare", "head_wagging", "kiss",
    "laugh", "listen_to_music", "look_around", "make_a_face", "nod", "play_instrument", "read", "shake_head", "shout",
    "sigh", "sing", "sleep", "smile", "smoke", "sneer", "sneeze", "sniff", "talk", "turn", "weep", "whisper", "wink",
    "yawn",
)  # fmt: skip
EMOTION_LETTERS = tuple("ABCDEFGHIJK")
ACTION_UNITS = tuple(f"AU{number}" for number in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))

# The aspects of the open questions: what `source` ends in.
ASPECTS = (
    "Eyes", "Eyebrows", "Mouth", "Nose", "Hair", "Chin", "Face_shape", "Facial_features", "Accessories", "Age",
    "Gender", "Skin", "Body_actions", "Facial_actions", "Head_actions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
      name: for people.
      files: stems of its annotation files: the official test file first, where there is one. In a task that a config
        declares they are shell patterns.
      stage: of the curriculum that its training data belongs to.
      form: of its answers.
      labels: the names or letters that its answers are made of, where there are several in one answer; the official
        F1 knows no others.
    """

    name: str
    files: tuple[str, ...]
    stage: Stage
    form: Form
    labels: tuple[str, ...] = ()

    @property
    def metric(self) -> Metric:
        """What its answers are scored by."""
        return MEASURES[self.form][0]

    @property
    def reward(self) -> Reward:
        """The branch of the reward that its answers take."""
        return MEASURES[self.form][1]


TASKS = (
    Task("appearance recognition", ("CelebV-HQ_Appearance-Recognition",), "attribute", "tags", APPEARANCE_TAGS),
    Task("appearance caption", ("CelebV-Text_Appearance-Caption",), "attribute", "caption"),
    Task("action recognition", ("CelebV-HQ_Action-Recognition",), "attribute", "tags", ACTION_TAGS),
    Task("action caption", ("CelebV-Text_Action-Caption",), "attribute", "caption"),
    Task("identity", ("MEAD_ID",), "attribute", "choice"),
    Task("head pose", ("MEAD_Head-Pose",), "attribute", "choice"),
    Task("open attributes", ("QA_test_sampling_all", "QA_train"), "attribute", "open_qa"),
    Task("emotion, DFEW", ("DFEW_Single-Label-Emotion-Recognition",), "expression", "choice"),
    Task("emotion, MAFW", ("MAFW_Single-Label-Emotion-Recognition",), "expression", "choice"),
    Task("emotion, MER2023", ("MER2023_Single-Label-Emotion-Recognition",), "expression", "choice"),
    Task(
        "multi-label emotion",
        ("MAFW_Multiple-Label-Emotion-Recognition",),
        "expression",
        "multi_label",
        EMOTION_LETTERS,
    ),
    Task("fine-grained emotion, MEAD", ("MEAD_Fine-grained-Emotion-Recognition",), "expression", "choice"),
    Task("fine-grained emotion, RAVDESS", ("RAVDESS_Fine-grained-Emotion-Recognition",), "expression", "choice"),
    Task("sentiment, MOSEI", ("MOSEI_Single-Label-Sentiment-Recognition",), "expression", "choice"),
    Task("sentiment, MOSI", ("MOSI_Single-Label-Sentiment-Recognition",), "expression", "choice"),
    Task("fine-grained sentiment", ("CHSIMIv1_Fine-grained-Sentiment-Recognition",), "expression", "choice"),
    Task("micro-expression", ("CAS_Single-Label-Micro-Expression-Recognition",), "expression", "choice"),
    Task("action units", ("AffWild2_Action_Unit_Detection",), "expression", "units", ACTION_UNITS),
    Task("emotion caption", ("CelebV-Text_Emotion-Caption",), "expression", "caption"),
    Task("conversation, PERR", ("PERR_Single-Label-Conversational-Emotion-Recognition",), "expression", "choice"),
    Task("conversation, MELD", ("MELD_Single-Label-Conversational-Emotion-Recognition_new",), "expression", "choice"),
    Task("fine-grained captions", ("caption_test_sampling_v2_all_example", "caption_train"), "emotion", "fine_caption"),
    Task("emotion rationales", ("rationale_train",), "emotion", "rationale"),
)

_BY_STEM = {stem: task for task in TASKS for stem in task.files}


def declared_task(text: str) -> Task:
    """A task of a user's own files, as configs write it: `PATTERN=STAGE/FORM`, such as `MyFaces_*=expression/choice`.

    Raises:
      ValueError: the text has another form, or names a stage or form that there is not.
    """
    pattern, _, rest = text.partition("=")
    stage, _, form = rest.partition("/")
    if not pattern or stage not in STAGES or form not in MEASURES:
        raise UserError(
            f"task {text!r}: expected PATTERN=STAGE/FORM with a stage of {', '.join(STAGES)} "
            f"and a form of {', '.join(MEASURES)}"
        )
    return Task(pattern, (pattern,), stage, form)


def stem_of(file: str) -> str:
    """The name of an annotation or prediction file, without folders and ending."""
    return PurePath(file).name.removesuffix(".json").removesuffix(".jsonl")


def is_named(file: str, pattern: str) -> bool:
    """Whether a shell pattern, with or without an ending, is that of a file; its folders and ending do not matter."""
    return fnmatchcase(stem_of(file), stem_of(pattern))


def task_of(file: str, declared: Sequence[Task] = ()) -> Task | None:
    """The task of an annotation or prediction file by its name; folders and endings do not matter.

    Args:
      file: a path or a name.
      declared: tasks of files that are not official; they come first.

    Returns:
      The task, or None where nobody knows the file.
    """
    stem = stem_of(file)
    for task in declared:
        if any(is_named(file, pattern) for pattern in task.files):
            return task
    return _BY_STEM.get(stem)
