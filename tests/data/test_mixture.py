"""What an epoch holds: exact shares, no sample twice before all have come, the same for everyone who asks."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videmo_jax.data.mixture import Mixture, Part, everything, shared


def numbers(first, count):
    return np.arange(first, first + count, dtype=np.int32)


@given(st.integers(1, 30), st.integers(0, 70), st.integers(0, 2**31), st.integers(1, 6))
def test_no_sample_comes_again_before_all_have_come(size, an_epoch, seed, epochs):
    part = Part(numbers(100, size), an_epoch)
    taken = [part.take((seed,), epoch) for epoch in range(epochs)]
    assert all(len(each) == an_epoch for each in taken)
    seen = Counter(np.concatenate(taken).tolist())
    assert set(seen) <= set(range(100, 100 + size))
    counts = [seen[number] for number in range(100, 100 + size)]
    assert max(counts) - min(counts) <= 1


@given(st.integers(0, 2**31), st.integers(0, 4))
def test_an_epoch_has_every_part_in_its_share_and_mixed(seed, epoch):
    mixture = Mixture((Part(numbers(0, 40), 40), Part(numbers(100, 20), 10), Part(numbers(200, 5), 15)))
    order = mixture.order(seed, epoch)
    assert len(order) == len(mixture) == 65
    assert Counter((order // 100).tolist()) == {0: 40, 1: 10, 2: 15}
    assert sorted(order[order < 100]) == list(range(40))
    assert Counter(order[order >= 200].tolist()) == {200 + n: 3 for n in range(5)}
    assert (np.diff(order // 100) != 0).sum() > 5
    np.testing.assert_array_equal(order, mixture.order(seed, epoch))


def test_two_epochs_of_a_half_are_one_whole():
    mixture = Mixture((Part(numbers(0, 40), 20),))
    first, second = (set(mixture.order(3, epoch).tolist()) for epoch in (0, 1))
    assert not first & second and first | second == set(range(40))
    assert everything(numbers(7, 3)).order(0, 5).tolist() != [] and len(everything(numbers(7, 3))) == 3


def test_shares_are_of_the_whole():
    assert shared(90, 0.1) == 10
    assert shared(50, 0.0) == 0
    with pytest.raises(ValueError, match=r"share of 1; it must be in \[0, 1\)"):
        shared(5, 1.0)
    with pytest.raises(ValueError, match="a part that has none"):
        Part(numbers(0, 0), 3)
