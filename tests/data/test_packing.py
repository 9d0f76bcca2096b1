"""The packing plan: every sample once an epoch, budgets kept, the same rows however they are read."""

import dataclasses
import json
import pickle
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from videmo_jax.data.chat import Encoded
from videmo_jax.data.emo_cfg import read_emo_cfg
from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.mixture import everything
from videmo_jax.data.packing import RowPlan, Sizes, pack_rows
from videmo_jax.data.pipeline import RowMaker, TrainingBatches
from videmo_jax.data.rows import Budget, Prepared, build_row, stack_rows
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.source import fitting, open_source
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec, clip_grid, patchify, read_clip
from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from videmo_jax.model.positions import VisionGrid
from videmo_jax.model.videmo import VidEmo, abstract_model
from videmo_jax.sft.loss import next_token_sums

BUDGET = Budget(tokens=100, slabs=10, patches=64)
FRAMES = FrameSpec(max_frames=4, min_pixels=56 * 56, max_pixels=56 * 56)
ROW = Budget(tokens=512, slabs=8, patches=32)

MODEL = ModelConfig(
    TextConfig(64, 2, 4, 2, 16, 96, 128, (2, 3, 3), tied=False),
    VisionConfig(32, 2, 2, 48, 64, full_attention=(1,)),
)


def plan_of(pairs, batch=1, seed=0, **more):
    """The plan of samples of (tokens, slabs), whose numbers have gaps: some did not fit."""
    tokens, slabs = np.repeat(np.array(pairs, np.int32).reshape(-1, 2), 3, axis=0).T
    numbers = np.arange(len(pairs), dtype=np.int32) * 3
    return RowPlan(everything(numbers), Sizes(tokens, slabs), BUDGET, batch=batch, seed=seed, **more)


def rows_of(plan, epoch=0):
    return [plan[row] for row in range(plan.first(epoch), plan.first(epoch + 1))]


def random_pairs(seed, count):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(1, 101, count), rng.integers(0, 11, count)], axis=1)


samples_of_any_length = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 10)), min_size=1, max_size=60)


@given(samples_of_any_length, st.integers(0, 2**31), st.integers(0, 5), st.integers(1, 70), st.booleans())
@settings(deadline=None)
def test_an_epoch_has_every_sample_once_and_keeps_both_budgets(pairs, seed, epoch, window, pack):
    rows = rows_of(plan_of(pairs, seed=seed, window=window, pack=pack), epoch)
    assert sorted(np.concatenate(rows)) == list(range(0, 3 * len(pairs), 3))
    for row in rows:
        held = np.array(pairs)[row // 3]
        assert 0 < len(held) <= (len(pairs) if pack else 1)
        assert held[:, 0].sum() <= BUDGET.tokens
        assert held[:, 1].sum() <= BUDGET.slabs


@given(samples_of_any_length)
@settings(deadline=None, max_examples=50)
def test_each_row_is_filled_greedily(pairs):
    """Against the rule written down plainly: nothing that is still to come would have fitted."""
    tokens, slabs = np.array(pairs, np.int32).T
    packed = pack_rows(tokens, slabs, BUDGET)
    rows = [packed[row] for row in range(len(packed))]
    assert sorted(np.concatenate(rows)) == list(range(len(pairs)))
    for place, row in enumerate(rows):
        free = BUDGET.tokens - tokens[row].sum(), BUDGET.slabs - slabs[row].sum()
        assert not any(tokens[n] <= free[0] and slabs[n] <= free[1] for later in rows[place + 1 :] for n in later)


def test_rows_are_full_and_their_order_has_no_trend():
    pairs = random_pairs(0, 4000)
    rows = rows_of(plan_of(pairs, window=1000))
    longest = np.array([pairs[row // 3, 0].max() for row in rows])
    fill = max(pairs[:, 0].sum() / BUDGET.tokens, pairs[:, 1].sum() / BUDGET.slabs) / len(rows)
    assert fill > 0.95
    assert abs(np.corrcoef(longest[: len(rows) // 4], np.arange(len(rows) // 4))[0, 1]) < 0.2


def test_each_epoch_and_each_seed_has_an_order_of_its_own():
    pairs = random_pairs(1, 200)
    orders = [
        tuple(np.concatenate(rows_of(plan_of(pairs, seed=seed, window=64), epoch)))
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert len(set(orders)) == 4


def test_what_fits_no_row_is_refused():
    with pytest.raises(ValueError, match="longer than an empty row of 100 tokens"):
        pack_rows(np.array([101]), np.array([0]), BUDGET)
    with pytest.raises(ValueError, match="not a single sample"):
        plan_of([])


@given(samples_of_any_length, st.integers(1, 7), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_rows_are_the_same_in_any_order_of_reading(pairs, batch, random):
    plan = plan_of(pairs, batch, 3, window=16)
    count = plan.first(3)
    in_order = [tuple(plan[row]) for row in range(count)]
    other = pickle.loads(pickle.dumps(plan_of(pairs, batch, 3, window=16)))
    for row in random.sample(range(count), count):
        assert tuple(other[row]) == in_order[row]
    for epoch in range(3):
        begin, end = plan.first(epoch), plan.first(epoch + 1)
        assert (end - begin) % batch == 0
        assert sorted(n for row in in_order[begin:end] for n in row) == list(range(0, 3 * len(pairs), 3))
        empty = [not row for row in in_order[begin:end]]
        assert sum(empty) < batch
        assert empty == sorted(empty)  # only at the end


def test_steps_of_epochs():
    plan = plan_of([(100, 0)] * 10, batch=4)
    assert [plan.first(epoch) for epoch in range(3)] == [0, 12, 24]
    assert [plan.batches(epochs) for epochs in (1, 2, 0.5, 2.1)] == [3, 6, 2, 7]
    assert [plan.epochs_at(row) for row in (0, 6, 12, 18)] == [0, 0.5, 1, 1.5]


def test_a_plan_is_told_from_every_other():
    pairs = random_pairs(2, 50)
    longer = pairs.copy()
    longer[7, 0] = longer[7, 0] % 100 + 1
    plans = [plan_of(pairs), plan_of(pairs, seed=1), plan_of(pairs, batch=2), plan_of(pairs[:-1]), plan_of(longer)]
    assert len({plan.digest for plan in plans}) == len(plans)
    assert plan_of(pairs).digest == plans[0].digest


class Data:
    """A dataset, and everything that reads it."""

    def __init__(self, root, batch=4, budget=ROW):
        self.source, _ = open_source(root, "train", FRAMES, Tokenizer.embedded(), threads=2)
        self.samples = self.source.samples
        self.skips = SkipLog(None, total=len(self.samples), max_share=1)
        self.make = RowMaker(self.source, Preparer(Tokenizer.embedded(), InputSpec(FRAMES)), MODEL.vision, budget)
        everyone = np.ones(len(self.samples), bool)
        self.lengths = self.source.lengths(everyone)
        self.fits = fitting(self.source, self.lengths, everyone, budget, self.skips)
        self.plan = self.planned(self.lengths.tokens, self.lengths.slabs, batch)

    def planned(self, tokens, slabs, batch=4):
        numbers = np.flatnonzero(self.fits).astype(np.int32)
        return RowPlan(everything(numbers), Sizes(tokens, slabs), self.make.budget, batch=batch, seed=0, window=32)

    def prepared(self, number):
        return self.make.preparer(*self.source[number])

    def batches(self, **which):
        return TrainingBatches(self.plan, self.make, threads=2, skips=self.skips, **which)


@pytest.fixture(scope="module")
def data(synthetic):
    return Data(synthetic)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_lengths_are_those_of_the_decoded_samples(data):
    for number in range(len(data.samples)):
        needs = data.prepared(number).needs
        columns = data.lengths.tokens, data.lengths.slabs, data.lengths.patches
        assert (needs.tokens, needs.slabs, needs.patches) == tuple(column[number] for column in columns)
    assert data.fits.all()


def test_the_grid_of_a_clip_is_that_of_its_frames(emo_cfg_mini):
    for path in sorted((emo_cfg_mini / "videos").rglob("*.*")):
        for spec in (FRAMES, FrameSpec()):
            clip, grid = read_clip(path, spec), clip_grid(path, spec)
            slabs, _ = patchify(clip.frames, spec)
            assert (grid.time, grid.height * grid.width) == slabs.shape[:2]


def test_an_epoch_of_batches_learns_every_answer_once(data):
    batches = data.batches()
    steps = data.plan.batches(1)
    counted = sum(float(next(batches).weights.sum()) for _ in range(steps))
    expected = sum(data.prepared(number).encoded.trained.sum() for number in range(len(data.samples)))
    assert counted == expected
    assert not data.skips.reasons


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_read_parts_of_the_same_batches(hosts, data):
    whole, parts = data.batches(), [data.batches(host=host, hosts=hosts) for host in range(hosts)]
    for _ in range(data.plan.batches(1) + 2):
        joined = jax.tree.map(lambda *rows: np.concatenate(rows), *(next(part) for part in parts))
        assert_equal(joined, next(whole))


def test_worker_processes_give_the_same_batches(data):
    with_workers, without = data.batches(workers=2), data.batches()
    for _ in range(6):
        assert_equal(next(with_workers), next(without))
        assert with_workers.state == without.state


def test_a_stream_resumes_from_a_small_state_whoever_reads(data, synthetic):
    batches = data.batches()
    for _ in range(data.plan.batches(1) - 1):
        next(batches)
    state = json.dumps(batches.state)
    assert len(state) < 200
    parts = [Data(synthetic).batches(host=host, hosts=2) for host in range(2)]
    for part in parts:
        part.restore(json.loads(state))
    for _ in range(4):
        joined = jax.tree.map(lambda *rows: np.concatenate(rows), *(next(part) for part in parts))
        assert_equal(joined, next(batches))


def test_a_state_of_other_data_is_refused(data):
    batches = data.batches()
    next(batches)
    other = TrainingBatches(data.planned(data.lengths.tokens + 1, data.lengths.slabs), data.make, skips=data.skips)
    with pytest.raises(ValueError, match="not those that the checkpoint's batches were planned from"):
        other.restore(batches.state)


@pytest.fixture
def broken(synthetic, tmp_path):
    """A dataset with a clip whose packets are all there, but which cannot be decoded to its end, and one cut short."""
    root = tmp_path / "broken"
    shutil.copytree(synthetic, root)
    clips = list(dict.fromkeys(video for sample in read_emo_cfg(root, "train").samples for video in sample.videos))
    inside, short = (root / clip for clip in clips[:2])
    content = bytearray(inside.read_bytes())
    begin = content.index(b"mdat") + 4
    middle = begin + (len(content) - begin) // 2
    content[middle:-2000] = b"\xff" * (len(content) - middle - 2000)  # no packet length makes sense any more
    inside.write_bytes(content)
    short.write_bytes(short.read_bytes()[:200])
    return root, clips[:2]


def test_a_broken_clip_costs_its_samples_and_not_their_row(broken):
    root, (inside, short) = broken
    data = Data(root)
    bad = {clip: {s.id for s in data.samples if clip in s.videos} for clip in (inside, short)}
    assert set(data.skips.reasons) == bad[short]  # its header is gone: known before the plan
    batches = data.batches()
    counted = sum(float(next(batches).weights.sum()) for _ in range(data.plan.batches(1)))
    assert set(data.skips.reasons) == bad[short] | bad[inside]
    good = [number for number, s in enumerate(data.samples) if s.id not in data.skips.reasons]
    assert counted == sum(data.prepared(number).encoded.trained.sum() for number in good)


def test_samples_that_are_left_out_change_neither_the_plan_nor_the_other_samples(data):
    batches = data.plan.batches(1)
    named = [data.samples[number].id for number in data.plan[0][:2].tolist()]
    fewer = dataclasses.replace(data.make, leave_out=frozenset(named))
    whole, rest = (
        TrainingBatches(data.plan, make, skips=SkipLog(None, total=99, max_share=0)) for make in (data.make, fewer)
    )
    one, other = next(whole), next(rest)
    assert int(one.rows.segment_ids.max(axis=1).sum()) - int(other.rows.segment_ids.max(axis=1).sum()) == len(named)
    assert whole.state == rest.state
    for _ in range(batches - 1):  # each sample comes once an epoch
        assert_equal(next(whole), next(rest))


def test_a_sample_longer_than_measured_leaves_the_others_in_the_row(data):
    shorter = Data(data.source.folder.root)
    shorter.plan = shorter.planned(shorter.lengths.tokens, np.ones_like(shorter.lengths.slabs))
    batches = shorter.batches()
    seen = [next(batches) for _ in range(shorter.plan.batches(1))]
    assert shorter.skips.reasons
    assert all("its row is full: 2 slabs" in reason for reason in shorter.skips.reasons.values())
    held = sum(int(batch.rows.segment_ids.max(axis=1).sum()) for batch in seen)
    assert held == len(shorter.samples) - len(shorter.skips)


def test_what_fits_no_row_is_listed_with_its_size(synthetic):
    data = Data(synthetic, budget=Budget(90, 8, 32))
    kept = {data.samples[number].id for number in np.flatnonzero(data.fits)}
    assert kept.isdisjoint(data.skips.reasons)
    assert len(kept) + len(data.skips) == len(data.samples)
    assert all("tokens, a row has 90" in reason for reason in data.skips.reasons.values())
    assert data.lengths.tokens[data.fits].max() <= 90


MIXED = Budget(tokens=160, slabs=8, patches=24)
segments = st.one_of(
    st.integers(1, 20),
    st.builds(VisionGrid, st.just(1), st.sampled_from([2, 4]), st.sampled_from([2, 4, 6])),  # images
    st.builds(VisionGrid, st.integers(1, 3), st.sampled_from([2, 4]), st.sampled_from([4, 6]), st.floats(0.2, 3)),
)


def random_sample(rng, middle):
    """A sample with text at both ends; the last half of its tokens is learnt."""
    parts, vision, patches, hw, seen = (3, *middle, 4), [], [], [], 0
    for part in parts:
        if isinstance(part, VisionGrid):
            frames = rng.integers(0, 256, (2 * part.time, 14 * part.height, 14 * part.width, 3), np.uint8)
            for kept, new in zip((patches, hw), patchify(frames, FrameSpec()), strict=True):
                kept.append(new)
            vision += range(seen, seen := seen + part.merged_tokens())
        else:
            vision += [-1] * part
    tokens = np.where(np.array(vision) >= 0, 120, rng.integers(0, 120, len(vision))).astype(np.int32)
    encoded = Encoded(tokens, np.arange(len(tokens)) > len(tokens) // 2, np.array(vision, np.int32), parts)
    return Prepared("random", encoded, tuple(patches), tuple(hw))


@pytest.fixture(scope="module")
def params():
    return nnx.split(VidEmo(MODEL, nnx.Rngs(1)))[1]


def merged(params):
    return nnx.merge(nnx.graphdef(abstract_model(MODEL)), params)


@jax.jit
def outcome(params, batch):
    model = merged(params)
    hidden, _ = model(batch.rows)
    return model.logits(hidden), next_token_sums(model, batch, chunk=64)


@given(st.lists(st.lists(segments, max_size=4), min_size=1, max_size=8), st.integers(0, 2**31))
@settings(deadline=None, max_examples=15)
def test_packed_samples_have_the_logits_and_the_loss_of_samples_alone(params, mixture, seed):
    rng = np.random.default_rng(seed)
    samples = [sample for sample in (random_sample(rng, middle) for middle in mixture) if sample.slabs <= MIXED.slabs]
    sizes = np.array([(len(s.encoded.tokens), s.slabs) for s in samples], np.int32).reshape(-1, 2)
    packed = pack_rows(*sizes.T, MIXED)
    rows = [packed[row] for row in range(len(packed))]
    loss = tokens = alone_loss = alone_tokens = 0.0
    for row in rows:
        logits, sums = outcome(params, stack_rows([build_row([samples[n] for n in row], MIXED, MODEL.vision)]))
        assert np.isfinite(logits).all()
        loss, tokens, start = loss + float(sums.loss), tokens + float(sums.tokens), 0
        for number in row:
            alone, sums = outcome(params, stack_rows([build_row([samples[number]], MIXED, MODEL.vision)]))
            length = len(samples[number].encoded.tokens)
            np.testing.assert_allclose(logits[0, start : start + length], alone[0, :length], atol=1e-5, rtol=0)
            alone_loss, alone_tokens = alone_loss + float(sums.loss), alone_tokens + float(sums.tokens)
            start += length
    assert tokens == alone_tokens
    np.testing.assert_allclose(loss, alone_loss, rtol=1e-5)


def test_empty_rows_have_no_part_in_loss_and_gradient(params):
    samples = [random_sample(np.random.default_rng(0), [VisionGrid(2, 4, 6, 1.0)])]
    full, empty = (build_row(held, MIXED, MODEL.vision) for held in (samples, []))

    @jax.jit
    def gradient(params, batch):
        return jax.grad(lambda params: next_token_sums(merged(params), batch).loss)(params)

    gradients = [gradient(params, stack_rows(rows)) for rows in ([full, full], [full, empty], [empty, empty])]
    largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(gradients[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a / 2, b, atol=1e-5 * largest), *gradients[:2])
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradients[2]))
