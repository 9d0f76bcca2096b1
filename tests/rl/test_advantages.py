"""Advantages by hand and by property."""

import numpy as np
import pytest

from videmo_jax.rl.advantages import AdvantageSpec, group_advantages, token_advantages

NAN = float("nan")


def test_advantages_by_hand():
    # Mean 0.5, deviations -.5, -.5, .5, .5: unbiased variance 1 / 3.
    found = group_advantages(np.array([[0.0, 0.0, 1.0, 1.0]]))
    expected = 0.5 / (np.sqrt(1 / 3) + 1e-4)
    np.testing.assert_allclose(found.values, [[-expected, -expected, expected, expected]], rtol=1e-6)
    assert (found.left_out, found.flat) == (0, 0) and found.valid.all()
    plain = group_advantages(np.array([[0.0, 0.0, 1.0, 1.0]]), spec=AdvantageSpec(scale=False))
    np.testing.assert_array_equal(plain.values, [[-0.5, -0.5, 0.5, 0.5]])


def test_groups_without_spread_have_no_advantage_and_are_counted():
    rewards = np.array([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [0.2, 0.4, 0.6]])  # 3 x 0.1 / 3 is not 0.1
    found = group_advantages(rewards)
    np.testing.assert_array_equal(found.values[:2], np.zeros((2, 3)))
    assert found.flat == 2 and found.left_out == 0 and found.valid.all()


@pytest.mark.parametrize("failure", [NAN, np.inf, -np.inf])
def test_a_group_whose_reward_failed_is_left_out_whole(failure):
    found = group_advantages(np.array([[0.0, failure, 1.0], [0.0, 0.5, 1.0]]))
    np.testing.assert_array_equal(found.valid, [[False] * 3, [True] * 3])
    np.testing.assert_array_equal(found.values[0], 0)
    assert found.left_out == 1 and found.flat == 0
    np.testing.assert_array_equal(found.values[1], group_advantages(np.array([[0.0, 0.5, 1.0]])).values[0])


def test_empty_slots_do_not_take_part():
    present = np.array([[True, True, False], [True, False, False], [False] * 3])
    found = group_advantages(np.array([[0.0, 1.0, NAN], [0.7, NAN, NAN], [NAN] * 3]), present)
    np.testing.assert_array_equal(found.values[0, :2], group_advantages(np.array([[0.0, 1.0]])).values[0])
    np.testing.assert_array_equal(found.values[1:], 0)  # an only answer, and none
    np.testing.assert_array_equal(found.valid, present)
    assert found.left_out == 0 and found.flat == 1


def test_advantages_do_not_change_with_scale_and_offset():
    rewards = np.random.default_rng(0).random((5, 8))
    spec = AdvantageSpec(epsilon=1e-12)
    found = group_advantages(rewards, spec=spec).values
    np.testing.assert_allclose(group_advantages(7 * rewards - 3, spec=spec).values, found, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=1, ddof=1), 1, rtol=1e-5)


def test_tokens_with_an_advantage_of_their_own_take_it():
    own = np.full((1, 2, 3), NAN)
    own[0, 1, 1] = -4.0
    found = token_advantages(np.array([[1.0, 2.0]]), 3, own)
    np.testing.assert_array_equal(found, [[[1, 1, 1], [2, -4, 2]]])
    with pytest.raises(ValueError, match=r"\(1, 2, 3\); it must be \(1, 2, 4\)"):
        token_advantages(np.array([[1.0, 2.0]]), 4, own)
    with pytest.raises(ValueError, match="no finite number"):
        token_advantages(np.array([[1.0, NAN]]), 3)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"must be \[B, G\]"):
        group_advantages(np.zeros(3))
    with pytest.raises(ValueError, match=r"advantage\.epsilon"):
        AdvantageSpec(epsilon=0.0)
