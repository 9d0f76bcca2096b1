"""Operations of an update on shared rows, by hand numbers of the 7B model."""

import pytest

from videmo_jax.model.config import PRESETS
from videmo_jax.model.flops import group_step_flops, packed_step_flops, slab_cost, step_flops

SEVEN = PRESETS["7b"]
# Operations of one layer's products, a token: q and o, k and v, MLP; 28 layers.
LAYER = 2 * 3584 * (2 * 28 * 128 + 2 * 4 * 128 + 3 * 18944)
PAIR = 28 * 4 * 28 * 128  # scores and mixed values of a pair of tokens, all layers
HEAD = 2 * 3584 * 152_064


@pytest.mark.parametrize(("prefix", "slots", "least"), [(1024, 128, 4.0), (1536, 512, 2.5)])
def test_shared_rows_save_what_separate_rows_repeat(prefix, slots, least):
    shared = group_step_flops(SEVEN, 1, prefix, 8, slots, 0, 0).model
    apart = group_step_flops(SEVEN, 8, prefix, 1, slots, 0, 0).model
    tokens, own = prefix + 8 * slots, 8 * slots
    pairs = prefix**2 / 2 + own * prefix + own * slots / 2
    assert shared == pytest.approx(3 * (28 * LAYER * tokens + HEAD * own + PAIR * pairs), rel=1e-9)
    row = prefix + slots
    assert apart == pytest.approx(3 * (28 * LAYER * 8 * row + HEAD * own + PAIR * 8 * row**2 / 2), rel=1e-9)
    assert apart / shared >= least


def test_the_clip_is_computed_once_for_all_answers():
    shape = (1024, 8, 128)
    shared = group_step_flops(SEVEN, 1, *shape, 8, 612).model - group_step_flops(SEVEN, 1, *shape, 0, 0).model
    apart = (
        group_step_flops(SEVEN, 8, 1024, 1, 128, 8, 612).model - group_step_flops(SEVEN, 8, 1024, 1, 128, 0, 0).model
    )
    assert apart / shared == pytest.approx(8) and apart / shared >= 7.9


def test_a_group_of_one_costs_what_a_row_does():
    """But for the vocabulary, which only its answer meets, and attention, which a row's count leaves out."""
    row = step_flops(SEVEN, 3, 1152, 8, 612).model
    group = group_step_flops(SEVEN, 3, 1024, 1, 128, 8, 612).model
    assert group == pytest.approx(row - 3 * 3 * HEAD * 1024 + 3 * 3 * PAIR * 1152**2 / 2, rel=1e-9)


def test_packed_rows_cost_what_rows_do_but_for_the_vocabulary_and_attention():
    row = step_flops(SEVEN, 3, 4096, 24, 612).model
    packed = packed_step_flops(SEVEN, 3, 4096, 700, 24, 612).model
    assert packed == pytest.approx(row - 3 * 3 * HEAD * (4096 - 700) + 3 * 3 * PAIR * 4096**2 / 2, rel=1e-9)


def test_a_slab_costs_so_many_tokens():
    token = step_flops(SEVEN, 1, 1, 0, 0).model - 3 * HEAD
    slab = step_flops(SEVEN, 1, 0, 1, 640).model
    assert slab_cost(SEVEN, 640) == pytest.approx(slab / token) and 50 < slab / token < 80
