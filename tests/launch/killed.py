"""launch/train.py that kills its own process at a place of an RL run: a kill that hits a stage for sure.

python tests/launch/killed.py PLACE STEP [arguments of launch/train.py]

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
    from videmo_jax.rl.programs import Programs
    from videmo_jax.rl.rewards.rewarder import Rewarder
    from videmo_jax.training.loop import Loop

    stage, _, sent = place.partition("-")
    took, made, at = Loop.take, Programs.__init__, [0]

    def take(self, feed):
        at[0] = max(at[0], self.first) + 1
        return took(self, feed)

    def due():
        return at[0] == step

    def init(self, *args):
        made(self, *args)
        if stage in ("rollout", "update"):
            name = {"rollout": "sample"}.get(stage, stage)
            setattr(self, name, killing(getattr(self, name), due, sent))

    Loop.take, Programs.__init__ = take, init
    if stage == "reward":
        Rewarder.submit = killing(Rewarder.submit, due, sent)
    elif stage == "own":
        reward_functions.share_of_a = killing(reward_functions.share_of_a, due, sent)
    elif stage not in ("rollout", "update"):
        raise SystemExit(f"no place {place}")


if __name__ == "__main__":
    place, step = sys.argv[1:3]
    arm(place, int(step))
    app.run(train.main, argv=[sys.argv[0], *sys.argv[3:]], flags_parser=absl_parser("train"))
