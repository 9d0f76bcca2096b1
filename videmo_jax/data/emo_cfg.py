"""Reader of Emo-CFG's official layout (PAPER.md section 5): `ROOT/jsons/{split}/{group}/{variant}/*.json`.

A file that cannot be read is refused at once, because it means a broken download. A sample that cannot be used is
listed with its reason and left out, because one bad line among millions must not stop a run, nor vanish silently.
"""

import json
import os
import posixpath
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from videmo_jax.data.sample import ROLES, VIDEO_TAG, Message, Sample

MAX_FILE_BYTES = 2 * 1024**3


class DatasetError(ValueError):
    """The dataset as a whole cannot be used; the message says which file or folder, what is wrong, what to do."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sample that was left out, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class EmoCfg:
    """What was read below `root`; files sorted by group and name, samples in the order of their file."""

    root: Path
    samples: list[Sample]
    rejected: list[Rejected]


class _BadSample(ValueError):
    """Why one record cannot become a sample."""


def read_emo_cfg(
    root: str | os.PathLike[str],
    split: str,
    *,
    variant: str = "full",
    include: Sequence[str] | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> EmoCfg:
    """Reads and checks one split of an Emo-CFG folder.

    Args:
      root: the folder that holds `jsons/` and, in the released layout, `videos/`.
      split: `train` or `test`.
      variant: `full` or `sampled`.
      include: shell patterns of file names (`MEAD_*.json`), each of which must match a file; None takes all.
      max_file_bytes: larger annotation files are refused before they are read.

    Raises:
      DatasetError: a folder is missing, nothing matches, or an annotation file is not valid.
    """
    root = Path(root)
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    videos = _Videos(root)
    for path in annotation_files(root, split, variant, include):
        file = path.relative_to(root / "jsons").as_posix()
        for index, record in enumerate(_records(path, max_file_bytes)):
            id = f"{file}#{index}"
            try:
                samples.append(_sample(id, file, record, videos))
            except _BadSample as error:
                rejected.append(Rejected(id, str(error)))
    return EmoCfg(root, samples, rejected)


def annotation_files(root: Path, split: str, variant: str = "full", include: Sequence[str] | None = None) -> list[Path]:
    """The annotation files of one split, sorted by group and name; arguments and errors as `read_emo_cfg`."""
    folder = root / "jsons" / split
    for expected in (root, root / "jsons", folder):
        if not expected.is_dir():
            raise DatasetError(
                f"{expected}: no such folder. Expected ROOT/jsons/{split}/GROUP/{variant}/*.json"
                + (f"; {expected.parent} holds {_listing(expected.parent)}." if expected != root else ".")
            )
    groups = [group for group in sorted(folder.iterdir()) if (group / variant).is_dir()]
    files = [path for group in groups for path in sorted((group / variant).glob("*.json"))]
    if not files:
        raise DatasetError(
            f"{folder}: no GROUP/{variant}/*.json below it; it holds {_listing(folder)}. "
            "Choose another variant (full, sampled) or check the download."
        )
    for pattern in include or ():
        if not any(fnmatchcase(path.name, pattern) for path in files):
            names = ", ".join(path.name for path in files)
            raise DatasetError(f"{folder}: no {variant} file is named {pattern!r}; there are: {names}.")
    if include is not None:
        files = [path for path in files if any(fnmatchcase(path.name, pattern) for pattern in include)]
    return files


def _listing(folder: Path, most: int = 12) -> str:
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") or "nothing"


def _records(path: Path, max_bytes: int) -> Iterator[Any]:
    """The records of a JSON list, or of one object a line."""
    if not path.is_file():
        raise DatasetError(f"{path}: not a regular file.")
    size = path.stat().st_size
    if size > max_bytes:
        raise DatasetError(
            f"{path}: {size:,} bytes, more than the limit of {max_bytes:,}. Split the file, or raise the limit."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: byte {error.start}: not UTF-8 ({error.reason}).") from None
    if text.lstrip()[:1] == "[":
        yield from _parse(text, path, 1)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _parse(line, path, number)


def _parse(text: str, path: Path, first_line: int) -> Any:
    """`json.loads` whose errors name the file and the position."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        reason = f"line {line} column {error.colno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        reason = f"from line {first_line} on: {error}"
    raise DatasetError(
        f"{path}: {reason}. Expected a JSON list, or one JSON object a line; download or write the file again."
    )


@dataclass
class _Videos:
    """Answers whether a path is a usable video; every distinct path is looked up once."""

    root: Path
    _faults: dict[str, str | None] = field(default_factory=dict)
    _real_root: str = field(init=False)

    def __post_init__(self) -> None:
        self._real_root = os.path.realpath(self.root)

    def fault(self, path: str) -> str | None:
        """What is wrong with a path, or None."""
        if path not in self._faults:
            self._faults[path] = self._look(path)
        return self._faults[path]

    def _look(self, path: str) -> str | None:
        if path.startswith("/") or posixpath.normpath(path).split("/")[0] == "..":
            return "leaves the dataset's root; paths are relative to it"
        try:
            real = os.path.realpath(os.path.join(self._real_root, path))
            if os.path.commonpath([real, self._real_root]) != self._real_root:
                return "leaves the dataset's root through a symbolic link"
            if not os.path.isfile(real):
                return "is missing" if not os.path.exists(real) else "is not a regular file"
            return None if os.path.getsize(real) else "is an empty file"
        except (OSError, ValueError) as error:
            return f"cannot be looked up: {error}"


def _sample(id: str, file: str, record: Any, videos: _Videos) -> Sample:
    """A typed sample from one JSON record; raises `_BadSample`."""
    if not isinstance(record, dict):
        raise _BadSample(f"the record is {_kind(record)}, expected an object")
    if record.get("images"):
        raise _BadSample("images are not supported, only videos")
    messages = _messages(record.get("messages"))
    paths = record.get("videos") or []
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise _BadSample("videos is not a list of paths")
    source = record.get("source")
    if not isinstance(source, str | None):
        raise _BadSample(f"source is {_kind(source)}, expected text")
    tags = sum(message.content.count(VIDEO_TAG) for message in messages if message.role == "user")
    if tags != len(paths):
        raise _BadSample(f"{tags} {VIDEO_TAG} in the user's turns, but {len(paths)} paths in videos")
    for path in paths:
        if fault := videos.fault(path):
            raise _BadSample(f"video {path!r:.300} {fault}")
    # Interned, here and in `_messages`: millions of samples share paths, sources and three roles.
    return Sample(id, file, messages, tuple(map(sys.intern, paths)), source and sys.intern(source))


def _messages(turns: Any) -> tuple[Message, ...]:
    if not isinstance(turns, list) or not turns:
        raise _BadSample("no messages")
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise _BadSample(f"message {number} is {_kind(turn)}, expected an object")
        role, content = turn.get("role"), turn.get("content")
        if role not in ROLES:
            raise _BadSample(f"message {number}: role {role!r:.80} is none of {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise _BadSample(f"message {number}: content is {_kind(content)}, expected text")
        if not _is_unicode(content):
            raise _BadSample(f"message {number}: content holds half a surrogate pair, which is no text")
        if role == "system" and number > 0:
            raise _BadSample(f"message {number}: a system message may only come first")
    if turns[-1]["role"] != "assistant":
        raise _BadSample(f"the last message is the {turns[-1]['role']}'s, expected the assistant's answer")
    if all(turn["role"] != "user" for turn in turns):
        raise _BadSample("no user's turn")
    return tuple(Message(sys.intern(turn["role"]), turn["content"]) for turn in turns)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "missing"}
    return names.get(type(value), "a number")
