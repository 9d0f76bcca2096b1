"""Perplexity of each level of the curriculum on samples that are not trained on (PAPER.md section 2)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from videmo_jax.data.mixture import everything, generator
from videmo_jax.data.packing import RowPlan, Sizes
from videmo_jax.data.pipeline import RowMaker, TrainingBatches
from videmo_jax.data.rows import Batch
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.source import Source, fitting
from videmo_jax.sft.loss import LossSums
from videmo_jax.tasks.taxonomy import STAGES, Task, task_of

SEED = 3  # of the draw: every run of every seed measures the same samples


@dataclass(frozen=True)
class HeldOut:
    """Planned rows of the drawn samples of each level, and what makes them; `left_out` counts those that fit no row."""

    plans: Mapping[str, RowPlan]
    make: RowMaker
    left_out: int

    @property
    def samples(self) -> int:
        """Samples of all levels."""
        return sum(len(plan.mixture) for plan in self.plans.values())


def draw(
    source: Source,
    make: RowMaker,
    *,
    each: int,
    batch: int,
    included: Callable[[str], bool],
    declared: tuple[Task, ...],
    pack: bool,
) -> HeldOut:
    """Draws `each` samples of every level, as far as there are so many; files of unknown tasks have none.

    Args:
      source: of the split that is held out.
      make: builds rows of them.
      each: samples of a level.
      batch: rows of a batch over all hosts.
      included: whether an annotation file may be drawn from.
      declared: tasks of files that are not official.
      pack: several samples a row, as in training.
    """
    files = source.files
    tasks = {name: task_of(name, declared) for name in files.names}
    level_of = {name: task.stage for name, task in tasks.items() if task and included(name)}
    drawn: dict[str, np.ndarray] = {}
    for place, level in enumerate(STAGES):
        of_level = np.flatnonzero(files.chosen(lambda name, level=level: level_of.get(name) == level))
        drawn[level] = np.sort(generator(SEED, place).permutation(of_level)[:each])
    wanted = np.zeros(len(source), bool)
    wanted[np.concatenate(list(drawn.values()))] = True
    lengths = source.lengths(wanted)
    skips = SkipLog(None, total=len(source), max_share=1)
    fits = fitting(source, lengths, wanted, make.budget, skips)
    sizes = Sizes(lengths.tokens, lengths.slabs)
    kept = {level: numbers[fits[numbers]].astype(np.int32) for level, numbers in drawn.items()}
    plans = {
        level: RowPlan(everything(numbers), sizes, make.budget, batch=batch, seed=SEED, pack=pack)
        for level, numbers in kept.items()
        if len(numbers)
    }
    return HeldOut(plans, make, len(skips))


def perplexities(
    held_out: HeldOut,
    loss: Callable[[nnx.State, Any], LossSums],
    params: nnx.State,
    place: Callable[[Batch], Any],
    *,
    threads: int,
    host: int = 0,
    hosts: int = 1,
) -> dict[str, float]:
    """`perplexity_LEVEL` of each level that has samples: exp of the mean loss of a trained token.

    Args:
      held_out: the samples.
      loss: (parameters, batch on the devices) -> sums.
      params: of the model.
      place: brings a batch to the devices.
      threads: that decode.
      host, hosts: which part of each batch this process reads.
    """
    found = {}
    for level, plan in held_out.plans.items():
        skips = SkipLog(None, total=len(plan.mixture), max_share=1)
        batches = TrainingBatches(plan, held_out.make, skips=skips, threads=threads, host=host, hosts=hosts)
        total = tokens = 0.0
        for _ in range(plan.batches(1)):
            sums = loss(params, place(next(batches)))
            # Read one by one: on CPUs, two programs with collectives in flight can block each other.
            total, tokens = total + float(sums.loss), tokens + float(sums.tokens)
        if tokens:
            found[f"perplexity_{level}"] = math.exp(min(total / tokens, 700.0))
    return found
