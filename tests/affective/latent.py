"""The tree of what a synthetic scene holds and its caption tells, made from the scene itself: truth for the parser.

It was written from the vocabulary (videmo_jax/affective/lexicon.py) before the parser was tried on these captions; that
two people who talk both talk was added after the first try.
"""

from collections.abc import Iterator

from videmo_jax.affective.tree import AffectiveTree, Node, Person
from videmo_jax.data.synthetic import scene as drawn
from videmo_jax.data.synthetic.wording import shown_emotions, shown_units

SKINS = {"pale": "pale", "light": "fair", "tan": "tanned", "dark": "dark"}
AGES = {"child": "child", "young adult": "young", "elderly": "old"}
BEARDS = {"mustache": "moustache", "goatee": "goatee", "full beard": "beard", "stubble": "stubble"}
HEADS = {"nod": "nods", "shake": "shakes head", "turn": "turns head", "wag": "shakes head", "tilt": "tilts head"}
GAZES = {"camera": "at the camera", "left": "left", "right": "right", "down": "down", "around": "around"}
FACES = {"talk": "talks", "wink": "winks", "yawn": "yawns", "kiss": "kisses", "sleep": "sleeps"}
BODIES = {"raise_hand": "raises hand", "lean": "leans to the side", "shrug": "shrugs"}
PROPS = {"drink": "drinks", "smoke": "smokes", "sing": "sings", "listen_to_music": "listens", "read": "reads"}
UNITS = {
    "AU1": ("eyebrows", "inner corners raised"),
    "AU2": ("eyebrows", "outer corners raised"),
    "AU4": ("eyebrows", "drawn together"),
    "AU5": ("eyes", "wide open"),
    "AU6": ("cheeks", "raised"),
    "AU7": ("eyes", "narrowed"),
    "AU9": ("nose", "wrinkled"),
    "AU10": ("mouth", "upper lip raised"),
    "AU12": ("mouth", "corners up"),
    "AU14": ("mouth", "dimpled"),
    "AU15": ("mouth", "corners down"),
    "AU20": ("mouth", "stretched"),
    "AU23": ("mouth", "tightened"),
    "AU24": ("mouth", "pressed together"),
    "AU25": ("mouth", "lips parted"),
    "AU26": ("mouth", "jaw dropped"),
    "AU43": ("eyes", "closed"),
}


def latent_tree(scene: drawn.Scene) -> AffectiveTree:
    """The facts that a fine-grained caption of the scene tells, without edges."""
    pair = len(scene.people) > 1
    return AffectiveTree(
        tuple(Person(tuple(Node(*fact) for fact in dict.fromkeys(_facts(person, pair)))) for person in scene.people)
    )


def _facts(person: drawn.Person, pair: bool) -> Iterator[tuple[str, str, str]]:
    yield from [("attribute", "facial actions", "talks")] * pair  # two people talk to each other
    yield from (("attribute", *fact) for fact in _looks(person))
    yield from _actions(person)
    yield from (("expression", *fact) for fact in _face(person))
    yield from (("emotion", *fact) for fact in _feelings(person))


def _looks(person: drawn.Person) -> Iterator[tuple[str, str]]:
    i = person.identity
    yield "gender", i.gender
    yield "age", AGES[i.age]
    yield from [("hair", "bald")] * (i.hair_length == "bald")
    if i.hair_length != "bald":
        yield from (("hair", item) for item in (i.hair_length, i.hair_texture, i.hair_colour))
        yield from [("hair", "bangs")] * (i.bangs and not person.hat)
    yield "skin", SKINS[i.skin]
    yield "eyebrows", {"bushy": "thick"}.get(i.brows, i.brows)
    if i.beard != "none":
        yield "chin", BEARDS[i.beard]
    worn = {"glasses": i.glasses == "eyeglasses", "sunglasses": i.glasses == "sunglasses", "hat": person.hat}
    worn |= {"earrings": person.earrings, "necklace": person.necklace, "tie": person.necktie}
    worn |= {"lipstick": person.lipstick, "make-up": person.makeup, f"{person.clothes} shirt": True}
    yield from (("accessories", thing) for thing, there in worn.items() if there)


def _actions(person: drawn.Person) -> Iterator[tuple[str, str, str]]:
    """What the person does; what the parser's vocabulary counts as an expression stands on that level."""
    found = []
    shut = person.face in ("close_eyes", "yawn", "sleep")
    for table, value, aspect in (
        (FACES, person.face, "facial actions"),
        (HEADS, person.head, "head actions"),
        (BODIES, person.body, "body actions"),
        (PROPS, person.prop, "facial actions"),
    ):
        found += [("attribute", aspect, table[value])] if value in table else []
    found += [("expression", "eyes", "closed")] * (person.face == "close_eyes")
    found += [("expression", "mouth", "tongue out")] * (person.face == "make_a_face")
    if person.pose == "Front" and not shut and person.identity.glasses != "sunglasses":
        found.append(("expression", "gaze", GAZES[person.gaze]))
    found += [("expression", "expression", "smile")] * ("happiness" in shown_emotions(person))
    found += [("expression", "expression", "crying")] * person.tears
    yield from found or [("attribute", "body actions", "still")]


def _face(person: drawn.Person) -> Iterator[tuple[str, str]]:
    """Both brow units together are raised eyebrows; two expressions are told one after the other."""
    several = len(person.expressions) > 1
    for units in [each.units for each in person.expressions] if several else [shown_units(person)]:
        raised = {"AU1", "AU2"} <= set(units)
        for unit in units:
            if not (raised and unit == "AU2"):
                yield ("eyebrows", "raised") if raised and unit == "AU1" else UNITS[unit]
        if not units:
            yield "face", "relaxed"


def _feelings(person: drawn.Person) -> Iterator[tuple[str, str]]:
    """The last one with its strength, an earlier one without, and the course."""
    if not person.expressions:
        yield "feeling", "neutral"
        yield "course", "neutral lasts"
        return
    first, last = person.expressions[0], person.expressions[-1]
    yield "feeling", f"{last.emotion} ({last.strength})"
    if first is not last:
        yield from [("feeling", first.emotion)] * (first.emotion != last.emotion)
        yield "course", f"{first.emotion} then {last.emotion}"
    elif first.start < 0:
        yield "course", f"{first.emotion} lasts"
    else:
        yield "feeling", "neutral"
        yield "course", f"neutral then {first.emotion}"
        yield from [("course", f"{first.emotion} then neutral")] * (first.end < 1)
