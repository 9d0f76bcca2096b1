"""Questions over a row that they share, against the same prompts as rows of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videmo_jax.data.chat import Encoded
from videmo_jax.data.rows import Budget, Prepared, build_row, stack_rows
from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from videmo_jax.model.positions import VisionGrid
from videmo_jax.model.videmo import VidEmo
from videmo_jax.sampling.decode import generate
from videmo_jax.sampling.draw import Decoding, _at_random
from videmo_jax.sampling.prefill import Questions
from videmo_jax.sharding.rules import batch_sharding, make_mesh

CONFIG = ModelConfig(
    TextConfig(64, 3, 4, 2, 16, 96, 96, (2, 3, 3), tied=True),
    VisionConfig(32, 2, 2, 48, 64, full_attention=(1,)),
)
STOP, PAD = 95, 90
VIDEO, IMAGE, SMALL = VisionGrid(2, 4, 6, 1.7), VisionGrid(1, 6, 4), VisionGrid(1, 2, 4, 0.5)
# What rows hold: a clip after text, two clips with text between them, a picture first, no clip at all.
BEGINNINGS = ((4, VIDEO), (2, VIDEO, 3, SMALL), (IMAGE,), (9,))
LENGTHS = ((1, 17, 64), (5, 5, 2), (30, 1, 8), (3, 40, 11))


@pytest.fixture(scope="module")
def model():
    graph, params = nnx.split(VidEmo(CONFIG, nnx.Rngs(3)))
    # Initial weights say little; larger ones make every token depend on all before it.
    return graph, jax.tree.map(lambda p: p * (4 if p.ndim > 2 else 1), params)


def prepared(beginning, rng):
    """A prompt's beginning with random text and pixels."""
    tokens, vision, patches, places = [], [], [], []
    for segment in beginning:
        if isinstance(segment, VisionGrid):
            seen = sum(place >= 0 for place in vision)
            count = segment.merged_tokens()
            tokens += [PAD] * count
            vision += range(seen, seen + count)
            area = segment.height * segment.width
            patches.append(rng.integers(0, 256, (segment.time, area, 1176), dtype=np.uint8))
            hw = [(i, j) for i in range(segment.height) for j in range(segment.width)]
            places.append(np.tile(np.array(hw, np.int32), (segment.time, 1, 1)))
        else:
            tokens += list(rng.integers(0, PAD, segment))
            vision += [-1] * segment
    vision = np.array(vision, np.int32)
    encoded = Encoded(np.array(tokens, np.int32), np.zeros(len(tokens), bool), vision, tuple(beginning))
    return Prepared("prompt", encoded, tuple(patches), tuple(places))


def asked(row, question):
    """The whole prompt, as the chat template would have written it."""
    encoded, *rest = row.encoded, row.patches, row.patch_hw
    last = encoded.segments[-1]
    segments = (*encoded.segments, len(question)) if isinstance(last, VisionGrid) else (last + len(question),)
    tokens, vision = np.concatenate([encoded.tokens, question]), np.full(len(question), -1, np.int32)
    whole = Encoded(tokens, np.zeros(len(tokens), bool), np.concatenate([encoded.vision, vision]), segments)
    return Prepared("prompt", whole, *rest)


def as_rows(samples, tokens):
    return stack_rows([build_row([s], Budget(tokens, 3, 24), CONFIG.vision) for s in samples]).rows


@pytest.fixture(scope="module")
def both():
    """Four rows with three questions each, and the twelve prompts that they stand for."""
    rng = np.random.default_rng(0)
    rows = [prepared(beginning, rng) for beginning in BEGINNINGS]
    texts = [[rng.integers(0, PAD, length, dtype=np.int32) for length in lengths] for lengths in LENGTHS]
    tokens = np.stack([[np.pad(text, (0, 64 - len(text))) for text in row] for row in texts])
    questions = Questions(jnp.asarray(tokens), jnp.asarray(LENGTHS, jnp.int32))
    whole = [asked(row, text) for row, questions in zip(rows, texts, strict=True) for text in questions]
    return as_rows(rows, 40), questions, as_rows(whole, 104)


def seeds():
    return jnp.arange(12, dtype=jnp.uint32)


GREEDY = Decoding(24)


@pytest.mark.parametrize(
    "decoding",
    [GREEDY, Decoding(12, answers=3, temperature=0.8, top_p=0.9)],
    ids=["greedy", "sampled, three answers to each"],
)
def test_shared_rows_give_the_answers_of_whole_prompts(model, both, decoding):
    rows, questions, whole = both
    fixed = dict(decoding=decoding, stop_ids=(STOP,), banned_ids=(STOP, PAD))
    shared = generate(*model, rows, seeds().reshape(4, 3), questions, **fixed)
    plain = generate(*model, whole, seeds(), **fixed)
    assert shared.tokens.shape == (4, 3, decoding.answers, decoding.max_new_tokens)
    flat = jax.tree.map(lambda x: x.reshape(12, *x.shape[2:]), shared)
    np.testing.assert_array_equal(flat.tokens, plain.tokens)
    np.testing.assert_array_equal(flat.lengths, plain.lengths)
    np.testing.assert_allclose(flat.log_probs, plain.log_probs, atol=1e-5)
    assert len({tuple(answer) for answer in np.asarray(flat.tokens)[:, 0]}) == 12  # each depends on its question


def test_rows_of_several_devices(model, both):
    """A row and its questions on each of four devices."""
    rows, questions, _ = both
    fixed = dict(decoding=GREEDY, stop_ids=(STOP,), banned_ids=(STOP, PAD))
    alone = generate(*model, rows, seeds().reshape(4, 3), questions, **fixed)
    mesh = make_mesh({"data": -1}, jax.devices()[:4])
    spread = jax.tree.map(lambda a: jax.device_put(a, batch_sharding(mesh, a.shape)), (rows, questions))
    with jax.set_mesh(mesh):
        apart = generate(*model, spread[0], seeds().reshape(4, 3), spread[1], **fixed)
    np.testing.assert_array_equal(apart.tokens, alone.tokens)
    np.testing.assert_allclose(apart.log_probs, alone.log_probs, atol=1e-5)


@jax.jit
def at_random(key, logits):
    """One token for each row of logits [N, V]."""
    return _at_random(jax.random.uniform(key, (2, 1, len(logits))), logits[None])[0]


def test_tokens_are_drawn_by_their_probability():
    """300 tokens (two blocks and a part of a third), some impossible: every frequency within 5 deviations."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 300)
    logits[[0, 100, 127, 128, 299]] = -np.inf
    logits[130:256] -= 8
    count = 40_000
    drawn = at_random(jax.random.key(1), jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (count, 300)))
    found = np.bincount(np.asarray(drawn), minlength=300)
    expected = np.exp(logits - logits.max())
    expected *= count / expected.sum()
    assert len(found) == 300 and (found[expected == 0] == 0).all()
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected) + 1).all()
    blocks = [slice(0, 128), slice(128, 256), slice(256, 300)]
    for block in blocks:
        assert abs(found[block].sum() - expected[block].sum()) < 5 * np.sqrt(expected[block].sum()) + 1


def test_only_what_is_possible_is_drawn_at_the_edges():
    """One possible token, wherever it lies; and weights whose sum rounding changes."""
    for place in (0, 127, 128, 299):
        logits = np.full((64, 300), -np.inf, np.float32)
        logits[:, place] = 3.0
        assert (np.asarray(at_random(jax.random.key(place), jnp.asarray(logits))) == place).all()
    logits = np.full((100_000, 3), -np.inf, np.float32)
    logits[:, :2] = [0.0, -17.0]  # 1 + 4e-8 is 1 in float32
    assert (np.asarray(at_random(jax.random.key(0), jnp.asarray(logits))) < 2).all()
