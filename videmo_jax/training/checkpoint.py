"""Checkpoints: what lies in them, how they are found, written and read.

A checkpoint is one directory `.../checkpoints/STEP`, committed as a whole by Orbax, with the items

- `params`: the model's parameters, a nested dict of arrays,
- `meta`: JSON, the model's configuration and how its input is made (class Meta),
- `tokenizer`: JSON, the texts of the tokenizer's files by name,
- `optimizer`, with the guard, and `data`, JSON, where the batches stand: state of a training run (absent in imported
  weights),
- `integrity`: JSON, fingerprints of all the others (see training/integrity.py; absent in imported weights).

Everything that a command is given as CKPT is a directory with `checkpoints/` in it, or one of the steps. Damage that is
found while a run resumes makes it fall back to the step before; the damaged one is moved to WORKDIR/damaged.
"""

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from videmo_jax.files.errors import UserError
from videmo_jax.files.json_records import json_digest
from videmo_jax.files.paths import absolute, is_remote, open_path
from videmo_jax.files.writing import move
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.lora import merged
from videmo_jax.model.videmo import abstract_model
from videmo_jax.sharding.devices import all_devices
from videmo_jax.sharding.rules import make_mesh, shard_state
from videmo_jax.training import cluster, integrity

FOLDER, DAMAGED = "checkpoints", "damaged"
INTEGRITY = "integrity"
FORMAT = 2  # 1 had no guard beside the optimizer, and no fingerprints

GROUP_BYTES = 2 * 2**30  # on each device, of arrays that are read before they are cast
NAME_ANOTHER = "name another checkpoint, or bring back a copy of this one"
NO_DAMAGE = (MemoryError, PermissionError, ConnectionError, TimeoutError)
NO_DAMAGE_SIGNS = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNAUTHENTICATED")


class CheckpointError(UserError):
    """A checkpoint that is missing, or that is not what the caller needs."""


class DamagedError(CheckpointError):
    """A checkpoint that does not hold what was saved."""


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
    root = open_path(folder) / FOLDER
    return sorted(ocp.utils.checkpoint_steps(root)) if root.exists() else []


def find_checkpoint(path: epath.PathLike) -> epath.Path:
    """The directory of one checkpoint: `path` itself, or the newest step in a work directory.

    Raises:
      CheckpointError: there is none.
    """
    folder = absolute(path)  # Orbax takes no other
    if (folder / "params").exists():
        return folder
    found = steps(folder)
    if not found:
        raise CheckpointError(
            f"{path}: no checkpoint here; expected {path}/{FOLDER}/STEP/params. "
            "Give a work directory of launch/train.py or what launch/convert.py import wrote."
        )
    return folder / FOLDER / str(found[-1])


def read_meta(checkpoint: epath.PathLike) -> Meta:
    """The self-description of the checkpoint that `path` names.

    Raises:
      CheckpointError: there is none, it is damaged, or of another version.
    """
    return _Stored(find_checkpoint(checkpoint)).meta()


def read_tokenizer_files(checkpoint: epath.PathLike) -> dict[str, str]:
    """The texts of the tokenizer's files, by file name.

    Raises:
      CheckpointError: the checkpoint has no tokenizer, or is damaged.
    """
    stored = _Stored(find_checkpoint(checkpoint))
    if stored.kept is None and not (stored.folder / "tokenizer").exists():
        raise CheckpointError(
            f"{stored.folder}: no tokenizer in this checkpoint; import the weights again with --tokenizer DIR"
        )
    return stored.object("tokenizer")


def restore_params(checkpoint: epath.PathLike, *, mesh: Mesh | None = None, dtype: Any = None) -> nnx.State:
    """The parameters of a checkpoint, laid out over `mesh` (one device by default).

    Args:
      checkpoint: a checkpoint or a work directory.
      mesh: where the arrays go, by the rules of `sharding`.
      dtype: what they are cast to; None keeps what the file holds.

    Raises:
      CheckpointError: there is none, or it is damaged; the message names the array or the item.
    """
    stored = _Stored(find_checkpoint(checkpoint))
    mesh = mesh or make_mesh({"data": 1}, all_devices()[:1])
    state = nnx.state(abstract_model(stored.meta().model), nnx.Param)
    target = jax.tree.map(
        lambda a, sharding, held: jax.ShapeDtypeStruct(a.shape, held, sharding=sharding),
        nnx.to_pure_dict(state),
        nnx.to_pure_dict(shard_state(state, mesh)),
        stored.dtypes("params", nnx.to_pure_dict(state)),
    )
    leaves, tree = jax.tree.flatten(target)
    casts = dtype is not None and any(leaf.dtype != dtype for leaf in leaves)
    values: list[jax.Array] = []
    # In groups where they are cast: the devices may not hold all of them twice.
    for group in _groups(leaves, GROUP_BYTES * mesh.size) if casts else [range(len(leaves))]:
        arrays = stored.arrays("params", target, group)
        if problem := stored.problem("params", arrays):
            raise DamagedError(f"{problem}; {NAME_ANOTHER}")
        values += [array.astype(dtype) if casts else array for array in arrays.values()]
    nnx.replace_by_pure_dict(state, jax.tree.unflatten(tree, values))
    return state


def restore_plain(
    checkpoint: epath.PathLike, *, mesh: Mesh | None = None, dtype: Any = None
) -> tuple[nnx.State, ModelConfig]:
    """What `restore_params` reads, adapters merged into the weights, and the configuration of that plain model.

    Weights with adapters are cast after the sum and not before it: they are rounded once.
    """
    model = read_meta(checkpoint).model
    if not model.lora.rank:
        return restore_params(checkpoint, mesh=mesh, dtype=dtype), model
    params, model = merged(restore_params(checkpoint, mesh=mesh), model)
    return (params if dtype is None else jax.tree.map(lambda array: array.astype(dtype), params)), model


def _groups(leaves: Sequence[jax.ShapeDtypeStruct], limit: int) -> Iterator[range]:
    """Neighbours that take at most `limit` bytes together; a larger array stands alone."""
    begin, held = 0, 0
    for number, leaf in enumerate(leaves):
        size = leaf.size * leaf.dtype.itemsize
        if number > begin and held + size > limit:
            yield range(begin, number)
            begin, held = number, 0
        held += size
    yield range(begin, len(leaves))


class _Stored:
    """One checkpoint on disk, read item by item; what cannot be read, or is not what was saved, raises DamagedError.

    Items are read by their handlers and not through an Orbax checkpointer, in which the other processes would wait
    for one whose reading has failed.
    """

    def __init__(self, folder: epath.Path) -> None:
        self.folder = folder
        self.kept = self._integrity()

    def _integrity(self) -> dict[str, Any] | None:
        """The fingerprints; None for imported weights, which have none."""
        if (self.folder / INTEGRITY).exists():
            with _reading(self.folder, INTEGRITY):
                kept = ocp.JsonCheckpointHandler().restore(self.folder / INTEGRITY)
                if integrity.is_sound(kept):
                    return kept
            raise DamagedError(f"{self.folder}: {INTEGRITY} is not what was saved; {NAME_ANOTHER}")
        if any((self.folder / item).exists() for item in ("optimizer", "data")):
            with _reading(self.folder, "meta"):
                meta = ocp.JsonCheckpointHandler().restore(self.folder / "meta")
            self._from_json(meta)  # says so where another version wrote it
            raise DamagedError(f"{self.folder}: {INTEGRITY} is gone; {NAME_ANOTHER}")
        return None

    def object(self, item: str) -> Any:
        """A JSON item."""
        with _reading(self.folder, item):
            value = ocp.JsonCheckpointHandler().restore(self.folder / item)
        if self.kept and json_digest(value) != self.kept["held"]["objects"].get(item):
            raise DamagedError(f"{self.folder}: {item} is not what was saved; {NAME_ANOTHER}")
        return value

    def meta(self) -> Meta:
        """What it says of itself."""
        return self._from_json(self.object("meta"))

    def _from_json(self, values: dict[str, Any]) -> Meta:
        try:
            return Meta.from_json(values)
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder}: {error}") from None

    def dtypes(self, item: str, shapes: Any) -> Any:
        """The dtype of each array of an item whose arrays have the shapes of the tree `shapes`."""
        if not self.kept:
            with _reading(self.folder, item):
                held = ocp.StandardCheckpointHandler().metadata(self.folder / item).tree
                return jax.tree.map(lambda _, leaf: jnp.dtype(leaf.dtype), shapes, held)
        held = self.kept["held"]["arrays"][item]
        return jax.tree.unflatten(
            jax.tree.structure(shapes), [jnp.dtype(held[name]["dtype"]) for name in integrity.names(shapes)]
        )

    def arrays(self, item: str, target: Any, group: range | None = None) -> dict[str, jax.Array]:
        """Arrays of an item by name, not yet compared with their fingerprints.

        Args:
          item: of the checkpoint.
          target: shapes, dtypes and places of its whole tree.
          group: numbers of the leaves that are wanted; all by default.
        """
        leaves, tree = jax.tree.flatten(target)
        wanted = range(len(leaves)) if group is None else group
        chosen = [leaf if number in wanted else ocp.PLACEHOLDER for number, leaf in enumerate(leaves)]
        chosen = jax.tree.unflatten(tree, chosen)
        with _reading(self.folder, item):
            restored = ocp.PyTreeCheckpointHandler().restore(
                self.folder / item,
                args=ocp.args.PyTreeRestore(
                    item=chosen, restore_args=ocp.checkpoint_utils.construct_restore_args(chosen)
                ),
            )
            values = jax.block_until_ready(jax.tree.leaves(restored))
        named = integrity.names(target)
        return {named[number]: values[number] for number in wanted}

    def problem(self, item: str, arrays: Mapping[str, jax.Array]) -> str:
        """What is wrong with arrays that were read; of several processes all must ask, and hear the same."""
        wrong = integrity.differing(self.kept, item, arrays) if self.kept else []
        if not wrong:
            return ""
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return f"{self.folder}: {item} {', '.join(wrong[:3])}{more}: not what was saved"


@contextmanager
def _reading(folder: epath.Path, item: str) -> Iterator[None]:
    """Gives the many errors of damaged files one name; those of memory, rights and networks are no damage."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        where = f"{folder}: {item} cannot be read: {lines[0][:200]}"
        if isinstance(error, NO_DAMAGE) or any(sign in str(error) for sign in NO_DAMAGE_SIGNS):
            raise CheckpointError(where) from error
        raise DamagedError(f"{where}; {NAME_ANOTHER}") from error


def require_fit(checkpoint: epath.PathLike, model: ModelConfig) -> None:
    """Refuses a checkpoint of another model, naming the first fields that differ; other adapters do no harm.

    Raises:
      CheckpointError: its configuration is not `model`.
    """
    theirs, ours = read_meta(checkpoint).model.to_json(), model.to_json()
    differing = [
        f"{part}.{name}: {theirs[part][name]!r} there, {value!r} in the config"
        for part in ("text", "vision")
        for name, value in ours[part].items()
        if theirs[part][name] != value
    ]
    if differing:
        raise CheckpointError(f"{checkpoint} does not fit the config's model: {'; '.join(differing[:5])}")


@dataclass(frozen=True)
class Restored:
    """A run as it was after `step`; `data` says where its batches stood."""

    step: int
    params: nnx.State
    optimizer: Any
    data: dict[str, Any]


class Checkpoints:
    """Writes and reads the checkpoints of one training run; saving goes on in the background.

    Use it as a context manager: leaving it waits for what is being written. Of several processes all must make it,
    and call its methods alike.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int, keep_every: int = 0) -> None:
        """Opens the checkpoints of a work directory.

        Args:
          workdir: of the run.
          keep: newest checkpoints that stay.
          keep_every: steps at whose multiples checkpoints stay for good; 0 for none.

        Raises:
          ValueError: numbers that make no sense.
        """
        if keep < 1 or keep_every < 0:
            raise UserError(
                f"checkpoint.keep is {keep}, checkpoint.keep_every {keep_every}; keep must be at least 1, keep_every "
                "0 (none) or a number of steps"
            )
        self._workdir = absolute(workdir)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, keep_period=keep_every or None)
        self._manager = _Manager(self._workdir / FOLDER, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not cluster.is_lost(error):  # a process that is gone would be waited for in vain
            self._manager.close()

    def save(
        self,
        meta: Meta,
        tokenizer_files: dict[str, str],
        params: nnx.State,
        optimizer: Any,
        data: dict[str, Any],
    ) -> None:
        """Writes step `meta.step` as one whole; `data` says where the batches stand, a JSON object.

        Raises:
          CheckpointError: the disk has no room for it.
        """
        arrays = {"params": nnx.to_pure_dict(params), "optimizer": _values(optimizer)}
        self._require_room(arrays)
        objects = {"data": data, "meta": meta.to_json(), "tokenizer": tokenizer_files}
        objects[INTEGRITY] = integrity.record(arrays, objects)
        in_chunks = jax.tree.map(_in_chunks, arrays["params"])
        self._manager.save(
            meta.step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(arrays["params"], save_args=in_chunks),
                optimizer=ocp.args.StandardSave(arrays["optimizer"]),
                **{item: ocp.args.JsonSave(value) for item, value in objects.items()},
            ),
        )

    def restore(self, params: nnx.State, optimizer: Any, say: Callable[[str], None]) -> Restored | None:
        """Reads the newest checkpoint that is sound into the layout of `params` and `optimizer`; None at the start.

        Damaged ones that are newer are moved to WORKDIR/damaged, since saving goes on from the step before them.

        Args:
          params: shapes, dtypes and places of the parameters.
          optimizer: the same of the optimizer's item.
          say: hears of damage.

        Raises:
          CheckpointError: all are damaged, or they are of another version or model, or cannot be read just now; or
            there is none yet, and the disk has no room for one.
        """
        if not steps(self._workdir):  # better now than after hours
            self._require_room((nnx.to_pure_dict(params), _values(optimizer)))
        damaged: dict[int, str] = {}
        for step in reversed(steps(self._workdir)):
            try:
                restored = self._restore(step, params, optimizer)
            except DamagedError as error:
                damaged[step] = str(error)
                continue
            for wrong, why in damaged.items():
                say(f"{why}. Moved to {self._move_aside(wrong)}; going on from step {step}")
            return restored
        if damaged:
            raise CheckpointError(
                f"{self._workdir / FOLDER}: no checkpoint is sound: {'; '.join(damaged.values())}; bring back a copy "
                "of one, or start anew in another work directory"
            )
        return None

    def _require_room(self, arrays: Any) -> None:
        """Orbax would find out half-way, in threads that tell of it in a thousand lines."""
        if is_remote(self._workdir):
            return
        needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
        if (free := shutil.disk_usage(self._workdir).free) < needed:
            raise CheckpointError(
                f"{self._workdir}: a checkpoint takes {needed / 1e9:,.3f} GB, and {free / 1e9:,.3f} GB are free; make "
                "room, or name a --workdir on another disk"
            )

    def _restore(self, step: int, params: nnx.State, optimizer: Any) -> Restored:
        """Reads one step; all processes find it sound, or all raise DamagedError."""
        targets = {"params": _abstract(nnx.to_pure_dict(params)), "optimizer": _abstract(_values(optimizer))}
        problem, found = "", {}
        try:
            stored = _Stored(self._manager.directory / str(step))
            stored.meta(), stored.object("tokenizer")
            data = stored.object("data")
            for item, target in targets.items():
                if differing := stored.kept and integrity.misshapen(stored.kept, item, target):
                    raise CheckpointError(
                        f"{stored.folder}: {item} {', '.join(differing[:3])} is of another shape or dtype than this "
                        "run's; go on with the config and the version that wrote it"
                    )
                found[item] = stored.arrays(item, target)
        except DamagedError as error:
            problem = str(error)
        problem = cluster.agree(problem)
        for item, arrays in found.items():
            problem = problem or stored.problem(item, arrays)
        if problem:
            raise DamagedError(problem)
        nnx.replace_by_pure_dict(
            params, jax.tree.unflatten(jax.tree.structure(targets["params"]), found["params"].values())
        )
        leaves = found["optimizer"].values()
        return Restored(step, params, jax.tree.unflatten(jax.tree.structure(optimizer), leaves), data)

    def _move_aside(self, step: int) -> epath.Path:
        """Takes a damaged step out of the way, and says where it lies."""
        folder = self._workdir / DAMAGED
        place = folder / str(step)
        number = 1
        while place.exists():
            number += 1
            place = folder / f"{step}.{number}"
        cluster.wait_for_all("the place of a damaged checkpoint is chosen")
        if jax.process_index() == 0:
            move(self._manager.directory / str(step), place)
        cluster.wait_for_all("a damaged checkpoint is moved")
        self._manager.reload()
        return place


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
