"""launch/train.py that kills its own process at a place of an RL run: a kill that hits a stage for sure.

python -m tests.launch.killed PLACE COUNT [arguments of launch/train.py]

PLACE is what is about to be called the COUNT-th time, or with `-sent` behind it what was just called: `rollout`,
`update` (the devices may still be at it), `reward` (of a batch; with workers they are at it then), `own` (the reward of
a group of answers, in this process).
"""

import os
import signal
import sys

from absl import app

from launch import train
from videmo_jax.commands import absl_parser


def killing(call, count, sent, counts=lambda *args: True):
    """`call`, whose COUNT-th call among those that count ends this process."""
    calls = 0

    def wrapped(*args):
        nonlocal calls
        if not counts(*args):
            return call(*args)
        calls += 1
        if calls == count and not sent:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def _is_group(_, answers):
    """Held-out prompts have one answer."""
    return len(answers) > 1


def arm(place, count):
    """Puts the kill where it belongs; JAX is imported here alone, as reward workers import this module again."""
    from videmo_jax.rl import iteration

    stage, _, sent = place.partition("-")
    if stage == "own":
        from tests.rl import reward_functions

        reward_functions.share_of_a = killing(reward_functions.share_of_a, count, sent, _is_group)
        return
    made = iteration.Iteration.__init__

    def init(self, programs, rewards, *args, **kwargs):
        if stage == "rollout":
            programs.sample = killing(programs.sample, count, sent)
        elif stage == "update":
            programs.update = killing(programs.update, count, sent)
        elif stage == "reward":
            rewards = killing(rewards, count, sent)
        else:
            raise SystemExit(f"no place {place}")
        made(self, programs, rewards, *args, **kwargs)

    iteration.Iteration.__init__ = init


if __name__ == "__main__":
    place, count = sys.argv[1:3]
    arm(place, int(count))
    app.run(train.main, argv=[sys.argv[0], *sys.argv[3:]], flags_parser=absl_parser("train"))
