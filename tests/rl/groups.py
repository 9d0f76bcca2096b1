"""Rollouts with random answers, for the tests of the RL step."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from tests.sft.test_step import CONFIG, VIDEO, sample
from videmo_jax.data.chat import Encoded
from videmo_jax.data.rows import Budget, Prepared, build_row, stack_rows
from videmo_jax.model.positions import VisionGrid
from videmo_jax.rl.advantages import group_advantages, token_advantages
from videmo_jax.rl.rows import with_answers


class GroupBudget(NamedTuple):
    """The shape of a row: room for a prompt, and for `answers` (G) of `slots` (C) tokens each."""

    prompt: Budget
    answers: int
    slots: int


class Rollout(NamedTuple):
    """A prompt without an answer, and up to G answers to it; a length of 0: there is no such answer."""

    prompt: Prepared
    tokens: np.ndarray
    lengths: np.ndarray
    log_probs: np.ndarray


SLOTS = 7
BUDGET = GroupBudget(Budget(tokens=30, slabs=3, patches=24), answers=3, slots=SLOTS)
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


def build_group(rollout, budget, vision):
    """A row of a prompt and its answers, without the batch axis."""
    answers, slots = budget.answers, budget.slots
    lengths = np.pad(rollout.lengths, (0, answers - len(rollout.lengths)))
    held = np.arange(slots) < lengths[:, None]

    def laid_out(x):
        x = x[:, :slots]
        return np.where(held, np.pad(x, [(0, answers - len(x)), (0, slots - x.shape[1])]), 0)

    prompt = stack_rows([build_row([rollout.prompt], budget.prompt, vision)]).rows
    parts = (laid_out(rollout.tokens).astype(np.int32), lengths, laid_out(rollout.log_probs).astype(np.float32))
    return jax.tree.map(lambda x: np.asarray(x)[0], with_answers(prompt, *(x[None] for x in parts)))


def present(rollouts, budget):
    """Which of the G answers to each prompt there are."""
    return np.stack([np.pad(r.lengths > 0, (0, budget.answers - len(r.lengths))) for r in rollouts])


def group_batch(seed, budget=BUDGET):
    """The rollouts as rows, with random rewards and reference; the third group's reward failed."""
    rng = np.random.default_rng(seed + 1000)
    found = rollouts(seed)
    rewards = rng.random((4, budget.answers))
    rewards[2, 1] = np.nan
    batch = stack_rows([build_group(r, budget, CONFIG.vision) for r in found])
    advantages = group_advantages(rewards, present(found, budget))
    batch = batch.credited(token_advantages(advantages.values, budget.slots), advantages.valid)
    reference = batch.sampled + rng.normal(0, 0.3, batch.sampled.shape).astype(np.float32) * (batch.sampled != 0)
    return dataclasses.replace(batch, reference=reference)


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
