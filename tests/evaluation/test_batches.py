"""Shapes are few and large enough, prompts share what they may, batches lose nothing, and threads keep the order."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videmo_jax.data.chat import Encoded
from videmo_jax.data.rows import Budget, Prepared, misfit
from videmo_jax.data.sample import VIDEO_TAG, Message
from videmo_jax.evaluation.answers.batches import Batching, Group, Shape, ahead, groups, shape_of, stack
from videmo_jax.evaluation.answers.items import Item
from videmo_jax.evaluation.answers.predictions import Prediction
from videmo_jax.model.config import VisionConfig
from videmo_jax.model.positions import VisionGrid, mrope_ids


def prompt(tokens, slabs, patches):
    encoded = Encoded(np.zeros(tokens, np.int32), np.zeros(tokens, bool), np.full(tokens, -1, np.int32), (tokens,))
    clips = (np.zeros((slabs, patches, 1176), np.uint8),) if slabs else ()
    return Prepared(f"{tokens}", encoded, clips, tuple(np.zeros((*c.shape[:2], 2), np.int32) for c in clips))


def about(name, before, grids, after):
    """An item and its prompt: text, clips with a token of text between them, text."""
    tokens, vision, segments, seen = list(before), [-1] * len(before), [len(before)], 0
    for grid in grids:
        count = grid.merged_tokens()
        tokens += [7, *[99] * count]
        vision += [-1, *range(seen, seen + count)]
        segments, seen = [*segments[:-1], segments[-1] + 1, grid, 0], seen + count
    tokens, vision, segments[-1] = [*tokens, *after], [*vision, *[-1] * len(after)], len(after)
    patches = tuple(np.full((g.time, g.height * g.width, 1176), ord(name[0]), np.uint8) for g in grids)
    places = tuple(np.zeros((*clip.shape[:2], 2), np.int32) for clip in patches)
    encoded = Encoded(
        np.array(tokens, np.int32), np.zeros(len(tokens), bool), np.array(vision, np.int32), tuple(segments)
    )
    message = Message("user", VIDEO_TAG * len(grids) + name)
    videos = tuple(f"{name[0]}{i}.mp4" for i in range(len(grids)))
    return Item(name, Prediction("", "", (message,), videos), None), Prepared(name, encoded, patches, places)


CLIP = VisionGrid(2, 4, 4, 1.0)


@given(st.integers(1, 9000), st.integers(0, 24), st.integers(1, 153))
def test_a_prompt_fits_its_shape_with_little_to_spare(tokens, slabs, merged):
    given = prompt(tokens, slabs, 4 * merged)
    shape = shape_of(Group((), given), 2, 16)
    assert misfit(given.needs, shape.row) is None
    assert (shape.questions, shape.places) == (0, 0)
    assert shape.row.tokens < max(257, 1.25 * tokens + 128) and shape.row.tokens % 128 == 0
    assert shape.row.slabs < 2 * max(slabs, 1) and shape.row.patches % 4 == 0
    assert shape.row.patches <= (1.25 * 4 * merged + 4 if slabs else 0)


@given(st.lists(st.integers(1, 700), min_size=2, max_size=16))
def test_questions_fit_their_places(lengths):
    group = Group((), prompt(300, 2, 16), tuple(np.zeros(length, np.int32) for length in lengths))
    shape = shape_of(group, 2, 16)
    assert len(lengths) <= shape.questions <= min(1.5 * len(lengths), 16)
    assert max(lengths) <= shape.places <= max(64, 2 * max(lengths))


def test_qwens_clips_make_few_shapes():
    """Every clip of 2 to 8 slabs: its rows where several questions share them, and its prompts of 30 to 500 tokens."""
    shared, alone = (
        {
            shape_of(Group((), prompt(slabs * merged + text, slabs, 4 * merged)), 2, 16)
            for slabs in range(2, 9)
            for merged in range(120, 154)
            for text in texts
        }
        for texts in ((20,), (30, 120, 250, 500))
    )
    assert len(shared) <= 16 and len(alone) <= 36


def test_every_prompt_can_be_put_together_again():
    """Clips with 1 to 9 questions, two clips in a prompt, text before a clip that differs, no clip at all."""
    rng, asked = np.random.default_rng(0), []
    for clip in "abcdefgh":
        grids = [CLIP, VisionGrid(1, 2, 4, 2.0)] if clip in "dg" else [] if clip == "e" else [CLIP]
        for number in range(int(rng.integers(1, 10))):
            before = [5, 6] if number % 3 else [5, 8]
            asked.append(about(f"{clip}{number}", before, grids, rng.integers(10, 90, rng.integers(1, 9))))
    seen = []
    for group in groups(asked, most=4):
        assert len(group.items) == len(group.questions) or (len(group.items), len(group.questions)) == (1, 0)
        assert len(group.items) <= 4 and len({item.blank.videos for item in group.items}) == 1
        for number, item in enumerate(group.items):
            whole = dict((i.id, p) for i, p in asked)[item.id]
            question = group.questions[number] if group.questions else np.zeros(0, np.int32)
            np.testing.assert_array_equal(np.concatenate([group.row.encoded.tokens, question]), whole.encoded.tokens)
            # The question's positions go on from the row's largest, as they do in the whole prompt.
            row, expected = (mrope_ids(part.encoded.segments, tokens_per_second=2.0) for part in (group.row, whole))
            after = row.max() + 1 + np.arange(len(question))
            np.testing.assert_array_equal(np.concatenate([row, np.tile(after, (3, 1))], axis=1), expected)
            assert all(map(np.array_equal, group.row.patches, whole.patches))
        seen += [item.id for item in group.items]
    assert sorted(seen) == sorted(item.id for item, _ in asked)


def test_questions_about_a_clip_share_its_row():
    ids = [
        [item.id for item in group.items] for group in groups([about(f"a{i}", [5], [CLIP], [i]) for i in range(6)], 16)
    ]
    assert ids == [["a0", "a1", "a2", "a3", "a4", "a5"]]
    others = [about("a0", [5], [CLIP], [1]), about("a1", [6], [CLIP], [1]), about("a2", [5], [CLIP], [2])]
    assert [[item.id for item in group.items] for group in groups(others, 16)] == [["a0", "a2"], ["a1"]]
    # The same tokens stand for another clip.
    others = [about("a0", [5], [CLIP], [1]), about("b0", [5], [CLIP], [1])]
    assert [len(group.items) for group in groups(others, 16)] == [1, 1]


def test_few_prompts_wait_for_others_of_their_clip():
    """A thousand prompts about one clip, none of which begins like another."""
    drawn = 0

    def endless():
        nonlocal drawn
        for number in range(1000):
            drawn += 1
            yield about(f"a{number}", [5, number], [CLIP], [1])

    for number, _ in enumerate(groups(endless(), most=4)):
        assert drawn <= number + 4 * 4 + 1
    assert drawn == 1000


@pytest.mark.parametrize("size, devices", [(1, 1), (16, 1), (16, 4), (5, 4), (8, 8)])
def test_batches_hold_every_prompt_once_in_its_shape(size, devices):
    rng = np.random.default_rng(0)
    asked = [
        about(f"{clip}{number}", [5], [CLIP], rng.integers(10, 90, rng.integers(1, 200)))
        for clip in "abcdefghij"
        for number in range(int(rng.integers(1, 12)))
    ]
    asked += [(about(f"z{i}", [5], [], [1])[0], prompt(int(rng.integers(200, 900)), 0, 16)) for i in range(50)]
    batching, seen = Batching(size, devices, 2), []
    for shape, batch in batching(asked):
        rows = batching.rows(shape)
        assert 1 <= len(batch) <= rows and rows % devices == 0
        assert rows // devices * max(shape.questions, 1) <= -(-size // devices)  # a device's part of the prompts
        assert all(shape_of(group, 2, batching.most) == shape for group in batch)
        seen += [item.id for group in batch for item in group.items]
    assert sorted(seen) == sorted(item.id for item, _ in asked)


def test_what_is_missing_to_a_batch_repeats_what_is_there():
    asked = [about("a0", [5], [CLIP], [11]), about("a1", [5], [CLIP], [12, 13]), about("a2", [5], [CLIP], [14])]
    asked += [about("b0", [5], [CLIP], [21]), about("b1", [5], [CLIP], [22])]
    batch, shape = list(groups(asked, 4)), Shape(Budget(256, 2, 16), 3, 64)
    rows, questions = stack(batch, shape, 4, VisionConfig(32, 2, 2, 48, 64, full_attention=(1,)))
    assert rows.patches[:, 0, 0, 0].tolist() == [ord(name) for name in "abaa"]
    assert questions.lengths.tolist() == [[1, 2, 1], [1, 1, 1], [1, 2, 1], [1, 2, 1]]
    assert questions.tokens[:, :, :3].tolist()[:2] == [
        [[11, 0, 0], [12, 13, 0], [14, 0, 0]],
        [[21, 0, 0], [22, 0, 0], [21, 0, 0]],
    ]
    assert (questions.tokens[2:] == questions.tokens[0]).all()


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
