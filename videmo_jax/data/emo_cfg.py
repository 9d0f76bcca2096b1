"""Reader of Emo-CFG's official layout (PAPER.md section 5): `ROOT/jsons/{split}/{group}/{variant}/*.json` or `.jsonl`.

A file that cannot be read is refused at once, because it means a broken download. A sample that cannot be used is
listed with its reason and left out, because one bad line among millions must not stop a run, nor vanish silently.
"""

import hashlib
import os
import posixpath
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from videmo_jax.data.sample import IMAGE_TAG, ROLES, VIDEO_TAG, Message, Sample
from videmo_jax.files.json_records import MAX_FILE_BYTES, DatasetError, json_records
from videmo_jax.tasks.taxonomy import is_named

__all__ = ["DatasetError", "EmoCfg", "Rejected", "annotation_files", "iterate_emo_cfg", "read_emo_cfg"]

Duplicates = Literal["keep", "reject"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sample that was left out, and why: it cannot be used, or (`again`) another one is the same."""

    id: str
    reason: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class EmoCfg:
    """What was read below `root`; files sorted by group and name, samples in the order of their file."""

    root: Path
    samples: list[Sample]
    rejected: list[Rejected]


class BadSample(ValueError):
    """Why one record cannot become a sample."""


class Duplicate(BadSample):
    """It is a sample that was met before."""


class Seen:
    """The samples that were met in a file: where the same one comes again, it says which was the first.

    Files do not know of each other: which samples fall must not depend on which files are chosen, and the same question
    may well stand in two of them. Some 100 bytes a sample: 64 bits of a digest stand for it, which among 2 million are
    equal by chance once in ten million datasets.
    """

    def __init__(self) -> None:
        self._file = ""
        self._first: dict[int, str] = {}  # digest to id

    def refuse(self, sample: Sample) -> None:
        """Takes a sample; raises Duplicate where its messages and videos are those of an earlier one of its file."""
        if sample.file != self._file:
            self._file, self._first = sample.file, {}
        digest = hashlib.blake2b(digest_size=8)
        for part in (*((turn.role, turn.content) for turn in sample.messages), sample.videos):
            digest.update(repr(part).encode())
        first = self._first.setdefault(int.from_bytes(digest.digest()), sample.id)
        if first != sample.id:
            raise Duplicate(f"the same as {first}")


def read_emo_cfg(
    root: str | os.PathLike[str],
    split: str,
    *,
    variant: str = "full",
    include: Sequence[str] | None = None,
    duplicates: Duplicates = "keep",
    max_file_bytes: int = MAX_FILE_BYTES,
) -> EmoCfg:
    """Reads and checks one split of an Emo-CFG folder.

    Args:
      root: the folder that holds `jsons/` and, in the released layout, `videos/`.
      split: `train` or `test`.
      variant: `full` or `sampled`.
      include: shell patterns of file names (`MEAD_*.json`), each of which must match a file; None takes all.
      duplicates: `keep` takes every line, as the official scores count them; `reject` leaves out what comes again.
      max_file_bytes: larger annotation files are refused before they are read.

    Raises:
      DatasetError: a folder is missing, nothing matches, or an annotation file is not valid.
    """
    root = Path(root)
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    files = annotation_files(root, split, variant, include)
    seen = Seen() if duplicates == "reject" else None
    for each in iterate_emo_cfg(root, files, VideoFolder(root), seen, max_file_bytes=max_file_bytes):
        if isinstance(each, Sample):
            samples.append(each)
        else:
            rejected.append(each)
    return EmoCfg(root, samples, rejected)


def iterate_emo_cfg(
    root: Path,
    files: Sequence[Path],
    videos: "VideoFolder",
    seen: Seen | None = None,
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> Iterator[Sample | Rejected]:
    """The samples of annotation files one after the other, without holding any; errors as `read_emo_cfg`.

    Args:
      root: of the dataset.
      files: as `annotation_files` gives them.
      videos: of the dataset; what it has found it keeps.
      seen: refuses what comes again; None keeps it.
      max_file_bytes: larger files are refused.
    """
    for path in files:
        file = path.relative_to(root / "jsons").as_posix()
        for index, record in enumerate(json_records(path, max_file_bytes)):
            id = f"{file}#{index}"
            yield checked(id, partial(_sample, id, file, record, videos), seen)


def checked(id: str, read: Callable[[], Sample], seen: Seen | None) -> Sample | Rejected:
    """What `read` makes of a record, or why it cannot be used."""
    try:
        sample = read()
        if seen is not None:
            seen.refuse(sample)
    except BadSample as error:
        return Rejected(id, str(error), isinstance(error, Duplicate))
    return sample


def annotation_files(root: Path, split: str, variant: str = "full", include: Sequence[str] | None = None) -> list[Path]:
    """The annotation files of one split, sorted by group and name; arguments and errors as `read_emo_cfg`."""
    folder = root / "jsons" / split
    if not (root / "jsons").exists() and (root / "manifest.json").is_file():
        raise DatasetError(f"{root}: holds records, and videos are read here; name the folder they were prepared from.")
    for expected in (root, root / "jsons", folder):
        if not expected.is_dir():
            raise DatasetError(
                f"{expected}: no such folder. Expected ROOT/jsons/{split}/GROUP/{variant}/*.json"
                + (f"; {expected.parent} holds {_listing(expected.parent)}." if expected != root else ".")
            )
    groups = [group for group in sorted(folder.iterdir()) if (group / variant).is_dir()]
    files = [
        path for group in groups for path in sorted((group / variant).iterdir()) if path.suffix in (".json", ".jsonl")
    ]
    if not files:
        raise DatasetError(
            f"{folder}: no GROUP/{variant}/*.json or *.jsonl below it; it holds {_listing(folder)}. "
            "Choose another variant (full, sampled) or check the download."
        )
    for pattern in include or ():
        if not any(is_named(path.name, pattern) for path in files):
            names = ", ".join(path.name for path in files)
            raise DatasetError(f"{folder}: no {variant} file is named {pattern!r}; there are: {names}.")
    if include is not None:
        files = [path for path in files if any(is_named(path.name, pattern) for pattern in include)]
    return files


def _listing(folder: Path, most: int = 12) -> str:
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") or "nothing"


@dataclass
class VideoFolder:
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

    def relative(self, path: str) -> str:
        """A path below the root that is written from the root of the disk, as it is written elsewhere."""
        if not path.startswith("/"):
            return path
        for root in (os.path.abspath(self.root), self._real_root):
            if path.startswith(f"{root}/"):
                return path[len(root) + 1 :]
        return path

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


def _sample(id: str, file: str, record: Any, videos: VideoFolder) -> Sample:
    """A typed sample from one JSON record; raises `BadSample`."""
    if not isinstance(record, dict):
        raise BadSample(f"the record is {kind(record)}, expected an object")
    if record.get("images") or record.get("image"):
        raise BadSample("images are not supported, only videos")
    messages = checked_turns(record)
    paths = record.get("videos") or record.get("video") or []
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise BadSample("videos is not a list of paths")
    paths = [videos.relative(path) for path in paths]
    source = record.get("source")
    if not isinstance(source, str | None):
        raise BadSample(f"source is {kind(source)}, expected text")
    tags = sum(message.content.count(VIDEO_TAG) for message in messages if message.role == "user")
    if tags != len(paths):
        raise BadSample(f"{tags} {VIDEO_TAG} in the user's turns, but {len(paths)} paths in videos")
    for path in paths:
        if fault := videos.fault(path):
            raise BadSample(f"video {path!r:.300} {fault}")
    # Interned, here and in `checked_messages`: millions of samples share paths, sources and three roles.
    return Sample(id, file, messages, tuple(map(sys.intern, paths)), source and sys.intern(source))


SPEAKERS = {"human": "user", "gpt": "assistant"}  # of `conversations`, in our words; the others are the same


def checked_turns(record: Mapping[str, Any]) -> tuple[Message, ...]:
    """The turns of a record: `messages` or `conversations`, behind a `system` of its own; raises BadSample."""
    turns = record.get("messages")
    if turns is None and isinstance(turns := record.get("conversations"), list):
        turns = [_spoken(turn) for turn in turns]
    messages, system = checked_messages(turns), record.get("system")
    if system is None or system == "":
        return messages
    if not isinstance(system, str) or not _is_unicode(system):
        raise BadSample(f"system is {kind(system)}, expected text")
    if messages[0].role == "system" and messages[0].content != system:
        raise BadSample("system is another text than its first message, a system's too")
    return messages if messages[0].role == "system" else (Message("system", system), *messages)


def _spoken(turn: Any) -> Any:
    """A turn of `conversations` with the keys and roles of `messages`."""
    if not isinstance(turn, dict):
        return turn
    speaker = turn.get("from")
    role = SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker
    return turn | {"role": role, "content": turn.get("value")}


def checked_messages(turns: Any) -> tuple[Message, ...]:
    """The turns of a record; raises BadSample."""
    if not isinstance(turns, list) or not turns:
        raise BadSample("no messages")
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise BadSample(f"message {number} is {kind(turn)}, expected an object")
        role, content = turn.get("role"), turn.get("content")
        if role not in ROLES:
            raise BadSample(f"message {number}: role {role!r:.80} is none of {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise BadSample(f"message {number}: content is {kind(content)}, expected text")
        if not _is_unicode(content):
            raise BadSample(f"message {number}: content holds half a surrogate pair, which is no text")
        if role == "system" and number > 0:
            raise BadSample(f"message {number}: a system message may only come first")
        if role == "user" and IMAGE_TAG in content:
            raise BadSample(f"message {number}: holds {IMAGE_TAG}, and images are not supported")
        if role == "assistant" and not content.strip():
            raise BadSample(f"message {number}: the assistant's answer is empty; the end alone would be trained")
        if role == "assistant" and turn.get("loss", True) not in (True, None):
            raise BadSample(f"message {number}: its loss is {turn['loss']!r}; all the assistant's turns are trained")
    if turns[-1]["role"] != "assistant":
        raise BadSample(f"the last message is the {turns[-1]['role']}'s, expected the assistant's answer")
    if all(turn["role"] != "user" for turn in turns):
        raise BadSample("no user's turn")
    return tuple(Message(sys.intern(turn["role"]), turn["content"]) for turn in turns)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def kind(value: Any) -> str:
    """What a JSON value is, for people."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "missing"}
    return names.get(type(value), "a number")
