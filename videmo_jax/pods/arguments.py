"""What the commands of launch/tpu share: names that are checked, and the arguments of launch/train.py."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from videmo_jax.files.errors import UserError

NAME = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
PROJECT = r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"
ZONE = r"[a-z]+-[a-z]+[0-9]+-[a-z]"


class PodError(UserError):
    """What is asked for cannot be started; the message is one line."""


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, exit code 1."""

    def error(self, message: str) -> NoReturn:
        """Ends the command."""
        print(f"{self.prog}: {message}; --help shows examples", file=sys.stderr)
        raise SystemExit(1)


def checked(what: str, value: str, pattern: str, rule: str) -> str:
    """The value, where it matches the pattern.

    Args:
      what: the flag that it came from.
      value: to be checked.
      pattern: a regular expression of all of it.
      rule: the pattern in words.

    Raises:
      PodError: it does not.
    """
    if not re.fullmatch(pattern, value, re.ASCII):
        raise PodError(f"{what} {value!r}: {rule}")
    return value


def checked_name(value: str, longest: int = 63) -> str:
    """A name that Google Cloud and Kubernetes both take, of at most `longest` characters.

    Raises:
      PodError: they do not.
    """
    rule = f"give small letters, digits and dashes, a letter first, at most {longest} characters"
    checked("--name", value, NAME, rule)
    if len(value) > longest:
        raise PodError(f"--name {value!r}: {rule}, as hosts get longer names from it")
    return value


def train_arguments(root: Path, config: str, workdir: str, more: Sequence[str]) -> list[str]:
    """The arguments of launch/train.py, the same on every host.

    Args:
      root: of the checkout that is sent to the hosts, or built into the image.
      config: of `--config`, a file below root with or without `:ARG`.
      workdir: all hosts must reach it: gs://, or the absolute path of a bucket or file system mounted on all.
      more: further flags, such as --config.batch=512.

    Raises:
      PodError: the recipe is not below root, hosts cannot share the workdir, or a further argument is no flag.
    """
    path = Path(config.partition(":")[0])
    if path.is_absolute() or ".." in path.parts or not (root / path).is_file():
        raise PodError(f"--config {config}: no such file in {root}; give a path from there, such as configs/NAME.py")
    checked(
        "--workdir",
        workdir,
        r"gs://[a-z0-9][a-z0-9._-]+/\S+|/\S+",
        "all hosts share it, and it outlives them; give gs://BUCKET/FOLDER, or /FOLDER of a mounted file system",
    )
    for argument in more:
        if not re.fullmatch(r"--[A-Za-z][^\n]*", argument):
            raise PodError(f"{argument!r} after --: give flags of launch/train.py as --NAME=VALUE")
    return [f"--config={config}", f"--workdir={workdir}", *more]
