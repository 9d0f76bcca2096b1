"""Node F1 by hand."""

from collections import Counter

import pytest

from videmo_jax.affective.overlap import node_f1
from videmo_jax.affective.text import from_text
from videmo_jax.affective.tree import AffectiveTree

TRUTH = """\
person
  emotion | feeling: sadness (strong)
    expression | mouth: corners down
  attribute | hair: brown
  attribute | hair: long
person
  attribute | gender: male
"""
PREDICTED = """\
person
  expression | mouth: corners down
  emotion | feeling: sadness
  attribute | hair: long
  attribute | hair: long
  attribute | skin: fair
"""


def test_counts_and_errors():
    score = node_f1(from_text(PREDICTED), from_text(TRUTH))
    assert (score.matched, score.predicted, score.truth) == (2, 5, 5)
    assert (score.precision, score.recall, score.f1) == pytest.approx((2 / 5, 2 / 5, 2 / 5))
    assert score.wrong == {
        "other item": Counter(
            {
                ("emotion", "feeling", "sadness (strong) -> sadness"): 1,
                ("attribute", "hair", "brown -> long"): 1,
            }
        ),
        "missing": Counter({("attribute", "gender", "male"): 1}),
        "extra": Counter({("attribute", "skin", "fair"): 1}),
    }


def test_people_are_compared_in_order():
    swapped = AffectiveTree(tuple(reversed(from_text(TRUTH).people)))
    assert node_f1(swapped, from_text(TRUTH)).matched == 0


def test_empty_trees():
    nobody = AffectiveTree()
    assert node_f1(nobody, nobody).f1 == node_f1(nobody, nobody).precision == node_f1(nobody, nobody).recall == 1
    alone = node_f1(nobody, from_text(TRUTH))
    assert (alone.precision, alone.recall, alone.f1) == (0, 0, 0)


def test_sums_weigh_by_nodes():
    both = node_f1(from_text(PREDICTED), from_text(TRUTH)) + node_f1(from_text(TRUTH), from_text(TRUTH))
    assert (both.matched, both.predicted, both.truth) == (7, 10, 10)
    assert both.f1 == pytest.approx(0.7)
    assert both.wrong["missing"] == Counter({("attribute", "gender", "male"): 1})
