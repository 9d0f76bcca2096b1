"""Replies of an endpoint on disk, so that none is paid for twice: a line each, written when it arrives."""

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etils import epath

from videmo_jax.files.errors import FileError, UserError
from videmo_jax.files.json_records import json_digest, read_journal, to_line
from videmo_jax.files.paths import is_remote, open_path
from videmo_jax.files.writing import append_text, write_text

# Nothing can be appended in a bucket: there, replies are written in files of so many.
BUCKET_LINES = 64


class CacheError(UserError):
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


def cache_key(url: str, model: str, request: Mapping[str, Any]) -> str:
    """The name of a request: another endpoint, model, message or setting makes another one."""
    return json_digest([url, model, request])[:32]


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
        self._folder = open_path(folder)
        self._local = not is_remote(folder)
        self._lock = threading.Lock()
        self._replies: dict[str, Reply] = {}
        parts = sorted(self._folder.glob("*.jsonl")) if self._folder.exists() else []
        for part in parts:
            self._replies |= _read(part)
        self._part = self._new_part()
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
        line = to_line({"key": key, "id": id, **asdict(reply)})
        with self._lock:
            try:
                append_text(Path(self._part), line) if self._local else self._collect(line)
            except (FileError, OSError) as error:
                raise CacheError(f"{self._folder}: a reply cannot be written ({error}); make room") from None
            self._replies[key] = reply

    def close(self) -> None:
        """Writes what is not written yet."""
        with self._lock:
            self._write_part()

    def _collect(self, line: str) -> None:
        self._unwritten.append(line)
        if len(self._unwritten) >= BUCKET_LINES:
            self._write_part()

    def _write_part(self) -> None:
        if not self._unwritten:
            return
        write_text(self._part, self._unwritten)
        self._unwritten, self._part = [], self._new_part()

    def _new_part(self) -> epath.Path:
        """A file that no other run of the same folder writes, named so that later ones sort behind it."""
        return self._folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.jsonl"


def _read(part: epath.Path) -> dict[str, Reply]:
    mend, replies = "delete this line: its item will be asked again", {}
    for number, record in enumerate(read_journal(part, mend), start=1):
        try:
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
        except (ValueError, KeyError, TypeError):
            raise CacheError(f"{part}, line {number}: not a kept reply; {mend}") from None
    return replies


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value
