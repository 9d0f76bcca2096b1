"""Rollouts with random answers, for the tests of the RL step."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.sft.test_step import CONFIG, VIDEO, sample
from videmo_jax.data.chat import Encoded
from videmo_jax.data.rows import Budget, Prepared, build_row, stack_rows
from videmo_jax.model.positions import VisionGrid
from videmo_jax.rl.advantages import group_advantages, token_advantages
from videmo_jax.rl.layout import Drawn, most_rows, plan_rows
from videmo_jax.rl.rows import side_by_side, with_answers


class Rollout(NamedTuple):
    """A prompt without an answer, and up to G answers to it; a length of 0: there is no such answer."""

    prompt: Prepared
    tokens: np.ndarray
    lengths: np.ndarray
    log_probs: np.ndarray


SLOTS = 7
PROMPT = Budget(tokens=30, slabs=3, patches=24)
ROW = Budget(tokens=80, slabs=5, patches=24)  # of the update: several prompts fit
TIGHT = Budget(tokens=37, slabs=3, patches=24)  # the least there may be: most groups are split
LENGTHS = ((7, 3, 1), (5, 0, 6), (2, 7, 4), (1, 1, 7))


def prompts(rng):
    """A clip whose time runs past its height, text alone, two clips, a clip at the end."""
    clip = VisionGrid(2, 4, 6, 2.7)
    return [
        sample(rng, 3, clip, 8),
        sample(rng, 9),
        sample(rng, 2, VisionGrid(1, 4, 4), 3, VisionGrid(2, 4, 4, 0.9), 4),
        sample(rng, 5, clip),
    ]


def rollouts(seed):
    """Four prompts with up to three answers of different lengths; what lies past an answer is not to be read."""
    rng = np.random.default_rng(seed)
    found = []
    for prompt, lengths in zip(prompts(rng), LENGTHS, strict=True):
        tokens = rng.integers(0, VIDEO, (3, SLOTS)).astype(np.int32)
        log_probs = rng.uniform(-5.5, -4.0, (3, SLOTS)).astype(np.float32)
        log_probs[np.arange(SLOTS) >= np.array(lengths)[:, None]] = np.nan
        found.append(Rollout(prompt, tokens, np.array(lengths), log_probs))
    return found


def drawn(answers=3, slots=SLOTS):
    return Drawn(PROMPT, answers, slots, merged=PROMPT.patches // 4)


def laid_out(found, row, sizes, shards=1):
    """What goes where, of rollouts with answers of up to `sizes.slots` tokens."""
    tokens, slabs = (
        np.array([size(r.prompt) for r in found]) for size in (lambda p: len(p.encoded.tokens), lambda p: p.slabs)
    )
    plan = plan_rows(tokens, slabs, np.stack([r.lengths for r in found]), row)
    return plan.layout(row, sizes, most_rows(len(found), row, sizes, shards), shards=shards)


def build_groups(found, row=ROW, shards=1):
    """Rows of the update from rollouts."""
    prompts = stack_rows([build_row([r.prompt], PROMPT, CONFIG.vision) for r in found]).rows
    tokens, lengths, log_probs = (np.stack([r[at] for r in found]) for at in (1, 2, 3))
    layout = laid_out(found, row, drawn(*tokens.shape[1:]), shards)
    made = with_answers(prompts, *map(jnp.asarray, (tokens, lengths, log_probs)), layout)
    return jax.tree.map(np.asarray, made)


def build_taken(draws, taken, row=ROW, shards=1):
    """Rows of the update from several rollouts' answers, of those that are taken [B*K, G]."""
    found = [each for place in zip(*draws, strict=True) for each in place]
    sizes = [(len(r.prompt.encoded.tokens), r.prompt.slabs) for r in found]
    tokens, slabs = np.where(taken.any(axis=1), np.array(sizes).T, 0)
    lengths = np.where(taken, np.stack([r.lengths for r in found]), 0)
    plan, held = plan_rows(tokens, slabs, lengths, row), drawn(*found[0].tokens.shape)
    layout = plan.layout(row, held, most_rows(len(draws[0]), row, held, shards), shards=shards)
    parts = [
        (
            stack_rows([build_row([r.prompt], PROMPT, CONFIG.vision) for r in each]).rows,
            *(np.stack([r[at] for r in each]) for at in (1, 2, 3)),
        )
        for each in draws
    ]
    return jax.tree.map(np.asarray, with_answers(*side_by_side(parts), layout))


def by_answer(batch, values, prompts=4):
    """What stands at the tokens of answers as [B, G, C]; 0 where there is none."""
    found = np.zeros(prompts * batch.answers * batch.limit, np.float64)
    held = np.asarray(batch.drawn) >= 0
    found[np.asarray(batch.drawn)[held]] = np.asarray(values)[held]
    return found.reshape(prompts, batch.answers, batch.limit)


def present(found):
    """Which answers there are."""
    return np.stack([r.lengths > 0 for r in found])


def group_batch(seed, row=ROW, shards=1):
    """The rollouts as rows, with random rewards and reference; the third group's reward failed."""
    rng = np.random.default_rng(seed + 1000)
    found = rollouts(seed)
    rewards = rng.random((4, 3))
    rewards[2, 1] = np.nan
    batch = build_groups(found, row, shards)
    advantages = group_advantages(rewards, present(found))
    batch = batch.credited(jnp.asarray(token_advantages(advantages.values, SLOTS)), jnp.asarray(advantages.valid))
    reference = rng.normal(0, 0.3, (4, 3, SLOTS)).astype(np.float32).reshape(-1)[np.maximum(batch.drawn, 0)]
    batch = dataclasses.replace(batch, reference=np.where(batch.drawn >= 0, batch.sampled + reference, 0))
    return jax.tree.map(np.asarray, batch)


def extended(prompt, answer):
    """The prompt and an answer as one sample."""
    encoded, count = prompt.encoded, len(answer)
    segments = encoded.segments
    segments = (*segments, count) if isinstance(segments[-1], VisionGrid) else (*segments[:-1], segments[-1] + count)
    return Prepared(
        prompt.id,
        Encoded(
            np.concatenate([encoded.tokens, answer]).astype(np.int32),
            np.zeros(len(encoded.tokens) + count, bool),
            np.concatenate([encoded.vision, np.full(count, -1)]).astype(np.int32),
            segments,
        ),
        prompt.patches,
        prompt.patch_hw,
    )
