"""launch/train.py that kills its own process at a place of an RL run: a kill that hits a stage for sure.

python -m tests.launch.killed PLACE STEP [arguments of launch/train.py]

PLACE is what is about to be called in that step, or with `-sent` behind it what was just called: `rollout`, `update`
(the devices may still be at it), `reward` (of a batch; with workers they are at it then), `own` (the reward of a group
of answers, in this process).
"""

import os
import signal
import sys

from absl import app

from launch import train
from videmo_jax.commands import absl_parser


def killing(call, due, sent):
    """`call`, which ends this process when it is due."""

    def wrapped(*args):
        if due() and not sent:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args)
        if due():
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def arm(place, step):
    """Puts the kill where it belongs; JAX is imported here alone, as reward workers import this module again."""
    from tests.rl import reward_functions
    from videmo_jax.rl import iteration

    stage, _, sent = place.partition("-")
    made = iteration.Iteration.__init__

    def init(self, programs, rewards, *args, **kwargs):
        def due():
            return self._step == step

        if stage == "rollout":
            programs.sample = killing(programs.sample, due, sent)
        elif stage == "update":
            programs.update = killing(programs.update, due, sent)
        elif stage == "reward":
            rewards = killing(rewards, due, sent)
        elif stage == "own":
            reward_functions.share_of_a = killing(reward_functions.share_of_a, due, sent)
        else:
            raise SystemExit(f"no place {place}")
        made(self, programs, rewards, *args, **kwargs)

    iteration.Iteration.__init__ = init


if __name__ == "__main__":
    place, step = sys.argv[1:3]
    arm(place, int(step))
    app.run(train.main, argv=[sys.argv[0], *sys.argv[3:]], flags_parser=absl_parser("train"))
