"""What a run opens: its work directory, checkpoints, metrics and what goes along with the steps of SFT and of RL."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from videmo_jax.data.packing import RowPlan
from videmo_jax.files.mirror import Mirror
from videmo_jax.files.paths import open_path
from videmo_jax.sharding.rules import batch_shards, make_mesh
from videmo_jax.training import workdir as workdirs
from videmo_jax.training.checkpoint import Checkpoints, Restored, steps
from videmo_jax.training.cluster import Stop
from videmo_jax.training.hosts import is_first, on_first_host, same_on_all
from videmo_jax.training.metrics import FILE as METRICS
from videmo_jax.training.metrics import MetricsWriter
from videmo_jax.training.profile import FOLDER as PROFILE
from videmo_jax.training.profile import Profiler, Steps
from videmo_jax.training.samples import data_root, skip_file
from videmo_jax.training.settings import ConfigError
from videmo_jax.training.state import TrainState

# A run may come back with another machine, more logging, or from another place on disk.
FREE_FIELDS = (
    "log.",
    "guard.",
    "checkpoint.",
    "mesh.",
    "slice",
    "compute.remat",
    "compute.vision_remat",
    "compute.attention",
    "compute.loss_chunk",
    "compute.microbatches",
    "compiled",
    "data.threads",
    "data.workers",
    "data.cache_mb",
    "data.root",
    "data.leave_out",
    "data.instructions",
    "init",
    "tokenizer",
)


COMPILED = "compiled"  # of a work directory: what jax compiled


@dataclass(frozen=True)
class Opened:
    """The work directory of a run, before its data are read.

    Attributes:
      workdir: a folder or a bucket.
      mirror: where files grow.
      started: whether a checkpoint is there.
      config: as JSON.
    """

    workdir: epath.Path
    mirror: Mirror
    started: bool
    config: Mapping[str, Any]


@contextmanager
def open_workdir(
    config: ConfigDict,
    workdir: epath.PathLike,
    console: Console,
    *,
    report: Callable[[Path, str, Mapping[str, Any]], object],
    grows: tuple[str, ...] = (METRICS,),
    own: tuple[str, ...] = (),
    free: tuple[str, ...] = (),
) -> Iterator[Opened]:
    """Makes the work directory this run's, and writes the report when it ends, however it does.

    Args:
      config: of a recipe.
      workdir: of this run alone.
      console: for messages.
      report: (folder, title, config) -> writes a page there; called on the first host.
      grows: names of files that the first host adds to.
      own: names of files that this host alone adds to.
      free: fields beside FREE_FIELDS that may change from one start to the next.

    Raises:
      ConfigError, WorkdirError: it cannot be used for this run.
    """
    data_root(config, workdir)  # refused before anything is written
    workdir, skipped = open_path(workdir), skip_file(jax.process_index())
    as_json = json.loads(config.to_json_best_effort())
    started = bool(steps(workdir))
    on_first_host(lambda: workdirs.claim(workdir, as_json, free=(*FREE_FIELDS, *free), started=started))
    _keep_programs(config, workdir)
    if not started:  # what an attempt with another config left out may be usable now
        (workdir / skipped).unlink(missing_ok=True)
    with Mirror(workdir, (*(grows if is_first() else ()), *own, skipped), console) as mirror:
        try:
            yield Opened(workdir, mirror, started, as_json)
        finally:  # also of a run that stopped
            if is_first() and any((mirror.local / name).exists() for name in grows):
                try:
                    report(mirror.local, workdir.name, as_json)
                except Exception as error:  # neither the run's end nor its exit code depends on a page
                    console.print(f"the report cannot be written: {type(error).__name__}: {error}", markup=False)


def _keep_programs(config: ConfigDict, workdir: epath.Path) -> None:
    """Has jax keep what it compiles, so that a start of the same run need not do it again.

    A folder of the user's (JAX_COMPILATION_CACHE_DIR) stays the one. On CPUs programs suit one kind of processor, and a
    work directory may go elsewhere.
    """
    where = config.compiled
    if where == "off" or jax.config.jax_compilation_cache_dir:
        return
    if where == "auto":
        if jax.default_backend() == "cpu":
            return
        where = workdir / COMPILED
    jax.config.update("jax_compilation_cache_dir", str(where))


def require_same_data(config: ConfigDict, workdir: epath.PathLike, plans: list[RowPlan]) -> None:
    """Refuses hosts that see different data; all must ask.

    Raises:
      ConfigError: on all hosts.
    """
    if not same_on_all(" ".join(each.digest for each in plans)):
        raise ConfigError(
            f"the hosts see different data: samples of {data_root(config, workdir)} or their lengths differ; give "
            "all hosts the same"
        )


def mesh_of(config: ConfigDict) -> Mesh:
    """The devices as the config has them.

    Raises:
      ConfigError, ValueError: the batch does not split over them.
    """
    mesh = make_mesh(config.mesh.to_dict())
    parts = config.compute.get("microbatches", 1)  # which RL has not
    if config.batch % (batch_shards(mesh) * parts):
        raise ConfigError(
            f"batch is {config.batch}; it must be a multiple of the {batch_shards(mesh)} devices that split it, times "
            f"compute.microbatches {parts}"
        )
    return mesh


@dataclass(frozen=True)
class Session:
    """A run that is under way.

    Attributes:
      opened: its work directory.
      restored: what an earlier start saved last; None: nothing.
      checkpoints, metrics: where results go.
      profiler, stop: what goes along with the steps.
      console: for progress and messages.
    """

    opened: Opened
    restored: Restored | None
    checkpoints: Checkpoints
    metrics: MetricsWriter
    profiler: Profiler
    stop: Stop
    console: Console

    @property
    def first(self) -> int:
        """Steps that are done."""
        return self.restored.step if self.restored else 0

    @property
    def after_step(self) -> int:
        """The step after which what was logged is dropped; -1: all of it."""
        return self.first if self.opened.started else -1


@contextmanager
def open_session(
    config: ConfigDict,
    opened: Opened,
    layout: TrainState,
    end: int,
    profile: Steps | None,
    console: Console,
    beside: tuple[Any, ...] = (),
) -> Iterator[Session]:
    """Restores the last checkpoint and opens what a run writes to.

    Args:
      config: of a recipe.
      opened: the work directory.
      layout: of the state, see `training.state.state_layout`.
      end: last step of the run.
      profile: steps to record.
      console: for messages.
      beside: shapes and places of what else is saved, behind the guard.

    Raises:
      ConfigError, CheckpointError, ValueError: what is wrong and where.
    """
    keep, keep_every = config.checkpoint.keep, config.checkpoint.keep_every
    if keep_every % config.checkpoint.every:
        raise ConfigError(
            f"checkpoint.keep_every is {keep_every}; it must be a multiple of checkpoint.every = "
            f"{config.checkpoint.every}, since other steps are not saved"
        )
    with Checkpoints(opened.workdir, keep=keep, keep_every=keep_every) as checkpoints:
        # The guard is a few bytes, and goes with the optimizer.
        restored = checkpoints.restore(layout.params, (layout.optimizer, layout.guard, *beside), console.print)
        first = restored.step if restored else 0
        if profile is not None:
            profile.check(first, end)
        logs = opened.mirror.local
        with (
            MetricsWriter(logs if is_first() else None, after_step=first if opened.started else -1) as metrics,
            Profiler(logs / PROFILE, profile) as profiler,
            Stop() as stop,
        ):
            if first:
                console.print(f"resumed from step {first}")
            yield Session(opened, restored, checkpoints, metrics, profiler, stop, console)
