"""The frozen reference as the judge of short captions: the probability that it calls an answer right."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Int32

from videmo_jax.data.chat import Encoded, encode
from videmo_jax.data.rows import Prepared
from videmo_jax.data.sample import VIDEO_TAG, Message
from videmo_jax.evaluation.answers.batches import row_shape
from videmo_jax.evaluation.judges.judging import Question
from videmo_jax.files.errors import UserError
from videmo_jax.model.videmo import abstract_model
from videmo_jax.rl.programs import Programs
from videmo_jax.rl.rewards.branches import Failed, attempt
from videmo_jax.rl.rewards.judge import check_text
from videmo_jax.sampling.policy import Policy, banned_ids, stop_ids
from videmo_jax.sharding.rules import batch_part, whole_mesh
from videmo_jax.training.hosts import from_each_host

TOGETHER = 16  # questions that a device answers at once
Tokens = Int32[np.ndarray, "T"]


class ReferenceJudge:
    """(questions) -> probabilities of «yes»; text alone, the clip is not looked at again.

    All hosts answer the questions of all, as one host would. So they must call it together, at the same point of a
    step, and those that have nothing to ask as well.
    """

    def __init__(self, programs: Programs, reference: nnx.State) -> None:
        """Takes the reference, of `rl.reference`."""
        self._programs, self._reference = programs, reference

    def __call__(self, questions: Sequence[Question]) -> list[float]:
        """As `branches.Reference`.

        Raises:
          UserError: a question cannot be put into tokens; the other hosts have their answers nonetheless.
        """
        part, _ = batch_part(self._programs.mesh)
        mine = attempt(lambda: [self._tokens(question) for question in questions])
        given = [] if isinstance(mine, Failed) else mine
        asked, begin = in_order(from_each_host([np.array([part], np.int32), *given]), part)
        answers = self._answers(asked) if asked else []
        if isinstance(mine, Failed):
            raise UserError(mine.reason)
        return answers[begin : begin + len(mine)]

    def _answers(self, asked: Sequence[Tokens]) -> list[float]:
        policy, devices, found = self._policy(), self._programs.mesh.size, []
        for begin in range(0, len(asked), TOGETHER * devices):
            batch = asked[begin : begin + TOGETHER * devices]
            rows = devices << (-(-len(batch) // devices) - 1).bit_length()  # few shapes are compiled
            filled = [*batch, *[batch[0]] * (rows - len(batch))]
            prompts, last = [_row(tokens[:-1]) for tokens in filled], [[tokens[-1:]] for tokens in filled]
            found += [value for (value,) in policy.yes_probabilities(prompts, last)[: len(batch)]]
        return found

    def _policy(self) -> Policy:
        """The reference with whole weights, which are given up again after the batch."""
        shared = self._programs.settings.shared
        model = shared.model.plain
        return Policy(
            graph=nnx.graphdef(abstract_model(model)),
            params=self._programs.begun(self._programs.gather(self._reference)),
            mesh=whole_mesh(self._programs.mesh, self._programs.settings.rollout_tensor),
            model=model,
            tokenizer=shared.tokenizer,
            inputs=shared.inputs,
            dtype=jnp.dtype(shared.compute.dtype),
            stop_ids=stop_ids(shared.tokenizer),
            banned_ids=banned_ids(shared.tokenizer, model),
            shape_of=partial(row_shape, merge=model.vision.merge),
        )

    def _tokens(self, question: Question) -> Tokens:
        # No clip comes along; and what stands for one may stand in a question as in an answer.
        text = check_text(question).replace(VIDEO_TAG, "[video]")
        messages = (Message("user", text), Message("assistant", ""))
        return encode(messages, (), self._programs.settings.shared.tokenizer, answer=False).tokens


def in_order(hosts: Sequence[Sequence[Tokens]], part: int) -> tuple[list[Tokens], int]:
    """The questions of all hosts in the order of the batch, and where those of a part begin.

    Args:
      hosts: of each the number of its part of the batch, as an array, and its questions; hosts that hold the same part
        have the same ones, which count once.
      part: whose place is wanted.
    """
    by_part = {int(number[0]): questions for number, *questions in hosts}
    asked = [question for number in sorted(by_part) for question in by_part[number]]
    return asked, sum(len(questions) for number, questions in by_part.items() if number < part)


def _row(tokens: Tokens) -> Prepared:
    """A row of text."""
    count = len(tokens)
    return Prepared("", Encoded(tokens, np.zeros(count, bool), np.full(count, -1, np.int32), (count,)))
