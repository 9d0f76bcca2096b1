"""Which groups teach something, and which of them an update takes, by hand."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

from tests.rl.test_answered import TOKENIZER, answers
from videmo_jax.data.pipeline import to_devices
from videmo_jax.rl.advantages import AdvantageSpec
from videmo_jax.rl.answered import Answered
from videmo_jax.rl.lessons import Lesson, as_drawn, first_groups
from videmo_jax.rl.rewards.reward import GroupRewards
from videmo_jax.rl.rollout import prompt_seeds
from videmo_jax.rl.rows import side_by_side
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.step import BATCH_SPLIT

END, NAN = TOKENIZER.im_end, float("nan")


def lesson(answered, rewards, mask_cut=False, credit=(), weight=0.0):
    rewards = np.array(rewards)
    found = GroupRewards(rewards, ~np.isnan(rewards).any(axis=1), ("rule",) * len(rewards), credit=credit)
    advantages = answered.advantages(found, AdvantageSpec(), mask_cut=mask_cut)
    return Lesson(None, answered, found, advantages, answered.by_token(advantages, found, weight), 0.0)


@pytest.mark.parametrize("mask_cut", [False, True])
def test_groups_without_spread_or_reward_or_an_answer_that_counts_teach_nothing(mask_cut):
    ended = np.array([[1, 1, 1]] * 4 + [[0, 0, 0], [0, 1, 1], [1, 0, 0]], bool)
    tokens = np.where(ended[..., None], END, 5) * np.ones(4, int)
    there = (object(),) * 3 + (None,) + (object(),) * 3
    rollout = Answered(there, tokens, np.full((7, 3), 2), TOKENIZER, (END,))
    # Spread; all alike (whose mean differs from them by rounding); failed; no prompt; all cut; the first cut; all but
    # the first cut, whose reward is the mean: it has no advantage, and the others do not count.
    rewards = [[0, 0, 1], [0.1, 0.1, 0.1], [0, NAN, 1], [0, 0.5, 1], [0, 1, 1], [0.5, 0, 1]]
    expected = np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]], bool)
    if mask_cut:
        expected[4], expected[5, 0], expected[6] = False, False, False
    found = lesson(rollout, rewards, mask_cut)
    np.testing.assert_array_equal(found.teaches, expected)
    assert found.advantages.left_out == 1 and found.advantages.flat == 1


def test_nodes_that_have_credit_teach_where_answers_are_worth_the_same():
    text = "He frowns a lot and is happy today"
    start = text.index(" happy")
    credit = ((((start, start + len(" happy"), -1.0),), None),)
    rollout, alike = answers(text, "sad"), [[0.5, 0.5]]
    assert lesson(rollout, alike, credit=credit, weight=1.0).teaches.tolist() == [[True, True]]
    assert lesson(rollout, alike, credit=credit).teaches.tolist() == [[False, False]]


def test_the_first_groups_that_teach_are_taken_in_the_order_of_drawing():
    draws = np.array([[0, 1, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1]], bool)  # three rollouts of four prompts
    teaches = side_by_side([np.stack([draw, np.zeros(4, bool)], axis=1) for draw in draws])
    assert as_drawn(teaches, 3).any(axis=1).reshape(3, 4).tolist() == draws.tolist()
    for most in range(8):
        taken = first_groups(teaches, 3, most)
        expected = draws.reshape(-1) & (np.cumsum(draws) <= most)
        np.testing.assert_array_equal(as_drawn(taken, 3).any(axis=1), expected)
        assert not taken[:, 1].any() and taken.sum() == min(most, 6)


def test_what_stands_side_by_side_stays_on_its_device():
    mesh = make_mesh({"fsdp": 4}, jax.devices()[:4])
    parts = [np.arange(8.0).reshape(4, 2) + 10 * draw for draw in (0, 1)]
    joined = jax.jit(lambda *each: side_by_side(each), out_shardings=NamedSharding(mesh, BATCH_SPLIT))
    with jax.set_mesh(mesh):
        placed = to_devices(parts, mesh)
        np.testing.assert_array_equal(joined(*placed), side_by_side(parts))
        text = joined.lower(*placed).compile().as_text()
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute", "all-reduce"))
    np.testing.assert_array_equal(side_by_side(parts)[:4, 0], [0, 10, 2, 12])


def test_every_draw_has_random_numbers_of_its_own_and_the_first_those_of_the_step():
    seeds = [prompt_seeds(3, 7, 16, draw) for draw in range(4)]
    np.testing.assert_array_equal(seeds[0], prompt_seeds(3, 7, 16))
    assert len(np.unique(np.concatenate(seeds))) == 64
