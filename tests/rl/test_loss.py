"""The loss on shared rows against rows of their own, NumPy in float64 and the sampler."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.rl.groups import (
    PROMPT,
    ROW,
    SLOTS,
    TIGHT,
    Rollout,
    build_groups,
    build_taken,
    by_answer,
    extended,
    group_batch,
    rollouts,
)
from tests.sft.test_step import CONFIG
from videmo_jax.data.rows import Budget, build_row, stack_rows
from videmo_jax.model.compute import Compute
from videmo_jax.model.tables import gather
from videmo_jax.model.videmo import VidEmo
from videmo_jax.rl.loss import GrpoSpec, _Facts, answer_log_probs, grpo_sums, token_terms
from videmo_jax.sampling.decode import generate
from videmo_jax.sampling.draw import Decoding
from videmo_jax.training.token_losses import summed

SPEC = GrpoSpec(clip_low=0.2, clip_high=0.3, beta=0.04, temperature=0.9)


@pytest.fixture(scope="module")
def model():
    graph, params = nnx.split(VidEmo(CONFIG, nnx.Rngs(3)))
    # Initial weights say little; larger ones make every token depend on all before it.
    return graph, jax.tree.map(lambda p: p * (4 if p.ndim > 2 else 1), params)


@dataclasses.dataclass
class Known:
    """What is known of answers' tokens, [B, G, C] each."""

    weights: np.ndarray
    sampled: np.ndarray
    reference: np.ndarray
    advantages: np.ndarray

    @classmethod
    def of(cls, batch):
        return cls(*(by_answer(batch, getattr(batch, each.name)) for each in dataclasses.fields(cls)))


def by_tokens(batch, log_probs, spec, entropy=None, fixed=None):
    """The loss of a batch from log-probabilities, an answer at a time; xp is NumPy or JAX.

    `fixed` are the log-probabilities by which CISPO weighs tokens: no gradient flows through those.
    """
    xp = jnp if isinstance(log_probs, jax.Array) else np
    total, count = 0.0, 0
    for b, g in np.ndindex(batch.weights.shape[:2]):
        length = int(batch.weights[b, g].sum())
        if not length:
            continue
        lp = log_probs[b, g, :length]
        old, ref, a = (x[b, g, :length] for x in (batch.sampled, batch.reference, batch.advantages))
        low, high = 1 - spec.clip_low, 1 + spec.clip_high
        now = lp if spec.objective == "clip" else fixed[b, g, :length]
        r = xp.exp((now - old).mean() + 0 * now) if spec.ratio == "sequence" else xp.exp(now - old)
        term = xp.minimum(r * a, xp.clip(r, low, high) * a)
        if spec.objective == "cispo":
            term = xp.clip(r, low, high) * a * lp
        if spec.dual_clip:
            term = xp.where(a < 0, xp.maximum(term, spec.dual_clip * a), term)
        term = term - spec.beta * (xp.exp(ref - lp) - (ref - lp) - 1)
        if spec.entropy:
            term = term + spec.entropy * entropy[b, g, :length]
        parts = {"sequence": (length, 1), "token": (1, length), "constant": (batch.weights.shape[-1], 1)}
        divided, counted = parts[spec.reduction]
        total, count = total - term.sum() / divided, count + counted
    return total, count


def apart(params, graph, samples):
    """Log-probabilities of all answers, each in a row of its own, through whole logits; [B, G, C]."""
    whole = nnx.merge(graph, params)
    found = []
    for rollout in samples:
        count = len(rollout.prompt.encoded.tokens)
        joined = [extended(rollout.prompt, tokens) for tokens in rollout.tokens]
        rows = stack_rows([build_row([s], Budget(48, 3, 24), CONFIG.vision) for s in joined]).rows
        logits = whole.logits(whole(rows)[0])[:, count - 1 : count - 1 + rollout.tokens.shape[1]]
        log_probs = jax.nn.log_softmax(logits / SPEC.temperature, axis=-1)
        found.append(jnp.take_along_axis(log_probs, rollout.tokens[..., None], axis=-1)[..., 0])
    return jnp.stack(found)


@pytest.fixture(scope="module")
def rows_of_their_own(model):
    """Loss, count and gradient; one program."""
    graph, params = model
    known, samples = Known.of(group_batch(0)), rollouts(0)

    def loss(params):
        log_probs = apart(params, graph, samples)
        total, count = by_tokens(known, log_probs, SPEC)
        return total / count, (count, log_probs)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@partial(jax.jit, static_argnums=0)
def loss_and_slopes(graph, params, batch):
    def loss(params):
        sums = grpo_sums(nnx.merge(graph, params), batch, Compute(remat="full"), chunk=8, spec=SPEC)
        return sums.loss / sums.count, sums

    return jax.value_and_grad(loss, has_aux=True)(params)


@partial(jax.jit, static_argnums=0, static_argnames="dtype")
def log_probs_of(graph, params, batch, dtype=jnp.float32):
    return answer_log_probs(nnx.merge(graph, params), batch, Compute(dtype), chunk=5, temperature=SPEC.temperature)


@pytest.mark.parametrize("row", [ROW, TIGHT], ids=["several prompts a row", "prompts in several rows"])
def test_shared_rows_have_the_loss_and_gradient_of_rows_of_their_own(model, rows_of_their_own, row):
    (expected, (count, log_probs)), slopes = rows_of_their_own
    batch = group_batch(0, row)
    (found, sums), gradients = loss_and_slopes(*model, batch)
    assert float(sums.count) == count == 8 and float(sums.tokens) == batch.weights.sum()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(slopes), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    vision = jax.tree.leaves(gradients["vision"])
    assert max(float(jnp.abs(x).max()) for x in vision) > 1e-4  # the loss reaches the clip
    known = Known.of(batch)
    gap = np.abs(np.asarray(log_probs) - known.sampled)[known.weights > 0].sum()
    np.testing.assert_allclose(sums.gap, gap, rtol=1e-4)


def test_groups_that_are_left_out_leave_the_loss_and_gradient_of_the_others_alone(model):
    """Of two rollouts three groups, one without one of its answers, are what they are in a batch of their own."""
    draws = rollouts(0), rollouts(1)
    taken = np.zeros((4, 2, 3), bool)  # place, rollout, answer
    taken[1, 0], taken[0, 1], taken[3, 1] = True, (True, False, True), True
    alone = [draws[0][1], draws[1][0]._replace(lengths=np.array([7, 0, 1])), draws[1][3]]
    batches = (
        build_taken(draws, taken.reshape(8, 3)),
        build_groups([*alone, alone[0]._replace(lengths=np.zeros(3, int))]),
    )

    advantages = np.random.default_rng(5).normal(size=(8, 3)).astype(np.float32)
    found = []
    for batch, own in zip(batches, (advantages, advantages[[2, 1, 7, 7]]), strict=True):
        by_token = jnp.repeat(jnp.asarray(own)[..., None], SLOTS, axis=-1)
        batch = batch.credited(by_token, jnp.ones(own.shape, bool))
        batch = dataclasses.replace(batch, reference=batch.sampled + jnp.sin(9 * batch.sampled))
        found.append(loss_and_slopes(*model, batch))
    ((ours, sums), slopes), ((theirs, expected), others) = found
    assert int(sums.count) == int(expected.count) == 7
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(slopes)) > 1e-2
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), slopes, others)


@pytest.mark.parametrize("name", ["GSPO", "Dr. GRPO", "dual clip"])
def test_options_on_shared_rows_are_those_of_rows_of_their_own(model, rows_of_their_own, name):
    (_, (_, log_probs)), _ = rows_of_their_own
    batch, spec = group_batch(0), dataclasses.replace(SPEC, **OBJECTIVES[name])
    sums = jax.jit(lambda params: grpo_sums(nnx.merge(model[0], params), batch, chunk=8, spec=spec))(model[1])
    total, count = by_tokens(Known.of(batch), np.asarray(log_probs, np.float64), spec)
    np.testing.assert_allclose(sums.loss / sums.count, total / count, rtol=0, atol=1e-5)


def test_log_probabilities_do_not_depend_on_what_else_is_in_the_row(model, rows_of_their_own):
    (_, (_, expected)), _ = rows_of_their_own
    batch = group_batch(0)
    found = log_probs_of(*model, batch)
    held = by_answer(batch, batch.drawn >= 0) > 0
    np.testing.assert_allclose(by_answer(batch, found)[held], np.asarray(expected)[held], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(np.asarray(found)[batch.drawn < 0], 0)
    # Other tokens in the first answer change it, and no other answer.
    tokens, first = batch.rows.tokens.copy(), batch.first & (batch.drawn // batch.limit % batch.answers == 0)
    row = np.nonzero(first)[0]
    tokens[row, batch.slots[first]] += 1
    changed = dataclasses.replace(batch, rows=dataclasses.replace(batch.rows, tokens=tokens))
    after = log_probs_of(*model, changed)
    before, after = by_answer(batch, found), by_answer(batch, after)
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
    assert len(row) == 4 and (np.abs(after[:, 0] - before[:, 0]).max(axis=-1) > 1e-3).all()


OBJECTIVES = {
    "no KL": {"beta": 0.0},
    "paper": {},
    "tokens, no KL": {"reduction": "token", "beta": 0.0},
    "tokens": {"reduction": "token"},
    "Dr. GRPO": {"reduction": "constant"},
    "GSPO": {"ratio": "sequence"},
    "CISPO": {"objective": "cispo", "reduction": "token"},
    "CISPO of sequences": {"objective": "cispo", "ratio": "sequence"},
    "dual clip": {"dual_clip": 1.4},
    "entropy": {"entropy": 0.3},
    "all": {"ratio": "sequence", "dual_clip": 1.4, "entropy": 0.3, "reduction": "constant"},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objective_equals_numpy_in_float64(name):
    spec = dataclasses.replace(SPEC, **OBJECTIVES[name])
    reduction, beta = spec.reduction, spec.beta
    rng = np.random.default_rng(7)
    shape, width, vocab = (3, 4, 6), 8, 32
    hidden, table = rng.normal(size=(3, 24, width)), rng.normal(size=(vocab, width))
    targets = rng.integers(0, vocab, (3, 24))
    weights = (np.arange(6) < rng.integers(0, 7, (3, 4))[..., None]).astype(np.float64)
    weights[0, 0] = 1
    advantages = rng.normal(size=shape)  # of tokens: those of answers are a special case
    if spec.ratio == "sequence":  # all tokens of an answer have its own, as the whole answer is weighed
        advantages = np.repeat(advantages[..., :1], shape[-1], axis=-1)
    advantages[1] = 0.0  # a group without spread

    def logs(hidden, table):
        logits = hidden @ table.T / spec.temperature
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    log_probs = logs(hidden, table)
    chosen = np.take_along_axis(log_probs, targets[..., None], axis=-1).reshape(shape)
    sampled, reference = chosen + rng.normal(0, 0.6, shape), chosen + rng.normal(0, 0.4, shape)

    known = Known(weights, sampled, reference, advantages)

    def loss(hidden, table):
        found = logs(hidden, table)
        entropy = -(np.exp(found) * found).sum(-1).reshape(shape)
        now = np.take_along_axis(found, targets[..., None], axis=-1).reshape(shape)
        return by_tokens(known, now, spec, entropy, chosen)[0]

    lengths = weights.sum(-1, keepdims=True)
    share = weights / {"sequence": np.maximum(lengths, 1), "token": 1, "constant": shape[-1]}[reduction]
    moved = np.where(weights > 0, chosen - sampled, 0).sum(-1, keepdims=True) / np.maximum(lengths, 1)
    moved = np.broadcast_to(moved if spec.ratio == "sequence" else 0.0, shape)
    starts = np.zeros(shape)
    starts[..., 0] = lengths[..., 0] > 0
    facts = _Facts(weights, share, starts, sampled, reference, advantages, moved)
    facts = jax.tree.map(lambda x: jnp.asarray(x.reshape(3, 24), jnp.float32), facts)

    def ours(hidden, rows):
        held = dataclasses.replace(gather(parameter, jnp.float32), rows=rows)
        objective = partial(token_terms, spec=spec)
        # A loop that went on after the tokens that count would meet NaN.
        hidden = jnp.pad(hidden, [(0, 0), (0, 9), (0, 0)], constant_values=jnp.nan)
        padded = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 9)]), (targets, facts))
        how = {"temperature": spec.temperature, "by_entropy": spec.entropy > 0}
        sums = summed(objective, held, hidden, *padded, 8, jnp.int32(24), **how)
        return sums.loss, sums

    axes = {"out_sharding": ("vocab", None), "eager_sharding": False}
    parameter = nnx.Param(jnp.asarray(table, jnp.float32), whole=table.shape, **axes)
    (_, sums), slopes = jax.value_and_grad(ours, argnums=(0, 1), has_aux=True)(
        jnp.asarray(hidden, jnp.float32), jnp.asarray(table, jnp.float32)
    )
    counts, ratio = weights > 0, np.exp(moved if spec.ratio == "sequence" else chosen - sampled)
    away = reference - chosen
    expected = {
        "loss": loss(hidden, table),
        "count": weights.sum() if reduction == "token" else (lengths > 0).sum(),
        "answers": (lengths > 0).sum(),
        "tokens": weights.sum(),
        "kl": (np.exp(away) - away - 1)[counts].sum() if beta else 0.0,
        "entropy": -(np.exp(log_probs) * log_probs).sum(-1).reshape(shape)[counts].sum(),
        "ratio": ratio[counts].sum(),
        "clipped_low": (counts & (ratio < 0.8) & (advantages < 0)).sum(),
        "clipped_high": (counts & (ratio > 1.3) & (advantages > 0)).sum(),
        "gap": np.abs(chosen - sampled)[counts].sum(),
    }
    assert spec.ratio == "sequence" or (expected["clipped_low"] > 1 and expected["clipped_high"] > 1)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(sums, name), value, rtol=2e-5, err_msg=name)
    # The gradient by central differences in float64.
    for x, slope, place in ((hidden, slopes[0], 0), (table, slopes[1], 1)):
        for index in zip(*(rng.integers(0, size, 12) for size in x.shape), strict=True):
            step = np.zeros_like(x)
            step[index] = 1e-6
            moved = [(hidden + s * step, table) if place == 0 else (hidden, table + s * step) for s in (1, -1)]
            np.testing.assert_allclose(slope[index], (loss(*moved[0]) - loss(*moved[1])) / 2e-6, rtol=1e-3, atol=1e-5)


def test_log_probabilities_of_no_use_make_no_nan(model):
    batch = group_batch(0)
    weights = np.zeros_like(batch.weights)
    weights[0] = batch.weights[0]
    left_out = dataclasses.replace(
        batch,
        weights=weights,
        sampled=np.where(weights > 0, batch.sampled, -np.inf),
        reference=np.where(weights > 0, batch.reference, 3e38),
    )
    _, gradients = loss_and_slopes(*model, left_out)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_the_sampler_and_the_trainer_have_the_same_log_probabilities(model, dtype, within):
    graph, params = model
    if dtype == "bfloat16":
        params = nnx.state(VidEmo(CONFIG, nnx.Rngs(3)), nnx.Param)
    prompts = [rollout.prompt for rollout in rollouts(1)]
    rows = stack_rows([build_row([p], PROMPT, CONFIG.vision) for p in prompts]).rows
    decoding = Decoding(12, answers=4, temperature=0.9)
    seeds, stop = jnp.arange(4, dtype=jnp.uint32), tuple(range(120, 128))
    answers = generate(graph, params, rows, seeds, decoding=decoding, stop_ids=stop, dtype=jnp.dtype(dtype))
    answers = jax.tree.map(np.asarray, answers)
    assert answers.lengths.min() < answers.lengths.max()
    found = [Rollout(p, *x) for p, *x in zip(prompts, answers.tokens, answers.lengths, answers.log_probs, strict=True)]
    batch = build_groups(found)
    ours = log_probs_of(graph, params, batch, dtype=jnp.dtype(dtype))
    assert np.abs(np.asarray(ours) - batch.sampled).max() < within


def test_settings_without_meaning_are_refused():
    for wrong in (
        dict(clip_low=1.0),
        dict(clip_high=-0.1),
        dict(beta=-1.0),
        dict(temperature=0.0),
        dict(reduction="x"),
    ):
        with pytest.raises(ValueError, match="grpo"):
            GrpoSpec(**wrong)
