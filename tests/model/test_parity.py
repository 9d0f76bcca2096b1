"""Qwen2.5-VL against transformers in float32: vision blocks, logits, and the gradient of every parameter."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.pytorch import torch
from tests.reference import (
    IMAGE,
    VIDEO,
    our_parameters,
    pixel_values,
    random_transformers,
    transformers_inputs,
)
from videmo_jax.data.chat import Encoded
from videmo_jax.data.rows import Batch, Budget, Prepared, build_row, stack_rows
from videmo_jax.interop.hf_names import hf_tensors, hub_name
from videmo_jax.model.compute import Compute
from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from videmo_jax.model.layers import scan_layers
from videmo_jax.model.positions import VisionGrid
from videmo_jax.model.videmo import VidEmo
from videmo_jax.model.vision import attention_ids, rotary_angles
from videmo_jax.sft.loss import next_token_sums


def text(**changes):
    base = dict(width=64, layers=3, heads=4, kv_heads=2, head_width=16, mlp_width=96, vocab=128)
    return TextConfig(**(base | dict(mrope_sections=(2, 3, 3), tied=True) | changes))


def vision(**changes):
    base = dict(width=32, layers=4, heads=2, mlp_width=48, out_width=64, full_attention=(1, 3))
    return VisionConfig(**(base | changes))


# The path that large models take: activations are computed again in the backward pass.
COMPUTE = Compute(remat="full", vision_remat="full")


@dataclasses.dataclass(frozen=True)
class Case:
    text: TextConfig
    vision: VisionConfig
    samples: list[list]  # for each row: text lengths and grids in turn


CASES = {
    "tied, one video of whole windows": Case(text(), vision(), [[5, VisionGrid(2, 8, 8, 1.0), 9]]),
    "untied, all heads their own keys, two videos, two lengths": Case(
        text(kv_heads=4, tied=False),
        vision(full_attention=(0, 2)),
        [[3, VisionGrid(2, 4, 6, 1.5), 4, VisionGrid(3, 6, 4, 0.5), 8], [2, VisionGrid(1, 8, 4, 1.0), 5]],
    ),
    "one key head, full attention everywhere": Case(
        text(kv_heads=1), vision(full_attention=(0, 1, 2, 3)), [[4, VisionGrid(3, 10, 14, 2.0), 6]]
    ),
    "windows everywhere, grid that does not divide": Case(
        text(tied=False), vision(full_attention=()), [[4, VisionGrid(2, 10, 18, 1.008), 6]]
    ),
    "images": Case(text(layers=2), vision(), [[4, VisionGrid(1, 12, 8), 6], [1, VisionGrid(1, 6, 6), 14]]),
    "image and video in a row, text alone in another": Case(
        text(tied=False, heads=2, kv_heads=1, head_width=32, mrope_sections=(4, 6, 6)),
        vision(heads=1),
        [[2, VisionGrid(1, 6, 4), 3, VisionGrid(2, 8, 12, 1.25), 7], [21]],
    ),
    "small windows, one vision block a kind": Case(
        text(heads=8, kv_heads=2, head_width=8, mrope_sections=(1, 1, 2)),
        vision(window=56, layers=2, full_attention=(1,)),
        [[3, VisionGrid(2, 10, 6, 0.7), 5], [3, VisionGrid(4, 6, 6, 3.1), 3], [12]],
    ),
    "deep, wide aspect, other merge width": Case(
        text(layers=6, mlp_width=40),
        vision(layers=7, heads=4, mlp_width=20, full_attention=(2, 6)),
        [[3, VisionGrid(1, 4, 30, 1.0), 5], [3, VisionGrid(2, 22, 4, 1.0), 3]],
    ),
    "long video: time runs past height and width": Case(
        text(tied=False, rope_theta=1e4), vision(), [[5, VisionGrid(8, 4, 4, 2.0), 9], [30]]
    ),
}


def prepare(parts, rng, config):
    """A sample of random text and random pixels around the given grids."""
    tokens, index, patches, patch_hw = [], [], [], []
    for part in parts:
        if isinstance(part, VisionGrid):
            count = part.merged_tokens()
            tokens += [IMAGE if part.seconds_per_grid is None else VIDEO] * count
            index += list(range(sum(i >= 0 for i in index), sum(i >= 0 for i in index) + count))
            # Rows and columns of patches in merge groups, written out.
            places = [
                (2 * i + a, 2 * j + b)
                for i in range(part.height // 2)
                for j in range(part.width // 2)
                for a in range(2)
                for b in range(2)
            ]
            patch_hw.append(np.tile(np.array(places, np.int32), (part.time, 1, 1)))
            shape = (part.time, part.height * part.width, config.vision.patch_values)
            patches.append(rng.integers(0, 256, shape, dtype=np.uint8))
        else:
            tokens += list(rng.integers(8, config.text.vocab, part))
            index += [-1] * part
    trained = np.array(index) < 0
    encoded = Encoded(np.array(tokens, np.int32), trained, np.array(index, np.int32), parts)
    return Prepared("random", encoded, tuple(patches), tuple(patch_hw))


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """Both models with the same weights, and the same batch."""
    chosen = CASES[request.param]
    config = ModelConfig(chosen.text, chosen.vision)
    seed = list(CASES).index(request.param)
    rng = np.random.default_rng(seed)
    theirs = random_transformers(config, seed)
    samples = [prepare(parts, rng, config) for parts in chosen.samples]
    # Room to spare, so that padding of every kind takes part.
    budget = Budget(
        tokens=max(len(s.encoded.tokens) for s in samples) + 3,
        slabs=max(s.slabs for s in samples) + 1,
        patches=max((p.shape[1] for s in samples for p in s.patches), default=0) + 8,
    )
    batch = stack_rows([build_row([sample], budget, config.vision) for sample in samples])
    state = our_parameters(config, dict(theirs.named_parameters()))
    graph = nnx.split(nnx.eval_shape(lambda: VidEmo(config, nnx.Rngs(0))))[0]
    return config, theirs, samples, batch, graph, state


def test_vision_blocks_agree(case):
    """Each block and the merger from transformers' own values, so that each is compared alone."""
    config, theirs, samples, _, graph, state = case
    outputs = []
    hooks = [
        block.register_forward_hook(lambda _, __, out: outputs.append(out.detach().numpy()))
        for block in theirs.model.visual.blocks
    ]
    for sample in samples:
        grids = [s for s in sample.encoded.segments if isinstance(s, VisionGrid)]
        for grid, patches, patch_hw in zip(grids, sample.patches, sample.patch_hw, strict=True):
            outputs.clear()
            thw = torch.tensor([[grid.time, grid.height, grid.width]])
            with torch.no_grad():
                merged = theirs.model.visual(pixel_values(patches.reshape(-1, patches.shape[-1])), grid_thw=thw)
            expected = np.empty((len(outputs), *outputs[0].shape), np.float32)
            expected[:, window_order(grid, config.vision)] = outputs
            expected = expected.reshape(len(outputs), *patches.shape[:2], -1)
            ours, whole = tower_by_block(graph, state, patches, patch_hw, expected)
            np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=0)
            whole = np.asarray(whole).reshape(-1, config.text.width)
            np.testing.assert_allclose(whole, merged.pooler_output.numpy(), atol=1e-4, rtol=0)
    for hook in hooks:
        hook.remove()


@partial(jax.jit, static_argnums=0)
def tower_by_block(graph, state, patches, patch_hw, outputs):
    """Every block's output from what `outputs` [L, S, P, D] says of the block before, and the merged last of them."""
    tower = nnx.merge(graph, state).vision
    slab_ids, window_ids = attention_ids(patch_hw, tower.config)
    angles = rotary_angles(patch_hw, tower.config)
    inputs = jnp.concatenate([tower.embed_patches(patches, jnp.float32)[None], outputs[:-1]])
    full = np.isin(np.arange(tower.config.layers), tower.config.full_attention)

    def step(block, nothing, given):
        x, full = given
        return nothing, block(x, angles, jnp.where(full, slab_ids, window_ids))

    return scan_layers(tower.blocks, step, jnp.zeros(()), (inputs, full), remat="none")[1], tower.merger(outputs[-1])


def window_order(grid, config):
    """Where transformers' window-by-window sequence takes its patches from, in our slab-by-slab order."""
    side = config.window_patches // config.merge
    rows, columns = grid.height // config.merge, grid.width // config.merge
    order = []
    for slab in range(grid.time):
        for top in range(0, rows, side):
            for left in range(0, columns, side):
                for row in range(top, min(top + side, rows)):
                    for column in range(left, min(left + side, columns)):
                        first = 4 * ((slab * rows + row) * columns + column)
                        order += range(first, first + 4)
    return np.array(order)


@partial(jax.jit, static_argnums=0)
def logits(graph, state, rows):
    model = nnx.merge(graph, state)
    return model.logits(model(rows)[0])


def test_logits_agree(case):
    _, theirs, samples, batch, graph, state = case
    with torch.no_grad():
        expected = theirs(**transformers_inputs(batch, samples)).logits.numpy()
    ours = np.asarray(logits(graph, state, batch.rows))
    real = batch.rows.segment_ids > 0
    np.testing.assert_allclose(ours[real], expected[real], atol=1e-4, rtol=0)
    assert np.ptp(expected[real]) > 1  # logits that say nothing would agree with anything


def test_gradients_agree(case):
    config, theirs, samples, batch, graph, state = case
    theirs.zero_grad()
    found = theirs(**transformers_inputs(batch, samples)).logits
    losses = torch.nn.functional.cross_entropy(
        found.flatten(0, 1), torch.tensor(batch.targets, dtype=torch.long).flatten(), reduction="none"
    )
    weights = torch.tensor(batch.weights).flatten()
    loss = (losses * weights).sum() / weights.sum()
    loss.backward()
    absent = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in theirs.named_parameters()}
    expected = our_parameters(config, absent)

    @jax.jit
    def ours(state: nnx.State, batch: Batch):
        def mean(state):
            sums = next_token_sums(nnx.merge(graph, state), batch, COMPUTE, chunk=16)
            return sums.loss / sums.tokens

        return jax.value_and_grad(mean)(state)

    value, gradients = ours(state, batch)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    largest = max(float(np.abs(g).max()) for g in jax.tree.leaves(expected))
    compared = 0
    for (path, mine), (_, other) in zip(nnx.to_flat_state(gradients), nnx.to_flat_state(expected), strict=True):
        a, b = np.asarray(mine.get_value()), np.asarray(other.get_value())
        scale = np.abs(b).max()
        error = np.abs(a - b).max()
        limit = 1e-3 * scale if scale > 1e-6 * largest else 1e-6 * largest
        assert error <= limit, f"{path}: gradient differs by {error:.2e}, largest value {scale:.2e}"
        compared += a.size
    names = {hub_name(name) for name, _ in theirs.named_parameters()}
    assert names == {tensor.name for tensor in hf_tensors(config)}
    assert compared == sum(p.numel() for p in theirs.parameters())
