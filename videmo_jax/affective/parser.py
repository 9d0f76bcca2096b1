"""From free captions to affective trees, by rules over the words of the lexicon: deterministic; any text will do.

A caption is cut into sentences and these into the lexicon's words and phrases (`parser_words`); each is about those
spoken of at that place (`parser_people`) and yields facts and feelings (`parser_facts`). The items are those of
`lexicon`. What is denied is the item `no ITEM`. A feeling named twice is one node, with the intensity stated last.

Edges. A node supports at most one other.
- Stated: in a sentence `CUES show FEELING` or `FEELING because CUES` (and their synonyms in the lexicon), `shy smile`,
  `smiles shyly`, `eyes wide with fear`, each cue (an expression, or an action other than a posture) goes below the
  first of these feelings that it is typical of by the lexicon's table, else below the first of them. `This suggests
  FEELING` takes the cues of the sentence before.
- By default an expression goes below the first feeling of the same person that it is typical of, in order of mention.
- A look of the eyes, eyebrows, mouth, nose or chin goes below the first expression of the same aspect.
What is denied neither supports nor is supported; all else stands directly below its person.
"""

from collections import defaultdict

from videmo_jax.affective.lexicon import LEXICON, Key
from videmo_jax.affective.parser_facts import Event, event_place, events
from videmo_jax.affective.parser_links import courses, link
from videmo_jax.affective.parser_people import People, Who
from videmo_jax.affective.parser_words import Unit, original_place, sentences
from videmo_jax.affective.tree import AffectiveTree, Node, Person

Spans = dict[int, tuple[int, int]]  # by the number of a node in `AffectiveTree.walk`: half-open, in characters

MAX_CHARACTERS = 100_000  # of a caption that are read; the rest is left out
SEEN_IN = frozenset({"eyes", "eyebrows", "mouth", "nose", "chin"})
HANDS = frozenset({"hand at mouth", "hand at eyes", "covers face", "covers mouth", "covers eyes"})


def parse_caption(text: str) -> AffectiveTree:
    """The affective tree of a free caption.

    Args:
      text: any text; what the lexicon does not know is passed over, and so is what follows MAX_CHARACTERS.
    """
    return AffectiveTree(tuple(_person(who) for who in _read(text).all))


def parse_spans(text: str) -> tuple[AffectiveTree, Spans]:
    """The tree of `parse_caption`, and the words behind its nodes, numbered as `AffectiveTree.walk` gives them.

    Returns:
      The tree, and for each node the half-open place, in characters, of the words that it was first read from: of a
      state with its part (`brows are raised`), of a feeling where its intensity was stated last.
    """
    people = _read(text).all
    tree = AffectiveTree(tuple(_person(who) for who in people))
    original = original_place(text[:MAX_CHARACTERS])
    found = [
        who.places.get(_bare(node)) for who, person in zip(people, tree.people, strict=True) for node in person.walk()
    ]
    return tree, {number: original(place) for number, place in enumerate(found) if place}


def _bare(node: Node) -> Key:
    """The key that a node was noted under: a feeling without its intensity."""
    item = node.item.partition(" (")[0] if node.aspect == "feeling" else node.item
    return node.level, node.aspect, item


def _read(text: str) -> People:
    """The people of a caption with all that is said of them."""
    people = People()
    before: list[Event] = []
    last: Event | None = None
    for units in sentences(text[:MAX_CHARACTERS]):
        about = people.follow(units)
        said = events(units, about)
        for event in said:
            event.people = event.people or people.current()
            _note(event, units)
        link(units, said, before)
        for event, key in courses(units, said, last):
            for who in event.people:
                who.facts.setdefault(key)
                if event in said:
                    who.places.setdefault(key, units[event.at].place)
        _late_intensity(units, said, last)
        _note_genders(people, units)
        before = said
        last = next((event for event in reversed(said) if event.feeling and not event.denied), last)
    return people


def _note(event: Event, units: list[Unit]) -> None:
    """Writes an event down with the people that it is about."""
    level, aspect, item = event.key
    place = event_place(event, units)
    for who in event.people:
        if event.feeling and not event.denied:
            if event.intensity or item not in who.feelings:
                who.places[event.key] = place
            who.feelings[item] = event.intensity or who.feelings.get(item)
        else:
            key = (level, aspect, f"no {item}") if event.denied else event.key
            who.facts.setdefault(key)
            who.places.setdefault(key, place)


def _note_genders(people: People, units: list[Unit]) -> None:
    """Notes the words that have told somebody's gender for the first time."""
    for who in people.all:
        key = ("attribute", "gender", who.gender)
        if who.gender and key not in who.places:
            telling = (unit for unit in units if unit.entry.pronoun == who.gender or key in unit.entry.facts)
            who.places[key] = next(telling, units[0]).place


def _late_intensity(units: list[Unit], said: list[Event], last: Event | None) -> None:
    """`The intensity is high.` and `It is strong.` are said of the last feeling."""
    if last is None or any(event.feeling for event in said):
        return
    levels = [at for at, unit in enumerate(units) if "level" in unit.entry.roles]
    strengths = [unit.entry.intensity for unit in units if unit.entry.intensity]
    alone = units[0].word in ("it", "this") and not said and len(units) <= 4
    if strengths and (levels or alone):
        for who in last.people:
            who.feelings[str(last.feeling)] = strengths[0]


def _person(who: Who) -> Person:
    """The nodes of a person, joined."""
    if who.gender:
        who.facts.setdefault(("attribute", "gender", who.gender))
    facts = [key for key in who.facts if not _told_better(key, who)]
    below: dict[object, list[Node]] = defaultdict(list)
    expressions = [key for key in facts if key[0] == "expression"]
    for key in facts:
        if key[0] == "attribute":
            below[_holder(key, who, expressions)].append(Node(*key))
    for key in expressions:
        below[_feeling_of(key, who)].append(Node(*key, tuple(below[key])))
    for feeling, intensity in who.feelings.items():
        item = f"{feeling} ({intensity})" if intensity else feeling
        below[None].append(Node("emotion", "feeling", item, tuple(below[feeling])))
    below[None].extend(Node(*key) for key in facts if key[0] == "emotion")
    return Person(tuple(below[None]))


def _holder(key: Key, who: Who, expressions: list[Key]) -> object:
    """What an attribute supports: a feeling that it is said to show, or the first expression of the same aspect."""
    feeling = who.edges.get(key)
    if feeling in who.feelings:
        return feeling
    if key[1] in SEEN_IN and not key[2].startswith("no "):
        return next((each for each in expressions if each[1] == key[1] and not each[2].startswith("no ")), None)
    return None


def _feeling_of(key: Key, who: Who) -> str | None:
    """The feeling that an expression supports: the stated one, or the first that it is typical of."""
    if key[2].startswith("no "):
        return None
    stated = who.edges.get(key)
    if stated in who.feelings:
        return stated
    typical = LEXICON.cues.get(key[1:], ())
    return next((feeling for feeling in who.feelings if feeling in typical), None)


def _told_better(key: Key, who: Who) -> bool:
    """Whether `hand at face` is told more exactly by another fact."""
    return key[2] == "hand at face" and any(each[2] in HANDS for each in who.facts)
