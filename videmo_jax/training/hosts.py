"""What one host does for all, and what all decide together: no host waits in vain for one that has failed."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from videmo_jax.files.errors import UserError
from videmo_jax.training.cluster import agree, several

T = TypeVar("T")


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
