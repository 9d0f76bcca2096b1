"""Decodes clips in a process that can be killed: a decoder that hangs or crashes costs one clip, not the run."""

import multiprocessing
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from videmo_jax.data.records.schema import Grid, encode_clip
from videmo_jax.data.video import FrameSpec, VideoError, read_clip

START_SECONDS = 120  # for a process to start on a busy machine


@dataclass(frozen=True, slots=True)
class ClipRecipe:
    """How a clip becomes a record: frames of `spec`, JPEG of `quality`, files below `root`."""

    root: Path
    spec: FrameSpec
    quality: int

    def __call__(self, path: str) -> tuple[bytes, Grid]:
        """The record of one clip and its grid of patches; raises VideoError."""
        clip = read_clip(self.root / path, self.spec)
        frames, height, width, _ = clip.frames.shape
        grid = (-(-frames // self.spec.temporal_patch), height // self.spec.patch, width // self.spec.patch)
        return encode_clip(path, clip, self.quality), grid


class ClipDecoder:
    """A process that makes records of clips, one after another; a context manager ends it."""

    def __init__(self, recipe: ClipRecipe, seconds: float) -> None:
        """Each clip may take `seconds`."""
        self._recipe, self._seconds = recipe, seconds
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, path: str) -> tuple[bytes, Grid]:
        """What the recipe gives for one clip.

        Raises:
          VideoError: the clip cannot be used, takes too long, or ends the process; the message names no folder.
        """
        try:
            self._pipe.send(path)
            if self._pipe.poll(self._seconds):
                made, reason = self._pipe.recv()
            else:
                self._restart()
                made, reason = None, f"decoding takes more than {self._seconds:g} s; convert it again"
        except (EOFError, OSError):
            self._process.join(START_SECONDS)
            code = self._process.exitcode
            self._restart()
            made, reason = None, f"ended the decoding process (exit code {code}); download or convert it again"
        if made is None:
            raise VideoError(reason)
        return made

    def _start(self) -> None:
        # Spawned, because a forked process inherits the locks of whatever threads run here.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._recipe), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(START_SECONDS) or self._pipe.recv() != "ready":
            raise RuntimeError("the decoding process does not start")

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _restart(self) -> None:
        self._stop()
        self._start()


def _serve(pipe: Connection, recipe: ClipRecipe) -> None:
    """Answers (what the recipe gives, None) or (None, reason) to each path, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    pipe.send("ready")
    while True:
        try:
            path = pipe.recv()
        except EOFError:
            return
        try:
            reply = recipe(path), None
        except VideoError as error:
            reply = None, str(error).removeprefix(f"{recipe.root / path}: ")
        try:
            pipe.send(reply)
        except OSError:
            return
