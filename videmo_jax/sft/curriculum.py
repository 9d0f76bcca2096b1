"""Curriculum emotion learning (PAPER.md section 2): stages in order, each with samples and a schedule of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool

from videmo_jax.data.instructions import is_instruction
from videmo_jax.data.mixture import Mixture, Part, shared
from videmo_jax.data.source import Files
from videmo_jax.files.errors import UserError
from videmo_jax.tasks.taxonomy import STAGES, Task, is_named, task_of
from videmo_jax.training.optimizer import OptimizerSpec


class CurriculumError(UserError):
    """The stages contradict themselves or the data; the message says which, what is wrong and what to do."""


@dataclass(frozen=True)
class Stage:
    """One stage; a fresh optimizer begins it.

    Attributes:
      name: in configs, metrics and checkpoints.
      levels: whose tasks it trains, of `tasks.taxonomy.STAGES`; empty for all samples with videos.
      weights: (pattern of annotation files, passes over their samples an epoch); the first that matches holds, 1 where
        none does, and 0 leaves the files out.
      instructions: share of text-only samples in an epoch, where there are any.
      replay: share of the samples of earlier stages in an epoch.
      epochs: passes over its own samples.
      steps: in place of epochs, where it is not 0.
      optimizer: with the stage's peak learning rate and schedule.
    """

    name: str
    levels: tuple[str, ...]
    weights: tuple[tuple[str, float], ...]
    instructions: float
    replay: float
    epochs: float
    steps: int
    optimizer: OptimizerSpec

    def __post_init__(self) -> None:
        if unknown := set(self.levels) - set(STAGES):
            raise CurriculumError(
                f"stages.{self.name}.levels: {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}"
            )
        if not (self.replay >= 0 and self.instructions >= 0 and self.replay + self.instructions < 1):
            raise CurriculumError(
                f"stages.{self.name}: replay {self.replay:g} and instructions {self.instructions:g} are shares of an "
                "epoch: 0 or above, and below 1 together"
            )
        if self.epochs <= 0 or self.steps < 0 or any(weight < 0 for _, weight in self.weights):
            raise CurriculumError(
                f"stages.{self.name}: epochs {self.epochs:g} must be above 0, steps {self.steps} and the weights 0 or "
                "above"
            )


def read_stages(config: Mapping[str, Any]) -> tuple[list[Stage], list[Stage]]:
    """The stages that a config names: all of its curriculum in order, and those of them that this run trains.

    A field of a stage that is empty or 0 takes the config's own: `epochs`, `steps`, `optimizer.learning_rate`,
    `optimizer.schedule`.

    Raises:
      CurriculumError: a name or a field has no meaning.
    """
    names = list(config["curriculum"])
    for name in names:
        if name not in config["stages"]:
            raise CurriculumError(f"curriculum: no stage {name!r}; stages holds {', '.join(config['stages'])}")
    if not names or len(set(names)) < len(names):
        raise CurriculumError(f"curriculum is {tuple(names)}; it names each stage once, and at least one")
    stages = [_stage(name, config["stages"][name], config) for name in names]
    if not config["only"]:
        return stages, stages
    if config["only"] not in names:
        raise CurriculumError(f"no stage {config['only']!r} in the curriculum; it has {', '.join(names)}")
    return stages, [stage for stage in stages if stage.name == config["only"]]


def _stage(name: str, fields: Mapping[str, Any], config: Mapping[str, Any]) -> Stage:
    base = OptimizerSpec(**dict(config["optimizer"]))
    own = {field: fields[field] for field in ("learning_rate", "schedule") if fields[field]}
    steps = fields["steps"] or (0 if fields["epochs"] else config["steps"])
    return Stage(
        name,
        tuple(fields["levels"]),
        tuple((str(pattern), float(weight)) for pattern, weight in fields["weights"]),
        fields["instructions"],
        fields["replay"],
        fields["epochs"] or config["epochs"],
        steps,
        dataclasses.replace(base, **own),
    )


@dataclass(frozen=True)
class Levels:
    """Which samples of a source belong to which level of the curriculum.

    Attributes:
      files: of the source.
      usable: samples that may be trained on.
      declared: tasks of files that are not official.
    """

    files: Files
    usable: Bool[np.ndarray, "N"]
    declared: tuple[Task, ...]

    def of(self, levels: Sequence[str]) -> Bool[np.ndarray, "N"]:
        """Usable samples with videos of these levels; of none, of all levels and of unknown tasks too.

        Raises:
          CurriculumError: nobody knows the level of a file.
        """

        def chosen(file: str) -> bool:
            if is_instruction(file):
                return False
            task = task_of(file, self.declared)
            if levels and task is None:
                raise CurriculumError(
                    f"{file}: no official annotation file, so that its level is unknown; declare it in data.tasks, "
                    f"such as '{PurePosixPath(file).stem}=expression/choice', or leave it out of data.include"
                )
            return not levels or task.stage in levels

        return self.usable & self.files.chosen(chosen)

    def instructions(self) -> Bool[np.ndarray, "N"]:
        """Usable text-only samples."""
        return self.usable & self.files.chosen(is_instruction)


def mixture(stage: Stage, earlier: Sequence[Stage], levels: Levels) -> Mixture:
    """The samples of an epoch of a stage: its own files by their weights, then replay and instructions by their shares.

    Raises:
      CurriculumError: there is not a single sample of its own.
    """
    own = levels.of(stage.levels)
    parts = [
        Part(numbers, round(weight * len(numbers)))
        for weight, numbers in _by_weight(stage, levels.files, own).items()
        if weight and len(numbers)
    ]
    count = sum(part.an_epoch for part in parts)
    if not count:
        raise CurriculumError(
            f"stage {stage.name}: not a single sample of its own fits a row; look into skipped.jsonl, data.include and "
            f"stages.{stage.name}.weights"
        )
    before = np.zeros_like(own)
    for other in earlier:
        before |= levels.of(other.levels)
    extra = {"replay": before & ~own, "instructions": levels.instructions()}
    shares = {name: getattr(stage, name) * bool(chosen.any()) for name, chosen in extra.items()}
    total = count + shared(count, sum(shares.values()))
    for name, chosen in extra.items():
        if shares[name]:
            parts.append(Part(_numbers(chosen), round(total * shares[name])))
    return Mixture(tuple(parts))


def _by_weight(stage: Stage, files: Files, own: Bool[np.ndarray, "N"]) -> dict[float, np.ndarray]:
    """The numbers of the stage's own samples by how often an epoch passes over them."""

    def weight(file: str) -> float:
        name = PurePosixPath(file).name
        return next((weight for pattern, weight in stage.weights if is_named(name, pattern)), 1.0)

    for pattern, _ in stage.weights:
        if not any(is_named(file, pattern) for file in files.names):
            raise CurriculumError(f"stages.{stage.name}.weights: no annotation file is named {pattern!r}")
    weights = np.array([weight(file) for file in files.names])[files.file]
    return {value: _numbers(own & (weights == value)) for value in np.unique(weights[own]).tolist()}


def _numbers(chosen: Bool[np.ndarray, "N"]) -> np.ndarray:
    return np.flatnonzero(chosen).astype(np.int32)
