"""The scores computed once more, by hand: PAPER.md section 6 with scikit-learn, in another style than the package.

Everything is written out: the files, the weights of each column, the rules. Nothing of videmo_jax is imported.
"""

import re
import warnings

import numpy as np
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

YES_NO = [
    "MEAD_ID",
    "MEAD_Head-Pose",
    "DFEW_Single-Label-Emotion-Recognition",
    "MAFW_Single-Label-Emotion-Recognition",
    "MER2023_Single-Label-Emotion-Recognition",
    "MEAD_Fine-grained-Emotion-Recognition",
    "RAVDESS_Fine-grained-Emotion-Recognition",
    "MOSEI_Single-Label-Sentiment-Recognition",
    "MOSI_Single-Label-Sentiment-Recognition",
    "CHSIMIv1_Fine-grained-Sentiment-Recognition",
    "CAS_Single-Label-Micro-Expression-Recognition",
    "PERR_Single-Label-Conversational-Emotion-Recognition",
    "MELD_Single-Label-Conversational-Emotion-Recognition_new",
]
NUMBER = [
    "CelebV-Text_Appearance-Caption",
    "CelebV-Text_Action-Caption",
    "CelebV-Text_Emotion-Caption",
]
LOOKS = [
    "blurry",
    "male",
    "young",
    "chubby",
    "pale_skin",
    "rosy_cheeks",
    "oval_face",
    "receding_hairline",
    "bald",
    "bangs",
    "black_hair",
    "blonde_hair",
    "gray_hair",
    "brown_hair",
    "straight_hair",
    "wavy_hair",
    "long_hair",
    "arched_eyebrows",
    "bushy_eyebrows",
    "bags_under_eyes",
    "eyeglasses",
    "sunglasses",
    "narrow_eyes",
    "big_nose",
    "pointy_nose",
    "high_cheekbones",
    "big_lips",
    "double_chin",
    "no_beard",
    "5_o_clock_shadow",
    "goatee",
    "mustache",
    "sideburns",
    "heavy_makeup",
    "wearing_earrings",
    "wearing_hat",
    "wearing_lipstick",
    "wearing_necklace",
    "wearing_necktie",
    "wearing_mask",
]
ACTS = [
    "blow",
    "chew",
    "close_eyes",
    "cough",
    "cry",
    "drink",
    "eat",
    "frown",
    "gaze",
    "glare",
    "head_wagging",
    "kiss",
    "laugh",
    "listen_to_music",
    "look_around",
    "make_a_face",
    "nod",
    "play_instrument",
    "read",
    "shake_head",
    "shout",
    "sigh",
    "sing",
    "sleep",
    "smile",
    "smoke",
    "sneer",
    "sneeze",
    "sniff",
    "talk",
    "turn",
    "weep",
    "whisper",
    "wink",
    "yawn",
]
UNITS = [f"au{n}" for n in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)]
LABELS = {
    "CelebV-HQ_Appearance-Recognition": LOOKS,
    "CelebV-HQ_Action-Recognition": ACTS,
    "AffWild2_Action_Unit_Detection": UNITS,
    "MAFW_Multiple-Label-Emotion-Recognition": list("ABCDEFGHIJK"),
}
QA = "QA_test_sampling_all"
CAPTIONS = "caption_test_sampling_v2_all_example"
ASPECTS = [
    "Eyes",
    "Eyebrows",
    "Mouth",
    "Nose",
    "Hair",
    "Chin",
    "Face_shape",
    "Facial_features",
    "Accessories",
    "Age",
    "Gender",
    "Skin",
    "Body_actions",
    "Facial_actions",
    "Head_actions",
]
ALL_FILES = [*YES_NO, *NUMBER, *LABELS, QA, CAPTIONS]
SIX = ["relevance", "fluency", "accuracy", "adherence", "label", "clue"]


def set_f1(file, truth, reply, rules):
    """F1 x 100 of one item."""
    strict = rules == "strict"

    def split(text):
        if file.startswith("MAFW"):
            return [] if strict and text.strip().lower() == "none" else list(text)
        if strict:
            return [part.strip().lower() for part in text.split(",") if part.strip().lower() != "none"]
        return [part.lower() for part in text.split(",")]

    guess = [] if not file.startswith("MAFW") and reply.lower() == "none" else split(reply)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        binarizer = MultiLabelBinarizer(classes=LABELS[file])
        y = binarizer.fit_transform([split(truth)])
        y_hat = binarizer.transform([guess])
        if strict and y.sum() + y_hat.sum() == 0:
            return 100.0
        return 100 * f1_score(y, y_hat, average="micro")


def number(reply, rules):
    """A judge's number, 0 where it cannot be read."""
    if rules == "official":
        try:
            return int(reply)
        except ValueError:
            return 0
    words = reply.replace("/100", " ").replace("%", " ").replace(":", " ").split()
    values = [float(word) for word in words if set(word) <= set("+-.0123456789") and any(c.isdigit() for c in word)]
    return values[0] if len(values) == 1 and 0 <= values[0] <= 100 else 0


def six(reply):
    """A judge's six numbers."""
    numbers = re.findall(r"\[?score[s]?\]?: (\d+)", reply.lower())
    return [float(n) for n in numbers] if len(numbers) == 6 else [0.0] * 6


def average(values, rules):
    """The mean; None stands for an item whose retries ran out."""
    if rules == "strict":
        values = [np.zeros_like(six("")) * 0 + (0 if v is None else v) for v in values]
    else:
        values = [v for v in values if v is not None]
    return np.mean(np.array([np.broadcast_to(v, 6) for v in values], float), axis=0) if values else None


def file_score(file, pairs, rules):
    """The score of one file from (truth, reply); six numbers, of which all but those of captions are equal."""
    replies = [None if reply is None else reply.strip() for _, reply in pairs]
    if file in YES_NO:
        return np.full(6, 100 * sum(r is not None and r.lower() == "yes" for r in replies) / len(pairs))
    values = []
    for (truth, _), reply in zip(pairs, replies, strict=True):
        if reply is None:
            values.append(None)
        elif file in LABELS:
            values.append(set_f1(file, truth, reply, rules))
        elif file == CAPTIONS:
            values.append(np.array(six(reply)))
        else:
            values.append(number(reply, rules))
    return average(values, rules)


def forty(score):
    """The 40 columns in order from a function of (file, aspect or index of the six)."""
    s = score
    closed = [
        s("CelebV-HQ_Appearance-Recognition"), s("CelebV-Text_Appearance-Caption"), s("CelebV-HQ_Action-Recognition"),
        s("CelebV-Text_Action-Caption"), s("MEAD_ID"), s("MEAD_Head-Pose"),
    ]  # fmt: skip
    q = {aspect: s(QA, aspect) for aspect in ASPECTS}
    opened = [
        (q["Eyes"] + q["Eyebrows"]) / 2, q["Mouth"], q["Nose"], q["Hair"], q["Chin"], q["Face_shape"],
        q["Facial_features"], q["Accessories"], q["Age"], q["Gender"], q["Skin"],
        (q["Body_actions"] + q["Facial_actions"] + q["Head_actions"]) / 3,
    ]  # fmt: skip
    e = "_Single-Label-Emotion-Recognition"
    emotion = [
        (s("DFEW" + e) + s("MAFW" + e) + s("MER2023" + e)) / 3,
        s("MAFW_Multiple-Label-Emotion-Recognition"),
        (s("MEAD_Fine-grained-Emotion-Recognition") + s("RAVDESS_Fine-grained-Emotion-Recognition")) / 2,
    ]
    sentiment = [
        (s("MOSEI_Single-Label-Sentiment-Recognition") + s("MOSI_Single-Label-Sentiment-Recognition")) / 2,
        s("CHSIMIv1_Fine-grained-Sentiment-Recognition"),
    ]
    cues = [s("CAS_Single-Label-Micro-Expression-Recognition"), s("AffWild2_Action_Unit_Detection")]
    talk = [
        s("CelebV-Text_Emotion-Caption"),
        (
            s("PERR_Single-Label-Conversational-Emotion-Recognition")
            + s("MELD_Single-Label-Conversational-Emotion-Recognition_new")
        )
        / 2,
    ]
    table3 = [
        s(CAPTIONS, SIX.index(name)) for name in ("label", "clue", "adherence", "accuracy", "relevance", "fluency")
    ]
    columns = []
    for group in (closed, opened, emotion, sentiment, cues, talk, table3):
        columns += [*group, sum(group) / len(group)]
    return columns


def summaries(columns):
    """(attribute, expression, emotion, their mean) and the mean of all."""
    parts = [np.mean(columns[:20]), np.mean(columns[20:33]), np.mean(columns[33:])]
    return [*parts, np.mean(parts)], np.mean(columns)
