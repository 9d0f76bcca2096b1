"""Prompts from the data pipeline: a row for each, and beside it what its answers are rewarded by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from videmo_jax.data.inputs import Preparer
from videmo_jax.data.pipeline import LeftOut
from videmo_jax.data.rows import Budget, build_row, misfit, stack_rows
from videmo_jax.data.source import SampleError, Source
from videmo_jax.model.config import VisionConfig
from videmo_jax.model.videmo import Rows
from videmo_jax.rl.rewards.spec import Query
from videmo_jax.tasks.taxonomy import Task, task_of


@dataclass(frozen=True)
class Prompt:
    """What is known of a prompt beside its row.

    Attributes:
      query: what its answers are rewarded by.
      videos: their paths.
      tokens, slabs, patches: that it has in all.
    """

    query: Query
    videos: tuple[str, ...]
    tokens: int
    slabs: int
    patches: int


@dataclass(frozen=True)
class PromptRow:
    """A row without the batch axis; empty, and without a prompt, where an epoch ends or a sample cannot be used."""

    rows: Rows
    prompt: Prompt | None


@dataclass(frozen=True)
class PromptBatch:
    """Rows of a prompt each, and what is known of them."""

    rows: Rows
    prompts: tuple[Prompt | None, ...]


@dataclass(frozen=True)
class PromptMaker:
    """Rows to answer.

    Attributes:
      source: the samples and their clips.
      preparer: makes tokens and patches of them.
      vision: of the model.
      budget: the shape of a row.
      declared: tasks of files that are not official.
      leave_out: ids of samples that no row takes.
    """

    source: Source
    preparer: Preparer
    vision: VisionConfig
    budget: Budget
    declared: tuple[Task, ...] = ()
    leave_out: frozenset[str] = frozenset()

    def __call__(self, numbers: Int32[np.ndarray, "n"]) -> tuple[PromptRow, LeftOut]:
        """The row of at most one sample, and the reason where it cannot be used."""
        for number in numbers.tolist():
            if self.leave_out and self.source.id(number) in self.leave_out:
                break
            try:
                sample, clips = self.source[number]
                prepared = self.preparer(sample, clips, answer=False)
            except SampleError as error:
                return self._empty(), ((self.source.id(number), str(error)),)
            if reason := misfit(prepared.needs, self.budget):
                return self._empty(), ((prepared.id, f"its prompt needs {reason}"),)
            task = task_of(sample.file, self.declared)
            query = Query(sample.id, sample.file, task, sample.question, sample.answer)
            patches = sum(slabs.shape[0] * slabs.shape[1] for slabs in prepared.patches)
            prompt = Prompt(query, sample.videos, len(prepared.encoded.tokens), prepared.slabs, patches)
            return PromptRow(build_row([prepared], self.budget, self.vision).rows, prompt), ()
        return self._empty(), ()

    def _empty(self) -> PromptRow:
        return PromptRow(build_row([], self.budget, self.vision).rows, None)


def together(rows: Sequence[PromptRow]) -> PromptBatch:
    """Rows to a batch."""
    return PromptBatch(stack_rows([row.rows for row in rows]), tuple(row.prompt for row in rows))


def chosen(
    make: PromptMaker, numbers: Sequence[int], batch: int, host: int, hosts: int
) -> Iterator[tuple[PromptBatch, LeftOut]]:
    """This host's rows of batches of given samples, each once; the last batch is filled up with empty rows.

    Args:
      make: builds a row.
      numbers: of the samples.
      batch: rows of a batch over all hosts.
      host, hosts: which part of each batch this process reads.
    """
    share = batch // hosts
    for begin in range(0, len(numbers), batch):
        own = numbers[begin : begin + batch][host * share : (host + 1) * share]
        made = [make(np.array([number], np.int32)) for number in own]
        made += [make(np.zeros(0, np.int32))] * (share - len(own))
        yield together([row for row, _ in made]), tuple(each for _, left_out in made for each in left_out)
