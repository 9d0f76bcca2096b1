"""A profile of some steps, for TensorBoard and Perfetto: WORKDIR/profile."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import jax

from videmo_jax.files.errors import UserError

FOLDER = "profile"


class ProfileError(UserError):
    """The steps to profile are no such steps."""


@dataclass(frozen=True)
class Steps:
    """The steps `first` to `last` of a run."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> "Steps":
        """Reads STEP:COUNT; raises ProfileError."""
        found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)
        if not found:
            raise ProfileError(f"--profile is {text!r}; it must be STEP:COUNT, both from 1 on, such as 20:5")
        first, count = map(int, found.groups())
        return cls(first, first + count - 1)

    def check(self, done: int, end: int) -> None:
        """Raises ProfileError unless the steps are to come in a run that has done `done` of `end`."""
        if not done < self.first or not self.last <= end:
            steps = f"this start has {done + 1} to {end}" if done < end else f"all {end} are done"
            raise ProfileError(
                f"--profile={self.first}:{self.last - self.first + 1} names steps {self.first} to {self.last}; {steps}"
            )


class Profiler:
    """Starts and stops the profiler of jax around the steps; a context manager, and nothing without steps."""

    def __init__(self, folder: Path, steps: Steps | None) -> None:
        """Profiles `steps` into `folder`."""
        self._folder, self._steps, self._on = folder, steps, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._on:
            self._stop()

    def edge(self, step: int) -> bool:
        """Whether the profile begins or ends with what comes after `step`: the devices must be done with it first."""
        return self._steps is not None and step in (self._steps.first - 1, self._steps.last)

    def turn(self, step: int) -> None:
        """Begins or ends the profile where `step` is done and stands at its edge."""
        if self._steps is None:
            return
        if step == self._steps.first - 1:
            jax.profiler.start_trace(self._folder)
            self._on = True
        elif step == self._steps.last and self._on:
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._on = False
