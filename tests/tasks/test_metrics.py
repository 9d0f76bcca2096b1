"""Measures against scikit-learn and by value."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from videmo_jax.tasks.metrics import class_recalls, micro_f1, uar, war

SETS = st.sets(st.sampled_from("ABCDEFGHIJK"))


@given(SETS, SETS)
def test_f1_of_an_item_is_scikit_learns_micro_f1(truth, predicted):
    rows = [[[letter in those for letter in "ABCDEFGHIJK"]] for those in (truth, predicted)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = f1_score(*map(np.array, rows), average="micro")
    assert micro_f1(truth, predicted, empty=0.0) == pytest.approx(100 * expected, abs=1e-9)


def test_two_empty_sets_count_what_the_rules_say():
    assert micro_f1([], [], empty=0.0) == 0 and micro_f1([], [], empty=100.0) == 100
    assert micro_f1(["a"], [], empty=100.0) == 0


@given(st.lists(st.tuples(st.sampled_from("xyzw"), st.sampled_from("xyzwv")), min_size=1, max_size=60))
def test_recalls_are_scikit_learns(pairs):
    truth, said = zip(*pairs, strict=True)
    right = np.array([a == b for a, b in pairs])
    classes = sorted(set(truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = recall_score(truth, said, labels=classes, average=None)
        np.testing.assert_allclose(class_recalls(truth, right), 100 * expected, atol=1e-9)
        assert uar(truth, right) == pytest.approx(100 * balanced_accuracy_score(truth, said), abs=1e-9)
    assert war(truth, right) == pytest.approx(100 * np.mean(right), abs=1e-9)


def test_without_items_there_is_no_recall():
    assert uar([], np.zeros(0, bool)) is None and war([], np.zeros(0, bool)) is None
