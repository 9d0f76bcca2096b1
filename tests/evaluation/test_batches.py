"""Shapes are few and large enough, batches lose nothing, and threads keep the order."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videmo_jax.data.chat import Encoded
from videmo_jax.data.rows import Prepared, misfit
from videmo_jax.evaluation.batches import ahead, batches, shape_of


def prompt(tokens, slabs, patches):
    encoded = Encoded(np.zeros(tokens, np.int32), np.zeros(tokens, bool), np.full(tokens, -1, np.int32), (tokens,))
    clips = (np.zeros((slabs, patches, 1176), np.uint8),) if slabs else ()
    return Prepared(f"{tokens}", encoded, clips, tuple(np.zeros((*c.shape[:2], 2), np.int32) for c in clips))


@given(st.integers(1, 9000), st.integers(0, 24), st.integers(1, 153))
def test_a_prompt_fits_its_shape_with_little_to_spare(tokens, slabs, merged):
    given = prompt(tokens, slabs, 4 * merged)
    shape = shape_of(given, 2)
    assert misfit(given.needs, shape) is None
    assert shape.tokens <= max(256, 1.5 * tokens) and shape.tokens % 128 == 0
    assert shape.slabs < 2 * max(slabs, 1) and shape.patches % 4 == 0
    assert shape.patches <= (1.25 * 4 * merged + 4 if slabs else 0)


def test_qwens_clips_make_few_shapes():
    """Every clip of 2 to 8 slabs with texts of 30 to 500 tokens."""
    shapes = {
        shape_of(prompt(slabs * merged + text, slabs, 4 * merged), 2)
        for slabs in range(2, 9)
        for merged in range(120, 154)
        for text in (30, 120, 250, 500)
    }
    assert len(shapes) <= 24


def test_batches_hold_every_prompt_once_in_its_shape():
    rng = np.random.default_rng(0)
    prompts = [(i, prompt(int(rng.integers(200, 900)), int(rng.integers(0, 3)), 16)) for i in range(50)]
    seen = []
    for shape, batch in batches(prompts, 4, 2):
        assert 1 <= len(batch) <= 4
        assert all(shape_of(given, 2) == shape for _, given in batch)
        seen += [item for item, _ in batch]
    assert sorted(seen) == list(range(50))


def test_threads_work_ahead_but_not_far_and_keep_the_order():
    started, lock = [], threading.Lock()

    def work(item):
        with lock:
            started.append(item)
        time.sleep(0.002 * (item % 3))
        return item * item

    for item, result in ahead(range(60), work, threads=3):
        assert result == item * item
        assert len(started) <= item + 14  # four times the threads, and this one
    assert sorted(started) == list(range(60))


def test_an_error_in_a_thread_comes_out():
    def work(item):
        if item == 5:
            raise RuntimeError("no memory")
        return item

    with pytest.raises(RuntimeError, match="no memory"):
        list(ahead(range(1000), work, threads=2))
