"""The latent description of a rendered clip: who, what they feel and do, and where.

Everything that a question asks and everything that a frame shows follows from one frozen `Scene`. A scene is
a pure function of (seed, split, index): no scene depends on another, and the two splits draw from different
random streams. `index % len(KINDS)` says which data set of Emo-CFG the scene stands in for.

Left and right are the viewer's throughout.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from videmo_jax.data.synthetic.expressions import NEGATIVE, STRENGTHS, Expression

Option = TypeVar("Option")

SPLITS = ("train", "test")

# Name of the kind -> folder under videos/ (PAPER.md section 5).
KINDS = {
    "celebv_hq": "CelebV-HQ",
    "celebv_text": "CelebV-Text",
    "mead_pose": "MEAD",
    "mead_emotion": "MEAD",
    "mead_pair": "MEAD",
    "affwild2": "AffWild2",
    "cas": "CASME2",
    "sims": "SIMS",
    "dfew": "Dfew",
    "mafw_single": "MAFW",
    "mafw_multiple": "MAFW",
    "meld": "MELD",
    "mer2023": "Mer2023",
    "mosei": "MOSEI",
    "mosi": "MOSI",
    "perr": "PERR",
    "ravdess": "RAVDESS",
}

# Pose -> (yaw, pitch) in degrees; yaw to the viewer's right and pitch down are positive. MEAD's seven views.
POSES = {
    "Front": (0, 0),
    "Right 60 degrees": (60, 0),
    "Left 60 degrees": (-60, 0),
    "Left 30 degrees": (-30, 0),
    "Right 30 degrees": (30, 0),
    "Down": (0, 30),
    "Up": (0, -28),
}

BASIC = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
EIGHT = (*BASIC, "contempt")
ELEVEN = (
    "anxiety", "anger", "contempt", "disappointment", "disgust", "fear", "helplessness", "neutral", "sadness",
    "surprise", "happiness",
)  # fmt: skip
FINE = (*((e, s) for e in EIGHT if e != "neutral" for s in STRENGTHS), ("neutral", "medium"))
MICRO = ("happiness", "repression", "disgust", "surprise", "others")
SENTIMENTS = ("negative", "neutral", "positive")
FINE_SENTIMENTS = (*((s, d) for d in ("negative", "positive") for s in STRENGTHS), ("medium", "neutral"))
RELATIONS = ("Neutral", "Mild", "Intimate", "Tense", "Hostile")

SKINS = ("pale", "light", "tan", "dark")
FACE_SHAPES = ("round", "oval", "long")
HAIR_COLOURS = ("black", "brown", "blonde", "red", "gray")
EYE_COLOURS = ("brown", "blue", "green")
CLOTHES = ("red", "blue", "green", "white", "black", "yellow")
BACKDROPS = ("plain wall", "panelled wall", "window", "park", "city at night")
HEAD_MOTIONS = ("still", "nod", "shake", "turn", "wag", "tilt")
GAZES = ("camera", "left", "right", "down", "around")
FACE_ACTIONS = ("none", "talk", "close_eyes", "wink", "yawn", "kiss", "make_a_face", "sleep")
BODY_ACTIONS = ("still", "raise_hand", "lean", "shrug")
# Things that a hand, the mouth or the ears have; a book is held only where the gaze is down anyway.
PROPS = ("none", "none", "none", "drink", "smoke", "sing", "listen_to_music")


@dataclass(frozen=True)
class Identity:
    """What stays with a person from clip to clip. The three floats are continuous traits, 0 to 1."""

    gender: str
    age: str
    skin: str
    face_shape: str
    chin: str
    hair_colour: str
    hair_length: str
    hair_texture: str
    bangs: bool
    brows: str
    eye_colour: str
    nose: str
    lips: str
    glasses: str
    beard: str
    rosy: bool
    eye_distance: float
    mouth_width: float
    eye_size: float


@dataclass(frozen=True)
class Person:
    """An identity in one clip: clothes, expressions, pose and actions; `phase` (0 to 1) varies the timing."""

    identity: Identity
    clothes: str
    hat: bool
    earrings: bool
    necklace: bool
    necktie: bool
    lipstick: bool
    makeup: bool = False
    expressions: tuple[Expression, ...] = ()
    units: tuple[str, ...] = ()
    pose: str = "Front"
    head: str = "still"
    gaze: str = "camera"
    face: str = "none"
    body: str = "still"
    prop: str = "none"
    tears: bool = False
    phase: float = 0.0

    @property
    def emotion(self) -> str:
        """The only, or the last, emotion of the clip."""
        return self.expressions[-1].emotion if self.expressions else "neutral"

    @property
    def strength(self) -> str:
        """How strong it is: weak, medium or strong."""
        return self.expressions[-1].strength if self.expressions else "medium"


@dataclass(frozen=True)
class Setting:
    """Where, and what disturbs: shifts and shake are shares of the frame, noise is in 8-bit grey levels."""

    backdrop: str
    hue: float
    light: str
    side: float
    warmth: float
    scale: float
    shift: tuple[float, float]
    shake: float
    noise: float


@dataclass(frozen=True)
class Scene:
    """One clip. `people` are one, or two from left to right; `relation` and `same` belong to pairs only."""

    kind: str
    split: str
    index: int
    people: tuple[Person, ...]
    setting: Setting
    relation: str = ""
    same: bool = False
    subject: int = 0

    @property
    def person(self) -> Person:
        """The one that questions are about."""
        return self.people[self.subject]

    @property
    def cycle(self) -> int:
        """How many scenes of this kind come before it in its split: what balanced draws count by."""
        return self.index // len(KINDS)

    @property
    def path(self) -> str:
        """Where its clip lies below the root of the data set."""
        return f"videos/{KINDS[self.kind]}/{self.split}_{self.index:07d}.mp4"


def generator(seed: int, split: str, index: int, purpose: str) -> np.random.Generator:
    """The random stream of one scene and purpose, independent of all others."""
    words = (seed, SPLITS.index(split), index, zlib.crc32(purpose.encode()))
    return np.random.default_rng(np.random.SeedSequence(words))


def balanced(seed: int, split: str, purpose: str, turn: int, options: Sequence[Option]) -> Option:
    """Entry number `turn` of a list in which each block of len(options) holds every option once, shuffled."""
    block, place = divmod(turn, len(options))
    order = generator(seed, split, block, purpose).permutation(len(options))
    return options[order[place]]


def draw_scene(seed: int, split: str, index: int) -> Scene:
    """The scene of that number."""
    kind = list(KINDS)[index % len(KINDS)]
    rng = generator(seed, split, index, "scene")
    turn = index // len(KINDS)
    scene = Scene(kind, split, index, (_person(rng),), _setting(rng))

    def pick(options: Sequence[Option]) -> Option:
        return balanced(seed, split, kind, turn, options)

    if kind in ("celebv_hq", "celebv_text"):
        return _alone(scene, _acting(rng, _feeling(rng, scene.person, pick(BASIC))))
    if kind == "mead_pose":
        return _alone(scene, replace(_feeling(rng, scene.person, pick_one(rng, EIGHT)), pose=pick(list(POSES))))
    if kind == "mead_pair":
        return _identity_pair(rng, scene, pick((True, False)))
    if kind == "affwild2":
        return _alone(scene, replace(scene.person, units=_units(rng)))
    if kind == "cas":
        return _alone(scene, _micro(rng, scene.person, pick(MICRO)))
    if kind == "mafw_multiple":
        return _alone(scene, _two_feelings(rng, scene.person, pick(ELEVEN)))
    if kind == "perr":
        return _relation(rng, scene, pick(RELATIONS))
    if kind == "meld":
        return _conversation(rng, scene, pick(BASIC))
    emotion, strength = _asked_feeling(rng, kind, pick)
    return _alone(scene, _feeling(rng, scene.person, emotion, strength))


def pick_one(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """One of the options, each as likely as any other."""
    return options[int(rng.integers(len(options)))]


def _alone(scene: Scene, person: Person) -> Scene:
    return replace(scene, people=(person,))


def _asked_feeling(rng: np.random.Generator, kind: str, pick) -> tuple[str, str]:  # noqa: ANN001
    """Emotion and strength such that the classes which this kind asks for come equally often."""
    if kind in ("mead_emotion", "ravdess"):
        return pick(FINE)
    if kind in ("mosei", "mosi", "sims"):
        strength, direction = pick(FINE_SENTIMENTS) if kind == "sims" else ("", pick(SENTIMENTS))
        emotion = {"negative": pick_one(rng, NEGATIVE), "neutral": "neutral", "positive": "happiness"}[direction]
        return emotion, strength or pick_one(rng, ("medium", "strong"))
    emotions = ELEVEN if kind == "mafw_single" else BASIC
    return pick(emotions), pick_one(rng, ("medium", "strong"))


def _identity(rng: np.random.Generator) -> Identity:
    gender, age = pick_one(rng, ("female", "male")), pick_one(rng, ("child", "young adult", "elderly"))
    # Gray for 60 % of the elderly and nobody else: every colour is then equally likely over all people, so a
    # question about the colour gives no hint.
    gray = age == "elderly" and rng.random() < 0.6
    man = gender == "male" and age != "child"
    length = "bald" if man and rng.random() < 0.12 else pick_one(rng, ("short", "long"))
    return Identity(
        gender=gender,
        age=age,
        skin=pick_one(rng, SKINS),
        face_shape=pick_one(rng, FACE_SHAPES),
        chin=pick_one(rng, ("pointed", "square")),
        hair_colour="gray" if gray else pick_one(rng, HAIR_COLOURS[:4]),
        hair_length=length,
        hair_texture=pick_one(rng, ("straight", "wavy")),
        bangs=length != "bald" and bool(rng.random() < 0.4),
        brows=pick_one(rng, ("thin", "bushy")),
        eye_colour=pick_one(rng, EYE_COLOURS),
        nose=pick_one(rng, ("small", "large")),
        lips=pick_one(rng, ("thin", "full")),
        glasses=pick_one(rng, ("none", "eyeglasses")),
        beard=pick_one(rng, ("none", "mustache", "goatee", "full beard", "stubble")) if man else "none",
        rosy=bool(rng.random() < 0.3),
        eye_distance=float(rng.random()),
        mouth_width=float(rng.random()),
        eye_size=float(rng.random()),
    )


def _person(rng: np.random.Generator, identity: Identity | None = None) -> Person:
    identity = identity or _identity(rng)
    woman = identity.gender == "female" and identity.age != "child"
    lipstick = woman and bool(rng.random() < 0.5)
    neck = pick_one(rng, ("none", "necklace" if identity.gender == "female" else "necktie"))
    return Person(
        identity=identity,
        clothes=pick_one(rng, CLOTHES),
        hat=bool(rng.random() < 0.25),
        earrings=woman and bool(rng.random() < 0.5),
        necklace=neck == "necklace",
        necktie=neck == "necktie",
        lipstick=lipstick,
        makeup=lipstick and bool(rng.random() < 0.5),
        phase=float(rng.random()),
    )


def _setting(rng: np.random.Generator) -> Setting:
    return Setting(
        backdrop=pick_one(rng, BACKDROPS),
        hue=float(rng.random()),
        light=pick_one(rng, ("bright", "soft", "dim")),
        side=float(rng.uniform(-1, 1)),
        warmth=float(rng.uniform(-1, 1)),
        scale=float(rng.uniform(0.9, 1.06)),
        shift=(float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.03, 0.03))),
        shake=float(pick_one(rng, (0.0, 0.0, 0.012))),
        noise=float(rng.uniform(0, 5)),
    )


# What feelings do besides the face, so that those with like mouths can be told apart.
MANNERS: dict[str, dict[str, str]] = {
    "anxiety": {"gaze": "around"},
    "disappointment": {"gaze": "down"},
    "helplessness": {"head": "shake"},
}


def _feeling(rng: np.random.Generator, person: Person, emotion: str, strength: str = "") -> Person:
    """The person with one emotion that is there from the start, or rises in the first half and stays."""
    strength = strength or pick_one(rng, ("medium", "strong"))
    start = pick_one(rng, (-1.0, 0.15, 0.3))
    tears = emotion == "sadness" and strength == "strong" and bool(rng.random() < 0.5)
    shown = () if emotion == "neutral" else (Expression(emotion, strength, start, 2.0),)
    return replace(person, expressions=shown, tears=tears, **MANNERS.get(emotion, {}))


def _two_feelings(rng: np.random.Generator, person: Person, last: str) -> Person:
    """Usually one feeling in the first half and another in the second, once in three a single one."""
    person = _feeling(rng, person, last)
    if last == "neutral" or rng.random() < 1 / 3:
        return person
    first = pick_one(rng, [e for e in ELEVEN if e not in (last, "neutral")])
    then = replace(person.expressions[-1], start=0.5, end=2.0)
    return replace(person, expressions=(Expression(first, then.strength, -1.0, 0.5), then), tears=False)


def _micro(rng: np.random.Generator, person: Person, label: str) -> Person:
    """A flash of two fifths of the clip: at 2 frames a second one of the frames that a model sees falls into it."""
    emotion = pick_one(rng, ("fear", "sadness", "contempt")) if label == "others" else label
    start = float(rng.uniform(0.1, 0.4))
    return replace(person, expressions=(Expression(emotion, "medium", start, start + 2 / 5 + 0.12),))


def _acting(rng: np.random.Generator, person: Person) -> Person:
    """The person with a random action of head, eyes, mouth and body each."""
    calm = person.emotion in ("neutral", "happiness", "sadness", "anger")
    person = replace(
        person,
        head=pick_one(rng, HEAD_MOTIONS),
        gaze=pick_one(rng, GAZES),
        face=pick_one(rng, FACE_ACTIONS if calm else ("none", "talk")),
        body=pick_one(rng, BODY_ACTIONS),
    )
    if person.face == "sleep":
        # Only a calm face sleeps, and it does nothing else.
        if person.emotion in ("happiness", "anger"):
            return replace(person, face="close_eyes")
        return replace(person, head="still", body=pick_one(rng, ("still", "lean")))
    person = _holding(person, "read" if person.gaze == "down" and rng.random() < 0.7 else pick_one(rng, PROPS))
    # Sunglasses only where nothing that is told lies behind them.
    behind = person.face in ("close_eyes", "wink") or person.emotion not in ("neutral", "happiness", "sadness")
    if behind or rng.random() < 0.7:
        return person
    return replace(person, identity=replace(person.identity, glasses="sunglasses"))


def _holding(person: Person, prop: str) -> Person:
    """The person with a prop, and without what would hide it or be hidden by it."""
    # What the face does is kept, but for talk: shut eyes are then as likely for every gaze, and where the person looks
    # can be asked without a hint.
    free = person.face in ("none", "talk", "wink")
    if prop == "none" or (prop != "listen_to_music" and not free):
        return person
    if prop == "listen_to_music":
        return replace(person, prop=prop, hat=False, earrings=False)
    if prop == "read":
        head = "still" if person.head == "turn" else person.head
        return replace(person, prop=prop, head=head, body="still", necklace=False, necktie=False)
    body = "still" if person.body == "raise_hand" else person.body
    return replace(person, prop=prop, face="wink" if person.face == "wink" else "none", body=body)


def _units(rng: np.random.Generator) -> tuple[str, ...]:
    """A compatible set of action units: one choice each for brows, eyes and mouth."""
    brows = pick_one(rng, ((), ("AU1", "AU2"), ("AU4",), ("AU1", "AU4"), ("AU1", "AU2", "AU4")))
    eyes = pick_one(rng, ((), ("AU6",), ("AU7",)))
    mouth = pick_one(
        rng,
        (
            (), ("AU12",), ("AU15",), ("AU10",), ("AU23",), ("AU24",), ("AU25",), ("AU12", "AU25"),
            ("AU25", "AU26"), ("AU12", "AU25", "AU26"),
        ),
    )  # fmt: skip
    return (*brows, *eyes, *mouth)


def _identity_pair(rng: np.random.Generator, scene: Scene, same: bool) -> Scene:
    """Two pictures side by side, of one person or of two; clothes, mood and hat never tell."""
    left = scene.person
    right = _person(rng, left.identity if same else _someone_else(rng, left.identity))
    bare = [replace(p, hat=False, earrings=False, lipstick=False, makeup=False) for p in (left, right)]
    people = tuple(_feeling(rng, p, pick_one(rng, ("neutral", "happiness", "sadness", "surprise"))) for p in bare)
    return replace(scene, people=people, same=same)


def _someone_else(rng: np.random.Generator, identity: Identity) -> Identity:
    """Another identity that differs in at least four traits, two of them easy to see."""
    easy = ("gender", "skin", "hair_colour", "hair_length", "beard", "glasses", "age")
    while True:
        other = _identity(rng)
        if sum(getattr(identity, trait) != getattr(other, trait) for trait in easy) >= 3:
            return other


def _relation(rng: np.random.Generator, scene: Scene, relation: str) -> Scene:
    """Two people whose faces, distance and turn show how they stand to each other."""
    left, right = scene.person, _person(rng)
    towards, away = ("Right 30 degrees", "Left 30 degrees"), ("Left 30 degrees", "Right 30 degrees")
    emotion, strength, poses = {
        "Neutral": ("neutral", "medium", towards),
        "Mild": ("happiness", "weak", towards),
        "Intimate": ("happiness", "strong", towards),
        "Tense": ("anxiety", "medium", away),
        "Hostile": ("anger", "strong", towards),
    }[relation]
    people = [replace(_feeling(rng, p, emotion, strength), pose=q) for p, q in zip((left, right), poses, strict=True)]
    subject = int(rng.integers(2))
    people[subject] = replace(people[subject], face="talk" if relation != "Intimate" else "none")
    return replace(scene, people=tuple(people), relation=relation, subject=subject)


def _conversation(rng: np.random.Generator, scene: Scene, emotion: str) -> Scene:
    """Two people talk; each has a feeling of their own."""
    subject = int(rng.integers(2))
    feelings = [pick_one(rng, BASIC)] * 2
    feelings[subject] = emotion
    people = tuple(
        replace(_feeling(rng, p, e, "strong"), pose=q)
        for p, e, q in zip((scene.person, _person(rng)), feelings, ("Right 30 degrees", "Left 30 degrees"), strict=True)
    )
    return replace(scene, people=people, subject=subject)
