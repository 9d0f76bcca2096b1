"""Rollouts on a mesh: the answers that one device gives, in rows that are ready for the loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from tests.rl.groups import PROMPT, ROW, prompts
from tests.sft.test_step import CONFIG, VIDEO
from videmo_jax.data.pipeline import from_devices, to_devices
from videmo_jax.data.rows import build_row, stack_rows
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.model.videmo import VidEmo
from videmo_jax.rl.layout import Drawn, most_rows, plan_rows
from videmo_jax.rl.loss import GrpoSpec
from videmo_jax.rl.rollout import make_gather, make_sampler, prompt_seeds
from videmo_jax.rl.rows import with_answers
from videmo_jax.rl.step import make_log_prob_step
from videmo_jax.sampling.decode import generate
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sharding.rules import batch_shards, make_mesh, shard_state
from videmo_jax.training.step import BATCH_SPLIT, ComputeSpec

DECODING = Decoding(max_new_tokens=6, answers=3, temperature=0.9)
STOPS, BANNED = (7, 9), (VIDEO, 3)


@pytest.fixture(scope="module")
def params():
    """Weights so large that answers differ."""
    return jax.tree.map(lambda x: 4 * x, nnx.state(VidEmo(CONFIG, nnx.Rngs(0)), nnx.Param))


@pytest.fixture(scope="module")
def rows():
    """Four prompts, and the empty rows that end an epoch."""
    rng = np.random.default_rng(0)
    held = [[prompt] for prompt in prompts(rng)]
    held[1] = []
    return stack_rows([build_row(each, PROMPT, CONFIG.vision) for each in held]).rows


@pytest.fixture(scope="module")
def alone(params, rows):
    graph = nnx.graphdef(VidEmo(CONFIG, nnx.Rngs(0)))
    return generate(graph, params, rows, prompt_seeds(0, 5, 4), decoding=DECODING, stop_ids=STOPS, banned_ids=BANNED)


@pytest.mark.parametrize(
    ("shape", "tensor", "slots"),
    [({"data": 4}, 0, 0), ({"fsdp": 4}, 2, 3), ({"fsdp": 2, "tensor": 2}, 0, 0), ({"data": 2, "fsdp": 2}, 2, 0)],
    ids=str,
)
def test_a_mesh_draws_the_answers_of_one_device_and_the_loss_finds_their_log_probabilities(
    shape, tensor, slots, params, rows, alone
):
    mesh = make_mesh(shape)
    placed = jax.device_put(params, shard_state(params, mesh))
    prompts, seeds = to_devices((rows, prompt_seeds(0, 5, 4)), mesh)
    weights = make_gather(CONFIG, mesh, jnp.float32, tensor=tensor)(placed)
    shard = weights["language"]["layers"]["q"].get_value().addressable_shards[0].data.shape
    assert shard == (2, 64, 4 // max(tensor, shape.get("tensor", 1)), 16)
    decoding = dataclasses.replace(DECODING, slots=slots)
    sample = make_sampler(CONFIG, mesh, "float32", decoding, STOPS, BANNED, tensor=tensor)
    drawn = sample(weights, prompts, seeds)
    asked = [0, 2, 3]
    np.testing.assert_array_equal(from_devices(drawn.tokens)[asked], alone.tokens[np.array(asked)])
    np.testing.assert_array_equal(from_devices(drawn.lengths)[asked], alone.lengths[np.array(asked)])
    assert len({tuple(answer) for row in from_devices(drawn.tokens)[asked].tolist() for answer in row}) > 3
    sizes, shards = Drawn(PROMPT, DECODING.answers, DECODING.max_new_tokens, 6), batch_shards(mesh)
    held = (rows.segment_ids > 0).sum(axis=1), (rows.patch_hw >= 0).any(axis=(2, 3)).sum(axis=1)
    plan = plan_rows(*held, from_devices(drawn.lengths), ROW)
    layout = to_devices(plan.layout(ROW, sizes, most_rows(4, ROW, sizes, shards), shards=shards), mesh)
    packed = jax.jit(with_answers, out_shardings=NamedSharding(mesh, BATCH_SPLIT))
    batch = packed(prompts, drawn.tokens, drawn.lengths, drawn.log_probs, layout)
    assert from_devices(batch.weights).sum() == from_devices(drawn.lengths)[asked].sum()
    found = make_log_prob_step(CONFIG, mesh, ComputeSpec(dtype="float32"), GrpoSpec().temperature)(placed, batch)
    np.testing.assert_allclose(from_devices(found), from_devices(batch.sampled), atol=1e-4)
    assert from_devices(found).min() < -1


def test_devices_that_share_weights_must_divide_them_and_the_mesh():
    mesh = make_mesh({"fsdp": 4})
    with pytest.raises(ValueError, match=r"rollout.tensor is 3; .* divide the 4 devices"):
        make_gather(CONFIG, mesh, jnp.float32, tensor=3)
    with pytest.raises(ValueError, match=r"rollout.tensor is 4; it must divide text.kv_heads, 2"):
        make_sampler(CONFIG, mesh, "float32", DECODING, STOPS, BANNED, tensor=4)
    with pytest.raises(ValueError, match=r"multiple of mesh.tensor, 2"):
        make_gather(CONFIG, make_mesh({"fsdp": 2, "tensor": 2}), jnp.float32, tensor=1)


def test_weights_of_8_bits_give_nearly_the_same_log_probabilities(params, rows):
    """The first token is of the prompt's own pass, which has whole weights; the others are off by a little."""
    graph, given = nnx.graphdef(VidEmo(CONFIG, nnx.Rngs(0))), (rows, prompt_seeds(0, 5, 4))
    params = jax.tree.map(lambda x: x / 4, params)
    how = dict(stop_ids=STOPS, banned_ids=BANNED)
    whole = generate(graph, params, *given, decoding=DECODING, **how)
    rounded = generate(graph, params, *given, decoding=dataclasses.replace(DECODING, int8=True), **how)
    np.testing.assert_array_equal(rounded.tokens[..., 0], whole.tokens[..., 0])
    same = np.cumprod(np.asarray(rounded.tokens == whole.tokens), axis=-1) * (np.asarray(whole.log_probs) < 0)
    gap = np.abs(np.asarray(rounded.log_probs - whole.log_probs))[same == 1]
    assert same[..., 1:].sum() > 5 and 1e-6 < gap.max() < 0.05


def test_seeds_are_of_the_run_and_the_step():
    seeds = [prompt_seeds(seed, step, 128) for seed in (0, 1) for step in (1, 2)]
    assert len(np.unique(np.concatenate(seeds))) == 4 * 128
    np.testing.assert_array_equal(prompt_seeds(0, 1, 128), seeds[0])


def test_places_of_tokens_are_those_of_the_text_they_decode_to():
    tokenizer = Tokenizer.embedded()
    ids = [*tokenizer.encode("Sie lächelt 🙂, a smile"), tokenizer.im_end]
    places = tokenizer.places(ids)
    text = tokenizer.decode(ids)
    assert len(places) == len(ids) and places[-1] == (len(text), len(text)) and places[0][0] == 0
    assert {at for start, end in places for at in range(start, end)} == set(range(len(text)))
    for id, (start, end) in zip(ids, places, strict=True):
        assert end - start < 2 or text[start:end] == tokenizer.decode([id])
    cut = tokenizer.encode("🙂")[:1]
    assert tokenizer.places(cut)[-1][1] == len(tokenizer.decode(cut))
