"""What one host does for all, and what all decide together: no host waits in vain for one that has failed."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Int32

from videmo_jax.files.errors import UserError
from videmo_jax.training.cluster import agree, several

T = TypeVar("T")
Texts = Sequence[Int32[np.ndarray, "T"]]  # of any lengths


class HostError(UserError):
    """Another host of this run has failed; the message says why."""


def is_first() -> bool:
    """Whether this host is the one that writes what a run has once: metrics, report, config."""
    return jax.process_index() == 0


def on_first_host(work: Callable[[], object]) -> None:
    """Does `work` on the first host, while the others wait.

    Raises:
      Exception: what it raised there; HostError on the other hosts.
    """
    on_each_host(work if is_first() else lambda: None)


def on_each_host(work: Callable[[], T]) -> T:
    """Does `work` on every host; all must call it.

    Raises:
      Exception: what it raised on this host; HostError where it failed on others alone.
    """
    if not several():
        return work()
    try:
        result = work()
    except Exception as error:
        agree(f"host {jax.process_index()}: {error or type(error).__name__}")
        raise
    if problem := agree(""):
        raise HostError(problem)
    return result


def first_host_says(value: bool) -> bool:
    """What the first host holds true; all must ask."""
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def same_on_all(text: str) -> bool:
    """Whether all hosts hold the same text; all must ask."""
    first = agree(text)
    return not agree("" if text == first else "no")


def from_each_host(texts: Texts) -> list[list[Int32[np.ndarray, "T"]]]:
    """What every host gives, by host: as many texts, of as many tokens, as it likes; all must call it."""
    if not several():
        return [list(texts)]
    sizes = multihost_utils.process_allgather(np.array([len(texts), sum(map(len, texts))], np.int32))
    count, tokens = (1 << int(most).bit_length() for most in sizes.max(axis=0))  # few shapes are compiled
    return [read_texts(row, count) for row in multihost_utils.process_allgather(write_texts(texts, count, tokens))]


def write_texts(texts: Texts, count: int, tokens: int) -> Int32[np.ndarray, "L"]:
    """Texts in one array with room for `count` of them, of `tokens` together: lengths (-1: no text), then ids."""
    row = np.zeros(count + tokens, np.int32)
    row[:count] = -1
    row[: len(texts)] = [len(text) for text in texts]
    row[count : count + sum(map(len, texts))] = np.concatenate([np.zeros(0, np.int32), *texts])
    return row


def read_texts(row: Int32[np.ndarray, "L"], count: int) -> list[Int32[np.ndarray, "T"]]:
    """The texts of `write_texts`."""
    lengths = row[:count][row[:count] >= 0]
    return np.split(row[count:], np.cumsum(lengths))[: len(lengths)]
