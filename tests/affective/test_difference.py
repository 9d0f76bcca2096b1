"""A tree laid over the truth's: nothing of either is lost, and the costs are those of the distance."""

import random

import pytest

from tests.affective.test_edit_distance import random_tree
from videmo_jax.affective.difference import differences
from videmo_jax.affective.edit_distance import Costs, tree_edit_distance
from videmo_jax.affective.text import from_text
from videmo_jax.affective.tree import AffectiveTree, Node, Person


def written(lines):
    """The lines as a tree in the written form."""
    return "".join(
        "  " * line.depth
        + ("person" if isinstance(line.node, Person) else f"{line.node.level} | {line.node.aspect}: {line.node.item}")
        + "\n"
        for line in lines
    )


def names(nodes):
    return sorted("person" if isinstance(node, Person) else f"{node.level} {node.aspect} {node.item}" for node in nodes)


def everything(tree):
    return names([*tree.people, *tree.walk()])


@pytest.mark.parametrize("seed", range(25))
def test_both_trees_are_there_whole_and_the_costs_are_the_distance(seed):
    rng = random.Random(seed)
    truth, answer = (random_tree(rng, rng.randint(0, 25)) for _ in range(2))
    costs = Costs(insert=1.5, delete=0.75)  # which are taken apart: what is missing is deleted
    lines = differences(truth, answer, costs)
    assert from_text(written(line for line in lines if line.mark != "missing")) == answer
    assert names([line.truth or line.node for line in lines if line.mark != "added"]) == everything(truth)
    assert sum(line.cost for line in lines) == pytest.approx(tree_edit_distance(truth, answer, costs))
    assert all((line.mark == "other") == (line.truth is not None) for line in lines)
    assert all(line.cost == 0 for line in lines if line.mark == "same")


def test_what_is_missing_hangs_below_what_stands_for_its_nearest_kept_ancestor():
    cheeks, mouth = Node("attribute", "cheeks", "raised"), Node("attribute", "mouth", "open")
    smile = Node("expression", "expression", "smile", (cheeks, mouth))
    truth = AffectiveTree((Person((Node("emotion", "feeling", "happiness", (smile,)),)), Person()))
    answer = AffectiveTree((Person((Node("emotion", "feeling", "surprise"),)),))
    lines = differences(truth, answer, Costs())
    assert [(line.depth, line.mark) for line in lines] == [
        (0, "same"), (1, "other"), (2, "missing"), (3, "missing"), (3, "missing"), (0, "missing"),
    ]  # fmt: skip
    assert lines[1].node.item == "surprise" and lines[1].truth.item == "happiness" and lines[1].cost == 0.5
    assert [line.node for line in lines[3:5]] == [cheeks, mouth]


def test_one_object_in_several_places_is_several_nodes():
    hair = Node("attribute", "hair", "brown")
    person = Person((hair, Node("expression", "mouth", "smile", (hair,)), hair))
    truth = AffectiveTree((person, person))
    lines = differences(truth, AffectiveTree((person,)), Costs())
    assert from_text(written(lines)) == truth
    assert [line.mark for line in lines].count("missing") == sum(line.cost for line in lines) == 5
    assert differences(AffectiveTree(), AffectiveTree(), Costs()) == []
