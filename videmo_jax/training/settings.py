"""What every recipe says of the model, its input and its computation, read and checked before any data are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.rows import Budget
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.files.errors import UserError
from videmo_jax.model.config import ModelConfig
from videmo_jax.tasks.taxonomy import Task, declared_task
from videmo_jax.training.checkpoint import read_tokenizer_files, require_fit
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.step import ComputeSpec
from videmo_jax.training.stopped import read_left_out
from videmo_jax.training.trained import Trained, read_trained


class ConfigError(UserError):
    """The config contradicts itself, or what it names."""


@dataclass(frozen=True)
class Settings:
    """What a config says, checked; no data are read yet."""

    model: ModelConfig
    inputs: InputSpec
    budget: Budget
    compute: ComputeSpec
    guard: GuardSpec
    declared: tuple[Task, ...]
    tokenizer: Tokenizer
    leave_out: tuple[str, ...]  # ids of samples
    trained: Trained

    @property
    def preparer(self) -> Preparer:
        """Makes tokens and patches of samples."""
        return Preparer(self.tokenizer, self.inputs)


def read_settings(config: ConfigDict) -> Settings:
    """Checks all of a config that can be checked without its data.

    Raises:
      ConfigError, CheckpointError, TokenizerError, LeaveOutError, ValueError: what is wrong and where.
    """
    model = ModelConfig.from_json(config.model.to_dict())
    frames = {"patch": model.vision.patch, "merge": model.vision.merge, "temporal_patch": model.vision.temporal_patch}
    inputs = InputSpec.from_json(
        {"frames": {**config.data.frames.to_dict(), **frames}, "seconds_per_grid": config.data.seconds_per_grid}
    )
    budget = Budget(**config.data.row.to_dict())
    if budget.patches % model.vision.merge**2:
        raise ConfigError(f"data.row.patches is {budget.patches}; it must be a multiple of {model.vision.merge**2}")
    if config.batch < 1:
        raise ConfigError(f"batch is {config.batch}; it must be above 0")
    declared = tuple(map(declared_task, config.data.tasks))
    compute, guard = ComputeSpec(**config.compute.to_dict()), GuardSpec(**config.guard.to_dict())
    if config.init:
        require_fit(config.init, model)
    tokenizer = _tokenizer(config)
    if tokenizer.vocab_size > model.text.vocab:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model's vocabulary {model.text.vocab}; "
            "set model.text.vocab, or name the tokenizer that belongs to the model"
        )
    leave_out = read_left_out(config.data.leave_out) if config.data.leave_out else ()
    trained = read_trained(model, config.freeze, config.train_also)
    return Settings(model, inputs, budget, compute, guard, declared, tokenizer, leave_out, trained)


def _tokenizer(config: Mapping[str, Any]) -> Tokenizer:
    if config["tokenizer"]:
        return Tokenizer.from_dir(config["tokenizer"])
    if config["init"]:
        return Tokenizer.from_files(read_tokenizer_files(config["init"]))
    return Tokenizer.embedded()
