"""The lexicon holds together, and similarity is what it says."""

import json
from collections import Counter
from importlib.resources import files
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videmo_jax.affective.lexicon import ASPECTS, LEXICON, similarity
from videmo_jax.affective.tree import Node

DATA = json.loads(files("videmo_jax.affective").joinpath("lexicon.json").read_text())


def phrases(section):
    return [phrase.strip() for phrases in section.values() for phrase in phrases.split(",")]


def known_items():
    keys = [key for section in (DATA["facts"], *DATA["states"].values()) for key in section]
    return {tuple(key.split("|")) for key in keys} | {("expression", "gaze", gaze) for gaze in DATA["directions"]}


@pytest.mark.parametrize(
    "section", ["feelings", "sentiments", "colours", "intensities", "garments", "parts", "pronouns"]
)
def test_no_phrase_means_two_things(section):
    assert [phrase for phrase, count in Counter(phrases(DATA[section])).items() if count > 1] == []


@pytest.mark.parametrize("part", DATA["states"])
def test_no_state_means_two_things(part):
    assert [phrase for phrase, count in Counter(phrases(DATA["states"][part])).items() if count > 1] == []


def test_items_stay_on_their_aspects():
    assert {key for key in known_items() if key[1] not in ASPECTS[key[0]]} == set()


def test_tables_speak_of_known_items():
    expressions = {key[1:] for key in known_items() if key[0] == "expression"}
    assert set(LEXICON.cues) - expressions == set()
    assert {key[1:] for key in LEXICON.action_units.values()} - expressions == set()
    feelings = set(DATA["feelings"])
    assert set().union(*LEXICON.cues.values()) <= feelings
    in_families = [feeling.strip() for family in DATA["families"].values() for feeling in family.split(",")]
    assert sorted(in_families) == sorted(feelings)


def test_related_groups_are_disjoint():
    for level, groups in DATA["related"].items():
        members = [member.strip() for group in groups for member in group.split(",")]
        assert [member for member, count in Counter(members).items() if count > 1] == [], level


def test_every_action_unit_of_facs_is_there():
    # FACS (Ekman, Friesen and Hager, 2002): the units of the face; 3, 8, 21 belong to babies, lips toward, the neck.
    assert set(LEXICON.action_units) >= set(range(1, 44)) - {3, 8, 21, 29, 30, 33, 36, 37, 40, 41, 42}


def feeling(item):
    return Node("emotion", "feeling", item)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (feeling("sadness"), feeling("sadness"), 1),
        (feeling("sadness (weak)"), feeling("sadness (medium)"), 0.85),
        (feeling("sadness (weak)"), feeling("sadness (strong)"), 0.7),
        (feeling("sadness"), feeling("sadness (strong)"), 0.85),
        (feeling("sadness"), feeling("disappointment"), 0.5),
        (feeling("sadness (weak)"), feeling("disappointment (strong)"), 0.2),
        (feeling("sadness"), feeling("happiness"), 0),
        (feeling("sadness"), feeling("no sadness"), 0),
        (feeling("no sadness"), feeling("no disappointment"), 0.5),
        (feeling("sadness"), Node("expression", "feeling", "sadness"), 0),
        (Node("expression", "expression", "smile"), Node("expression", "mouth", "corners up"), 0.5),
        (Node("attribute", "accessories", "red bow tie"), Node("attribute", "accessories", "bow tie"), 0.5),
        (Node("attribute", "accessories", "red bow tie"), Node("attribute", "accessories", "red tie"), 0),
        (Node("attribute", "hair", "of straw"), Node("attribute", "hair", "of straw"), 1),
        (Node("attribute", "hair", "of straw"), Node("attribute", "hair", "of wire"), 0),
    ],
)
def test_similarity_by_hand(a, b, expected):
    assert similarity(a, b) == pytest.approx(expected)
    assert similarity(b, a) == similarity(a, b)


NAMES = sorted(DATA["feelings"])
SAMPLE = [
    *(feeling(f"{no}{name}{strength}") for name, strength, no in product(
        ["sadness", "pain", "anger", "disgust"], ["", " (weak)", " (medium)", " (strong)"], ["", "no "]
    )),
    *(Node("attribute", "accessories", f"{colour}{what}") for colour, what in product(
        ["", "red ", "dark "], ["tie", "bow tie", "suit", "glasses", "sunglasses"]
    )),
    *(Node(*key) for key in sorted(known_items()) if key[1] in ("mouth", "expression", "eyes", "hair", "age")),
]  # fmt: skip


@given(st.sampled_from(SAMPLE), st.sampled_from(SAMPLE), st.sampled_from(SAMPLE))
@settings(max_examples=3000, deadline=None)
def test_one_minus_similarity_is_a_metric(a, b, c):
    assert 0 <= similarity(a, b) <= 1
    assert (similarity(a, b) == 1) == (a == b)
    assert similarity(a, b) == similarity(b, a)
    assert (1 - similarity(a, c)) <= (1 - similarity(a, b)) + (1 - similarity(b, c)) + 1e-12
