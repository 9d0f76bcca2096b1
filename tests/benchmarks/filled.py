"""How full the rows of an RL update are with Emo-CFG's mix of answers, and their cost beside that of a row a prompt.

  python -m tests.benchmarks.filled

Samples of each kind are those of PAPER.md section 2; tokens of an answer are ours (the set is under a licence): one
word to a short sentence for closed tasks, 40 for short captions, 150 for rationales, 220 for fine-grained captions, of
a log-normal spread. Prompts have clips of 16 frames (1,224 tokens), or of 8 to 16.
"""

import math

import numpy as np

from videmo_jax.data.rows import Budget
from videmo_jax.model.config import PRESETS
from videmo_jax.model.flops import slab_cost
from videmo_jax.rl.layout import cheapest_plan
from videmo_jax.rl.recipe import rl_recipe

# (samples, mean tokens of an answer)
MIX = (
    (64_020, 6),  # recognition of appearance and actions
    (119_676, 40),  # their captions
    (19_998, 4),  # identity
    (188_590, 5),  # head pose
    (1_215_882, 18),  # open questions
    (288_577, 5),  # expressions, all labels
    (59_797, 40),  # their captions
    (78_072, 220),  # fine-grained captions
    (121_618, 150),  # rationales
)
ANSWERS, LIMIT, SLABS, PATCHES = 8, 512, 8, 640
BY_SLAB = 153  # merged tokens of a slab of a clip with 1,224


def lengths(rng: np.random.Generator, batch: int) -> np.ndarray:
    """Tokens of the answers to prompts of the mix, [B, G]."""
    samples, mean = np.array(MIX).T
    task = rng.choice(len(MIX), batch, p=samples / samples.sum())
    truth = mean[task] * rng.lognormal(-0.125, 0.5, batch)
    drawn = truth[:, None] * rng.lognormal(-0.02, 0.2, (batch, ANSWERS))
    return np.clip(np.round(drawn).astype(int) + 1, 1, LIMIT)


def prompts(rng: np.random.Generator, batch: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and slabs of prompts with clips of `least` to 8 slabs."""
    slabs = rng.integers(least, SLABS + 1, batch)
    return slabs * BY_SLAB + rng.integers(40, 120, batch), slabs


def main() -> None:
    rows = [Budget(*row, PATCHES) for row in rl_recipe("7b").packed]
    by_slab = slab_cost(PRESETS["7b"], PATCHES)
    whole = 1536 + ANSWERS * LIMIT
    print(f"a slab costs what {by_slab:.0f} tokens do; rows of {', '.join(str((r.tokens, r.slabs)) for r in rows)}")
    print("prompts, parts of the batch | slabs | a row a prompt: filled | packed: filled | its cost | rows taken")
    for batch, shards in ((128, 64), (128, 128), (256, 64)):
        for least in (SLABS, SLABS // 2):
            rng, found, taken = np.random.default_rng(0), [], {}
            for _ in range(50):
                (tokens, slabs), drawn = prompts(rng, batch, least), lengths(rng, batch)
                row, plan = cheapest_plan(tokens, slabs, drawn, rows, shards, by_slab)
                passes = math.ceil(len(plan.rows) / shards)
                cost = passes * shards * (row.tokens + by_slab * row.slabs) / (batch * (whole + by_slab * SLABS))
                held = tokens.sum() + drawn.sum()
                found.append((held / (batch * whole), plan.filled(row, shards), cost))
                taken[passes, row.tokens] = taken.get((passes, row.tokens), 0) + 1
            before, after, cost = np.mean(found, axis=0)
            said = ", ".join(f"{p} x {t}: {n / 50:.0%}" for (p, t), n in sorted(taken.items()))
            print(f"{batch}, {shards} | {least} to {SLABS} | {before:.1%} | {after:.1%} | {cost:.2f} | {said}")


if __name__ == "__main__":
    main()
