"""Rows of prompts with their answers: what stands where."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.rl.groups import LENGTHS, PROMPT, ROW, SLOTS, TIGHT, build_groups, by_answer, extended, group_batch, rollouts
from tests.sft.test_step import CONFIG
from videmo_jax.data.rows import Budget, build_row
from videmo_jax.rl.layout import Drawn, most_rows, plan_rows


@pytest.mark.parametrize("row", [ROW, TIGHT], ids=["several prompts a row", "prompts in several rows"])
def test_tokens_and_positions_are_those_of_rows_of_their_own(row):
    found = rollouts(0)
    batch = build_groups(found, row)
    rows, met = batch.rows, 0
    for at, slots in zip(*np.nonzero(batch.first), strict=True):
        number, answer, begin = (*np.unravel_index(batch.drawn[at, slots], (4, 3, SLOTS)),)
        assert begin == 0
        rollout, length = found[number], LENGTHS[number][answer]
        prompt = rollout.prompt
        prefix = len(prompt.encoded.tokens)
        alone = build_row([extended(prompt, rollout.tokens[answer, :length])], Budget(48, 3, 24), CONFIG.vision).rows
        own = batch.slots[at, slots : slots + length]
        first = batch.before[at, slots] + 1 - prefix
        whole = np.concatenate([np.arange(first, first + prefix), own])
        for field in ("tokens", "positions"):
            np.testing.assert_array_equal(
                getattr(rows, field)[at][..., whole], getattr(alone, field)[..., : prefix + length]
            )
        np.testing.assert_array_equal(batch.before[at, slots + 1 : slots + length], own[:-1])
        np.testing.assert_array_equal(batch.answer[at, whole], [0] * prefix + [answer + 1] * length)
        assert len(set(rows.segment_ids[at, whole])) == 1 and rows.segment_ids[at, own[0]] > 0
        np.testing.assert_array_equal(batch.sampled[at, slots : slots + length], rollout.log_probs[answer, :length])
        np.testing.assert_array_equal(batch.lengths[at, slots : slots + length], length)
        # What the row's tokens of vision mean: the patches that the row of its own has there.
        theirs = alone.vision_index[: prefix + length]
        ours = rows.vision_index[at, whole]
        np.testing.assert_array_equal(ours >= 0, theirs >= 0)
        for field in ("patches", "patch_hw"):
            merged = [
                getattr(x, field).reshape(-1, 4, x.patches.shape[-1] if field == "patches" else 2) for x in (alone,)
            ]
            packed = getattr(rows, field)[at].reshape(-1, *merged[0].shape[1:])
            np.testing.assert_array_equal(packed[ours[ours >= 0]], merged[0][theirs[theirs >= 0]])
        met += 1
    assert met == sum(length > 0 for lengths in LENGTHS for length in lengths)
    assert (batch.weights.sum(), (batch.drawn >= 0).sum()) == (np.sum(LENGTHS), np.sum(LENGTHS))


def test_devices_take_rows_in_turn_and_hosts_make_their_own():
    found, sizes = rollouts(0), Drawn(PROMPT, 3, SLOTS, 6)
    tokens, slabs = np.array([len(r.prompt.encoded.tokens) for r in found]), np.array([r.prompt.slabs for r in found])
    plan = plan_rows(tokens, slabs, np.array(LENGTHS), TIGHT)
    most = most_rows(4, TIGHT, sizes, 4)
    whole = plan.layout(TIGHT, sizes, most, shards=4)
    held = (whole.tokens >= 0).any(axis=1).reshape(4, most // 4)
    assert held[:, 0].all() and len(plan.rows) == held.sum() <= most and (np.diff(held.astype(int), axis=1) <= 0).all()
    parts = [plan.layout(TIGHT, sizes, most, host, 2, 4) for host in (0, 1)]
    for field in ("tokens", "segment_ids", "drawn", "slots", "before", "slabs", "vision_shift"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, field) for p in parts]), getattr(whole, field))
    alone = plan.layout(TIGHT, sizes, most_rows(4, TIGHT, sizes, 1))
    assert sorted(map(tuple, alone.tokens[(alone.tokens >= 0).any(axis=1)].tolist())) == sorted(
        map(tuple, whole.tokens[(whole.tokens >= 0).any(axis=1)].tolist())
    )


def test_whatever_is_drawn_there_are_rows_enough():
    rng, row = np.random.default_rng(0), Budget(64, 3, 24)
    for slots in (5, 11, 34):
        sizes = Drawn(PROMPT, 6, slots, 6)
        for longest in (1, slots // 2 + 1, slots):
            lengths = rng.integers(0, longest + 1, (16, 6))
            lengths[0] = slots
            tokens = rng.integers(1, 31, 16)
            tokens[-1] = 0
            plan = plan_rows(tokens, rng.integers(0, 4, 16), lengths, row)
            assert len(plan.rows) <= most_rows(16, row, sizes, 1)
            layout = plan.layout(row, sizes, most_rows(16, row, sizes, 1))
            there = np.sort(layout.drawn[layout.drawn >= 0])
            expected = np.flatnonzero((np.arange(slots) < lengths[..., None]) & (tokens > 0)[:, None, None])
            np.testing.assert_array_equal(there, expected)


def test_a_rollout_without_prompts_has_no_rows():
    plan = plan_rows(np.zeros(4, int), np.zeros(4, int), np.zeros((4, 3), int), ROW)
    assert plan.rows == () and plan.filled(ROW, 1) == 0


def test_a_group_whose_reward_failed_counts_nothing():
    batch = group_batch(0)
    np.testing.assert_array_equal(by_answer(batch, batch.weights)[2], 0)
    assert [by_answer(batch, batch.weights)[b].sum() for b in (0, 1, 3)] == [11, 11, 9]
    assert jnp.isfinite(batch.sampled).all()
