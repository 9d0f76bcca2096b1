"""Rewards of a user's own, for the tests: what may stand behind `package.module:function`."""

import os
import signal
import sys
import time
import zlib
from pathlib import Path


def share_of_a(asked, answers):
    return [answer.count("a") / max(len(answer), 1) for answer in answers]


def certain(asked, answers):
    return [1 for _ in answers]


def flat_for_some(asked, answers):
    """As `share_of_a`, but all alike for a prompt of two, and no number for one of six."""
    kind = zlib.crc32(asked.id.encode()) % 6
    return [float("nan") if kind == 5 else 0.5] * len(answers) if kind % 2 else share_of_a(asked, answers)


def wrong_range(asked, answers):
    return [1.5 for _ in answers]


def too_few(asked, answers):
    return [0.5]


def raises(asked, answers):
    if "bad" in asked.question:
        raise RuntimeError("no such sensor")
    return [0.25 for _ in answers]


def fails_now_and_then(asked, answers):
    """As `share_of_a`, but for every third length of a truth."""
    if len(asked.truth) % 3 == 0:
        raise RuntimeError("no such sensor")
    return share_of_a(asked, answers)


def never(asked, answers):
    raise RuntimeError("no such sensor")


def not_a_number(asked, answers):
    return [float("nan") for _ in answers]


def dies(asked, answers):
    """Kills its process: always, or, where the question names a file, until that is there."""
    word, _, path = asked.question.partition(" ")
    if word == "always" or (word == "once" and not Path(path).exists()):
        if path:
            Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [0.5 for _ in answers]


def hangs(asked, answers):
    """Does not come back where the question says so."""
    while asked.question.startswith("hang"):
        time.sleep(0.05)
    return [0.5 for _ in answers]


def hangs_for_a_while(asked, answers):
    """As `share_of_a`; at the third call it says so in a file and waits until that is gone."""
    path = Path(os.environ["VIDEMO_TEST_HANGS"])
    calls.append(1)
    if len(calls) == 3:
        path.touch()
    while path.exists():
        time.sleep(0.05)
    return share_of_a(asked, answers)


calls = []


async def a_coroutine(asked, answers):
    return [0.5 for _ in answers]


def says_what_is_imported(asked, answers):
    return [float("jax" in sys.modules or "flax" in sys.modules) for _ in answers]


NOT_A_FUNCTION = 3
