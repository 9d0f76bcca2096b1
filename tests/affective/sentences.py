"""The sentences with their nodes in tests/golden/affective/sentences.txt."""

from functools import reduce
from operator import add
from typing import NamedTuple

from tests.conftest import TESTS
from videmo_jax.affective.overlap import NodeF1, node_f1
from videmo_jax.affective.parser import parse_caption
from videmo_jax.affective.tree import AffectiveTree, Node, Person


class Sentence(NamedTuple):
    text: str
    nodes: frozenset[str]  # `aspect: item`, without gender
    held_out: bool


def sentences() -> list[Sentence]:
    """All, in the order of the file."""
    found = []
    for line in (TESTS / "golden" / "affective" / "sentences.txt").read_text().splitlines():
        if not line.startswith("#"):
            text, _, nodes = line[2:].partition(" =>")
            found.append(Sentence(text, frozenset(filter(None, nodes.strip().split("; "))), line[0] == "+"))
    return found


def read(text: str) -> frozenset[str]:
    """What the parser finds, without gender."""
    tree = parse_caption(text)
    assert len(tree.people) <= 1, text
    return frozenset(f"{node.aspect}: {node.item}" for node in tree.walk() if node.aspect != "gender")


def agreement(chosen: list[Sentence]) -> tuple[float, NodeF1]:
    """The share of sentences whose nodes are right, all of them and no other; and node F1 over all sentences."""
    right = sum(read(each.text) == each.nodes for each in chosen)
    return right / len(chosen), reduce(add, (node_f1(_tree(read(each.text)), _tree(each.nodes)) for each in chosen))


def _tree(nodes: frozenset[str]) -> AffectiveTree:
    """The nodes without levels: no aspect and item stand on two."""
    return AffectiveTree((Person(tuple(Node("attribute", *node.split(": ")) for node in sorted(nodes))),))
