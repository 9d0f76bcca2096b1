"""What an epoch holds: parts of a dataset, each with its share, in an order of its own every time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from videmo_jax.files.errors import UserError


@dataclass(frozen=True)
class Part:
    """Some samples by their numbers, and how many of them an epoch has.

    Where an epoch has fewer than there are, the next one goes on with the others: no sample comes again before all
    have come. Where it has more, some come twice.
    """

    numbers: Int32[np.ndarray, "N"]
    an_epoch: int

    def __post_init__(self) -> None:
        if self.an_epoch and not len(self.numbers):
            raise UserError(f"{self.an_epoch} samples an epoch of a part that has none")

    def take(self, seed: Sequence[int], epoch: int) -> Int32[np.ndarray, "E"]:
        """The numbers of the epoch: its stretch of an endless row of shuffles."""
        begin, end, size = epoch * self.an_epoch, (epoch + 1) * self.an_epoch, max(len(self.numbers), 1)
        taken = [self.numbers[:0]]
        for turn in range(begin // size, -(-end // size)):
            order = generator(*seed, turn).permutation(size)
            taken.append(self.numbers[order[max(begin - turn * size, 0) : end - turn * size]])
        return np.concatenate(taken)


@dataclass(frozen=True)
class Mixture:
    """The parts of an epoch; a pure function of (seed, epoch)."""

    parts: tuple[Part, ...]

    def __len__(self) -> int:
        """Samples an epoch."""
        return sum(part.an_epoch for part in self.parts)

    def order(self, seed: int, epoch: int) -> Int32[np.ndarray, "E"]:
        """The numbers of all samples of an epoch, shuffled."""
        taken = [part.take((seed, 1, place), epoch) for place, part in enumerate(self.parts)]
        numbers = np.concatenate(taken) if taken else np.zeros(0, np.int32)
        return numbers[generator(seed, 0, epoch).permutation(len(numbers))]


def everything(numbers: Int32[np.ndarray, "N"]) -> Mixture:
    """Each of the samples once an epoch."""
    return Mixture((Part(numbers, len(numbers)),))


def shared(own: int, share: float) -> int:
    """How many samples join `own` others to be `share` of all; raises ValueError for a share outside [0, 1)."""
    if not 0 <= share < 1:
        raise UserError(f"a share of {share:g}; it must be in [0, 1)")
    return round(own * share / (1 - share))


def generator(*words: int) -> np.random.Generator:
    """The random stream of that name, the same on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
