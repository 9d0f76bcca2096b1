"""Rewards that fail step after step: a run that cannot learn any more ends, and says why."""

from collections import Counter, deque
from collections.abc import Mapping

from videmo_jax.training.stopped import TrainingStopped

WINDOW = 10  # steps that are looked at
LEAST = 3  # steps before anything is said


class RewardsFail(TrainingStopped):
    """The rewards of a branch fail too often; the message says which, how often, and what to do."""


class FailureWatch:
    """Counts the groups of each branch over the last steps, on all hosts alike."""

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._steps: deque[tuple[Counter[str], Counter[str]]] = deque(maxlen=WINDOW)

    def check(self, step: int, groups: Mapping[str, int], failed: Mapping[str, int], reason: str) -> None:
        """Takes note of a step.

        Args:
          step: its number.
          groups, failed: by branch, over all hosts: how many there were, and how many have no reward.
          reason: of the last failure on this host.

        Raises:
          RewardsFail: of some branch more than `max_share` failed over the last steps.
        """
        self._steps.append((Counter(groups), Counter(failed)))
        if len(self._steps) < LEAST:
            return
        for branch in sorted(groups):
            count, lost = (sum(counts[branch] for counts in kind) for kind in zip(*self._steps, strict=True))
            if lost > self._max_share * count:
                raise RewardsFail(
                    f"step {step}: {lost} of {count} groups of the branch {branch!r} had no reward over the last "
                    f"{len(self._steps)} steps, more than rewards.max_failed_share ({self._max_share:g}) allows; the "
                    f"last: {reason}. The step was not taken; all before it is saved, and the same command goes on"
                )
