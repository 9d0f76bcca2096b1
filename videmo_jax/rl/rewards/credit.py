"""Node-level credit: the tokens that produced a node bear what it costs and earn what it saves. Ours, beyond the paper.

The measure is silence, an answer of which no node is read, whose distance is that of deleting all of the truth. A node
too many costs its insertion; one that takes a true node's place costs the substitution and saves that deletion. So a
right node earns, a wrong one in its place earns less or nothing, and words without a node neither: charging wrong nodes
alone would teach to say nothing that could be wrong. As the reward is exp(-rate x distance), the credit of an answer
adds up to log(reward of silence / reward), at the answer's rate.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from videmo_jax.affective.edit_distance import Costs, edit_operations
from videmo_jax.affective.parser import Spans
from videmo_jax.affective.tree import AffectiveTree
from videmo_jax.tasks.answers import final_answer

Span = tuple[int, int, float]


def answer_credit(
    text: str, read: tuple[AffectiveTree, Spans], truth: AffectiveTree, costs: Costs, rate: float
) -> tuple[Span, ...]:
    """What an answer's nodes cost over saying nothing, and where they are said.

    Args:
      text: the answer.
      read: its tree, as `read_tree_spans` or `parse_spans` has read it.
      truth: its true tree.
      costs: of the operations.
      rate: by which the costs are multiplied; with lambda, over the size where the spec divides by it, they are in
        units of -log(reward).

    Returns:
      (start, end, cost) in characters of the text, by place, without those that cost nothing; below 0 where a node
      saves more than it costs. Nodes without a place of their own, people of whom nothing is said among them, are one
      span over the whole text. All add up to the distance from the truth, less that of an empty tree, times `rate`.
    """
    tree, places = read
    shift = text.rfind(final_answer(text))  # -1 where a thought was cut out of its middle: then no place is known
    place_of = {id(node): places.get(number) for number, node in enumerate(tree.walk())}
    for person in tree.people:
        own = [place for node in person.walk() if (place := place_of[id(node)])]
        place_of[id(person)] = (min(own)[0], max(end for _, end in own)) if own else None
    spans: list[Span] = []
    whole = 0.0
    for true, node, cost in edit_operations(truth, tree, costs):
        if node is None:
            continue  # missing, as in silence
        over_silence = cost - costs.deletion(true) if true is not None else cost
        place = place_of[id(node)] if shift >= 0 else None
        if place is None:
            whole += over_silence
        elif over_silence:
            spans.append((place[0] + shift, place[1] + shift, over_silence))
    spans = sorted(spans) + ([(0, len(text), whole)] if whole else [])
    return tuple((start, end, rate * cost) for start, end, cost in spans)


def token_credit(text: str, offsets: Sequence[tuple[int, int]], costs: Sequence[Span]) -> Float64[np.ndarray, "T"]:
    """The costs by token.

    Args:
      text: the answer.
      offsets: of its T tokens, half-open, in characters; of special tokens such as the end, empty ranges.
      costs: as of `answer_credit`.

    Returns:
      Of each token its cost: each span's is shared equally by the tokens that it touches; that of a span over the whole
      text, or of one that no token touches, by all tokens, the end among them. The sum is that of the costs, unless
      there is no token.
    """
    credit = np.zeros(len(offsets))
    starts, ends = (np.array([offset[side] for offset in offsets], int) for side in (0, 1))
    for start, end, cost in costs:
        touched = (starts < end) & (ends > start)
        if (start, end) == (0, len(text)) or not touched.any():
            touched = np.ones(len(offsets), bool)
        if touched.any():
            credit[touched] += cost / touched.sum()
    return credit


def spread_advantage(
    advantage: float, credit: Float64[np.ndarray, "T"], weight: float = 1.0
) -> Float64[np.ndarray, "T"]:
    """The advantage of an answer by token: A - weight x T x (credit - its mean); the mean over tokens stays A.

    T x credit is what the answer's cost over silence would be if every token cost as much as this one: of the scale of
    log rewards, whatever the length. It is several times A where a node is said in a few tokens of many.
    """
    return advantage - weight * (len(credit) * credit - credit.sum())
