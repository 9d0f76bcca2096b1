"""An RL run on paper: the config read and checked, the prompts of every batch planned. No device is touched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from rich.console import Console

from videmo_jax.data.emo_cfg import DatasetError
from videmo_jax.data.mixture import generator
from videmo_jax.data.packing import RowPlan, Sizes
from videmo_jax.data.records import RecordError
from videmo_jax.data.rows import Budget
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.source import open_source
from videmo_jax.files.paths import open_path
from videmo_jax.rl.advantages import AdvantageSpec
from videmo_jax.rl.layout import Drawn
from videmo_jax.rl.loss import GrpoSpec
from videmo_jax.rl.prompts import PromptMaker
from videmo_jax.rl.rewards.spec import RewardSpec
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sft.curriculum import Levels, Stage, mixture, read_stages
from videmo_jax.tasks.taxonomy import task_of
from videmo_jax.training.samples import data_root, included, open_samples
from videmo_jax.training.settings import ConfigError, Settings, read_settings

HELD_OUT_SEED = 20_261


@dataclass(frozen=True)
class RlSettings:
    """What a config says beyond `training.settings`, checked; no data are read yet.

    Attributes:
      shared: of every recipe.
      stage: which samples are asked, how long, with which optimizer.
      decoding: of the rollout.
      rollout_tensor: devices that have one copy of the weights between them while they answer; 0: as while training.
      packed: shapes of rows of the update.
      staleness: updates that a policy is behind when it answers, 0 or 1.
      draws: rollouts that a step may take.
      updates: steps of the optimizer on each rollout.
      reference_every: steps after which the reference becomes the policy; 0: never.
      grpo, advantages: the objective.
      mask_cut: whether answers that the limit cut teach nothing.
      leave_out_flat: whether groups that teach nothing are in no row of the update.
      node_credit: weight of the costs that single tokens bear; 0: none.
      rewards: of the answers.
      reward_workers: processes that compute them; 0: the trainer's own.
    """

    shared: Settings
    stage: Stage
    decoding: Decoding
    rollout_tensor: int
    packed: tuple[Budget, ...]
    staleness: int
    draws: int
    updates: int
    reference_every: int
    grpo: GrpoSpec
    advantages: AdvantageSpec
    mask_cut: bool
    leave_out_flat: bool
    node_credit: float
    rewards: RewardSpec
    reward_workers: int

    @property
    def drawn(self) -> Drawn:
        """Sizes of a rollout."""
        merged = self.shared.budget.patches // self.shared.model.vision.merge**2
        return Drawn(self.shared.budget, self.decoding.answers, self.decoding.max_new_tokens, merged)


@dataclass(frozen=True)
class HeldOutPrompts:
    """Prompts whose answers are rewarded now and then.

    Attributes:
      make: builds their rows.
      numbers: of the samples.
      answers: to each, drawn as in the rollout; 0: one, greedily.
    """

    make: PromptMaker
    numbers: tuple[int, ...]
    answers: int


@dataclass(frozen=True)
class RlPlan:
    """All that a run needs but devices."""

    settings: RlSettings
    rows: RowPlan
    make: PromptMaker
    skips: SkipLog
    samples: int
    steps: int
    held_out: HeldOutPrompts | None


def read_rl_settings(config: ConfigDict, workdir: epath.PathLike, *, runs: bool = True) -> RlSettings:
    """Checks all of a config that can be checked without its data.

    Args:
      config: of `rl.recipe`.
      workdir: where an endpoint's replies are kept, unless the config says so.
      runs: False where nothing is trained, and so no checkpoint need be there.

    Raises:
      ConfigError, CheckpointError, CurriculumError, RewardError, ValueError: what is wrong and where.
    """
    if runs and not config.init:
        raise ConfigError("init is empty; RL goes on from a checkpoint of SFT and compares with it: name it in init")
    shared = read_settings(config)
    _, stages = read_stages(config)
    if len(stages) > 1:
        raise ConfigError(f"curriculum is {tuple(config.curriculum)}; RL has one stage, after those of SFT")
    rollout, grpo = config.rollout, config.grpo
    decoding = Decoding(
        rollout.max_new_tokens,
        rollout.answers,
        rollout.temperature,
        rollout.top_k,
        rollout.top_p,
        rollout.slots,
        rollout.together,
        rollout.int8,
    )
    if decoding.answers < 2:
        raise ConfigError(f"rollout.answers is {decoding.answers}; a group needs 2 or more to be compared")
    if not rollout.temperature > 0:
        raise ConfigError(
            f"rollout.temperature is {rollout.temperature}; it must be above 0: greedy answers are all alike"
        )
    if rollout.staleness not in (0, 1) or grpo.updates < 1 or config.rewards.workers < 0:
        raise ConfigError(
            f"rollout.staleness is {rollout.staleness}, grpo.updates {grpo.updates}, rewards.workers "
            f"{config.rewards.workers}; they must be 0 or 1, at least 1, at least 0"
        )
    if rollout.draws < 1 or (rollout.draws > 1 and rollout.staleness):
        raise ConfigError(
            f"rollout.draws is {rollout.draws}, rollout.staleness {rollout.staleness}; draws must be at least 1, and 1 "
            "with staleness: whether to draw again is known when the rewards are, and the next batch is asked before"
        )
    held_out = config.held_out
    if held_out.every < 1 or min(held_out.samples, held_out.answers, config.log.samples) < 0:
        raise ConfigError(
            f"held_out.every is {held_out.every}, held_out.samples {held_out.samples}, held_out.answers "
            f"{held_out.answers}, log.samples {config.log.samples}; the first must be at least 1, the others at least 0"
        )
    longest = shared.budget.tokens + decoding.max_new_tokens
    if longest > shared.model.text.max_positions:
        raise ConfigError(
            f"data.row.tokens + rollout.max_new_tokens is {longest}, and the model has "
            f"{shared.model.text.max_positions} positions; lower one of them"
        )
    spec = GrpoSpec(
        grpo.clip_low,
        grpo.clip_high,
        grpo.beta,
        decoding.temperature,
        grpo.reduction,
        grpo.ratio,
        grpo.objective,
        grpo.dual_clip,
        grpo.entropy,
    )
    if grpo.reference_every < 0:
        raise ConfigError(f"grpo.reference_every is {grpo.reference_every}; it must be a number of steps, or 0: never")
    if grpo.reference_every and not grpo.beta:
        raise ConfigError(
            f"grpo.reference_every is {grpo.reference_every} and grpo.beta 0: without the KL term there is no "
            "reference to renew; set grpo.beta, or grpo.reference_every to 0"
        )
    if grpo.node_credit < 0:
        raise ConfigError(f"grpo.node_credit is {grpo.node_credit}; it must be 0 or above")
    return RlSettings(
        shared,
        stages[0],
        decoding,
        rollout.tensor,
        _packed(config, shared.budget, decoding),
        rollout.staleness,
        rollout.draws,
        grpo.updates,
        grpo.reference_every,
        spec,
        AdvantageSpec(grpo.scale, grpo.epsilon),
        grpo.mask_cut,
        grpo.leave_out_flat or rollout.draws > 1,
        grpo.node_credit,
        reward_spec(config.to_dict(), workdir),
        config.rewards.workers,
    )


def _packed(config: ConfigDict, prompt: Budget, decoding: Decoding) -> tuple[Budget, ...]:
    """The shapes of rows of the update, which must have room for any prompt with its longest answer."""
    found = []
    for row in config.packed:
        if len(row) != 2 or not all(isinstance(value, int) for value in row):
            raise ConfigError(f"packed has {row!r}; a row is (tokens, slabs)")
        least = prompt.tokens + decoding.max_new_tokens, prompt.slabs
        if row[0] < least[0] or row[1] < least[1]:
            raise ConfigError(
                f"packed has the row {tuple(row)}; it must be at least {least}: data.row.tokens + "
                "rollout.max_new_tokens, and data.row.slabs"
            )
        found.append(Budget(*row, prompt.patches))
    if not found:
        raise ConfigError("packed is empty; name at least one row (tokens, slabs)")
    return tuple(found)


def reward_spec(config: Mapping[str, Any], workdir: epath.PathLike) -> RewardSpec:
    """The rewards of a config, whose fields are all there, the unused ones empty.

    Args:
      config: of `rl.recipe`, as plain values.
      workdir: where an endpoint's replies are kept, unless the config says so.

    Raises:
      RewardError: a field has a value that cannot be.
    """
    fields = dict(config["rewards"])
    endpoint = fields.pop("endpoint")
    fields.pop("workers")
    used = {**endpoint, "replies": endpoint["replies"] or str(open_path(workdir) / "replies")}
    return RewardSpec.from_config(
        {
            **fields,
            "endpoint": used if endpoint["url"] else None,
            "own": dict(fields["own"]),
            "node_credit": config["grpo"]["node_credit"] > 0,
        }
    )


def make_rl_plan(
    config: ConfigDict,
    settings: RlSettings,
    workdir: epath.PathLike,
    console: Console,
    *,
    logs: Path | None = None,
    host: int = 0,
) -> RlPlan:
    """Opens the data and plans which prompts a batch has; arguments as of `training.samples.open_samples`.

    Raises:
      ConfigError, CurriculumError, DatasetError, RewardError, ValueError: what is wrong and where.
    """
    shared = settings.shared
    # Lengths are of whole samples, and here prompts have to fit; one that does not is left out when it comes.
    room = replace(shared.budget, tokens=np.iinfo(np.int32).max)
    found = open_samples(config, shared, room, workdir, console, logs=logs, host=host)
    _require_tasks(found.source.files.names, config, shared, settings.rewards)
    levels = Levels(found.source.files, found.usable, shared.declared)
    tokens = np.minimum(found.lengths.tokens, shared.budget.tokens)
    rows = RowPlan(
        mixture(settings.stage, (), levels),
        Sizes(tokens, found.lengths.slabs),
        shared.budget,
        batch=config.batch,
        seed=config.seed,
        pack=False,
    )
    make = PromptMaker(
        found.source,
        shared.preparer,
        shared.model.vision,
        shared.budget,
        shared.declared,
        frozenset(shared.leave_out),
    )
    steps = settings.stage.steps or rows.batches(settings.stage.epochs)
    held_out = _held_out(config, settings, workdir, make, console) if config.held_out.samples else None
    return RlPlan(settings, rows, make, found.skips, found.count, steps, held_out)


def _require_tasks(files: Sequence[str], config: ConfigDict, shared: Settings, rewards: RewardSpec) -> None:
    """Refuses files of which nobody knows how their answers are rewarded, or which a mixture does not suit."""
    for file in files:
        if not included(file, config.data.include):
            continue
        if (task := task_of(file, shared.declared)) is None:
            raise ConfigError(
                f"{file}: no official annotation file, so that its reward is unknown; declare it in data.tasks, such "
                "as 'NAME=expression/choice', or leave it out of data.include"
            )
        rewards.require_components(file, task)


def _held_out(
    config: ConfigDict, settings: RlSettings, workdir: epath.PathLike, make: PromptMaker, console: Console
) -> HeldOutPrompts | None:
    """Prompts of each reward branch; None, with a word why, where the data have no such split."""
    shared, spec = settings.shared, config.held_out
    try:
        source, _ = open_source(
            data_root(config, workdir),
            spec.split,
            shared.inputs.frames,
            shared.tokenizer,
            variant=config.data.variant,
            cache_bytes=config.data.cache_mb * 2**20,
            threads=config.data.threads,
        )
    except (DatasetError, RecordError) as error:
        console.print(f"no rewards of held-out prompts: {error}")
        return None
    branches: dict[str, list[int]] = {}
    of_file = [_branch(file, config, settings) for file in source.files.names]
    for number, file in enumerate(source.files.file.tolist()):
        if branch := of_file[file]:
            branches.setdefault(branch, []).append(number)
    numbers: list[int] = []
    for place, (_, samples) in enumerate(sorted(branches.items())):
        order = generator(HELD_OUT_SEED, place).permutation(len(samples))
        numbers += sorted(samples[at] for at in order[: spec.samples])
    said = ", ".join(f"{min(len(samples), spec.samples)} {branch}" for branch, samples in sorted(branches.items()))
    console.print(f"held out: prompts of {said or 'no branch'}")
    if not numbers:
        return None
    return HeldOutPrompts(replace(make, source=source, leave_out=frozenset()), tuple(numbers), spec.answers)


def _branch(file: str, config: ConfigDict, settings: RlSettings) -> str | None:
    """The reward branch of a file's task; None where it is not included or not known."""
    task = task_of(file, settings.shared.declared)
    if task is None or not included(file, config.data.include):
        return None
    settings.rewards.require_components(file, task)
    return task.reward
