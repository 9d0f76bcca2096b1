"""What is read of JSON files: one object, or the records of a list or of JSON Lines, one by one.

A list of a gigabyte costs the memory of one record. Lines end at line feeds alone: a text may hold other separators.
"""

import codecs
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from etils import epath

from videmo_jax.files.errors import FileError, UserError
from videmo_jax.files.paths import open_path

MAX_FILE_BYTES = 2 * 1024**3
MAX_RECORD_CHARACTERS = 64 * 1024**2
MAX_OBJECT_BYTES = 256 * 1024**2
CHUNK_CHARACTERS = 1024**2
# Where text ends inside a literal, a number or an escape, json names a place at most this far from the end.
LONGEST_LITERAL = 16
WHITESPACE = " \t\n\r"


class DatasetError(UserError):
    """The dataset as a whole cannot be used; the message says which file or folder, what is wrong, what to do."""


def read_json(path: epath.PathLike, mend: str, max_bytes: int = MAX_OBJECT_BYTES) -> dict[str, Any]:
    """The JSON object that a file holds.

    Args:
      path: of the file, local or in a bucket.
      mend: what to do where it cannot be read, for the message.
      max_bytes: a larger file is refused.

    Raises:
      FileError: it is missing, too large, or no JSON object.
    """
    path = open_path(path)
    try:
        if path.stat().length > max_bytes:
            raise FileError(f"{path}: {path.stat().length:,} bytes, more than {max_bytes:,}; {mend}")
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}; {mend}") from None
    except FileError:
        raise
    except (ValueError, RecursionError) as error:  # also what is no UTF-8
        raise FileError(f"{path}: no valid JSON ({error}); {mend}") from None
    if not isinstance(values, dict):
        raise FileError(f"{path}: holds a JSON {type(values).__name__}, not an object; {mend}")
    return values


def read_journal(path: epath.PathLike, mend: str) -> list[dict[str, Any]]:
    """The objects in a file that grew line by line; [] where there is none.

    A kill may have cut what follows the last line feed: it is left out.

    Raises:
      FileError: a line is no JSON object; `mend` says what to do.
    """
    path = open_path(path)
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FileError(f"{path}, line {number}: no valid JSON ({error}); {mend}") from None
        if not isinstance(record, dict):
            raise FileError(f"{path}, line {number}: no JSON object; {mend}")
        found.append(record)
    return found


def json_digest(value: Any) -> str:
    """The SHA-256 of a JSON value, whatever its spaces and the order of its fields."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_line(record: Any) -> str:
    """A record as one line, its line feed included."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def json_records(path: Path, max_file_bytes: int = MAX_FILE_BYTES) -> Iterator[Any]:
    """The records of a JSON list, or of one object a line.

    Raises:
      DatasetError: the file is no regular one, too large, not UTF-8, no JSON, or has a record that is too large.
    """
    with _opened(path, max_file_bytes) as file:
        first = ""
        while not first and (line := file.readline(CHUNK_CHARACTERS)):
            first = line.strip()[:1]
        file.seek(0)
        if first == "[":
            yield from _List(path, file)
        else:
            yield from (record for _, record in _lines(path, file))


def json_lines(path: Path, max_file_bytes: int = MAX_FILE_BYTES) -> Iterator[tuple[int, Any]]:
    """The records of a file of one object a line, each with its line's number from 1; errors as `json_records`."""
    with _opened(path, max_file_bytes) as file:
        yield from _lines(path, file)


@contextmanager
def _opened(path: Path, max_file_bytes: int) -> Iterator[TextIO]:
    if not path.is_file():
        raise DatasetError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}.")
    size = path.stat().st_size
    if size > max_file_bytes:
        raise DatasetError(
            f"{path}: {size:,} bytes, more than the limit of {max_file_bytes:,}. Split the file, or raise the limit."
        )
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: {_bad_byte(path)}") from None


def _lines(path: Path, file: TextIO) -> Iterator[tuple[int, Any]]:
    number = 0
    while line := file.readline(MAX_RECORD_CHARACTERS + 1):
        number += 1
        if len(line) > MAX_RECORD_CHARACTERS:
            raise _too_large(path, number)
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise _fault(path, f"line {number} column {error.colno}: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise _fault(path, f"from line {number} on: {error}") from None
        yield number, record


class _List:
    """The items of a JSON list; holds the text of about one of them."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file
        self._text, self._at = "", 0  # what is held, and where reading stands in it
        self._line, self._column = 1, 0  # of the first character that is held, both as they are counted
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        self._next()
        self._at += 1  # the bracket
        if self._next() != "]":
            while True:
                yield self._item()
                mark = self._next()
                if mark not in (",", "]"):
                    raise self._wrong("Expecting ',' delimiter", self._at)
                if mark == "]":
                    break
                self._at += 1
        self._at += 1
        if self._next():
            raise self._wrong("Extra data", self._at)

    def _item(self) -> Any:
        """The next item."""
        self._next()
        self._drop()
        more = CHUNK_CHARACTERS
        while True:
            try:
                item, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                near = error.pos >= len(self._text) - LONGEST_LITERAL or error.msg.startswith("Unterminated string")
                if self._ended or not near:
                    raise self._wrong(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise _fault(self._path, f"from line {self._place(self._at)[0]} on: {error}") from None
            else:
                if end - self._at > MAX_RECORD_CHARACTERS:
                    raise _too_large(self._path, self._place(self._at)[0])
                if self._ended or end < len(self._text) - LONGEST_LITERAL:  # else it may be a number that goes on
                    self._at = end
                    return item
            if len(self._text) - self._at > MAX_RECORD_CHARACTERS:
                raise _too_large(self._path, self._place(self._at)[0])
            self._read(more)
            more *= 2  # so that a long item is begun anew a few times only

    def _next(self) -> str:
        """The next character that is no white space, or nothing at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in WHITESPACE:
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._drop()
            self._read(CHUNK_CHARACTERS)

    def _read(self, characters: int) -> None:
        read = self._file.read(characters)
        self._ended = not read
        self._text += read

    def _drop(self) -> None:
        """Lets go of what was read, once it is much."""
        if self._at >= CHUNK_CHARACTERS or self._at == len(self._text):
            self._line, self._column = self._place(self._at)
            self._text, self._at = self._text[self._at :], 0

    def _place(self, at: int) -> tuple[int, int]:
        """Line from 1 and column from 0 of a character that is held."""
        lines = self._text.count("\n", 0, at)
        column = at - self._text.rfind("\n", 0, at) - 1 if lines else self._column + at
        return self._line + lines, column

    def _wrong(self, reason: str, at: int) -> DatasetError:
        line, column = self._place(at)
        return _fault(self._path, f"line {line} column {column + 1}: {reason}")


_DECODER = json.JSONDecoder()


def _fault(path: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"{path}: {reason}. Expected a JSON list, or one JSON object a line; download or write the file again."
    )


def _too_large(path: Path, line: int) -> DatasetError:
    return DatasetError(
        f"{path}: the record on line {line} has over {MAX_RECORD_CHARACTERS:,} characters, which no sample has. "
        "Remove it, or write the file again."
    )


def _bad_byte(path: Path) -> str:
    """Where a file stops being UTF-8."""
    decoder, seen = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_CHARACTERS)
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return f"byte {seen - held + error.start}: not UTF-8 ({error.reason})."
            seen += len(chunk)
            if not chunk:
                return "not UTF-8."
