"""The parser on single sentences: what each must give, written down by hand; and on any text at all."""

import subprocess
import sys
from functools import reduce
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.affective.captions import examples
from tests.affective.sentences import read, sentences
from videmo_jax.affective.lexicon import ASPECTS, LEXICON
from videmo_jax.affective.overlap import node_f1
from videmo_jax.affective.parser import MAX_CHARACTERS, parse_caption
from videmo_jax.affective.parser_people import MAX_PEOPLE
from videmo_jax.affective.text import from_text, to_text


def facts(text):
    """What the parser finds, one set a person, as `aspect: item`."""
    return [{f"{node.aspect}: {node.item}" for node in person.walk()} for person in parse_caption(text).people]


def test_two_people_by_place_and_pronoun():
    she, he = facts(
        "The woman on the left smiles while the man on the right frowns. She has blonde hair. He wears glasses. "
        "The man on the right looks at the woman and shakes his head."
    )
    assert she == {"gender: female", "expression: smile", "hair: blonde"}
    assert he == {"gender: male", "expression: frown", "accessories: glasses", "head actions: shakes head"}


def test_two_of_one_gender():
    first, second = facts("Two women talk. The first woman laughs. The second one nods. Both wear hats.")
    assert first >= {"facial actions: talks", "expression: laugh", "accessories: hat"}
    assert second >= {"facial actions: talks", "accessories: hat"}


def test_two_do_the_same():
    first, second = facts("A man in glasses and a woman with red hair are talking.")
    assert first == {"gender: male", "accessories: glasses", "facial actions: talks"}
    assert second == {"gender: female", "hair: red", "facial actions: talks"}


def test_a_list_with_colons():
    assert facts("Brows: lowered. Eyes: wide open. Hair: long, brown. Emotion: anger (strong).") == [
        {"eyebrows: drawn together", "eyes: wide open", "hair: long", "hair: brown", "feeling: anger (strong)"}
    ]


def test_a_new_person_and_the_same_again():
    assert [{"age: young", "gender: female"}, {"gender: male", "chin: beard"}] == facts(
        "A young woman is beside a man with a beard. The woman is young."
    )
    assert len(facts("There is a man. The person is a young man. The man is a doctor.")) == 1


def test_the_other_is_nobody_new():
    assert len(facts("He talks to the other person and smiles at someone.")) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He is neither happy nor sad.", {"gender: male", "feeling: no happiness", "feeling: no sadness"}),
        ("without a beard, hat or glasses", {"chin: no beard", "accessories: no hat", "accessories: no glasses"}),
        ("She is not only sad but also angry.", {"gender: female", "feeling: sadness", "feeling: anger"}),
        ("He does not show any anger, but he is sad.", {"gender: male", "feeling: no anger", "feeling: sadness"}),
        ("She cannot help but smile.", {"gender: female", "expression: smile"}),
        ("His eyes are not closed.", {"gender: male", "eyes: no closed"}),
        ("Her smile fades.", {"gender: female", "expression: no smile"}),
        ("He wears no tie and smiles.", {"gender: male", "accessories: no tie", "expression: smile"}),
    ],
)
def test_denied(text, expected):
    assert facts(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "The light is soft and warm. The camera is fixed, the background is dark.",
        "Against a dark wall with a white door. Cheerful music plays in the background.",
        "The room is bright; the walls are pale and the atmosphere is tense.",
        "",
        "Es regnet.",
        "AU99. AU 8.",
        "42",
    ],
)
def test_the_setting_is_nobody(text):
    assert parse_caption(text).people == ()


def shown(text):
    """What each feeling of the first person follows from."""
    return {
        node.item: {f"{child.aspect}: {child.item}" for child in node.children}
        for node in parse_caption(text).people[0].nodes
        if node.aspect == "feeling"
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A smile is typical of happiness, and yet said to show contempt.
        ("His smile shows contempt. He is happy.", {"contempt": {"expression: smile"}, "happiness": set()}),
        (
            "She is sad because her eyebrows are raised and she nods.",
            {"sadness": {"eyebrows: raised", "head actions: nods"}},
        ),
        ("Anger, as shown by his closed eyes.", {"anger": {"eyes: closed"}}),
        ("Her smile indicates joy and her raised brows indicate surprise.",
         {"happiness": {"expression: smile"}, "surprise": {"eyebrows: raised"}}),
        ("She nods. This suggests happiness.", {"happiness": {"head actions: nods"}}),
        ("Her eyes widen in fear. She is surprised.", {"fear": {"eyes: wide open"}, "surprise": set()}),
        # Nothing is said: each goes to the first feeling that it is typical of.
        ("She frowns and smiles. She is happy and sad.",
         {"happiness": {"expression: smile"}, "sadness": {"expression: frown"}}),
        ("She does not smile. She is happy.", {"happiness": set()}),
        ("He sits and smiles, which shows joy.", {"happiness": {"expression: smile"}}),
    ],
)  # fmt: skip
def test_what_a_feeling_follows_from(text, expected):
    assert shown(text) == expected


def test_a_look_stands_below_what_the_same_part_does():
    (person,) = parse_caption("A man with thick eyebrows and blue eyes lowers his brows.").people
    (lowered,) = [node for node in person.nodes if node.level == "expression"]
    assert [child.item for child in lowered.children] == ["thick"]


SIGNS = [",", ".", ";", "'s", "n't", "-", "(", "\n", "au", "12", "99", "\u2019", "\u00c9", "xyzzy"]
WORDS = [*sorted(LEXICON.singles), *SIGNS]


@given(st.text() | st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join))
@settings(max_examples=600, deadline=None)
def test_any_text_gives_a_tree_in_the_vocabulary(text):
    tree = parse_caption(text)
    assert tree == parse_caption(text)
    assert from_text(to_text(tree)) == tree
    for person in tree.people:
        nodes = [(node.level, node.aspect, node.item) for node in person.walk()]
        assert len(nodes) == len(set(nodes))
        assert all(aspect in ASPECTS[level] for level, aspect, _ in nodes)


PIECES = [
    "a ",
    "her ",
    "raised and ",
    "eyes and ",
    "no ",
    "a woman ",
    "the man on the left, ",
    "sad then happy ",
    "show ",
]
PIECES += [
    "au1 ",
    "because ",
    "(",
    "'",
    "n't ",
    "smile, ",
    "\u00e9",
    "look left and right ",
    "hand to ",
    "sad. then happy. ",
]


@pytest.mark.parametrize("piece", PIECES)
def test_long_texts_take_time_in_proportion(piece):
    text = piece * (MAX_CHARACTERS // len(piece) + 50)
    tree = parse_caption(text)
    assert tree == parse_caption(text[:MAX_CHARACTERS])
    assert len(tree.people) <= MAX_PEOPLE
    # Counted in calls, not in seconds: a text of twice the length makes at most some twice as many.
    assert calls(text[: MAX_CHARACTERS // 4]) < 2.5 * calls(text[: MAX_CHARACTERS // 8]) + 1000


def calls(text):
    """How many functions the parser calls for a text."""
    count = 0

    def tick(frame, event, argument):
        nonlocal count
        count += 1

    sys.setprofile(tick)
    try:
        parse_caption(text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("each", sentences(), ids=lambda each: each.text[:40])
def test_sentences(each):
    assert read(each.text) == each.nodes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A denial ends with its clause, and a person is no subject of it.
        ("The man with a beard does not wear glasses.", {"chin: beard", "accessories: no glasses"}),
        ("She wears glasses and her smile is not seen.", {"accessories: glasses", "expression: no smile"}),
        ("Tears in her closed eyes are not visible.", {"expression: no crying", "eyes: closed"}),
        ("Her smile, which was visible before, is no longer there.", {"expression: no smile"}),
        ("He never raises his eyebrows, nor does he smile.", {"eyebrows: no raised", "expression: no smile"}),
        ("There are no visible tears.", {"expression: no crying"}),
        ("Fear is not reflected in his wide eyes.", {"feeling: no fear", "eyes: wide open"}),
        ("His brows are not raised but lowered.", {"eyebrows: no raised", "eyebrows: drawn together"}),
        ("AU12: 0.8, AU4: 0.0, AU6: no, AU25: yes", 
         {"mouth: corners up", "eyebrows: no drawn together", "cheeks: no raised", "mouth: lips parted"}),
        # Who covers what: the nearest that can.
        ("She wears a hat that covers her forehead.", {"accessories: hat"}),
        ("The man in a hat covers his face.", {"accessories: hat", "body actions: covers face"}),
        ("Her face is half hidden in shadow.", set()),
        # Looks do not go over to beards and glasses.
        ("A man with blue eyes and glasses.", {"eyes: blue", "accessories: glasses"}),
        ("He has bushy eyebrows and stubble.", {"eyebrows: thick", "chin: stubble"}),
        ("Glasses: round, black. Beard: none.",
         {"accessories: glasses", "accessories: round glasses", "accessories: black glasses", "chin: no beard"}),
    ],
)  # fmt: skip
def test_denials_covers_and_looks(text, expected):
    assert read(text) == expected


def test_a_list_of_action_units_at_the_longest_sentence():
    parse_caption("word " * 199 + "AU4 and on")  # cut between the words of a unit it must not be


def test_captions_of_emo_cfg_mini():
    scores = {
        example.name: node_f1(parse_caption(example.caption), example.tree) for example in examples("emo_cfg_mini")
    }
    whole = reduce(add, scores.values())
    print("\n".join(f"{kind}: {dict(errors)}" for kind, errors in whole.wrong.items()))
    assert whole.truth == 221
    assert whole.f1 >= 0.95


@pytest.mark.parametrize(("name", "nodes"), [("varied", 238), ("varied_again", 81)])
def test_captions_in_other_words(name, nodes):
    whole = reduce(add, (node_f1(parse_caption(each.caption), each.tree) for each in examples(name)))
    assert whole.truth == nodes
    assert whole.f1 >= 0.95


def test_an_object_does_not_take_over():
    he, she = facts("The man points at the woman and yells. She cries.")
    assert he == {"gender: male", "body actions: points", "facial actions: shouts"}
    assert she == {"gender: female", "expression: crying"}


def test_the_parser_knows_nothing_of_other_rooms():
    code = "import sys, videmo_jax.affective.parser; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("videmo_jax")}
    assert {name for name in ours if not name.startswith("videmo_jax.affective")} == {"videmo_jax"}
