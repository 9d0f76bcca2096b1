"""How far apart two affective trees are: Zhang and Shasha's edit distance, exact, for ordered labelled trees.

The distance is the least cost of the insertions, deletions and substitutions that make one tree of the other (Zhang and
Shasha 1989; PAPER.md section 3, where the reward is made of it). People hang below one root, which is matched for free.
What Python has to say - which labels there are, how similar two of them are - is said once for a batch; the tables are
filled by compiled code that holds no lock of the interpreter, on several threads.
"""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Literal

import numba
import numpy as np
from jaxtyping import Float64, Int32, Int64

from videmo_jax.affective.tree import LEVELS, AffectiveTree, Node, Person
from videmo_jax.files.errors import UserError

Similarity = Callable[[Node, Node], float]
Operation = tuple[Node | Person | None, Node | Person | None, float]

GROUPS = {"aspect": 2, "level": 1, "all": 0}  # what of (level, aspect) two nodes must share to have anything in common
SAME_ASPECT = 0.5  # similarity of two items of one aspect that share no word
# Cells of all tables of one pair, some ten seconds; captions of 500 words stay below a millionth of it.
MOST_CELLS = 10**10
PAIRS_OF_A_TASK = 64  # of one thread; fewer than these are not worth a second thread

# Labels that are no node's, and the groups of labels that have nothing in common with any other.
_ROOT, _PERSON = 0, 1
_APART = -1


def item_similarity(a: Node, b: Node) -> float:
    """How alike two nodes are, from 0 to 1: 0 on another level or in another aspect, else 1/2 and half of their words.

    The share of words is Jaccard's, so that 1 minus the similarity is a metric, as far as the order of words goes.
    """
    if (a.level, a.aspect) != (b.level, b.aspect):
        return 0.0
    ours, theirs = set(a.item.casefold().split()), set(b.item.casefold().split())
    return SAME_ASPECT + (1 - SAME_ASPECT) * len(ours & theirs) / len(ours | theirs)


@dataclass(frozen=True)
class Costs:
    """What an operation costs.

    Inserting or deleting a node costs the weight of its level, times `insert` or `delete`. Putting a node in place of
    another costs the larger weight of the two, times `substitute`, times 1 - similarity, and never more than deleting
    one and inserting the other. A person stands only in place of a person, which is free.

    With `insert` = `delete` = `substitute` and a similarity whose complement is a metric that separates the levels (the
    default), the distance is a metric.

    Attributes:
      attribute, expression, emotion: weights of the levels.
      person: weight of a person, the virtual node above the nodes of one.
      insert, delete, substitute: factors of the three operations.
      similarity: of two nodes without their children, from 0 to 1; two equal nodes are never asked about.
      within: `similarity` is asked about nodes of one `aspect` (of one level), of one `level`, or about `all`; others
        have nothing in common. The wider, the more pairs of labels there are in a batch.
    """

    attribute: float = 1.0
    expression: float = 1.0
    emotion: float = 1.0
    person: float = 1.0
    insert: float = 1.0
    delete: float = 1.0
    substitute: float = 1.0
    similarity: Similarity = item_similarity
    within: Literal["aspect", "level", "all"] = "aspect"

    def __post_init__(self) -> None:
        if self.within not in GROUPS:
            raise UserError(f"costs: within is {self.within!r}; it must be one of {', '.join(GROUPS)}")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type is float and not (math.isfinite(value) and value >= 0):
                raise UserError(f"costs: {each.name} is {value}; it must be a number from 0 on")

    def deletion(self, node: Node | Person) -> float:
        """What deleting a node, or a person without nodes, costs."""
        return self.delete * (self.person if isinstance(node, Person) else getattr(self, node.level))


def tree_edit_distance(a: AffectiveTree, b: AffectiveTree, costs: Costs = Costs()) -> float:
    """The least cost of making `b` of `a`; raises ValueError as `tree_edit_distances`."""
    return float(tree_edit_distances([(a, b)], costs)[0])


def tree_edit_distances(
    pairs: Sequence[tuple[AffectiveTree, AffectiveTree]],
    costs: Costs = Costs(),
    *,
    threads: int | None = None,
) -> Float64[np.ndarray, "N"]:
    """The distances of N pairs; a tree that is in several of them is prepared once.

    Args:
      pairs: the trees.
      costs: of the operations.
      threads: at most so many; None takes one for each core.

    Raises:
      ValueError: two trees are so large that their tables would have more than MOST_CELLS cells, or a similarity lies
        outside of [0, 1].
    """
    distances = np.zeros(len(pairs))
    if not len(pairs):
        return distances
    batch = _Batch(costs)
    numbers = np.array([(batch.add(a), batch.add(b)) for a, b in pairs], np.int32)
    forests = batch.forests(numbers)
    step = min(PAIRS_OF_A_TASK, len(pairs))
    parts = [slice(first, first + step) for first in range(0, len(pairs), step)]
    workers = min(threads or os.cpu_count() or 1, len(parts))
    if workers == 1:
        _distances(numbers, distances, *forests)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda part: _distances(numbers[part], distances[part], *forests), parts))
    return distances


def edit_operations(a: AffectiveTree, b: AffectiveTree, costs: Costs = Costs()) -> list[Operation]:
    """One script of least cost that makes `b` of `a`, node by node.

    Returns:
      (of a, of b, cost) for every node and person of either tree, once each: (node, other, cost) where one takes the
      place of the other (at cost 0 where they are equal), (node, None, cost) where it is deleted, (None, node, cost)
      where it is inserted. First all of `a`, children before their parents, then the insertions likewise. The costs add
      up to the distance.

    Raises:
      ValueError: as `tree_edit_distances`.
    """
    batch = _Batch(costs)
    number_a, number_b = batch.add(a), batch.add(b)
    forests = batch.forests(np.array([(number_a, number_b)], np.int32))
    partners, deletes, inserts, substitutes = _script(number_a, number_b, *forests)
    of_a, of_b = list(_bottom_up(a)), list(_bottom_up(b))
    operations: list[Operation] = []
    for i, node in enumerate(of_a):
        j = int(partners[i])
        operations.append((node, None, float(deletes[i])) if j < 0 else (node, of_b[j], float(substitutes[i, j])))
    taken = set(partners.tolist())
    operations += [(None, node, float(inserts[j])) for j, node in enumerate(of_b) if j not in taken]
    return operations


def _bottom_up(tree: AffectiveTree) -> list[Node | Person]:
    """All nodes and people, children before their parents, in the order of `_Batch.add`."""
    found: list[Node | Person] = []

    def visit(node: Node) -> None:
        for child in node.children:
            visit(child)
        found.append(node)

    for person in tree.people:
        for node in person.nodes:
            visit(node)
        found.append(person)
    return found


# What the compiled functions need of a batch, in the order in which they take it.
_Forests = tuple[np.ndarray, ...]


@dataclass
class _Batch:
    """The trees of a batch as arrays, nodes in post-order: labels by number, and the place of the leftmost leaf."""

    costs: Costs
    label_numbers: defaultdict[tuple[str, str, str], int] = field(default_factory=defaultdict)
    tree_numbers: dict[int, int] = field(default_factory=dict)
    labels: list[int] = field(default_factory=list)
    lefts: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        known = self.label_numbers
        known.default_factory = lambda: len(known) + 2  # a new label takes the next number

    def add(self, tree: AffectiveTree) -> int:
        """The number of a tree, which the caller must keep alive."""
        number = self.tree_numbers.setdefault(id(tree), len(self.tree_numbers))
        if number < len(self.starts) - 1:
            return number
        labels, lefts, known, start = self.labels, self.lefts, self.label_numbers, self.starts[-1]

        def visit(node: Node) -> None:
            left = len(labels) - start
            for child in node.children:
                if child.children:
                    visit(child)
                else:  # most are leaves, and calls are what takes time here
                    lefts.append(len(labels) - start)
                    labels.append(known[child.level, child.aspect, child.item])
            lefts.append(left)
            labels.append(known[node.level, node.aspect, node.item])

        for person in tree.people:
            left = len(labels) - start
            for node in person.nodes:
                visit(node)
            labels.append(_PERSON)
            lefts.append(left)
        labels.append(_ROOT)
        lefts.append(0)
        self.starts.append(len(labels))
        return number

    def forests(self, numbers: Int32[np.ndarray, "N 2"]) -> _Forests:
        """All arrays of the batch, with the similarities that the pairs of trees ask for."""
        labels, lefts = np.array(self.labels, np.int32), np.array(self.lefts, np.int32)
        starts = np.array(self.starts, np.int64)
        keys, key_starts, cells = _key_roots(lefts, starts)
        most = cells[numbers[:, 0]].astype(float) * cells[numbers[:, 1]]
        if (worst := int(most.argmax())) >= 0 and most[worst] > MOST_CELLS:
            sizes = [int(starts[number + 1] - starts[number]) - 1 for number in numbers[worst]]
            raise UserError(
                f"pair {worst}: trees of {sizes[0]:,} and {sizes[1]:,} nodes need tables of {most[worst]:.1e} cells, "
                f"more than {MOST_CELLS:.0e}; no caption is so long"
            )
        groups, weights = self._labels()
        compared = _asked(numbers, labels, starts, groups)
        return (
            labels, lefts, starts, keys, key_starts, groups, weights,
            compared, self._similarities(compared),
            np.array([self.costs.delete, self.costs.insert, self.costs.substitute]),
        )  # fmt: skip

    def _labels(self) -> tuple[Int32[np.ndarray, "K"], Float64[np.ndarray, "K"]]:
        """Of each label: the group within which similarity is asked for, and its weight."""
        costs, groups = self.costs, dict[tuple[str, ...], int]()
        weight = {level: getattr(costs, level) for level in LEVELS}
        group_of, weights = [_APART, _APART], [0.0, costs.person]
        for level, aspect, _ in self.label_numbers:
            group_of.append(groups.setdefault((level, aspect)[: GROUPS[costs.within]], len(groups)))
            weights.append(weight[level])
        return np.array(group_of, np.int32), np.array(weights)

    def _similarities(self, compared: Int64[np.ndarray, "Q"]) -> Float64[np.ndarray, "Q"]:
        nodes = [Node(*label) for label in self.label_numbers]
        values, count = np.empty(len(compared)), len(nodes) + 2
        for place, pair in enumerate(compared.tolist()):
            a, b = nodes[pair // count - 2], nodes[pair % count - 2]
            value = float(self.costs.similarity(a, b))
            if not 0 <= value <= 1:
                raise UserError(
                    f"costs: the similarity of {a.aspect}: {a.item} and {b.aspect}: {b.item} is {value}; it must be "
                    "from 0 to 1"
                )
            values[place] = value
        return values


def _asked(
    numbers: Int32[np.ndarray, "N 2"],
    labels: Int32[np.ndarray, "M"],
    starts: Int64[np.ndarray, "R+1"],
    groups: Int32[np.ndarray, "K"],
) -> Int64[np.ndarray, "Q"]:
    """The pairs of labels whose similarity decides something, each once, sorted; a x K + b stands for (a, b)."""
    parts = [numbers[first : first + 4096] for first in range(0, len(numbers), 4096)]
    found = [np.unique(_meetings(part, labels, starts, groups)) for part in parts]
    return np.unique(np.concatenate(found))


@numba.njit(nogil=True, cache=True)
def _meetings(numbers, labels, starts, groups):  # noqa: ANN001, ANN202  (arrays, compiled)
    """Pairs of different labels of one group that meet in some pair of trees, with repetitions."""
    count = len(groups)
    found = np.empty(1024, np.int64)
    filled = 0
    for pair in range(len(numbers)):
        a, b = numbers[pair]
        for i in range(starts[a], starts[a + 1]):
            group, label = groups[labels[i]], labels[i]
            if group < 0:
                continue
            for j in range(starts[b], starts[b + 1]):
                if groups[labels[j]] == group and labels[j] != label:
                    if filled == len(found):
                        grown = np.empty(2 * filled, np.int64)
                        grown[:filled] = found
                        found = grown
                    found[filled] = np.int64(label) * count + labels[j]
                    filled += 1
    return found[:filled]


@numba.njit(nogil=True, cache=True)
def _key_roots(lefts, starts):  # noqa: ANN001, ANN202
    """Of each tree: the nodes with a left sibling, and the root; where they begin; the cells that they need."""
    trees = len(starts) - 1
    keys, key_starts, cells = np.empty(len(lefts), np.int32), np.zeros(trees + 1, np.int64), np.zeros(trees, np.int64)
    filled = 0
    for tree in range(trees):
        own = lefts[starts[tree] : starts[tree + 1]]
        last = np.full(len(own), -1, np.int32)  # the highest node above each leftmost leaf
        for node in range(len(own)):
            last[own[node]] = node
        for node in range(len(own)):
            if last[own[node]] == node:
                keys[filled] = node
                filled += 1
                cells[tree] += node - own[node] + 1
        key_starts[tree + 1] = filled
    return keys[:filled], key_starts, cells


@numba.njit(nogil=True, cache=True)
def _operation_costs(labels_a, labels_b, groups, weights, compared, similarities, factors):  # noqa: ANN001, ANN202
    """Costs of deleting each node of a, of inserting each node of b, and of each substitution.

    A substitution that saves nothing over a deletion and an insertion costs infinitely much, so that it is never made.
    """
    delete, insert, substitute = factors
    deletes, inserts = weights[labels_a] * delete, weights[labels_b] * insert
    costs = np.empty((len(labels_a), len(labels_b)))
    for i in range(len(labels_a)):
        for j in range(len(labels_b)):
            a, b = labels_a[i], labels_b[j]
            both = deletes[i] + inserts[j]
            if a == b:
                costs[i, j] = 0.0
            elif groups[a] < 0 or groups[b] < 0:
                costs[i, j] = np.inf
            else:
                apart = 1.0
                if groups[a] == groups[b]:
                    apart -= similarities[np.searchsorted(compared, np.int64(a) * len(groups) + b)]
                cost = max(weights[a], weights[b]) * substitute * apart
                costs[i, j] = cost if cost < both else np.inf
    return deletes, inserts, costs


@numba.njit(nogil=True, cache=True)
def _fill(i, j, lefts_a, lefts_b, deletes, inserts, substitutes, trees, forest):  # noqa: ANN001, ANN202
    """The distances of all forests below node i of a and node j of b that begin at their leftmost leaves.

    forest[x, y] is that of the first x and y nodes; where both forests are trees, it goes into `trees`, too.
    """
    first_a, first_b = lefts_a[i], lefts_b[j]
    forest[0, 0] = 0.0
    for x in range(1, i - first_a + 2):
        forest[x, 0] = forest[x - 1, 0] + deletes[first_a + x - 1]
    for y in range(1, j - first_b + 2):
        forest[0, y] = forest[0, y - 1] + inserts[first_b + y - 1]
    for x in range(1, i - first_a + 2):
        a = first_a + x - 1
        before_a = lefts_a[a] - first_a
        for y in range(1, j - first_b + 2):
            b = first_b + y - 1
            before_b = lefts_b[b] - first_b
            least = min(forest[x - 1, y] + deletes[a], forest[x, y - 1] + inserts[b])
            if before_a == 0 and before_b == 0:
                least = min(least, forest[x - 1, y - 1] + substitutes[a, b])
                trees[a, b] = least
            else:
                least = min(least, forest[before_a, before_b] + trees[a, b])
            forest[x, y] = least


@numba.njit(nogil=True, cache=True)
def _tables(a, b, labels, lefts, starts, keys, key_starts, groups, weights, compared, similarities, factors):  # noqa: ANN001, ANN202
    """For trees number a and b: costs of the operations, distances of all subtrees, and room for a forest's table."""
    lefts_a, lefts_b = lefts[starts[a] : starts[a + 1]], lefts[starts[b] : starts[b + 1]]
    deletes, inserts, substitutes = _operation_costs(
        labels[starts[a] : starts[a + 1]], labels[starts[b] : starts[b + 1]],
        groups, weights, compared, similarities, factors,
    )  # fmt: skip
    trees, forest = np.empty((len(lefts_a), len(lefts_b))), np.empty((len(lefts_a) + 1, len(lefts_b) + 1))
    for i in keys[key_starts[a] : key_starts[a + 1]]:
        for j in keys[key_starts[b] : key_starts[b + 1]]:
            _fill(i, j, lefts_a, lefts_b, deletes, inserts, substitutes, trees, forest)
    return lefts_a, lefts_b, deletes, inserts, substitutes, trees, forest


@numba.njit(nogil=True, cache=True)
def _distances(numbers, distances, *forests):  # noqa: ANN001, ANN002, ANN202
    """Fills `distances` with those of the pairs of trees."""
    for pair in range(len(numbers)):
        trees = _tables(numbers[pair, 0], numbers[pair, 1], *forests)[5]
        distances[pair] = trees[-1, -1]


@numba.njit(nogil=True, cache=True)
def _script(number_a, number_b, *forests):  # noqa: ANN001, ANN002, ANN202
    """For each node of a the node of b that takes its place, or -1; and the costs of the operations.

    Walks from the last cell of a forest's table back to the first, along choices of least cost; a pair of subtrees on
    the way has a table of its own, which is filled when its turn comes.
    """
    lefts_a, lefts_b, deletes, inserts, substitutes, trees, forest = _tables(number_a, number_b, *forests)
    partners = np.full(len(lefts_a), -1, np.int32)
    waiting = [(len(lefts_a) - 1, len(lefts_b) - 1)]
    while waiting:
        i, j = waiting.pop()
        _fill(i, j, lefts_a, lefts_b, deletes, inserts, substitutes, trees, forest)
        first_a, first_b = lefts_a[i], lefts_b[j]
        x, y = i - first_a + 1, j - first_b + 1
        while x > 0 and y > 0:
            a, b = first_a + x - 1, first_b + y - 1
            before_a, before_b = lefts_a[a] - first_a, lefts_b[b] - first_b
            both_trees = before_a == 0 and before_b == 0
            deleted, inserted = forest[x - 1, y] + deletes[a], forest[x, y - 1] + inserts[b]
            kept = forest[x - 1, y - 1] + substitutes[a, b] if both_trees else forest[before_a, before_b] + trees[a, b]
            if kept <= deleted and kept <= inserted:
                if both_trees:
                    partners[a] = b
                    x, y = x - 1, y - 1
                else:
                    waiting.append((a, b))
                    x, y = before_a, before_b
            elif deleted <= inserted:
                x -= 1
            else:
                y -= 1
    return partners, deletes, inserts, substitutes
