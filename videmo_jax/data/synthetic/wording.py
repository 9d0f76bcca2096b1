"""The English of the synthetic set: phrases for what a scene holds."""

import numpy as np

from videmo_jax.data.synthetic.expressions import DETECTED_UNITS, UNITS
from videmo_jax.data.synthetic.scene import Person, Scene, Setting, pick_one

# What a unit does to the face: (part, what it does), and as a noun for rationales.
UNIT_CLAUSES = {
    "AU1": ("inner eyebrows", "rise"),
    "AU2": ("outer eyebrows", "rise"),
    "AU4": ("eyebrows", "are drawn together"),
    "AU5": ("eyes", "are wide open"),
    "AU6": ("cheeks", "rise"),
    "AU7": ("eyelids", "tighten"),
    "AU9": ("nose", "wrinkles"),
    "AU10": ("upper lip", "is pulled up"),
    "AU12": ("mouth corners", "are pulled up"),
    "AU14": ("mouth", "is pulled up at one corner"),
    "AU15": ("mouth corners", "are pulled down"),
    "AU20": ("lips", "are stretched"),
    "AU23": ("lips", "tighten"),
    "AU24": ("lips", "are pressed together"),
    "AU25": ("lips", "part"),
    "AU26": ("jaw", "drops"),
    "AU43": ("eyes", "are closed"),
}
UNIT_NOUNS = {
    "AU1": "raised inner eyebrows",
    "AU2": "raised outer eyebrows",
    "AU4": "drawn eyebrows",
    "AU5": "widened eyes",
    "AU6": "raised cheeks",
    "AU7": "tightened eyelids",
    "AU9": "wrinkled nose",
    "AU10": "raised upper lip",
    "AU12": "lifted mouth corners",
    "AU14": "mouth corner lifted on one side",
    "AU15": "lowered mouth corners",
    "AU20": "stretched lips",
    "AU23": "tightened lips",
    "AU24": "pressed lips",
    "AU25": "parted lips",
    "AU26": "dropped jaw",
    "AU43": "closed eyes",
}
ADJECTIVES = {
    "happiness": "happy",
    "sadness": "sad",
    "anger": "angry",
    "surprise": "surprised",
    "fear": "afraid",
    "disgust": "disgusted",
    "contempt": "contemptuous",
    "anxiety": "anxious",
    "disappointment": "disappointed",
    "helplessness": "helpless",
    "repression": "restrained",
    "neutral": "neutral",
}
DEGREES = {"weak": "mild", "medium": "clear", "strong": "intense"}
HEAD_PHRASES = {
    "nod": "nods",
    "shake": "shakes {his} head",
    "turn": "turns {his} head from one side to the other",
    "wag": "wags {his} head",
    "tilt": "tilts {his} head",
}
GAZE_PHRASES = {
    "camera": "looks into the camera",
    "left": "looks to the left",
    "right": "looks to the right",
    "down": "looks down",
    "around": "looks around",
}
FACE_PHRASES = {
    "talk": "talks",
    "close_eyes": "closes {his} eyes",
    "wink": "winks",
    "yawn": "yawns",
    "kiss": "blows a kiss",
    "make_a_face": "sticks out {his} tongue",
    "sleep": "sleeps",
}
# Actions of the face with shut eyes, which look nowhere.
SHUT = ("close_eyes", "yawn", "sleep")
PROP_PHRASES = {
    "drink": "drinks from a cup",
    "smoke": "smokes a cigarette",
    "sing": "sings into a microphone",
    "listen_to_music": "listens to music with headphones",
    "read": "reads a book",
}
BODY_PHRASES = {"raise_hand": "raises a hand", "lean": "leans to one side", "shrug": "shrugs {his} shoulders"}
BEARDS = {"mustache": "a mustache", "goatee": "a goatee", "full beard": "a full beard", "stubble": "stubble"}
BACKDROPS = {
    "plain wall": "in front of a plain wall",
    "panelled wall": "in front of a panelled wall",
    "window": "in front of a window",
    "park": "in a park",
    "city at night": "in a city at night",
}


def listing(words: list[str] | tuple[str, ...]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def pronoun(person: Person) -> str:
    """She or he, as drawn."""
    return "she" if person.identity.gender == "female" else "he"


def possessive(person: Person) -> str:
    """Her or his, as drawn."""
    return "her" if person.identity.gender == "female" else "his"


def who(person: Person) -> str:
    """`an elderly woman`, `a boy`."""
    female = person.identity.gender == "female"
    if person.identity.age == "child":
        return "a girl" if female else "a boy"
    return ("a young " if person.identity.age == "young adult" else "an elderly ") + ("woman" if female else "man")


def hair(person: Person) -> str:
    """`long wavy brown hair with bangs`, `a bald head`."""
    i = person.identity
    if i.hair_length == "bald":
        return "a bald head"
    bangs = " with bangs" if i.bangs and not person.hat else ""
    return f"{i.hair_length} {i.hair_texture} {i.hair_colour} hair{bangs}"


def worn(person: Person) -> list[str]:
    """What the person wears besides clothes."""
    i = person.identity
    things = [("eyeglasses", i.glasses == "eyeglasses"), ("sunglasses", i.glasses == "sunglasses")]
    things += [("a hat", person.hat), ("earrings", person.earrings), ("a necklace", person.necklace)]
    things += [("a necktie", person.necktie), ("lipstick", person.lipstick)]
    things += [("eye shadow", person.makeup)]
    return [thing for thing, visible in things if visible]


def appearance(person: Person, rng: np.random.Generator) -> str:
    """One or two sentences on what the person looks like."""
    i = person.identity
    parts = [hair(person), f"{i.skin} skin", f"{i.brows} eyebrows"]
    if i.beard != "none":
        parts.append(BEARDS[i.beard])
    extra = listing([*worn(person), f"a {person.clothes} shirt"])
    first = pick_one(rng, (f"{who(person)} with {listing(parts)}", f"{who(person)} who has {listing(parts)}"))
    verb = pick_one(rng, ("wears", "is wearing"))
    return f"{sentence(first)} {sentence(f'{pronoun(person)} {verb} {extra}')}"


def actions(person: Person) -> list[str]:
    """What the person does, as verb phrases; never empty."""
    his = possessive(person)
    phrases = [FACE_PHRASES.get(person.face), HEAD_PHRASES.get(person.head), BODY_PHRASES.get(person.body)]
    phrases.append(PROP_PHRASES.get(person.prop))
    # A turned head does not look into the camera, and shut or covered eyes look nowhere.
    looks = person.pose == "Front" and person.face not in SHUT
    if looks and person.identity.glasses != "sunglasses":
        phrases.append(GAZE_PHRASES[person.gaze])
    phrases += ["smiles" if "happiness" in shown_emotions(person) else None, "cries" if person.tears else None]
    done = [phrase.format(his=his) for phrase in phrases if phrase]
    return done or ["keeps still"]


def shown_emotions(person: Person) -> list[str]:
    """The emotions of the clip in time; neutral alone where there is none."""
    return [e.emotion for e in person.expressions] or ["neutral"]


def shown_units(person: Person) -> tuple[str, ...]:
    """All units that are shown at some time, in the order of UNITS."""
    shown = {unit for e in person.expressions for unit in e.units} | set(person.units)
    return tuple(unit for unit in UNITS if unit in shown)


def detected_units(person: Person) -> list[str]:
    """The shown units among AffWild2's twelve."""
    return [unit for unit in DETECTED_UNITS if unit in shown_units(person)]


def expression_clauses(person: Person, units: tuple[str, ...]) -> str:
    """`her inner eyebrows rise, her lips part`, or that the face is relaxed."""
    his = possessive(person)
    if {"AU1", "AU2"} <= set(units):
        units = tuple(u for u in units if u != "AU2")
        clauses = [("eyebrows", "rise") if u == "AU1" else UNIT_CLAUSES[u] for u in units]
    else:
        clauses = [UNIT_CLAUSES[u] for u in units]
    if not clauses:
        return f"{his} face is relaxed"
    return listing([f"{his} {part} {does}" for part, does in clauses])


def cue_nouns(person: Person) -> list[str]:
    """The cues of the last emotion as nouns, manners included."""
    units = person.expressions[-1].units if person.expressions else ()
    nouns = [UNIT_NOUNS[u] for u in units]
    nouns += ["tears on the cheeks"] * person.tears
    manners = {"anxiety": "restless gaze", "disappointment": "lowered gaze", "helplessness": "shaking head"}
    nouns += [manners[person.emotion]] if person.emotion in manners else []
    return nouns or ["relaxed eyebrows", "resting mouth"]


def course(person: Person) -> str:
    """How the emotion develops, as a clause: `the face begins sad, then turns to surprise`."""
    his = possessive(person)
    if not person.expressions:
        return f"{his} face is neutral from the beginning to the end"
    first, last = person.expressions[0], person.expressions[-1]
    if first is not last:
        return f"{his} face begins {ADJECTIVES[first.emotion]} and then turns {ADJECTIVES[last.emotion]}"
    degree = DEGREES[first.strength]
    if first.start < 0:
        return f"{his} face shows {degree} {first.emotion} from the beginning to the end"
    end = " and becomes neutral again" if first.end < 1 else " and stays so"
    return f"{his} face begins neutral, then turns {ADJECTIVES[first.emotion]}{end}"


def scenery(setting: Setting) -> str:
    """Camera and light in one sentence."""
    camera = "The camera shakes a little" if setting.shake else "The camera is fixed"
    return f"{camera} and the light is {setting.light}."


def chain(scene: Scene, person: Person, rng: np.random.Generator) -> str:
    """The full chain of attribute, expression and emotion of one person, a sentence or two each."""
    she, feeling = pronoun(person), f"{DEGREES[person.strength]} {person.emotion}"
    acts = sentence(f"{she} {listing(actions(person))}")
    if len(person.expressions) > 1:
        first, then = (expression_clauses(person, e.units) for e in person.expressions)
        face = sentence(f"at first {first}; then {then}")
    else:
        face = sentence(expression_clauses(person, shown_units(person)))
    end = pick_one(
        rng,
        (
            f"These cues show that {she} feels {feeling}",
            f"All this expresses {feeling}",
            f"So the emotion of the person is {feeling}",
        ),
    )
    if not person.expressions:
        end = pick_one(rng, (f"So {she} feels neutral", "So the emotion of the person is neutral"))
    over_time = sentence(course(person))
    return f"{appearance(person, rng)} {acts} {face} {over_time} {sentence(end)}"


def fine_caption(scene: Scene, rng: np.random.Generator) -> str:
    """The fine-grained caption: place, then each person's chain, then camera and light."""
    place = BACKDROPS[scene.setting.backdrop]
    if len(scene.people) == 1:
        opening = pick_one(rng, (f"The clip shows one person {place}.", f"One person is seen {place}."))
        return f"{opening} {chain(scene, scene.person, rng)} {scenery(scene.setting)}"
    left, right = (chain(scene, person, rng) for person in scene.people)
    return f"Two people talk {place}. On the left: {left} On the right: {right} {scenery(scene.setting)}"
