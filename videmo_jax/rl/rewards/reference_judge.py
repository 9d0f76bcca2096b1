"""The frozen reference as the judge of short captions: the probability that it calls an answer right."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from videmo_jax.data.chat import Encoded
from videmo_jax.data.inputs import Preparer
from videmo_jax.data.rows import Prepared
from videmo_jax.data.sample import VIDEO_TAG, Message, Sample
from videmo_jax.evaluation.answers.batches import row_shape
from videmo_jax.evaluation.judges.judging import Question
from videmo_jax.model.videmo import abstract_model
from videmo_jax.rl.programs import Programs
from videmo_jax.rl.rewards.judge import check_text
from videmo_jax.sampling.policy import Policy, banned_ids, stop_ids
from videmo_jax.sharding.rules import whole_mesh
from videmo_jax.training.settings import ConfigError

TOGETHER = 16  # questions that a device answers at once


class ReferenceJudge:
    """(questions) -> probabilities of «yes»; text alone, the clip is not looked at again."""

    def __init__(self, programs: Programs, reference: nnx.State) -> None:
        """Takes the reference, of `rl.reference`.

        Raises:
          ConfigError: there are several hosts, which would ask at different times.
        """
        if jax.process_count() > 1:
            raise ConfigError(
                'rewards.caption is "reference", which runs on one host alone; take "overlap" or "openai"'
            )
        self._programs, self._reference = programs, reference

    def __call__(self, questions: Sequence[Question]) -> list[float]:
        """As `reward_branches.Reference`."""
        policy, found = self._policy(), []
        step = TOGETHER * self._programs.mesh.size
        for begin in range(0, len(questions), step):
            prompts = [_split(self._prompt(question)) for question in questions[begin : begin + step]]
            answers = policy.yes_probabilities([row for row, _ in prompts], [[last] for _, last in prompts])
            found += [value for (value,) in answers]
        return found

    def _policy(self) -> Policy:
        """The reference with whole weights, which are given up again after the batch."""
        shared = self._programs.settings.shared
        model = shared.model.plain
        return Policy(
            graph=nnx.graphdef(abstract_model(model)),
            params=self._programs.gather(self._reference),
            mesh=whole_mesh(self._programs.mesh),
            model=model,
            tokenizer=shared.tokenizer,
            inputs=shared.inputs,
            dtype=jnp.dtype(shared.compute.dtype),
            stop_ids=stop_ids(shared.tokenizer),
            banned_ids=banned_ids(shared.tokenizer, model),
            shape_of=partial(row_shape, merge=model.vision.merge),
        )

    def _prompt(self, question: Question) -> Prepared:
        shared = self._programs.settings.shared
        # No clip comes along; and what stands for one may stand in a question as in an answer.
        text = check_text(question).replace(VIDEO_TAG, "[video]")
        messages = (Message("user", text), Message("assistant", ""))
        return Preparer(shared.tokenizer, shared.inputs)(Sample(question.id, question.file, messages), (), answer=False)


def _split(prompt: Prepared) -> tuple[Prepared, object]:
    """All tokens but the last as a row, and the last as what is asked of it."""
    encoded = prompt.encoded
    begun = Encoded(encoded.tokens[:-1], encoded.trained[:-1], encoded.vision[:-1], (len(encoded.tokens) - 1,))
    return replace(prompt, encoded=begun), encoded.tokens[-1:]
