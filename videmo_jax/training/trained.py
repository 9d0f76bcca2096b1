"""Which parameters a run trains; the others stay bit for bit, without a gradient and without an optimizer's state."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from videmo_jax.files.errors import UserError
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.lora import ADAPTERS
from videmo_jax.model.videmo import abstract_model


@dataclass(frozen=True)
class Trained:
    """A choice of parameters by dotted prefixes of their names, such as `vision.blocks`.

    Attributes:
      only: whose parameters are trained; empty: all.
      frozen: whose parameters are not, whatever `only` says.
    """

    only: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()

    def __contains__(self, path: Sequence[Any]) -> bool:
        """Whether the parameter at a path is trained."""
        name = ".".join(map(str, path))
        return (not self.only or _below(name, self.only)) and not _below(name, self.frozen)

    def split(self, params: nnx.State) -> tuple[nnx.State, nnx.State]:
        """(what is trained, what is not), two trees without what the other has."""
        trained, frozen = nnx.split_state(params, lambda path, _: path in self, ...)
        return trained, frozen

    def of(self, params: nnx.State) -> nnx.State:
        """What is trained."""
        return self.split(params)[0]


ALL = Trained()


def joined(trained: nnx.State, frozen: nnx.State) -> nnx.State:
    """All parameters again, from the two parts of `Trained.split`."""
    return nnx.merge_state(trained, frozen)


def sizes(params: nnx.State, trained: Trained) -> str:
    """How many parameters there are and, where it is not all of them, how many are trained."""
    counts = [sum(leaf.size for leaf in jax.tree.leaves(part)) for part in trained.split(params)]
    share = f", {counts[0] / 1e6:,.3f} M of them trained," if counts[1] else ""
    return f"{sum(counts) / 1e6:,.1f} M parameters{share}"


def read_trained(model: ModelConfig, freeze: Sequence[str], train_also: Sequence[str]) -> Trained:
    """What the fields `freeze` and `train_also` of a config choose.

    Args:
      model: with adapters, these alone are trained, and what `train_also` names.
      freeze: prefixes of names of parameters that are not trained.
      train_also: prefixes of those that are trained beside adapters.

    Raises:
      ValueError: a name is none of the model's, `train_also` is given without adapters, or nothing is left to train.
    """
    paths = [tuple(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(abstract_model(model), nnx.Param))]
    known = sorted({".".join(path[:length]) for path in paths for length in range(1, len(path) + 1)})
    for field, names in (("freeze", freeze), ("train_also", train_also)):
        if isinstance(names, str):
            raise UserError(f"{field} is {names!r}; it must be a tuple of names, such as ('{names}',)")
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
                raise UserError(f"{field}: the model has no parameters '{name}'; did you mean '{near[0]}'?")
    if train_also and not model.lora.rank:
        raise UserError("train_also names what is trained beside adapters; set model.lora.rank, or use freeze")
    chosen = Trained((ADAPTERS, *train_also) if model.lora.rank else (), tuple(freeze))
    if not any(path in chosen for path in paths):
        raise UserError(f"freeze is {tuple(freeze)}; it leaves no parameter to train")
    return chosen


def _below(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
