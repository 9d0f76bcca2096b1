"""Checkpoints: what lies in them, how they are found, written and read.

A checkpoint is one directory `.../checkpoints/STEP`, committed as a whole by Orbax, with the items

- `params`: the model's parameters, a nested dict of arrays,
- `meta`: JSON, the model's configuration and how its input is made (class Meta),
- `tokenizer`: JSON, the texts of the tokenizer's files by name,
- `optimizer`, with the guard, and `data`, JSON, where the batches stand: state of a training run (absent in imported
  weights).

Everything that a command is given as CKPT is a directory with `checkpoints/` in it, or one of the steps.
"""

import dataclasses
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from videmo_jax.model.config import ModelConfig
from videmo_jax.model.videmo import abstract_model
from videmo_jax.sharding.rules import make_mesh, shard_state
from videmo_jax.training.cluster import is_lost

FOLDER = "checkpoints"
FORMAT = 2  # 1 had no guard beside the optimizer


class CheckpointError(ValueError):
    """A checkpoint that is missing, or that is not what the caller needs."""


@dataclass(frozen=True)
class Meta:
    """What a checkpoint says of itself.

    `inputs` holds how clips become tokens (frame limits and the seconds_per_grid mode, see data.video), so that
    evaluation feeds the model as training did; `origin` tells where the weights come from; `stage` is that of the
    curriculum which the step belongs to, and empty where there is none.
    """

    model: ModelConfig
    step: int = 0
    inputs: dict[str, Any] = dataclasses.field(default_factory=dict)
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)
    stage: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {
            "format": FORMAT,
            "model": self.model.to_json(),
            "step": self.step,
            "inputs": self.inputs,
            "origin": self.origin,
            "stage": self.stage,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Meta":
        """Reads what `to_json` wrote."""
        if values.get("format") != FORMAT:
            raise CheckpointError(
                f"the checkpoint has format {values.get('format')!r}, this version reads {FORMAT}: import the weights "
                "again, or go on with the version that wrote it"
            )
        model = ModelConfig.from_json(values["model"])
        return cls(model, values["step"], values["inputs"], values["origin"], values.get("stage", ""))


def steps(folder: epath.PathLike) -> list[int]:
    """The committed steps below WORKDIR/checkpoints, ascending; [] where there are none."""
    root = epath.Path(folder) / FOLDER
    return sorted(ocp.utils.checkpoint_steps(root)) if root.exists() else []


def find_checkpoint(path: epath.PathLike) -> epath.Path:
    """The directory of one checkpoint: `path` itself, or the newest step in a work directory.

    Raises:
      CheckpointError: there is none.
    """
    folder = epath.Path(path).absolute()  # Orbax takes no other
    if (folder / "params").exists():
        return folder
    found = steps(folder)
    if not found:
        raise CheckpointError(
            f"{path}: no checkpoint here; expected {path}/{FOLDER}/STEP/params. "
            "Give a work directory of launch/train.py or what launch/convert.py import wrote."
        )
    return folder / FOLDER / str(found[-1])


def _read(checkpoint: epath.Path, **items: Any) -> Any:
    """Reads some items of one checkpoint."""
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        return reader.restore(checkpoint, args=ocp.args.Composite(**items))


def read_meta(checkpoint: epath.PathLike) -> Meta:
    """The self-description of the checkpoint that `path` names."""
    return Meta.from_json(_read(find_checkpoint(checkpoint), meta=ocp.args.JsonRestore()).meta)


def read_tokenizer_files(checkpoint: epath.PathLike) -> dict[str, str]:
    """The texts of the tokenizer's files, by file name.

    Raises:
      CheckpointError: the checkpoint has no tokenizer.
    """
    checkpoint = find_checkpoint(checkpoint)
    if not (checkpoint / "tokenizer").exists():
        raise CheckpointError(
            f"{checkpoint}: no tokenizer in this checkpoint; import the weights again with --tokenizer DIR"
        )
    return _read(checkpoint, tokenizer=ocp.args.JsonRestore()).tokenizer


def restore_params(checkpoint: epath.PathLike, *, mesh: Mesh | None = None, dtype: Any = None) -> nnx.State:
    """The parameters of a checkpoint, laid out over `mesh` (one device by default).

    Args:
      checkpoint: a checkpoint or a work directory.
      mesh: where the arrays go, by the rules of `sharding`.
      dtype: what they are cast to; None keeps what the file holds.
    """
    checkpoint = find_checkpoint(checkpoint)
    mesh = mesh or make_mesh({"data": 1}, jax.devices()[:1])
    state = nnx.state(abstract_model(read_meta(checkpoint).model), nnx.Param)
    shardings = nnx.to_pure_dict(shard_state(state, mesh))
    held = ocp.StandardCheckpointHandler().metadata(checkpoint / "params").tree
    target = jax.tree.map(
        lambda a, sharding, there: jax.ShapeDtypeStruct(a.shape, dtype or there.dtype, sharding=sharding),
        nnx.to_pure_dict(state),
        shardings,
        held,
    )
    values = _read(checkpoint, params=ocp.args.StandardRestore(target)).params
    nnx.replace_by_pure_dict(state, values)
    return state


def require_fit(checkpoint: epath.PathLike, model: ModelConfig) -> None:
    """Refuses a checkpoint of another model, naming the first fields that differ.

    Raises:
      CheckpointError: its configuration is not `model`.
    """
    theirs, ours = read_meta(checkpoint).model.to_json(), model.to_json()
    differing = [
        f"{part}.{name}: {theirs[part][name]!r} there, {value!r} in the config"
        for part in ours
        for name, value in ours[part].items()
        if theirs[part][name] != value
    ]
    if differing:
        raise CheckpointError(f"{checkpoint} does not fit the config's model: {'; '.join(differing[:5])}")


class Checkpoints:
    """Writes and reads the checkpoints of one training run; saving goes on in the background.

    Use it as a context manager: leaving it waits for what is being written.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = _Manager(epath.Path(workdir).absolute() / FOLDER, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not is_lost(error):  # a process that is gone would be waited for in vain
            self._manager.close()

    def latest(self) -> int | None:
        """The newest committed step, None at the start."""
        return self._manager.latest_step()

    def save(
        self,
        meta: Meta,
        tokenizer_files: dict[str, str],
        params: nnx.State,
        optimizer: Any,
        data: dict[str, Any],
    ) -> None:
        """Writes step `meta.step` as one whole; `data` says where the batches stand, a JSON object."""
        values = nnx.to_pure_dict(params)
        self._manager.save(
            meta.step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(values, save_args=jax.tree.map(_in_chunks, values)),
                optimizer=ocp.args.StandardSave(_values(optimizer)),
                data=ocp.args.JsonSave(data),
                meta=ocp.args.JsonSave(meta.to_json()),
                tokenizer=ocp.args.JsonSave(tokenizer_files),
            ),
        )

    def restore(self, step: int, params: nnx.State, optimizer: Any) -> tuple[nnx.State, Any, dict[str, Any]]:
        """Reads step `step` into the layout of `params` and `optimizer`; also where the batches stood."""
        read_meta(self._manager.directory / str(step))  # refuses what another version wrote
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(_abstract(nnx.to_pure_dict(params))),
                optimizer=ocp.args.StandardRestore(_abstract(_values(optimizer))),
                data=ocp.args.JsonRestore(),
            ),
        )
        nnx.replace_by_pure_dict(params, restored.params)
        leaves = jax.tree.leaves(restored.optimizer)
        return params, jax.tree.unflatten(jax.tree.structure(optimizer), leaves), restored.data


class _Manager(ocp.CheckpointManager):
    """Leaves the question whether the run is to end to `cluster.Stop`.

    Orbax would ask with the number of a step that is long past, in a thread, and so turn back the count by which
    jax's protocol finds the step to end at.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


def _in_chunks(array: jax.Array) -> ocp.SaveArgs:
    """Stored in pieces along the first axis (the layers), so that an export reads one layer and not the stack."""
    return ocp.SaveArgs(shard_axes=(0,) if array.ndim > 2 else (), chunk_byte_size=64 * 2**20)


def _values(tree: Any) -> Any:
    """The tree with plain arrays in place of variables."""

    def value(leaf: Any) -> Any:
        return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf

    return jax.tree.map(value, tree, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def _abstract(tree: Any) -> Any:
    """Shape, dtype and sharding of every array."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)
