"""Shards of clips as jobs: whoever runs one, anywhere, writes the same bytes, and a finished one is not run again."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import Protocol, Self, TypeVar

from etils import epath

from videmo_jax.data.records.decoder import ClipDecoder, ClipRecipe
from videmo_jax.data.records.schema import CLIP_SPLIT, Grid
from videmo_jax.data.records.shards import Shard, shard_name, write_shard
from videmo_jax.data.video import VideoError
from videmo_jax.files.json_records import json_digest, read_json
from videmo_jax.files.writing import write_json

PROGRESS = "progress"

T = TypeVar("T")
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Finished:
    """A shard of clips, the grids of its clips in order, and the clips left out of it: path and reason."""

    shard: Shard
    grids: list[Grid]
    left_out: dict[str, str]

    @classmethod
    def nothing(cls) -> Self:
        """Of a shard that is not begun."""
        return cls(Shard("", 0, 0, ""), [], {})


@dataclass(frozen=True, slots=True)
class ClipJob:
    """One shard of clips; it holds all that its run needs, and can be sent to another machine."""

    path: epath.Path
    progress: epath.Path
    clips: Sequence[str]
    recipe: ClipRecipe
    clip_seconds: float

    def __call__(self, stop: threading.Event) -> Finished:
        """Writes the shard, or finds it finished; raises InterruptedError soon after `stop` is set."""
        if (before := self.finished()) is not None:
            return before
        made = Finished.nothing()
        shard = write_shard(self.path, self.records(made, stop))
        finished = Finished(shard, made.grids, made.left_out)
        write_json(self.progress, {"of": self._digest(), **asdict(finished)})
        return finished

    def _digest(self) -> str:
        """Names what the shard is made of: clips and how they are decoded."""
        return json_digest([list(self.clips), asdict(self.recipe.spec), self.recipe.quality])

    def finished(self) -> Finished | None:
        """What an earlier run wrote, or None."""
        if not self.progress.exists():
            return None
        found = read_json(self.progress, "delete it: its shard will be written again")
        shard = Shard(**found["shard"])
        if found.get("of") != self._digest() or not self.path.exists() or self.path.stat().length != shard.bytes:
            return None
        return Finished(shard, [tuple(grid) for grid in found["grids"]], found["left_out"])

    def records(self, made: Finished, stop: threading.Event) -> Iterator[bytes]:
        """Record after record; `made` takes their grids and the faults."""
        with ClipDecoder(self.recipe, self.clip_seconds) as decoder:
            for path in self.clips:
                if stop.is_set():
                    raise InterruptedError("stopped")
                try:
                    record, grid = decoder(path)
                except VideoError as error:
                    made.left_out[path] = str(error)
                    continue
                made.grids.append(grid)
                yield record


class Runner(Protocol):
    """Runs jobs, somewhere, and tells how many are done; what it gives is in their order."""

    def __call__(self, jobs: Sequence[ClipJob], tell: Report) -> list[Finished]:
        """Runs them all, or raises."""


def clip_jobs(
    out: epath.Path, paths: Sequence[str], shard_size: int, recipe: ClipRecipe, clip_seconds: float
) -> list[ClipJob]:
    """The jobs for clips by path; ids follow that order."""
    (out / PROGRESS).mkdir(exist_ok=True)
    parts = chunks(paths, shard_size)
    names = [shard_name("clips", CLIP_SPLIT, number, len(parts)) for number in range(len(parts))]
    return [
        ClipJob(out / "clips" / name, out / PROGRESS / f"{name}.json", part, recipe, clip_seconds)
        for name, part in zip(names, parts, strict=True)
    ]


def run_locally(jobs: Sequence[ClipJob], tell: Report, *, workers: int) -> list[Finished]:
    """Runs the jobs, each in a thread that feeds a process of its own."""
    stop = threading.Event()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        futures = [pool.submit(job, stop) for job in jobs]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                tell("clips", done, len(jobs))
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Runs of `size`; of nothing, one that is empty, so that there is a file to read."""
    return [items[start : start + size] for start in range(0, len(items), size)] or [items]
