"""Node F1: how many nodes of a tree another has, edges aside."""

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest

from videmo_jax.affective.lexicon import Key
from videmo_jax.affective.tree import AffectiveTree, Node, Person


@dataclass(frozen=True, slots=True)
class NodeF1:
    """Agreement of nodes as (level, aspect, item), over people in order.

    Attributes:
      matched: nodes that both have.
      predicted, truth: nodes of each.
      wrong: errors by kind: `other item` (the same aspect of the same person is there with another item), `missing`
        (in the truth alone) and `extra` (in the prediction alone), each counted with (level, aspect, item); of
        `other item` the item is `TRUE -> PREDICTED`.
    """

    matched: int
    predicted: int
    truth: int
    wrong: dict[str, Counter[Key]]

    @property
    def precision(self) -> float:
        """Share of predicted nodes that are true; 1 where nothing is predicted and nothing there."""
        return self.matched / self.predicted if self.predicted else float(not self.truth)

    @property
    def recall(self) -> float:
        """Share of true nodes that are predicted; 1 where nothing is predicted and nothing there."""
        return self.matched / self.truth if self.truth else float(not self.predicted)

    @property
    def f1(self) -> float:
        """2 x matched / (predicted + truth); 1 where both are empty."""
        both = self.predicted + self.truth
        return 2 * self.matched / both if both else 1.0

    def __add__(self, other: "NodeF1") -> "NodeF1":
        """The counts of both, for F1 over a set of trees."""
        wrong = {kind: self.wrong[kind] + other.wrong[kind] for kind in self.wrong}
        counts = (self.matched + other.matched, self.predicted + other.predicted, self.truth + other.truth)
        return NodeF1(*counts, wrong)


def node_f1(predicted: AffectiveTree, truth: AffectiveTree) -> NodeF1:
    """Node F1 of a tree against the true one; the n-th person is compared with the n-th."""
    matched = 0
    wrong: dict[str, Counter[Key]] = {"other item": Counter(), "missing": Counter(), "extra": Counter()}
    for one, other in zip_longest(predicted.people, truth.people, fillvalue=Person()):
        left, right = Counter(map(_key, one.walk())), Counter(map(_key, other.walk()))
        matched += (left & right).total()
        extra, missing = left - right, right - left
        for key in sorted(missing.elements()):
            twin = next((each for each in sorted(extra.elements()) if each[:2] == key[:2]), None)
            if twin is None:
                wrong["missing"][key] += 1
            else:
                extra[twin] -= 1
                wrong["other item"][(*key[:2], f"{key[2]} -> {twin[2]}")] += 1
        wrong["extra"].update(extra.elements())
    return NodeF1(matched, len(predicted), len(truth), wrong)


def _key(node: Node) -> Key:
    return node.level, node.aspect, node.item
