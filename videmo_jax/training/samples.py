"""The samples of a run: opened or rendered, measured, and those found that can be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Bool
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track

from videmo_jax.data.emo_cfg import Rejected
from videmo_jax.data.inputs import Preparer
from videmo_jax.data.instructions import is_instruction
from videmo_jax.data.rows import Budget
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.source import Lengths, Source, fitting, open_source
from videmo_jax.data.synthetic import write_synthetic
from videmo_jax.files.paths import is_remote, open_path
from videmo_jax.tasks.taxonomy import is_named
from videmo_jax.training.settings import ConfigError, Settings

SYNTHETIC = "emo_cfg_synthetic"  # folder of the embedded data in the workdir


def skip_file(host: int) -> str:
    """Name of the list of what a host left out."""
    return "skipped.jsonl" if not host else f"skipped.{host}.jsonl"


@dataclass(frozen=True)
class Samples:
    """What a run may train on.

    Attributes:
      source: all samples, but those that were rejected when it was opened.
      lengths: of them.
      usable: those that the config includes and that fit a row.
      skips: the others, with reasons; it takes what turns out to be unusable later.
      count: samples there are, the unusable ones among them.
    """

    source: Source
    lengths: Lengths
    usable: Bool[np.ndarray, "N"]
    skips: SkipLog
    count: int


def data_root(config: ConfigDict, workdir: epath.PathLike) -> str:
    """Where the data lie; raises ConfigError where they would have to be rendered into a bucket."""
    if not config.data.root and is_remote(workdir):
        raise ConfigError(
            f"data.root is empty, and the synthetic set is not rendered into a bucket ({workdir}): name a folder or "
            "records in data.root, or a local --workdir"
        )
    return config.data.root or str(open_path(workdir) / SYNTHETIC)


def render_synthetic(config: ConfigDict, workdir: epath.PathLike, console: Console) -> None:
    """Makes the embedded data in the work directory, where the config names no other."""
    if not config.data.root:
        root = data_root(config, workdir)
        console.print(f"data.root is empty: rendering {config.data.synthetic_scenes} synthetic scenes into {root}")
        write_synthetic(root, scenes=config.data.synthetic_scenes, seed=config.seed)


def open_samples(
    config: ConfigDict,
    settings: Settings,
    budget: Budget,
    workdir: epath.PathLike,
    console: Console,
    *,
    logs: Path | None = None,
    host: int = 0,
) -> Samples:
    """Opens and measures the data of a run.

    Args:
      config: of a recipe.
      settings: what it says.
      budget: of the row that a sample must fit.
      workdir: takes the list of what was left out, and holds the embedded data where no other is named.
      console: hears what is going on.
      logs: local folder for the list, where the work directory is a bucket.
      host: number of this process; each keeps a list of its own.

    Raises:
      ConfigError, DatasetError, SkippedTooMuch, ValueError: what is wrong and where.
    """
    source, rejected = _source(config, workdir, settings.preparer, console)
    count, name = len(source) + len(rejected) + source.left_out, skip_file(host)
    skips = SkipLog(
        (logs or Path(workdir)) / name,
        total=count,
        max_share=config.data.max_skipped_share,
        called=str(open_path(workdir) / name),
        before=source.left_out,
    )
    for each in rejected:
        skips.add(each.id, each.reason, counts=not each.again)
    for id in settings.leave_out:
        skips.add(id, "data.leave_out names it", counts=False)
    for task in settings.declared:
        if not any(is_named(file, task.name) for file in source.files.names):
            raise ConfigError(f"data.tasks: no annotation file is named {task.name!r}")
    wanted = source.files.chosen(lambda file: included(file, config.data.include) or is_instruction(file))
    lengths = source.lengths(wanted)
    return Samples(source, lengths, fitting(source, lengths, wanted, budget, skips), skips, count)


def included(file: str, include: Sequence[str]) -> bool:
    """Whether `data.include` names a file; it names all where it is empty."""
    return not include or any(is_named(file, pattern) for pattern in include)


def _source(
    config: ConfigDict, workdir: epath.PathLike, preparer: Preparer, console: Console
) -> tuple[Source, list[Rejected]]:
    """The samples, and those that cannot be used."""
    root = data_root(config, workdir)
    source, rejected = open_source(
        root,
        config.data.split,
        preparer.spec.frames,
        preparer.tokenizer,
        variant=config.data.variant,
        include=list(config.data.include) or None,
        instructions=list(config.data.get("instructions", ())),  # of SFT alone
        cache_bytes=config.data.cache_mb * 2**20,
        threads=config.data.threads,
        watch=lambda items, what, total: track(items, what, total, console=console, transient=True),
    )
    if not len(source):
        why = f"; the first reason: {rejected[0].id}: {rejected[0].reason}" if rejected else ""
        raise ConfigError(f"{root}: no sample of split {config.data.split!r} can be used{why}")
    return source, rejected
