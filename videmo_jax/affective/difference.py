"""Two affective trees laid over each other: what an answer has right, says otherwise, adds and leaves out."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from videmo_jax.affective.edit_distance import Costs, edit_operations
from videmo_jax.affective.tree import AffectiveTree, Node, Person, ordered

Mark = Literal["same", "other", "added", "missing"]


@dataclass(frozen=True, slots=True)
class DiffLine:
    """A node or person of either tree.

    Attributes:
      depth: nodes and people above it in the picture; 0 is a person.
      mark: `same` in both; `other` in the answer, in place of `truth`; `added` by the answer; `missing` in it.
      node: of the answer; of the truth where it is missing.
      truth: of `other`, what should stand there.
      cost: of the operation.
    """

    depth: int
    mark: Mark
    node: Node | Person
    truth: Node | Person | None = None
    cost: float = 0.0


def differences(truth: AffectiveTree, answer: AffectiveTree, costs: Costs) -> list[DiffLine]:
    """The answer's tree from top to bottom, with what is missing below what stands for its nearest kept ancestor.

    Every node and person of the answer is there once, in order, and so is everything that is missing; the costs add up
    to `tree_edit_distance(truth, answer, costs)`.

    Raises:
      ValueError: as `edit_operations`.
    """
    # Nodes are told apart by their identity below, and one object may stand in several places.
    truth, answer = _copied(truth), _copied(answer)
    lines: dict[int, tuple[Mark, Node | Person | None, float]] = {}  # by the identity of what is shown
    partner: dict[int, Node | Person] = {}
    for ours, theirs, cost in edit_operations(truth, answer, costs):
        if theirs is None:
            lines[id(ours)] = "missing", None, cost
        elif ours is None:
            lines[id(theirs)] = "added", None, cost
        else:
            partner[id(ours)] = theirs
            alike = isinstance(ours, Person) or _words(ours) == _words(theirs)
            lines[id(theirs)] = ("same", None, cost) if alike else ("other", ours, cost)
    hung: defaultdict[int | None, list[Any]] = defaultdict(list)  # people below None, nodes below all else

    def hang(node: Node | Person, above: Node | Person | None) -> None:
        """Puts what is missing below its anchor, which is itself for what is below it."""
        anchor = partner.get(id(node), node)
        if anchor is node:
            hung[None if above is None else id(above)].append(node)
        for child in _below(node):
            hang(child, anchor)

    def shown(node: Node | Person, depth: int) -> Iterator[DiffLine]:
        mark, other, cost = lines[id(node)]
        yield DiffLine(depth, mark, node, other, cost)
        below = () if mark == "missing" else _below(node)
        for child in ordered((*below, *hung[id(node)])):
            yield from shown(child, depth + 1)

    for person in truth.people:
        hang(person, None)
    return [line for person in (*answer.people, *hung[None]) for line in shown(person, 0)]


def _below(node: Node | Person) -> tuple[Node, ...]:
    return node.nodes if isinstance(node, Person) else node.children


def _words(node: Node) -> tuple[str, str, str]:
    return node.level, node.aspect, node.item


def _copied(tree: AffectiveTree) -> AffectiveTree:
    def copied(node: Node) -> Node:
        return Node(*_words(node), tuple(map(copied, node.children)))

    return AffectiveTree(tuple(Person(tuple(map(copied, person.nodes))) for person in tree.people))
