"""Folders on this machine or in a bucket."""

import os
from importlib.util import find_spec

from etils import epath


class FolderError(ValueError):
    """A folder that this machine cannot reach."""


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path names something in a bucket."""
    return "://" in os.fspath(path)


def open_folder(path: epath.PathLike) -> epath.Path:
    """A folder, local or in a bucket.

    Raises:
      FolderError: this machine has nothing that reads or writes such a bucket.
    """
    name = os.fspath(path)
    if is_remote(name) and not (name.startswith("gs://") and (find_spec("gcsfs") or find_spec("tensorflow"))):
        raise FolderError(f"{name}: needs gcsfs for gs:// (pip install 'videmo-jax[gcs]'); no other bucket can be used")
    return epath.Path(name)


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root, as Orbax wants it; one in a bucket has no other, and epath would break it."""
    return epath.Path(path) if is_remote(path) else epath.Path(path).absolute()
