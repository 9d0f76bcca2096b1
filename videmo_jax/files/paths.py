"""Paths on this machine or in a bucket: the one place that knows the difference."""

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from etils import epath

from videmo_jax.files.errors import FileError


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path names something in a bucket."""
    return "://" in os.fspath(path)


def open_path(path: epath.PathLike) -> epath.Path:
    """A file or folder, local or in a bucket.

    Raises:
      FileError: this machine has nothing that reads or writes such a bucket.
    """
    name = os.fspath(path)
    if is_remote(name) and not (name.startswith("gs://") and (find_spec("gcsfs") or find_spec("tensorflow"))):
        raise FileError(f"{name}: needs gcsfs for gs:// (pip install 'videmo-jax[gcs]'); no other bucket can be used")
    return epath.Path(name)


def local_folder(path: epath.PathLike, what: str) -> Path:
    """A folder that must be on this machine.

    Raises:
      FileError: it is in a bucket; `what` says why that cannot be used.
    """
    if is_remote(path):
        raise FileError(f"{os.fspath(path)}: {what}")
    return Path(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root, as Orbax wants it; one in a bucket has no other, and epath would break it."""
    path = open_path(path)
    return path if is_remote(path) else epath.Path(os.path.abspath(path))


def writable_folder(path: epath.PathLike) -> epath.Path:
    """A folder for results, checked before any work is done for them; it need not exist, and is not made.

    Raises:
      FileError: it is a file, or nothing can be written there.
    """
    folder = open_path(path)
    if is_remote(folder):
        return folder
    above = Path(folder)
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise FileError(f"{above}: is a file; name a folder")
    try:  # as root, or on a disk that is mounted to be read, permissions say nothing
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise FileError(f"{folder}: cannot be written ({error.strerror}); name another folder") from None
    return folder
