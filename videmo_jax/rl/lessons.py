"""What the answers of a step teach: rollouts with their rewards, and which of their groups the update takes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from videmo_jax.rl.advantages import Advantages
from videmo_jax.rl.answered import Answered
from videmo_jax.rl.programs import Drawn
from videmo_jax.rl.rewards.reward import GroupRewards


@dataclass(frozen=True)
class Lesson:
    """A rollout that was rewarded, of this host's part of a batch.

    Attributes:
      drawn: the answers on the devices.
      answered: what the host made of them.
      rewards: of the rows that hold a prompt.
      advantages: of every answer.
      by_token: of every token.
      seconds: that the answers took.
    """

    drawn: Drawn
    answered: Answered
    rewards: GroupRewards
    advantages: Advantages
    by_token: Float32[np.ndarray, "B G C"]
    seconds: float

    @property
    def teaches(self) -> Bool[np.ndarray, "B G"]:
        """Answers that are trained on, of groups in which any of them has a token whose advantage is not 0.

        Others are groups whose rewards are all alike (unless their nodes have credit) or failed, and those whose
        answers were all cut, where such answers teach nothing.
        """
        valid = self.advantages.valid
        return valid & (valid & self.by_token.any(axis=-1)).any(axis=1, keepdims=True)

    @property
    def failures(self) -> dict[int, str]:
        """Why groups have no reward, by their number among the rows that hold a prompt."""
        return {failure.group: failure.reason for failure in self.rewards.failures}


def as_drawn(rows: Shaped[np.ndarray, "B*K ..."], count: int) -> Shaped[np.ndarray, "K*B ..."]:
    """Rows of K = `count` rollouts that stand side by side (`rl.rows.side_by_side`), one rollout after the other."""
    return rows.reshape(-1, count, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def first_groups(teaches: Bool[np.ndarray, "B*K G"], count: int, most: int) -> Bool[np.ndarray, "B*K G"]:
    """The answers of the first `most` groups that teach something, in the order in which they were drawn.

    Args:
      teaches: of K = `count` rollouts that stand side by side, on all hosts.
      count: of rollouts.
      most: groups that are taken.
    """
    groups = teaches.any(axis=1)
    number = np.cumsum(as_drawn(groups, count)).reshape(count, -1).T.reshape(-1)  # from 1, of each group that teaches
    return teaches & (groups & (number <= most))[:, None]
