"""The edit distance against an independent implementation (zss), by hand, and by what every distance obeys."""

import math
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import zss
from hypothesis import given, settings
from hypothesis import strategies as st

from videmo_jax.affective import edit_distance, lexicon
from videmo_jax.affective.edit_distance import (
    Costs,
    edit_operations,
    item_similarity,
    tree_edit_distance,
    tree_edit_distances,
)
from videmo_jax.affective.tree import LEVELS, AffectiveTree, Node, Person

ITEMS = ("sad", "very sad", "happy", "a very happy smile", "open", "wide open", "SAD")
ASPECTS = ("mouth", "eyes", "hair")


def random_tree(rng, nodes):
    """A tree of so many nodes; each hangs below an earlier one that may bear it, or below one of three people."""
    below = [[] for _ in range(rng.randint(1, 3))]
    drafts = []
    for _ in range(nodes):
        level = rng.randrange(3)
        draft = (level, rng.choice(ASPECTS), rng.choice(ITEMS), [])
        bearers = [children for rank, _, _, children in drafts[-8:] if rank >= level]
        rng.choice(bearers if bearers and rng.random() < 0.8 else below).append(draft)
        drafts.append(draft)

    def built(draft):
        level, aspect, item, children = draft
        return Node(LEVELS[level], aspect, item, tuple(map(built, children)))

    return AffectiveTree(tuple(Person(tuple(map(built, drafts))) for drafts in below))


def random_costs(rng):
    weights = {name: rng.choice((0.25, 0.5, 1.0, 2.0, 3.5)) for name in (*LEVELS, "person", "insert", "delete")}
    return Costs(**weights, substitute=rng.choice((0.5, 1.0, 2.5)))


def by_zss(a, b, costs):
    """The same distance with zss, the costs written out once more."""

    def as_zss(each, label):
        kids = each.people if isinstance(each, AffectiveTree) else each.nodes if label == "person" else each.children
        node = zss.Node(label)
        for kid in kids:
            node.addkid(as_zss(kid, "person" if isinstance(kid, Person) else (kid.level, kid.aspect, kid.item)))
        return node

    def weight(label):
        return 0 if label == "root" else costs.person if label == "person" else getattr(costs, label[0])

    def substitution(x, y):
        if x == y:
            return 0
        if "root" in (x, y) or "person" in (x, y):
            return math.inf
        alike = 0
        if x[:2] == y[:2]:
            ours, theirs = set(x[2].lower().split()), set(y[2].lower().split())
            alike = 0.5 + 0.5 * len(ours & theirs) / len(ours | theirs)
        whole = costs.substitute * max(weight(x), weight(y))
        return min(whole * (1 - alike), weight(x) * costs.delete + weight(y) * costs.insert)

    return zss.distance(
        as_zss(a, "root"),
        as_zss(b, "root"),
        zss.Node.get_children,
        insert_cost=lambda node: costs.insert * weight(node.label),
        remove_cost=lambda node: costs.delete * weight(node.label),
        update_cost=lambda x, y: substitution(x.label, y.label),
    )


def compare_with_zss(count, seed):
    rng = random.Random(seed)
    cases = []
    for _ in range(count):
        a, b = (random_tree(rng, rng.randint(0, 40)) for _ in range(2))
        cases.append((a, b, random_costs(rng)))
    for a, b, costs in cases:
        assert tree_edit_distance(a, b, costs) == pytest.approx(by_zss(a, b, costs), abs=1e-9)


def test_distances_are_those_of_zss():
    compare_with_zss(300, seed=0)


@pytest.mark.slow
def test_more_distances_are_those_of_zss():
    compare_with_zss(600, seed=1)


def test_a_batch_on_several_threads_gives_what_single_pairs_give():
    rng = random.Random(2)
    trees = [random_tree(rng, rng.randint(0, 30)) for _ in range(40)]
    pairs = [(rng.choice(trees), rng.choice(trees)) for _ in range(500)]
    costs = random_costs(rng)
    expected = [tree_edit_distance(a, b, costs) for a, b in pairs]
    for threads in (1, 2, 7, None):
        np.testing.assert_array_equal(tree_edit_distances(pairs, costs, threads=threads), expected)
    with ThreadPoolExecutor(4) as pool:  # callers may have threads of their own
        for each in pool.map(lambda _: tree_edit_distances(pairs, costs), range(8)):
            np.testing.assert_array_equal(each, expected)
    assert tree_edit_distances([]).shape == (0,)


SAD = Node("emotion", "emotion", "sad", (Node("expression", "mouth", "corners down"),))


def test_distances_by_hand():
    empty, nobody = AffectiveTree(), AffectiveTree((Person(),))
    sad = AffectiveTree((Person((SAD,)),))
    assert tree_edit_distance(empty, empty) == 0
    assert tree_edit_distance(empty, nobody, Costs(person=0.25)) == 0.25
    assert tree_edit_distance(empty, sad) == 3 and tree_edit_distance(sad, nobody) == 2
    # Another word of two: similarity 1/2 + 1/2 x 1/3.
    other = AffectiveTree((Person((Node("emotion", "emotion", "sad", (Node("expression", "mouth", "corners up"),)),)),))
    assert tree_edit_distance(sad, other) == pytest.approx(1 / 3)
    # What stands below the emotion in one and beside it in the other is taken out and put in again.
    flat = AffectiveTree((Person((Node("emotion", "emotion", "sad"), *SAD.children)),))
    assert tree_edit_distance(sad, flat) == 2
    # Two people or one who has it all: two people go, and one comes around what they had.
    apart = AffectiveTree((Person((Node("emotion", "emotion", "sad"),)), Person(SAD.children)))
    assert tree_edit_distance(apart, flat, Costs(person=0.5)) == 3 * 0.5
    # Levels have weights, operations have factors.
    costs = Costs(expression=2, emotion=4, person=8, insert=3, delete=0.5)
    assert tree_edit_distance(empty, sad, costs) == 3 * (2 + 4 + 8)
    assert tree_edit_distance(sad, empty, costs) == 0.5 * (2 + 4 + 8)
    # A substitution never costs more than to take out and put in: here 10 against 1 + 1.
    joy = AffectiveTree((Person((Node("emotion", "mood", "joy"),)),))
    gloom = AffectiveTree((Person((Node("emotion", "weather", "gloom"),)),))
    assert tree_edit_distance(joy, gloom, Costs(substitute=10)) == 2


def test_similarity_of_items():
    smile = Node("expression", "mouth", "a wide smile")
    assert item_similarity(smile, Node("expression", "mouth", "a Wide Smile")) == 1
    assert item_similarity(smile, Node("expression", "mouth", "wide")) == pytest.approx(0.5 + 0.5 / 3)
    assert item_similarity(smile, Node("expression", "mouth", "closed")) == 0.5
    assert item_similarity(smile, Node("attribute", "mouth", "a wide smile")) == 0
    assert item_similarity(smile, Node("expression", "eyes", "a wide smile")) == 0


def test_a_similarity_of_ones_own_is_asked_once_for_each_two_labels():
    asked = []

    def similarity(a, b):
        asked.append((a, b))
        assert not a.children and not b.children
        return 0.75

    rng = random.Random(3)
    trees = [random_tree(rng, 20) for _ in range(10)]
    pairs = [(a, b) for a in trees for b in trees]
    within = Costs(similarity=similarity)
    tree_edit_distances(pairs, within)
    assert 0 < len(asked) == len(set(asked))
    assert all((a.level, a.aspect) == (b.level, b.aspect) and a != b for a, b in asked)
    asked.clear()
    tree_edit_distances(pairs, Costs(similarity=similarity, within="level"))
    assert {a.level == b.level for a, b in asked} == {True} and any(a.aspect != b.aspect for a, b in asked)
    asked.clear()
    across = Costs(similarity=similarity, within="all")
    tree_edit_distances(pairs, across)
    labels = {(node.level, node.aspect, node.item) for tree in trees for node in tree.walk()}
    assert len(asked) == len(set(asked)) == len(labels) * (len(labels) - 1)
    mouth, eyes = (AffectiveTree((Person((Node("emotion", aspect, "x"),)),)) for aspect in ("mouth", "eyes"))
    assert tree_edit_distance(mouth, eyes, within) == 1 and tree_edit_distance(mouth, eyes, across) == 0.25


@pytest.mark.parametrize("value", [1.1, -0.1, math.nan])
def test_similarities_outside_of_their_range_are_refused(value):
    a, b = (AffectiveTree((Person((Node("emotion", "mood", item),)),)) for item in ("x", "y"))
    with pytest.raises(ValueError, match="similarity of mood: x and mood: y is"):
        tree_edit_distance(a, b, Costs(similarity=lambda x, y: value))


@pytest.mark.parametrize("wrong", [{"emotion": -1.0}, {"insert": math.inf}, {"person": math.nan}, {"within": "x"}])
def test_costs_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match=f"costs: {next(iter(wrong))} is"):
        Costs(**wrong)


def test_trees_beyond_all_measure_are_refused_and_long_ones_are_not(monkeypatch):
    hair = Node("attribute", "hair", "x")
    wide = AffectiveTree((Person((hair,) * 3000),))
    assert tree_edit_distance(wide, AffectiveTree((Person((hair,) * 2900),))) == 100
    monkeypatch.setattr(edit_distance, "MOST_CELLS", 10**6)
    with pytest.raises(ValueError, match="pair 1: trees of 3,001 and 3,001 nodes"):
        tree_edit_distances([(AffectiveTree(), wide), (wide, wide)])


@st.composite
def small_trees(draw):
    return random_tree(random.Random(draw(st.integers(0, 2**32))), draw(st.integers(0, 12)))


@st.composite
def metric_costs(draw):
    """Insertions, deletions and substitutions cost the same; levels may differ."""
    weight = st.sampled_from((0.5, 1.0, 2.0, 3.0))
    factor = draw(weight)
    return Costs(*(draw(weight) for _ in range(4)), insert=factor, delete=factor, substitute=factor)


@given(small_trees(), small_trees(), small_trees(), metric_costs())
@settings(max_examples=300, deadline=None)
def test_it_is_a_metric(a, b, c, costs):
    ab, ba, bc, ac, aa = tree_edit_distances([(a, b), (b, a), (b, c), (a, c), (a, a)], costs)
    assert ab == pytest.approx(ba, abs=1e-9)
    assert ac <= ab + bc + 1e-9
    assert aa == 0
    if ab == 0:  # the order and the case of words are no difference
        assert [{*node.item.lower().split()} for node in a.walk()] == [{*n.item.lower().split()} for n in b.walk()]


KNOWN = ("smile", "no smile", "laugh", "sadness (strong)", "sadness (weak)", "sadness", "disappointment", "joy")


@st.composite
def known_trees(draw):
    """Items that the parser gives, some of them relatives."""
    nodes = st.lists(st.tuples(st.sampled_from(LEVELS), st.sampled_from(("feeling", "mouth")), st.sampled_from(KNOWN)))
    return AffectiveTree((Person(tuple(Node(*label) for label in draw(nodes))),))


@given(known_trees(), known_trees(), known_trees(), metric_costs())
@settings(max_examples=200, deadline=None)
def test_it_is_a_metric_with_the_lexicons_similarity(a, b, c, costs):
    costs = replace(costs, similarity=lexicon.similarity, within="level")
    ab, ba, bc, ac = tree_edit_distances([(a, b), (b, a), (b, c), (a, c)], costs)
    assert ab == pytest.approx(ba, abs=1e-9) and ac <= ab + bc + 1e-9
    assert (ab == 0) == (a == b)


@st.composite
def any_costs(draw):
    return random_costs(random.Random(draw(st.integers(0, 2**32))))


@given(small_trees(), small_trees(), any_costs())
@settings(max_examples=300, deadline=None)
def test_the_script_costs_the_distance_and_is_a_valid_one(a, b, costs):
    operations = edit_operations(a, b, costs)
    assert sum(cost for *_, cost in operations) == pytest.approx(tree_edit_distance(a, b, costs), abs=1e-9)
    ours = [x for x, _, _ in operations if x is not None]
    assert [x for x in ours if isinstance(x, Node)] == bottom_up(a)
    theirs = sorted((y for _, y, _ in operations if isinstance(y, Node)), key=repr)
    assert theirs == sorted(b.walk(), key=repr)
    for x, y, cost in operations:
        if x is None or y is None:
            there, factor = (y, costs.insert) if x is None else (x, costs.delete)
            assert cost == factor * (costs.person if isinstance(there, Person) else getattr(costs, there.level))
        else:
            assert isinstance(x, Person) == isinstance(y, Person)
            if isinstance(x, Person) or (x.level, x.aspect, x.item) == (y.level, y.aspect, y.item):
                assert cost == 0
    assert_order_is_kept(a, b, operations)


def bottom_up(tree):
    """Children before their parents."""
    found = []

    def visit(node):
        for child in node.children:
            visit(child)
        found.append(node)

    for person in tree.people:
        for node in person.nodes:
            visit(node)
    return found


def assert_order_is_kept(a, b, operations):
    """A script is valid if what is kept has the same ancestors and the same order in both trees (Tai's mapping)."""
    kept = [(x, y) for x, y, _ in operations if isinstance(x, Person) and isinstance(y, Person)]
    people = [p for p, _ in kept]
    assert len(kept) <= min(len(a.people), len(b.people))
    firsts = [next(i for i, q in enumerate(a.people) if q is p) for p in people if sum(q is p for q in a.people) == 1]
    assert all(i < j for i, j in pairwise(firsts))
    for x, y in [(x, y) for x, y, _ in operations if isinstance(x, Node) and isinstance(y, Node)]:
        for other_x, other_y, _ in operations:
            if isinstance(other_x, Node) and isinstance(other_y, Node) and other_x is not x:
                assert (above(other_x, x)) == (above(other_y, y))


def above(node, other):
    """Whether the very object `other` stands below `node`."""
    return any(each is other for each in node.walk()) and node is not other


def test_a_script_says_what_differs():
    brown, black = (Node("attribute", "hair", f"long {colour}") for colour in ("brown", "black"))
    glasses = Node("attribute", "accessories", "glasses")
    ours, theirs = Person((SAD, brown)), Person((SAD, black, glasses))
    script = edit_operations(AffectiveTree((ours,)), AffectiveTree((theirs,)))
    assert script == [
        (SAD.children[0], SAD.children[0], 0),
        (SAD, SAD, 0),
        (brown, black, pytest.approx(1 / 3)),
        (ours, theirs, 0),
        (None, glasses, 1),
    ]
