"""Which candidate of a level is kept: scorers and their sums. There is no truth at inference (PAPER.md section 4)."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from videmo_jax.affective.edit_distance import Costs, tree_edit_distances
from videmo_jax.affective.tree import AffectiveTree
from videmo_jax.files.errors import UserError
from videmo_jax.sampling.policy import Answer


@dataclass(frozen=True)
class Contest:
    """The n candidates of a level.

    Attributes:
      answers: what was said.
      trees: how each is read.
      costs: of the edit distance between them.
      yes_probabilities: what the model says of each candidate when it is asked; none where no score asks for them.
    """

    answers: Sequence[Answer]
    trees: Sequence[AffectiveTree]
    costs: Costs
    yes_probabilities: Sequence[float] = ()


def _log_probs(contest: Contest) -> Sequence[float]:
    return [answer.mean_log_prob for answer in contest.answers]


def _agreement(contest: Contest) -> Sequence[float]:
    trees = contest.trees
    pairs = [(a, b) for i, a in enumerate(trees) for j, b in enumerate(trees) if i != j]
    distances = tree_edit_distances(pairs, contest.costs).reshape(len(trees), max(len(trees) - 1, 0))
    return (-distances.sum(axis=1)).tolist()


# By name: what a candidate is worth, higher is better, in units of its own.
SCORES: Mapping[str, Callable[[Contest], Sequence[float]]] = {
    # mean log-probability of its tokens, nats, at the temperature of the draw
    "logprob": _log_probs,
    # minimum Bayes risk: minus the summed tree edit distance from it to the other candidates
    "mbr": _agreement,
    # the model's own probability of «yes» to a question whether it is right
    "yes": lambda contest: contest.yes_probabilities,
}


@dataclass(frozen=True)
class Scorer:
    """A weighted sum of scores.

    Each score is first brought to [0, 1] over the candidates of its level, the worst at 0 and the best at 1 (all at 0
    where they are equal), as the scores have different units; a single one keeps its order.

    Attributes:
      weights: names of SCORES with their weights.
    """

    weights: tuple[tuple[str, float], ...] = (("mbr", 1.0),)

    def __post_init__(self) -> None:
        names = [name for name, _ in self.weights]
        for name, weight in self.weights:
            if name not in SCORES:
                raise UserError(f"scorer {name!r} is unknown; there are {', '.join(SCORES)}")
            if not (math.isfinite(weight) and weight > 0):
                raise UserError(f"scorer: the weight of {name} is {weight:g}; it must be above 0")
        if not names or len(set(names)) < len(names):
            raise UserError("scorer: name each score once, and at least one")

    @classmethod
    def parse(cls, text: str) -> "Scorer":
        """Reads such as `mbr` or `mbr+0.5*logprob`; raises ValueError where that cannot be done."""
        terms = []
        for term in text.split("+"):
            match = re.fullmatch(r"(?:([0-9]*\.?[0-9]+)\*)?([a-z]+)", term.strip())
            if not match:
                raise UserError(f"scorer {text!r}: {term.strip()!r} is not of the form NAME or WEIGHT*NAME")
            terms.append((match[2], float(match[1] or 1)))
        return cls(tuple(terms))

    @property
    def asks(self) -> bool:
        """Whether the model must be asked about the candidates."""
        return any(name == "yes" for name, _ in self.weights)

    def __str__(self) -> str:
        return "+".join(name if weight == 1 else f"{weight:g}*{name}" for name, weight in self.weights)

    def __call__(self, contest: Contest) -> tuple[dict[str, list[float]], list[float], int]:
        """Each named score of every candidate, the sum of every candidate, and the place of the one to keep.

        Where sums are equal, to nine digits, the likelier candidate is kept, then the first.
        """
        scores = {name: list(SCORES[name](contest)) for name, _ in self.weights}
        total = sum(weight * _spread(scores[name]) for name, weight in self.weights)
        order = [
            (round(float(value), 9), answer.mean_log_prob, -place)
            for place, (value, answer) in enumerate(zip(total, contest.answers, strict=True))
        ]
        return scores, [float(value) for value in total], -max(order)[2]


def _spread(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    low, high = array.min(), array.max()
    return (array - low) / (high - low) if high > low else np.zeros_like(array)
