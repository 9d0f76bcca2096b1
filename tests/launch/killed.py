"""launch/train.py that kills its own process at a place of an RL run: a kill that hits a stage for sure.

python -m tests.launch.killed PLACE COUNT [arguments of launch/train.py]

PLACE is what is about to be called the COUNT-th time, or with `-sent` behind it what has just been called: `rollout`,
`update` (the devices may still be at it), `reward` (of groups, not of held-out answers; with workers: they have them).
"""

import os
import signal
import sys

from absl import app

from launch import train
from videmo_jax.commands import absl_parser


def killing(call, count, sent):
    """`call`, whose COUNT-th call ends this process."""
    calls = 0

    def wrapped(*args):
        nonlocal calls
        calls += 1
        if calls == count and not sent:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def arm(place, count):
    """Puts the kill where it belongs; JAX is imported here alone, as reward workers import this module again."""
    from videmo_jax.rl import iteration

    stage, _, sent = place.partition("-")
    made = iteration.Iteration.__init__

    def init(self, programs, rewards, *args, **kwargs):
        if stage == "rollout":
            programs.sample = killing(programs.sample, count, bool(sent))
        elif stage == "update":
            programs.update = killing(programs.update, count, bool(sent))
        elif stage == "reward":
            rewards = killing(rewards, count, bool(sent))
        else:
            raise SystemExit(f"no place {place}")
        made(self, programs, rewards, *args, **kwargs)

    iteration.Iteration.__init__ = init


if __name__ == "__main__":
    place, count = sys.argv[1:3]
    arm(place, int(count))
    app.run(train.main, argv=[sys.argv[0], *sys.argv[3:]], flags_parser=absl_parser("train"))
