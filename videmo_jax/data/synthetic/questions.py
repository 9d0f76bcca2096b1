"""Questions and answers of a scene, in the files, forms and wording of Emo-CFG (PAPER.md sections 5 and 6).

Everything follows from the latent scene. The right option of a choice comes equally often at each place, and
wrong options are drawn evenly, so that the text alone gives nothing away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from videmo_jax.data.synthetic import wording
from videmo_jax.data.synthetic.scene import (
    BASIC,
    ELEVEN,
    EYE_COLOURS,
    FACE_SHAPES,
    FINE,
    FINE_SENTIMENTS,
    HAIR_COLOURS,
    MICRO,
    NEGATIVE,
    POSES,
    RELATIONS,
    SENTIMENTS,
    SKINS,
    Person,
    Scene,
    balanced,
    generator,
    pick_one,
)

# The annotation files, the same names in both splits but for the three of the last groups.
ATTRIBUTE_FILES = (
    "CelebV-HQ_Action-Recognition",
    "CelebV-HQ_Appearance-Recognition",
    "CelebV-Text_Action-Caption",
    "CelebV-Text_Appearance-Caption",
    "MEAD_Head-Pose",
    "MEAD_ID",
)
EMOTION_FILES = (
    "AffWild2_Action_Unit_Detection",
    "CAS_Single-Label-Micro-Expression-Recognition",
    "CHSIMIv1_Fine-grained-Sentiment-Recognition",
    "CelebV-Text_Emotion-Caption",
    "DFEW_Single-Label-Emotion-Recognition",
    "MAFW_Multiple-Label-Emotion-Recognition",
    "MAFW_Single-Label-Emotion-Recognition",
    "MEAD_Fine-grained-Emotion-Recognition",
    "MELD_Single-Label-Conversational-Emotion-Recognition_new",
    "MER2023_Single-Label-Emotion-Recognition",
    "MOSEI_Single-Label-Sentiment-Recognition",
    "MOSI_Single-Label-Sentiment-Recognition",
    "PERR_Single-Label-Conversational-Emotion-Recognition",
    "RAVDESS_Fine-grained-Emotion-Recognition",
)
FILES = {
    split: tuple(
        [f"{split}/attribute/full/{name}.json" for name in ATTRIBUTE_FILES]
        + [f"{split}/emotion/full/{name}.json" for name in EMOTION_FILES]
        + list(rest)
    )
    for split, rest in {
        "train": (
            "train/caption/full/caption_train.json",
            "train/qa/full/QA_train.json",
            "train/rationale/full/rationale_train.json",
        ),
        "test": (
            "test/caption/full/caption_test_sampling_v2_all_example.json",
            "test/qa/full/QA_test_sampling_all.json",
        ),
    }.items()
}

# Of the 40 and 35 tags of CelebV-HQ those that are drawn: a tag that never holds would be a hint.
APPEARANCE_TAGS = (
    "male", "young", "chubby", "pale_skin", "rosy_cheeks", "oval_face", "bald", "bangs", "black_hair", "blonde_hair",
    "gray_hair", "brown_hair", "straight_hair", "wavy_hair", "long_hair", "bushy_eyebrows", "bags_under_eyes",
    "eyeglasses", "sunglasses", "big_nose", "big_lips", "no_beard", "5_o_clock_shadow", "goatee", "mustache",
    "sideburns", "heavy_makeup", "wearing_earrings", "wearing_hat", "wearing_lipstick", "wearing_necklace",
    "wearing_necktie",
)  # fmt: skip
ACTION_TAGS = (
    "close_eyes", "cry", "drink", "frown", "gaze", "glare", "head_wagging", "kiss", "laugh", "listen_to_music",
    "look_around", "make_a_face", "nod", "read", "shake_head", "sing", "sleep", "smile", "smoke", "sneer", "talk",
    "turn", "wink", "yawn",
)  # fmt: skip

LABELS = {
    "happiness": "Happy",
    "sadness": "Sad",
    "neutral": "Neutral",
    "anger": "Angry",
    "surprise": "Surprise",
    "disgust": "Disgust",
    "fear": "Fear",
}


@dataclass(frozen=True)
class Record:
    """One sample as it stands in a JSON file (`file` is relative to `jsons/`)."""

    file: str
    question: str
    answer: str
    video: str
    source: str = ""

    def json(self) -> dict[str, object]:
        """The record in the official form."""
        turns = [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]
        record: dict[str, object] = {"messages": turns, "videos": [self.video]}
        return record | ({"source": self.source} if self.source else {})


class Asker:
    """What asking about one scene needs: the scene, its random stream and balanced places for right answers."""

    def __init__(self, seed: int, scene: Scene) -> None:
        self.seed, self.scene = seed, scene
        self.rng = generator(seed, scene.split, scene.index, "questions")

    def choice(self, purpose: str, question: str, truth: str, options: Sequence[str]) -> tuple[str, str]:
        """Question with lettered options in random order, and the right one as `(B) Sad`."""
        wrong = [option for option in options if option != truth]
        order = [wrong[i] for i in self.rng.permutation(len(wrong))]
        turn = self.scene.cycle if purpose == self.scene.kind else self.scene.index
        place = balanced(self.seed, self.scene.split, f"place {purpose}", turn, range(len(options)))
        order.insert(place, truth)
        lines = [f"({letter}) {option}" for letter, option in zip(ascii_uppercase, order, strict=False)]
        return "\n".join([question, *lines]), lines[place]

    def against_one(self, purpose: str, question: str, truth: str, options: Sequence[str]) -> tuple[str, str]:
        """A choice between the truth and one other, each other as likely."""
        wrong = pick_one(self.rng, [option for option in options if option != truth])
        return self.choice(purpose, question, truth, (truth, wrong))


def records(seed: int, scene: Scene) -> list[Record]:
    """All samples that ask about the scene."""
    ask = Asker(seed, scene)
    found: list[Record] = []

    def add(file: str, pair: tuple[str, str], tag: str = "<video>", source: str = "") -> None:
        found.append(Record(file, tag + pair[0], pair[1], scene.path, source))

    for group, name, tag, pair in _main_questions(ask):
        add(f"{scene.split}/{group}/full/{name}.json", pair, tag)
    if scene.kind in ("mead_pair", "affwild2", "cas"):
        return found
    caption, qa, *rationale = FILES[scene.split][20:]
    if scene.kind != "mead_pose":
        add(caption, (_FINE_QUESTION, wording.fine_caption(scene, ask.rng)))
    if len(scene.people) == 1:
        for aspect, pair in _aspects(ask):
            add(qa, pair, source=f"Emo-CFG_QA_{aspect}")
        for file in rationale:
            add(file, _rationale(ask))
    return found


_FINE_QUESTION = (
    "As an expert on emotions, describe the video in detail and conclude with the emotional state of each person."
)


def _main_questions(ask: Asker) -> list[tuple[str, str, str, tuple[str, str]]]:
    """(group, file, video tag, (question, answer)) of the closed tasks and captions of the scene's kind."""
    scene, person = ask.scene, ask.scene.person
    kind, plain, dotted = scene.kind, "<video>", "<video>."
    if kind == "celebv_hq":
        return [
            ("attribute", "CelebV-HQ_Appearance-Recognition", plain, _tags("appearance", appearance_tags(person))),
            ("attribute", "CelebV-HQ_Action-Recognition", plain, _tags("actions", action_tags(person))),
        ]
    if kind == "celebv_text":
        acts = wording.sentence(f"{wording.pronoun(person)} {wording.listing(wording.actions(person))}")
        look = ("Describe the appearance of the person.", wording.appearance(person, ask.rng))
        mood = ("Describe the emotion of the person over time.", wording.sentence(wording.course(person)))
        return [
            ("attribute", "CelebV-Text_Appearance-Caption", plain, look),
            ("attribute", "CelebV-Text_Action-Caption", plain, ("Describe the actions of the person.", acts)),
            ("emotion", "CelebV-Text_Emotion-Caption", plain, mood),
        ]
    if kind == "mead_pose":
        pair = ask.choice(kind, "Which way does the head of the person point?", person.pose, tuple(POSES))
        return [("attribute", "MEAD_Head-Pose", dotted, pair)]
    if kind == "mead_pair":
        question = "Is the person on the left the same as the person on the right?"
        pair = ask.choice(kind, question, "Yes" if scene.same else "No", ("Yes", "No"))
        return [("attribute", "MEAD_ID", dotted, pair)]
    name, pair = _expression_question(ask)
    return [("emotion", name, dotted if kind in ("mead_emotion", "ravdess") else plain, pair)]


def _expression_question(ask: Asker) -> tuple[str, tuple[str, str]]:
    scene, person = ask.scene, ask.scene.person
    kind, emotion = scene.kind, person.emotion
    if kind == "affwild2":
        units = ", ".join(wording.DETECTED_UNITS)
        answer = ",".join(wording.detected_units(person)) or "none"
        return "AffWild2_Action_Unit_Detection", (
            f"Which facial action units are active? Choose from {units}.",
            answer,
        )
    if kind == "cas":
        truth = emotion if emotion in MICRO else "others"
        options = [label.capitalize() for label in MICRO]
        pair = ask.choice(kind, "What is the micro-expression of the person?", truth.capitalize(), options)
        return "CAS_Single-Label-Micro-Expression-Recognition", pair
    if kind in ("mosei", "mosi"):
        pair = ask.choice(kind, _SENTIMENT, _direction(emotion).capitalize(), [s.capitalize() for s in SENTIMENTS])
        return f"{kind.upper()}_Single-Label-Sentiment-Recognition", pair
    if kind == "sims":
        truth = _degree(person.strength, _direction(emotion))
        pair = ask.choice(kind, _SENTIMENT, truth, [_degree(*sentiment) for sentiment in FINE_SENTIMENTS])
        return "CHSIMIv1_Fine-grained-Sentiment-Recognition", pair
    if kind in ("mead_emotion", "ravdess"):
        question = "What is the emotion of the person, and how strong is it?"
        options = [_fine(e, s) for e, s in FINE]
        pair = ask.choice(kind, question, _fine(emotion, person.strength), options)
        return f"{kind.split('_')[0].upper()}_Fine-grained-Emotion-Recognition", pair
    if kind == "mafw_single":
        options = [label.capitalize() for label in ELEVEN]
        pair = ask.choice(kind, "What is the emotion of the person?", emotion.capitalize(), options)
        return "MAFW_Single-Label-Emotion-Recognition", pair
    if kind == "mafw_multiple":
        return "MAFW_Multiple-Label-Emotion-Recognition", _letters(person)
    if kind == "perr":
        pair = ask.choice(kind, "How do the two people relate to each other?", scene.relation, RELATIONS)
        return "PERR_Single-Label-Conversational-Emotion-Recognition", pair
    options = [LABELS[e] for e in BASIC]
    if kind == "meld":
        side = ("left", "right")[scene.subject]
        question = f"What does the person on the {side} feel in this conversation?"
        name = "MELD_Single-Label-Conversational-Emotion-Recognition_new"
        return name, ask.choice(kind, question, LABELS[emotion], options)
    name = f"{kind.upper()}_Single-Label-Emotion-Recognition"
    return name, ask.choice(kind, "What is the emotion of the person?", LABELS[emotion], options)


_SENTIMENT = "What is the sentiment of the person?"


def _direction(emotion: str) -> str:
    return "positive" if emotion == "happiness" else "negative" if emotion in NEGATIVE else "neutral"


def _degree(strength: str, direction: str) -> str:
    prefix = {"weak": "weakly ", "medium": "", "strong": "highly "}[strength]
    return (prefix * (direction != "neutral") + direction).capitalize()


def _fine(emotion: str, strength: str) -> str:
    return emotion if emotion == "neutral" else f"{strength} {emotion}"


def _letters(person: Person) -> tuple[str, str]:
    """MAFW's multiple labels: fixed letters, all that apply, without separators."""
    lines = [f"({letter}) {label.capitalize()}" for letter, label in zip(ascii_uppercase, ELEVEN, strict=False)]
    question = "Which emotions does the person show? Give the letters of all that apply."
    shown = {ascii_uppercase[ELEVEN.index(emotion)] for emotion in wording.shown_emotions(person)}
    return "\n".join([question, *lines]), "".join(sorted(shown))


def _tags(what: str, shown: list[str]) -> tuple[str, str]:
    tags = APPEARANCE_TAGS if what == "appearance" else ACTION_TAGS
    question = f"Which of these tags describe the {what} of the person? Answer with all that apply, or none: "
    return question + ", ".join(tags), ",".join(tag for tag in tags if tag in shown) or "none"


def appearance_tags(person: Person) -> list[str]:
    """The tags of CelebV-HQ's appearance that hold."""
    i = person.identity
    haired = i.hair_length != "bald"
    holds = {
        "male": i.gender == "male",
        "young": i.age != "elderly",
        "chubby": i.face_shape == "round",
        "pale_skin": i.skin == "pale",
        "rosy_cheeks": i.rosy,
        "oval_face": i.face_shape == "oval",
        "bald": not haired,
        "bangs": i.bangs and not person.hat,
        f"{i.hair_colour}_hair": haired,
        f"{i.hair_texture}_hair": haired and (i.hair_length == "long" or not person.hat),
        "long_hair": i.hair_length == "long",
        "bags_under_eyes": i.age == "elderly",
        "bushy_eyebrows": i.brows == "bushy",
        i.glasses: True,
        "big_nose": i.nose == "large",
        "big_lips": i.lips == "full",
        "no_beard": i.beard == "none",
        "5_o_clock_shadow": i.beard == "stubble",
        "goatee": i.beard == "goatee",
        "mustache": i.beard == "mustache",
        "sideburns": i.beard == "full beard",
        "heavy_makeup": person.makeup,
        "wearing_earrings": person.earrings,
        "wearing_hat": person.hat,
        "wearing_lipstick": person.lipstick,
        "wearing_necklace": person.necklace,
        "wearing_necktie": person.necktie,
    }
    return [tag for tag, holds_true in holds.items() if holds_true]


def action_tags(person: Person) -> list[str]:
    """The tags of CelebV-HQ's actions that hold."""
    eyes = person.identity.glasses != "sunglasses"
    looks = eyes and person.face not in wording.SHUT
    happy = person.emotion == "happiness"
    holds = {
        person.face: True,
        person.prop: True,
        "close_eyes": eyes and person.face in ("close_eyes", "sleep"),
        "cry": person.tears,
        "frown": "AU4" in wording.shown_units(person),
        "gaze": looks and person.gaze == "camera",
        "glare": looks and person.gaze == "camera" and person.emotion == "anger",
        "head_wagging": person.head == "wag",
        "laugh": happy and person.strength == "strong",
        "look_around": looks and person.gaze == "around",
        "nod": person.head == "nod",
        "shake_head": person.head == "shake",
        "smile": happy,
        "sneer": "AU10" in wording.shown_units(person),
        "turn": person.head == "turn",
        "wink": eyes and person.face == "wink",
    }
    return [tag for tag, holds_true in holds.items() if holds_true and tag != "none"]


def _rationale(ask: Asker) -> tuple[str, str]:
    person = ask.scene.person
    feeling = f"{wording.DEGREES[person.strength]} {person.emotion}" if person.expressions else "a neutral state"
    cues = wording.listing(wording.cue_nouns(person))
    answer = pick_one(ask.rng, (f"The {cues} show {feeling}", f"{feeling} can be read from the {cues}"))
    question = f"The person feels this: {person.emotion}. Which cues in the video explain it?"
    return question, wording.sentence(answer)


def _aspects(ask: Asker, most: int = 3) -> list[tuple[str, tuple[str, str]]]:
    """Questions on `most` of the 15 aspects; over scenes each aspect has its turn."""
    # Kinds that ask are spread by their number, so that also a small set reaches every aspect.
    start = (ask.scene.index * 4 + ask.scene.cycle) % len(ASPECTS)
    names = [list(ASPECTS)[(start + 5 * step) % len(ASPECTS)] for step in range(most)]
    return [(name, pair) for name in names if (pair := ASPECTS[name](ask, ask.scene.person))]


def _hair(ask: Asker, person: Person) -> tuple[str, str]:
    i = person.identity
    if i.hair_length == "bald" or ask.rng.random() < 1 / 3:
        return "Describe the hair of the person.", wording.sentence(
            f"{wording.pronoun(person)} has {wording.hair(person)}"
        )
    if ask.rng.random() < 1 / 2:
        return ask.choice("hair length", "Is the hair of the person long or short?", i.hair_length, ("long", "short"))
    return ask.against_one("hair colour", "What is the colour of the hair?", i.hair_colour, HAIR_COLOURS)


def _eyes(ask: Asker, person: Person) -> tuple[str, str] | None:
    if person.identity.glasses == "sunglasses" or person.face in wording.SHUT:
        return None
    if ask.scene.kind.startswith("celebv"):
        question, options = "Where does the person look?", tuple(_GAZE_OPTIONS.values())
        return ask.against_one("gaze", question, _GAZE_OPTIONS[person.gaze], options)
    return ask.against_one("eye colour", "What is the colour of the eyes?", person.identity.eye_colour, EYE_COLOURS)


_GAZE_OPTIONS = {
    "camera": "into the camera",
    "left": "to the left",
    "right": "to the right",
    "down": "down",
    "around": "around",
}


def _gender(ask: Asker, person: Person) -> tuple[str, str]:
    question = "What is the gender of the person in the video?"
    return ask.choice("gender", question, person.identity.gender, ("female", "male"))


def _mouth(ask: Asker, person: Person) -> tuple[str, str]:
    i = person.identity
    if ask.rng.random() < 1 / 2:
        return ask.choice("lips", "Are the lips of the person thin or full?", i.lips, ("thin", "full"))
    units = [u for u in wording.shown_units(person) if wording.UNIT_CLAUSES[u][0] in ("mouth corners", "mouth", "lips")]
    does = wording.expression_clauses(person, tuple(units)) if units else f"{wording.possessive(person)} mouth rests"
    return "What does the mouth of the person do?", wording.sentence(
        f"{wording.pronoun(person)} talks" if person.face == "talk" and not units else does
    )


def _facial_actions(ask: Asker, person: Person) -> tuple[str, str]:
    acts = [wording.FACE_PHRASES[person.face].format(his=wording.possessive(person))] if person.face != "none" else []
    acts += ["cries"] * person.tears
    clauses = wording.expression_clauses(person, wording.shown_units(person))
    answer = f"{wording.pronoun(person)} {wording.listing(acts)}; {clauses}" if acts else clauses
    return "What does the face of the person do?", wording.sentence(answer)


def _body_actions(ask: Asker, person: Person) -> tuple[str, str]:
    phrases = [wording.BODY_PHRASES.get(person.body), wording.PROP_PHRASES.get(person.prop)]
    does = wording.listing([phrase for phrase in phrases if phrase] or ["keeps the body still"])
    does = does.format(his=wording.possessive(person))
    return "What does the person do with the body?", wording.sentence(f"{wording.pronoun(person)} {does}")


def _head_actions(ask: Asker, person: Person) -> tuple[str, str]:
    phrase = wording.HEAD_PHRASES.get(person.head, "keeps the head still").format(his=wording.possessive(person))
    return "What does the person do with the head?", wording.sentence(f"{wording.pronoun(person)} {phrase}")


def _eyebrows(ask: Asker, person: Person) -> tuple[str, str]:
    question = "Are the eyebrows of the person thin or bushy?"
    return ask.choice("brows", question, person.identity.brows, ("thin", "bushy"))


def _age(ask: Asker, person: Person) -> tuple[str, str]:
    options = ("child", "young adult", "elderly")
    return ask.choice("age", "What is the age of the person in the video?", person.identity.age, options)


def _skin(ask: Asker, person: Person) -> tuple[str, str]:
    if ask.rng.random() < 1 / 2:
        return "What is the skin tone of the person?", f"The skin is {person.identity.skin}."
    return ask.against_one("skin", "What is the skin tone of the person?", person.identity.skin, SKINS)


def _accessories(ask: Asker, person: Person) -> tuple[str, str]:
    glasses = person.identity.glasses
    if glasses != "sunglasses" and ask.rng.random() < 1 / 2:
        truth = "yes" if glasses == "eyeglasses" else "no"
        return ask.choice("glasses", "Does the person wear glasses?", truth, ("yes", "no"))
    things = wording.worn(person)
    answer = f"{wording.pronoun(person)} wears {wording.listing(things) if things else 'no accessories'}"
    return "Which accessories does the person wear?", wording.sentence(answer)


def _nose(ask: Asker, person: Person) -> tuple[str, str]:
    return ask.choice("nose", "Is the nose of the person large or small?", person.identity.nose, ("large", "small"))


def _face_shape(ask: Asker, person: Person) -> tuple[str, str]:
    question = "What is the shape of the face?"
    return ask.against_one("face shape", question, person.identity.face_shape, FACE_SHAPES)


def _facial_features(ask: Asker, person: Person) -> tuple[str, str]:
    i = person.identity
    beard = wording.BEARDS.get(i.beard, "no beard")
    cheeks = "rosy cheeks" if i.rosy else "plain cheeks"
    parts = [f"{i.skin} skin", f"{i.brows} eyebrows", f"a {i.nose} nose", f"{i.lips} lips", cheeks, beard]
    return "Describe the face of the person.", f"It is {_article(i.face_shape)} face with {wording.listing(parts)}."


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _chin(ask: Asker, person: Person) -> tuple[str, str]:
    i = person.identity
    if i.beard in ("goatee", "full beard"):
        return "What is on the chin of the person?", wording.sentence(f"{wording.BEARDS[i.beard]}")
    return ask.choice("chin", "Is the chin of the person pointed or square?", i.chin, ("pointed", "square"))


# The 15 aspects of the open-attribute QA by the ending of their `source`.
ASPECTS: dict[str, Callable[[Asker, Person], tuple[str, str] | None]] = {
    "Hair": _hair,
    "Eyes": _eyes,
    "Gender": _gender,
    "Mouth": _mouth,
    "Facial_actions": _facial_actions,
    "Body_actions": _body_actions,
    "Eyebrows": _eyebrows,
    "Age": _age,
    "Skin": _skin,
    "Accessories": _accessories,
    "Nose": _nose,
    "Face_shape": _face_shape,
    "Facial_features": _facial_features,
    "Head_actions": _head_actions,
    "Chin": _chin,
}
