"""Cached decoding against the full forward pass, and what the choice of a token promises."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videmo_jax.data.chat import Encoded
from videmo_jax.data.rows import Budget, Prepared, build_row, stack_rows
from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from videmo_jax.model.positions import VisionGrid
from videmo_jax.model.videmo import Rows, VidEmo
from videmo_jax.sampling.decode import generate
from videmo_jax.sampling.draw import Decoding, _by_weight, draw_tokens

CONFIG = ModelConfig(
    TextConfig(64, 3, 4, 2, 16, 96, 96, (2, 3, 3), tied=True),
    VisionConfig(32, 2, 2, 48, 64, full_attention=(1,)),
)
STOP = 95


@pytest.fixture(scope="module")
def model():
    graph, params = nnx.split(VidEmo(CONFIG, nnx.Rngs(3)))
    # Initial weights say little; larger ones make every token depend on all before it.
    return graph, jax.tree.map(lambda p: p * (6 if p.ndim > 2 else 1), params)


def prompts():
    """A video and text, text alone, a long text: three lengths."""
    rng = np.random.default_rng(0)
    grid = VisionGrid(2, 4, 6, 1.7)
    places = np.array([(i, j) for i in range(4) for j in range(6)], np.int32)
    samples = []
    for segments in ([4, grid, 5], [3], [23]):
        tokens, vision, patches, hw = [], [], (), ()
        for segment in segments:
            if isinstance(segment, VisionGrid):
                tokens += [90] * segment.merged_tokens()
                vision += range(segment.merged_tokens())
                patches = (rng.integers(0, 256, (2, 24, 1176), dtype=np.uint8),)
                hw = (np.tile(places, (2, 1, 1)),)
            else:
                tokens += list(rng.integers(0, 90, segment))
                vision += [-1] * segment
        encoded = Encoded(
            np.array(tokens, np.int32), np.zeros(len(tokens), bool), np.array(vision, np.int32), tuple(segments)
        )
        samples.append(Prepared("prompt", encoded, patches, hw))
    return samples


def as_rows(samples, tokens=26):
    return stack_rows([build_row([s], Budget(tokens, 2, 28), CONFIG.vision) for s in samples]).rows


def extended(sample, answer):
    encoded = sample.encoded
    return Prepared(
        sample.id,
        Encoded(
            np.concatenate([encoded.tokens, answer]).astype(np.int32),
            np.zeros(len(encoded.tokens) + len(answer), bool),
            np.concatenate([encoded.vision, np.full(len(answer), -1)]).astype(np.int32),
            (*encoded.segments[:-1], encoded.segments[-1] + len(answer)),
        ),
        sample.patches,
        sample.patch_hw,
    )


def full_log_probs(model, rows, temperature=1.0):
    graph, params = model
    whole = nnx.merge(graph, params)
    return np.asarray(jax.nn.log_softmax(whole.logits(whole(rows)[0]) / temperature, axis=-1))


def seeds(count):
    return jnp.arange(count, dtype=jnp.uint32)


def test_greedy_decoding_equals_the_full_pass_at_every_step(model):
    samples = prompts()
    answers = generate(*model, as_rows(samples), seeds(3), decoding=Decoding(64), stop_ids=(STOP,), banned_ids=(STOP,))
    tokens = np.asarray(answers.tokens)[:, 0]
    assert (np.asarray(answers.lengths) == 64).all()
    assert len(np.unique(tokens)) > 10  # not one token over and over
    longer = as_rows([extended(s, t) for s, t in zip(samples, tokens, strict=True)], tokens=90)
    expected = full_log_probs(model, longer)
    expected_choice = np.where(np.arange(96) == STOP, -np.inf, expected)
    for row, sample in enumerate(samples):
        before = len(sample.encoded.tokens) - 1
        for step in range(64):
            at = expected[row, before + step]
            token = tokens[row, step]
            assert abs(answers.log_probs[row, 0, step] - at[token]) < 1e-4
            assert expected_choice[row, before + step].max() - at[token] < 1e-4


def test_sampled_answers_of_a_group_have_the_full_pass_log_probabilities(model):
    samples = prompts()
    decoding = Decoding(12, answers=4, temperature=0.7)
    answers = generate(*model, as_rows(samples), seeds(3), decoding=decoding, stop_ids=(STOP,))
    tokens, lengths = np.asarray(answers.tokens), np.asarray(answers.lengths)
    assert len({tuple(t) for t in tokens[0]}) == 4  # the answers of a group differ
    for g in range(4):
        longer = as_rows([extended(s, t[g]) for s, t in zip(samples, tokens, strict=True)], tokens=38)
        expected = full_log_probs(model, longer, temperature=0.7)
        for row, sample in enumerate(samples):
            before = len(sample.encoded.tokens) - 1
            for step in range(lengths[row, g]):
                at = expected[row, before + step, tokens[row, g, step]]
                assert abs(answers.log_probs[row, g, step] - at) < 1e-4


def test_an_answer_does_not_depend_on_its_batch(model):
    samples, decoding = prompts(), Decoding(10, answers=2, temperature=1.0)
    together = generate(*model, as_rows(samples), seeds(3), decoding=decoding, stop_ids=(STOP,))
    alone = generate(*model, as_rows(samples[2:]), seeds(3)[2:], decoding=decoding, stop_ids=(STOP,))
    np.testing.assert_array_equal(together.tokens[2], alone.tokens[0])


def test_rows_without_a_prompt_are_done_before_the_first_token(model):
    samples, decoding = prompts(), Decoding(10, answers=2, temperature=1.0)
    rows = as_rows(samples)
    empty = jax.tree.map(lambda x: jnp.concatenate([jnp.asarray(x), jnp.zeros_like(x[:1])]), rows)
    empty = dataclasses.replace(empty, vision_index=empty.vision_index.at[-1].set(-1))
    together = generate(*model, rows, seeds(3), decoding=decoding, stop_ids=(STOP,))
    beside = generate(*model, empty, seeds(4), decoding=decoding, stop_ids=(STOP,))
    np.testing.assert_array_equal(beside.tokens[:3], together.tokens)
    assert (np.asarray(beside.lengths[3]) == 0).all() and (np.asarray(beside.tokens[3]) == STOP).all()
    assert (np.asarray(beside.log_probs[3]) == 0).all()


@pytest.mark.parametrize(
    "lanes",
    [dict(slots=4), dict(slots=4, together=2), dict(slots=3, together=1), dict(slots=1, together=1)],
    ids=str,
)
def test_lanes_that_take_what_is_next_give_the_answers_of_all_at_once(model, lanes):
    rows = as_rows([*prompts(), *prompts()[:2]])
    rows = dataclasses.replace(rows, segment_ids=rows.segment_ids * (np.arange(5) != 1)[:, None])  # one is empty
    decoding = Decoding(14, answers=4, temperature=2.0)
    how = dict(stop_ids=(STOP, *range(80, 90)), banned_ids=(90,))
    at_once = generate(*model, rows, seeds(5), decoding=decoding, **how)
    lengths = np.asarray(at_once.lengths)
    assert (lengths[1] == 0).all() and len(np.unique(lengths)) > 5 and lengths.max() == 14
    found = generate(*model, rows, seeds(5), decoding=dataclasses.replace(decoding, **lanes), **how)
    np.testing.assert_array_equal(found.tokens, at_once.tokens)
    np.testing.assert_array_equal(found.lengths, lengths)
    np.testing.assert_allclose(found.log_probs, at_once.log_probs, atol=1e-5)


@pytest.mark.parametrize("places", [128, 1188])  # of a block, and the blocks of Qwen's vocabulary
def test_a_place_without_weight_is_never_drawn(places):
    random = np.random.default_rng(0)
    picks = jnp.asarray(np.r_[0.0, np.nextafter(np.float32(1), np.float32(0)), random.random(19_998)], jnp.float32)
    draw = jax.jit(jax.vmap(lambda weights, pick: _by_weight(weights[None], pick[None])[0], in_axes=(None, 0)))
    for _ in range(20):
        weights = np.zeros(places, np.float32)
        chosen = random.choice(places, 50, replace=False)
        weights[chosen] = np.exp(random.normal(0, 4, 50))
        drawn = np.asarray(draw(weights, picks))
        assert (weights[drawn] > 0).all()
        share = np.bincount(drawn, minlength=places) / len(picks)
        np.testing.assert_allclose(share, weights / weights.sum(), atol=0.02)


def test_answers_end_at_a_stop_token_and_never_hold_banned_ones(model):
    graph, params = model
    decoding = Decoding(40, answers=8, temperature=3.0)
    banned = tuple(range(0, 60))
    answers = generate(
        graph, params, as_rows(prompts()), seeds(3), decoding=decoding, stop_ids=(STOP, 94), banned_ids=banned
    )
    tokens, lengths = np.asarray(answers.tokens), np.asarray(answers.lengths)
    assert tokens.min() >= 60
    assert lengths.min() < 40
    for answer, length in zip(tokens.reshape(-1, 40), lengths.reshape(-1), strict=True):
        assert not np.isin(answer[: length - 1], (STOP, 94)).any()
        assert length == 40 or answer[length - 1] in (STOP, 94)
        assert (answer[length:] == STOP).all()


@pytest.mark.parametrize("filters", [dict(top_k=2), dict(top_p=0.3)], ids=["top-k", "top-p"])
def test_filters_keep_the_likeliest(model, filters):
    samples = prompts()
    first = full_log_probs(model, as_rows(samples))
    decoding = Decoding(1, answers=64, temperature=1.0, **filters)
    answers = generate(*model, as_rows(samples), seeds(3), decoding=decoding, stop_ids=(STOP,))
    for row, sample in enumerate(samples):
        at = first[row, len(sample.encoded.tokens) - 1]
        ranked = np.argsort(-at)
        count = 2 if "top_k" in filters else int((np.cumsum(np.exp(at[ranked])) - np.exp(at[ranked]) < 0.3).sum())
        drawn = set(np.asarray(answers.tokens[row, :, 0]).tolist())
        assert drawn <= set(ranked[:count].tolist())
        assert count == 1 or len(drawn) > 1


def test_decoding_refuses_settings_without_meaning():
    for wrong in (
        dict(max_new_tokens=0),
        dict(temperature=-1.0),
        dict(top_p=0.0),
        dict(answers=0),
        dict(answers=4, together=3, slots=3),
        dict(answers=4, slots=6),
    ):
        with pytest.raises(ValueError, match="decoding"):
            Decoding(**wrong)


def test_rows_is_a_tree():
    rows = as_rows(prompts())
    assert isinstance(jax.tree.map(jnp.asarray, rows), Rows)


@pytest.mark.parametrize("decoding", [Decoding(9, 1), Decoding(9, 3, temperature=1.0)], ids=["greedy", "sampled"])
def test_weights_in_a_cpu_s_strips_give_the_answers_of_weights_as_they_are(decoding):
    """Widths of which every matrix is cut into strips; tied and untied output layers read other tables."""
    text = TextConfig(128, 2, 4, 2, 32, 256, 256, (4, 6, 6), tied=True)
    config = ModelConfig(text, VisionConfig(32, 2, 2, 48, 128, full_attention=(1,)))
    graph, params = nnx.split(VidEmo(config, nnx.Rngs(3)))
    params = jax.tree.map(lambda p: p * (5 if p.ndim > 2 else 1), params)
    rows, seeds = as_rows(prompts()), np.arange(3, dtype=np.uint32)
    strips, plain = (
        generate(graph, params, rows, seeds, decoding=decoding, stop_ids=(STOP,), platform=platform)
        for platform in ("cpu", "tpu")
    )
    np.testing.assert_array_equal(strips.tokens, plain.tokens)
    np.testing.assert_allclose(strips.log_probs, plain.log_probs, atol=1e-4)
    assert len(np.unique(plain.tokens)) > 5


@pytest.mark.parametrize(
    "decoding", [Decoding(), Decoding(temperature=0.8, top_k=20, top_p=0.9)], ids=["greedy", "sampled"]
)
@pytest.mark.parametrize("banned", [(), (3,), (0, 5, *range(60, 96))], ids=len)
def test_a_mask_bans_to_the_bit_what_writing_single_logits_does(decoding, banned):
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 2, (4, 5, 96)), jnp.float32)
    scaled = logits / (decoding.temperature or 1)
    written = scaled.at[..., np.array(banned, int)].set(-jnp.inf) * (decoding.temperature or 1)

    def draw(logits, banned):
        step = jax.jit(partial(draw_tokens, seeds=seeds(4), decoding=decoding, banned_ids=banned))
        given = logits, jnp.full(4, 3), jnp.broadcast_to(jnp.arange(5), (4, 5))
        assert "scatter" not in step.lower(*given).as_text()
        return tuple(map(np.asarray, step(*given)))

    token, log_prob = draw(logits, banned)
    np.testing.assert_array_equal(token, draw(written, ())[0])
    assert not np.isin(token, banned).any() and len(np.unique(token)) > 8
    # Those of all tokens, banned ones among them: what a trainer computes.
    expected = jax.nn.log_softmax(scaled)
    np.testing.assert_allclose(log_prob, np.take_along_axis(expected, token[..., None], -1)[..., 0], atol=1e-5)
