"""Replies of an endpoint on disk, so that none is paid for twice: a line each, written when it arrives."""

import itertools
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from etils import epath

from videmo_jax.training.integrity import sha256

# Nothing can be appended in a bucket: there, replies are written in files of so many.
BUCKET_LINES = 64


class CacheError(ValueError):
    """Kept replies cannot be read, or new ones not be written; the message says which file and what to do."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint answered.

    Attributes:
      text: the message, as it is.
      cut: whether the limit of tokens cut it off.
      attempts: times that it was asked for.
      log_probs: of its tokens; None where the endpoint does not give them.
      tokens_in: of the prompt, by the endpoint's count; None where it does not say.
      tokens_out: of the reply, likewise.
    """

    text: str
    cut: bool = False
    attempts: int = 1
    log_probs: tuple[float, ...] | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None


def cache_key(url: str, model: str, asked: Mapping[str, Any]) -> str:
    """The name of a request: another endpoint, model, message or setting makes another one."""
    return sha256([url, model, asked])[:32]


class ReplyCache:
    """The replies below a folder: `*.jsonl`, a new file for each run that adds one.

    A run appends to its own file and flushes each line. A kill may cut the last line, which the next run leaves out:
    its request is asked again. Threads may share it.
    """

    def __init__(self, folder: epath.PathLike) -> None:
        """Reads what earlier runs kept.

        Raises:
          CacheError: a file is broken, other than at its end.
        """
        self._folder = epath.Path(folder)
        self._local = "://" not in str(folder)
        self._lock = threading.Lock()
        self._replies: dict[str, Reply] = {}
        parts = sorted(self._folder.glob("*.jsonl")) if self._folder.exists() else []
        for part in parts:
            self._replies |= _read(part)
        numbers = (int(part.stem) for part in parts if part.stem.isdecimal())
        self._numbers = itertools.count(1 + max(numbers, default=0))
        self._file: IO[str] | None = None
        self._unwritten: list[str] = []

    def __len__(self) -> int:
        return len(self._replies)

    def __enter__(self) -> "ReplyCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: str) -> Reply | None:
        """The reply kept under a key."""
        return self._replies.get(key)

    def add(self, key: str, id: str, reply: Reply) -> None:
        """Keeps a reply; `id` is for people who read the file.

        Raises:
          CacheError: it cannot be written.
        """
        line = json.dumps({"key": key, "id": id, **asdict(reply)}) + "\n"
        with self._lock:
            try:
                self._append(line) if self._local else self._collect(line)
            except OSError as error:
                raise CacheError(f"{self._folder}: a reply cannot be written ({error}); make room") from None
            self._replies[key] = reply

    def close(self) -> None:
        """Writes what is not written yet."""
        with self._lock:
            if self._file:
                self._file.close()
                self._file = None
            self._write_part()

    def _append(self, line: str) -> None:
        while self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # of another run of the same folder
                self._file = (Path(self._folder) / f"{next(self._numbers):06}.jsonl").open("x", encoding="utf-8")
        self._file.write(line)
        self._file.flush()

    def _collect(self, line: str) -> None:
        self._unwritten.append(line)
        if len(self._unwritten) >= BUCKET_LINES:
            self._write_part()

    def _write_part(self) -> None:
        if not self._unwritten:
            return
        while (part := self._folder / f"{next(self._numbers):06}.jsonl").exists():  # of another run of the same folder
            pass
        part.write_bytes("".join(self._unwritten).encode())  # in a bucket a file is there whole or not at all
        self._unwritten = []


def _read(part: epath.Path) -> dict[str, Reply]:
    lines = part.read_bytes().split(b"\n")
    replies = {}
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline was cut by a kill
        try:
            record = json.loads(line)
            key, log_probs = record["key"], record["log_probs"]
            reply = Reply(
                _of(str, record["text"]),
                _of(bool, record["cut"]),
                _of(int, record["attempts"]),
                None if log_probs is None else tuple(float(value) for value in log_probs),
                record["tokens_in"],
                record["tokens_out"],
            )
            replies[_of(str, key)] = reply
        except (ValueError, KeyError, TypeError, RecursionError):
            raise CacheError(
                f"{part}: line {number}: not a kept reply. Delete this line: its item will be asked again."
            ) from None
    return replies


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value
