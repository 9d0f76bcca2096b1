"""Files and folders that appear under their names whole or not at all."""

import glob
import json
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath

from videmo_jax.files.errors import FileError
from videmo_jax.files.paths import is_remote, open_path


@contextmanager
def whole_file(path: epath.PathLike, *, durable: bool = False) -> Iterator[Path]:
    """A local file to write; after the block it stands under `path`, at once and complete.

    Folders above it are made. In a bucket objects appear whole, so that the file is written elsewhere and copied there.

    Args:
      path: where it will stand.
      durable: whether to wait for the disk, so that it survives the machine; it survives the process in any case.

    Raises:
      FileError: it cannot be written: the disk is full, say.
    """
    path = open_path(path)
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / path.name
            yield partial
            epath.Path(partial).copy(path, overwrite=True)
        return
    partial = Path(path).with_name(f".{path.name}.partial-{os.getpid()}")
    with _told(path, path.parent, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            if durable:
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: epath.PathLike) -> Iterator[epath.Path]:
    """A new folder beside `path` that takes its name when the block ends well, and is removed otherwise.

    Raises:
      FileError: it cannot be written, or something has come to stand there.
    """
    path = open_path(path)
    begin = f".{path.name}.partial-{socket.gethostname()}-"
    partial = path.parent / f"{begin}{os.getpid()}"
    with _told(path, path.parent, partial):
        for left in path.parent.glob(f"{glob.escape(begin)}*") if not is_remote(path) else ():
            if not _runs(left.name.removeprefix(begin)):  # of a process that was killed: many gigabytes, perhaps
                left.rmtree()
        partial.rmtree(missing_ok=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            move(partial, path)
        finally:
            partial.rmtree(missing_ok=True)


def _runs(process: str) -> bool:
    """Whether a process of this machine is still there."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:  # another user's
        return True
    return True


def move(source: epath.Path, place: epath.Path) -> None:
    """Moves a folder to a place where nothing but an empty folder is; in a bucket, object by object."""
    if not is_remote(source):
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, place)
        return
    for folder, _, names in source.walk():
        for each in (folder / name for name in names):
            each.copy(place / each.relative_to(source))
    source.rmtree()


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Replaces a file at once; errors as `whole_file`."""
    with whole_file(path) as partial:
        partial.write_bytes(data)


def write_text(path: epath.PathLike, text: str | Iterable[str]) -> None:
    """Replaces a text file at once, in UTF-8; errors as `whole_file`.

    Args:
      path: of the file.
      text: whole, or in pieces. Halves of surrogate pairs, which no file can hold, become `?`.
    """
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.writelines([text] if isinstance(text, str) else text)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Replaces a JSON file at once; errors as `whole_file`."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def append_text(path: Path, text: str) -> None:
    """Adds to a local text file, in UTF-8, which may be new where there is a text; errors as `whole_file`.

    A kill may leave the beginning of the text there: what is read back later ends with a mark, such as a line feed.
    """
    if not text:
        return
    with _told(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)


@contextmanager
def _told(*paths: epath.PathLike) -> Iterator[None]:
    """What the system says when writing fails, with the path, which it leaves out of a write to a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) not in map(os.fspath, paths):
            raise
        raise FileError(f"{paths[0]}: cannot be written ({error.strerror or error})") from error
