"""Prediction files in the official format (PAPER.md section 5): JSON Lines, one file named like each test file."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from etils import epath

from videmo_jax.data.sample import Message
from videmo_jax.files.errors import UserError
from videmo_jax.files.json_records import to_line
from videmo_jax.files.paths import open_path
from videmo_jax.files.writing import write_text

MAX_FILE_BYTES = 1024**3


class PredictionError(UserError):
    """A prediction file cannot be used; the message says which file and line, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line.

    Attributes:
      response: the answer; empty where there is none, which is never right.
      labels: the truth.
      messages: of the prompt; the first is the user's.
      videos: paths relative to the dataset's root.
      log_probs: of the answer's tokens, its end token included; None where they are not known.
    """

    response: str
    labels: str
    messages: tuple[Message, ...] = ()
    videos: tuple[str, ...] = ()
    log_probs: tuple[float, ...] | None = None


def write_predictions(path: epath.Path, predictions: Iterable[Prediction]) -> None:
    """Writes a file, whole or not at all."""
    write_text(path, map(_line, predictions))


def writable(text: str) -> str:
    """The text with `?` for halves of surrogate pairs, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _line(prediction: Prediction) -> str:
    record = {
        "response": prediction.response,
        "labels": prediction.labels,
        "logprobs": None if prediction.log_probs is None else list(prediction.log_probs),
        "messages": [{"role": message.role, "content": message.content} for message in prediction.messages],
        "videos": list(prediction.videos),
    }
    return to_line(record)


def read_folder(folder: epath.PathLike) -> dict[str, list[Prediction]]:
    """All prediction files of one method, by name without `.json`, sorted.

    Args:
      folder: what holds the files, or an evaluation's output folder, which has them under `predictions`.

    Raises:
      PredictionError: there are none, or one of them is not valid.
    """
    folder = open_path(folder)
    if folder.exists() and not folder.is_dir():
        raise PredictionError(f"{folder}: is a file; give its folder, and choose with --tasks.")
    if (folder / "predictions").is_dir():
        folder = folder / "predictions"
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        raise PredictionError(f"{folder}: no prediction files (*.json, named like the test files) here.")
    return {path.name.removesuffix(".json"): read_predictions(path) for path in files}


def read_predictions(path: epath.PathLike) -> list[Prediction]:
    """Reads a file that any program wrote: a JSON object a line, or a JSON list.

    `response` and `labels` must be there. Other fields may be missing or of another form (ms-swift writes log-
    probabilities as objects, other servers write content as parts); what is not of our form is left out. Halves of
    surrogate pairs, which no report can hold, become `?`.

    Raises:
      PredictionError: the file is no UTF-8 or too large, a line is no JSON object, or response or labels is no text.
    """
    path = open_path(path)
    if path.stat().length > MAX_FILE_BYTES:
        raise PredictionError(f"{path}: more than {MAX_FILE_BYTES:,} bytes. Split the file.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PredictionError(f"{path}: byte {error.start}: not UTF-8. Convert the file.") from None
    if text.lstrip()[:1] == "[":
        records = [(f"item {number}", record) for number, record in enumerate(_parse(text, path, "the list"), start=1)]
    else:
        lines = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        records = [(where, _parse(line, path, where)) for where, line in lines]
    return [_prediction(record, f"{path}: {where}") for where, record in records]


def _parse(text: str, path: epath.Path, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PredictionError(f"{path}: {where}: no valid JSON ({error}). Write the file again.") from None


def _prediction(record: Any, where: str) -> Prediction:
    if not isinstance(record, dict):
        raise PredictionError(f"{where}: not an object with response, labels, messages and videos.")
    for name in ("response", "labels"):
        if not isinstance(record.get(name), str):
            raise PredictionError(f"{where}: {name!r} is missing or no text; every line needs it.")
    turns, videos, log_probs = (record.get(name) for name in ("messages", "videos", "logprobs"))
    return Prediction(
        writable(record["response"]),
        writable(record["labels"]),
        messages=tuple(Message(turn["role"], writable(turn["content"])) for turn in _list(turns) if _is_message(turn)),
        videos=tuple(writable(path) for path in _list(videos) if isinstance(path, str)),
        log_probs=tuple(log_probs) if _is_numbers(log_probs) else None,
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_message(turn: Any) -> bool:
    return isinstance(turn, dict) and all(isinstance(turn.get(name), str) for name in ("role", "content"))


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(number, float | int) for number in value)
