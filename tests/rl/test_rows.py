"""Rows of a prompt and its answers: what stands where."""

import numpy as np

from tests.rl.groups import BUDGET, LENGTHS, SLOTS, GroupBudget, build_group, extended, group_batch, present, rollouts
from tests.sft.test_step import CONFIG
from videmo_jax.data.rows import Budget, build_row


def test_tokens_and_positions_are_those_of_rows_of_their_own():
    for rollout, lengths in zip(rollouts(0), LENGTHS, strict=True):
        group = build_group(rollout, BUDGET, CONFIG.vision)
        rows, prefix = group.rows, len(rollout.prompt.encoded.tokens)
        assert group.layout.length == rows.tokens.shape[0] == 30 + 3 * SLOTS
        for g, length in enumerate(lengths):
            alone = build_row([extended(rollout.prompt, rollout.tokens[g, :length])], Budget(48, 3, 24), CONFIG.vision)
            own = slice(30 + g * SLOTS, 30 + g * SLOTS + length)
            for field in ("tokens", "segment_ids", "positions", "vision_index"):
                ours, theirs = getattr(rows, field), getattr(alone.rows, field)
                whole = np.concatenate([ours[..., :prefix], ours[..., own]], axis=-1)
                np.testing.assert_array_equal(whole, theirs[..., : prefix + length])
            np.testing.assert_array_equal(group.weights[g], np.arange(SLOTS) < length)
            np.testing.assert_array_equal(group.sampled[g, :length], rollout.log_probs[g, :length])
            for x in (group.sampled[g, length:], rows.segment_ids[own.stop : own.start + SLOTS]):
                np.testing.assert_array_equal(x, 0)


def test_fewer_and_shorter_answers_leave_slots_empty():
    rollout = rollouts(0)[0]
    few = rollout._replace(
        tokens=rollout.tokens[:2, :7], lengths=rollout.lengths[:2], log_probs=rollout.log_probs[:2, :7]
    )
    group = build_group(few, GroupBudget(BUDGET.prompt, 4, 9), CONFIG.vision)
    np.testing.assert_array_equal(group.weights.sum(axis=1), [7, 3, 0, 0])
    np.testing.assert_array_equal(present([few], GroupBudget(BUDGET.prompt, 4, 9)), [[True, True, False, False]])


def test_a_group_whose_reward_failed_counts_nothing():
    batch = group_batch(0)
    np.testing.assert_array_equal(batch.weights[2], 0)
    assert [batch.weights[b].sum() for b in (0, 1, 3)] == [11, 11, 9]
