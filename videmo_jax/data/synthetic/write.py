"""Writes a synthetic Emo-CFG in the official layout: jsons/, videos/ and a manifest that says what it is."""

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from videmo_jax.data.synthetic.questions import FILES, records
from videmo_jax.data.synthetic.render import render
from videmo_jax.data.synthetic.scene import KINDS, SPLITS, draw_scene
from videmo_jax.files.errors import FileError, UserError
from videmo_jax.files.json_records import read_json
from videmo_jax.files.writing import whole_folder, write_json

MANIFEST = "synthetic.json"
# Raised when the same arguments give other clips or texts than before, so that an old folder is not taken for new.
VERSION = 2
FEWEST_SCENES = 2 * len(KINDS)


class SyntheticError(UserError):
    """The set cannot be written as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Recipe:
    """All that decides the bytes of the set; sizes in pixels, fps in frames a second."""

    scenes: int
    seed: int
    size: int
    frames: int
    fps: int
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.scenes < FEWEST_SCENES:
            raise SyntheticError(
                f"scenes={self.scenes}: at least {FEWEST_SCENES} are needed, one of each of the {len(KINDS)} kinds "
                "for training and for testing."
            )
        if self.size < 64 or self.size > 1024 or self.size % 2:
            raise SyntheticError(f"size={self.size}: expected an even number of pixels from 64 to 1024.")
        if self.frames < 4 or self.frames > 512:
            raise SyntheticError(f"frames={self.frames}: expected 4 (what a model samples at least) to 512.")
        if self.fps < 1 or self.seed < 0:
            raise SyntheticError(f"fps={self.fps}, seed={self.seed}: expected fps of at least 1 and a seed from 0.")

    @property
    def shares(self) -> dict[str, int]:
        """Scenes of each split: about a fifth for testing, and at least one of each kind."""
        test = max(self.scenes // 5, len(KINDS))
        return {"train": self.scenes - test, "test": test}


def write_synthetic(
    root: str | os.PathLike[str],
    *,
    scenes: int,
    seed: int,
    size: int = 112,
    frames: int = 16,
    fps: int = 8,
    workers: int = 0,
    on_clip: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Writes the set into the new folder `root`, or finds it complete there.

    The same arguments give the same bytes, whatever the number of workers. The folder appears only when everything
    in it is written.

    Args:
      root: a local folder that does not exist yet, is empty, or holds this very set.
      scenes: clips in all; a fifth are for testing.
      seed: any number from 0; other seeds give other people.
      size: width and height in pixels, even.
      frames: frames a clip.
      fps: frames a second.
      workers: processes that render; 0 renders in this one. They import the caller's main file, so what runs there
        must stand under `if __name__ == "__main__"`.
      on_clip: called with (clips done, clips in all).

    Returns:
      samples by annotation file (relative to jsons/), in the order of the files.

    Raises:
      SyntheticError: the arguments are out of range, or the folder holds something else.
    """
    recipe, root = Recipe(scenes, seed, size, frames, fps), Path(root)
    if (counts := _finished(root, recipe)) is not None:
        return counts
    with _whole_set(root, recipe) as folder:
        counts = _write_annotations(folder, recipe)
        numbers = [(split, index) for split in SPLITS for index in range(recipe.shares[split])]
        for done, _ in enumerate(_clips(folder, recipe, numbers, workers), start=1):
            if on_clip:
                on_clip(done, len(numbers))
        manifest = {"recipe": asdict(recipe), "counts": counts}
        write_json(folder / MANIFEST, manifest)
    return counts


def _finished(root: Path, recipe: Recipe) -> dict[str, int] | None:
    """The counts of the set if it is there already, None where it can be written."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    if not (root / MANIFEST).is_file():
        raise SyntheticError(f"{root}: holds something else than a synthetic set. Name a new folder.")
    manifest = read_json(root / MANIFEST, "delete the folder, or name a new one")
    try:
        found, counts = manifest["recipe"], manifest["counts"]
        differs = {name: found.get(name) for name, value in asdict(recipe).items() if found.get(name) != value}
    except (KeyError, TypeError, AttributeError):
        raise SyntheticError(f"{root / MANIFEST}: broken. Delete the folder, or name a new one.") from None
    if differs:
        found = ", ".join(f"{name}={value}" for name, value in differs.items())
        wanted = ", ".join(f"{name}={asdict(recipe)[name]}" for name in differs)
        raise SyntheticError(
            f"{root}: holds another synthetic set ({found}), asked for {wanted}. Delete it, or name a new folder."
        )
    return counts


@contextmanager
def _whole_set(root: Path, recipe: Recipe) -> Iterator[Path]:
    """The folder that becomes the set."""
    try:
        with whole_folder(root) as folder:
            yield Path(folder)
    except FileError:
        # Another process was faster: what it wrote must be the same set.
        if _finished(root, recipe) is None:
            raise


def _write_annotations(folder: Path, recipe: Recipe) -> dict[str, int]:
    found: dict[str, list[dict[str, object]]] = defaultdict(list)
    for split, scenes in recipe.shares.items():
        for index in range(scenes):
            for record in records(recipe.seed, draw_scene(recipe.seed, split, index)):
                found[record.file].append(record.json())
    files = [file for split in SPLITS for file in FILES[split]]
    for file in files:
        write_json(folder / "jsons" / file, found[file])
    return {file: len(found[file]) for file in files}


@dataclass(frozen=True)
class _ClipWriter:
    """Renders and encodes one clip; an object, so that worker processes can be given it."""

    folder: Path
    recipe: Recipe

    def __call__(self, number: tuple[str, int]) -> None:
        scene = draw_scene(self.recipe.seed, *number)
        path = self.folder / scene.path
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, render(self.recipe.seed, scene, self.recipe.size, self.recipe.frames), self.recipe.fps)


def _clips(folder: Path, recipe: Recipe, numbers: list[tuple[str, int]], workers: int) -> Iterable[None]:
    writer = _ClipWriter(folder, recipe)
    if not workers:
        yield from map(writer, numbers)
        return
    # Spawned, because a forked process inherits the locks of whatever threads run here.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(writer, numbers, chunksize=8)


def encode(path: Path, frames: UInt8[np.ndarray, "F H W 3"], fps: int) -> None:
    """Writes RGB frames as H.264 in MP4, near to lossless but for the halved colour resolution."""
    # Without mbtree, whose look-ahead makes the bytes depend on what the process did before.
    options = {"crf": "12", "preset": "veryfast", "x264-params": "mbtree=0"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
