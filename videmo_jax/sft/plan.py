"""A run on paper: the config read and checked, the data measured, every stage's rows planned. No device is touched."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from etils import epath
from ml_collections import ConfigDict
from rich.console import Console

from videmo_jax.data.emo_cfg import DatasetError
from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.packing import RowPlan, Sizes
from videmo_jax.data.pipeline import RowMaker
from videmo_jax.data.records import RecordError
from videmo_jax.data.rows import Budget
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.source import open_source
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.model.config import ModelConfig
from videmo_jax.sft.curriculum import Levels, Stage, mixture, read_stages
from videmo_jax.sft.held_out import HeldOut, draw
from videmo_jax.tasks.taxonomy import Task
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.samples import data_root, included, open_samples
from videmo_jax.training.settings import Settings
from videmo_jax.training.step import ComputeSpec
from videmo_jax.training.trained import Trained


@dataclass(frozen=True)
class StagePlan:
    """A stage with its rows; its steps are `begin + 1` to `end` of the run."""

    stage: Stage
    rows: RowPlan
    begin: int
    end: int


@dataclass(frozen=True)
class Plan:
    """All that a run needs but devices."""

    model: ModelConfig
    inputs: InputSpec
    compute: ComputeSpec
    guard: GuardSpec
    tokenizer: Tokenizer
    make: RowMaker
    skips: SkipLog
    samples: int  # of the source, the unusable ones among them
    stages: tuple[StagePlan, ...]
    held_out: HeldOut | None
    trained: Trained


def make_plan(
    config: ConfigDict,
    settings: Settings,
    workdir: epath.PathLike,
    console: Console,
    *,
    logs: Path | None = None,
    host: int = 0,
) -> Plan:
    """Measures the data and plans every stage's rows, so that what is wrong is said before the first step.

    Args:
      config: of `sft.recipe`.
      settings: what it says.
      workdir: takes the list of what was left out, and holds the embedded data where no other is named.
      console: hears what is going on.
      logs: local folder for the list, where the work directory is a bucket.
      host: number of this process; each keeps a list of its own.

    Raises:
      ConfigError, CurriculumError, DatasetError, ValueError: what is wrong and where.
    """
    budget = settings.budget
    found = open_samples(config, settings, budget, workdir, console, logs=logs, host=host)
    levels = Levels(found.source.files, found.usable, settings.declared)
    sizes = Sizes(found.lengths.tokens, found.lengths.slabs)
    make = RowMaker(found.source, settings.preparer, settings.model.vision, budget, frozenset(settings.leave_out))
    return Plan(
        settings.model,
        settings.inputs,
        settings.compute,
        settings.guard,
        settings.tokenizer,
        make,
        found.skips,
        found.count,
        _plan_stages(config, *read_stages(config), levels, sizes, budget),
        _held_out(config, workdir, make, settings.declared, console) if config.held_out.samples else None,
        settings.trained,
    )


def _plan_stages(
    config: ConfigDict,
    every: Sequence[Stage],
    chosen: Sequence[Stage],
    levels: Levels,
    sizes: Sizes,
    budget: Budget,
) -> tuple[StagePlan, ...]:
    """The rows and steps of the stages, one after the other."""
    plans: list[StagePlan] = []
    begin = 0
    for stage in chosen:
        place = every.index(stage)
        rows = RowPlan(
            mixture(stage, every[:place], levels),
            sizes,
            budget,
            batch=config.batch,
            seed=config.seed + place,  # an order of its own in every stage
            pack=config.data.pack,
        )
        end = begin + (stage.steps or rows.batches(stage.epochs))
        plans.append(StagePlan(stage, rows, begin, end))
        begin = end
    return tuple(plans)


def _held_out(
    config: ConfigDict,
    workdir: epath.PathLike,
    make: RowMaker,
    declared: tuple[Task, ...],
    console: Console,
) -> HeldOut | None:
    """The samples that perplexity is measured on; None, with a word why, where the data have no such split."""
    try:
        source, _ = open_source(
            data_root(config, workdir),
            config.held_out.split,
            make.preparer.spec.frames,
            make.preparer.tokenizer,
            variant=config.data.variant,
            cache_bytes=config.data.cache_mb * 2**20,
            threads=config.data.threads,
        )
        held_out = draw(
            source,
            replace(make, source=source, leave_out=frozenset()),
            each=config.held_out.samples,
            batch=config.batch,
            included=lambda file: included(file, config.data.include),
            declared=declared,
            pack=config.data.pack,
        )
    except (DatasetError, RecordError) as error:
        console.print(f"no perplexity of held-out samples: {error}")
        return None
    left_out = f"; {held_out.left_out} fit no row or cannot be used" if held_out.left_out else ""
    console.print(f"held out: {held_out.samples} samples of {', '.join(held_out.plans) or 'no level'}{left_out}")
    return held_out
