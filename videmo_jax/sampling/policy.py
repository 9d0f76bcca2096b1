"""A model that answers prompts: what the search over candidates needs of it, whoever loaded it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh
from jaxtyping import Float, Int32

from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.rows import Budget, Prepared, build_row, stack_rows
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.files.errors import UserError
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.videmo import Rows, VidEmo
from videmo_jax.sampling.decode import generate
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sampling.prefill import Questions, next_log_probs
from videmo_jax.sharding.rules import batch_sharding

T = TypeVar("T")

YES, NO = ("yes", "Yes"), ("no", "No")


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that end an answer."""
    return tokenizer.im_end, tokenizer.endoftext


def banned_ids(tokenizer: Tokenizer, model: ModelConfig) -> tuple[int, ...]:
    """The ids that no answer holds, as no text does: Qwen's control tokens but for the end (some stand for pixels, trl
    3847), and ids without a token."""
    beyond = range(tokenizer.vocab_size, model.text.vocab)
    control = tokenizer.special_ids.difference(stop_ids(tokenizer))
    return tuple(sorted(control.union(tokenizer.unused_ids, beyond)))


def never_sampled(tokenizer: Tokenizer, model: ModelConfig) -> str:
    """One line that says what `banned_ids` are."""
    banned = banned_ids(tokenizer, model)
    control = [token for id in banned if (token := tokenizer.token(id))]
    return (
        f"never sampled: {len(banned) - len(control):,} of {model.text.vocab:,} ids, which have no token, and Qwen's "
        f"control tokens, which text cannot hold either: {', '.join(control)}"
    )


@dataclass(frozen=True)
class Answer:
    """A text, the log-probabilities of its tokens (end token included), and whether the limit of tokens cut it off."""

    text: str
    log_probs: tuple[float, ...]
    cut: bool

    @property
    def mean_log_prob(self) -> float:
        """Nats a token."""
        return math.fsum(self.log_probs) / len(self.log_probs)


def read_answer(
    tokens: Int32[np.ndarray, "C"],
    log_probs: Float[np.ndarray, "C"],
    length: int,
    tokenizer: Tokenizer,
    stop_ids: tuple[int, ...],
) -> Answer:
    """The answer that `length` decoded tokens are; its text has no end token."""
    ended = int(tokens[length - 1]) in stop_ids
    text = tokenizer.decode(tokens[: length - ended].tolist())
    return Answer(text, tuple(round(float(value), 6) for value in log_probs[:length]), not ended)


@dataclass(frozen=True)
class Policy:
    """A model on its devices.

    Attributes:
      graph, params: the model, from `nnx.split`; parameters lie on `mesh`.
      mesh: its devices.
      model: its shapes.
      tokenizer: its own.
      inputs: how clips become tokens.
      dtype: of the computation.
      stop_ids: tokens that end an answer.
      banned_ids: tokens that are never drawn.
      shape_of: the row that a prompt goes into, a little larger than it, so that few programs are compiled.
    """

    graph: nnx.GraphDef[VidEmo]
    params: nnx.State
    mesh: Mesh
    model: ModelConfig
    tokenizer: Tokenizer
    inputs: InputSpec
    dtype: Any
    stop_ids: tuple[int, ...]
    banned_ids: tuple[int, ...]
    shape_of: Callable[[Prepared], Budget]

    def answers(self, prompts: Sequence[Prepared], decoding: Decoding, seeds: Sequence[int]) -> list[list[Answer]]:
        """G answers to each prompt, as one batch over the prompt's cache.

        Args:
          prompts: one row each.
          decoding: how many answers, and how they are drawn.
          seeds: of each prompt's random numbers, from 0 to 2^32 - 1.
        """
        rows, count = self._rows(prompts), self._padded(len(prompts))
        with jax.set_mesh(self.mesh):
            drawn = generate(
                self.graph,
                self.params,
                self._placed(rows),
                jnp.asarray([*seeds, *[seeds[0]] * (count - len(seeds))], jnp.uint32),
                decoding=decoding,
                stop_ids=self.stop_ids,
                banned_ids=self.banned_ids,
                dtype=self.dtype,
            )
        tokens, log_probs, lengths = (np.asarray(part) for part in (drawn.tokens, drawn.log_probs, drawn.lengths))
        return [
            [
                read_answer(tokens[row, g], log_probs[row, g], int(lengths[row, g]), self.tokenizer, self.stop_ids)
                for g in range(decoding.answers)
            ]
            for row in range(len(prompts))
        ]

    def yes_probabilities(
        self, prompts: Sequence[Prepared], questions: Sequence[Sequence[Int32[np.ndarray, "U"]]]
    ) -> list[list[float]]:
        """The probability that an answer begins with «yes», given that it begins with «yes» or «no».

        Of several processes all must call it, with the same prompts and questions.

        Args:
          prompts: one row each, which is read once for all of its questions.
          questions: as many to each prompt: the tokens that go on from it.

        Raises:
          ValueError: in the model's tokenizer both words begin with the same token.
        """
        yes, no = self._yes_and_no
        with jax.set_mesh(self.mesh):
            log_probs = next_log_probs(
                self.graph,
                self.params,
                self._placed(self._rows(prompts)),
                self._placed(self._questions(questions)),
                np.array(yes + no, np.int32),
                dtype=self.dtype,
            )
        scores = process_allgather(log_probs, tiled=True).astype(np.float64)[: len(prompts)]
        said = [np.logaddexp.reduce(part, axis=-1) for part in (scores[..., : len(yes)], scores[..., len(yes) :])]
        return np.exp(said[0] - np.logaddexp(*said)).tolist()

    def longest_prompt(self, decoding: Decoding) -> int:
        """Tokens that the model's positions leave for a prompt."""
        return self.model.text.max_positions - decoding.max_new_tokens

    @cached_property
    def _yes_and_no(self) -> tuple[list[int], list[int]]:
        yes, no = (sorted({self.tokenizer.encode(word)[0] for word in words}) for words in (YES, NO))
        if set(yes) & set(no):
            raise UserError("the tokenizer begins «yes» and «no» with the same token; choose scorers without `yes`")
        return yes, no

    def _padded(self, count: int) -> int:
        """Rows that the devices share evenly, at least `count`."""
        return math.ceil(count / self.mesh.size) * self.mesh.size

    def _rows(self, prompts: Sequence[Prepared]) -> Rows:
        """The prompts in rows of one shape; what is missing repeats the first, which knows when to stop."""
        shapes = [self.shape_of(prompt) for prompt in prompts]
        shape = Budget(*(max(getattr(each, name) for each in shapes) for name in ("tokens", "slabs", "patches")))
        rows = [build_row([prompt], shape, self.model.vision) for prompt in prompts]
        return stack_rows([*rows, *[rows[0]] * (self._padded(len(rows)) - len(rows))]).rows

    def _questions(self, questions: Sequence[Sequence[Int32[np.ndarray, "U"]]]) -> Questions:
        """The questions of each row, in places for a power of two of tokens."""
        longest = max(len(tokens) for each in questions for tokens in each)
        filled = [*questions, *[questions[0]] * (self._padded(len(questions)) - len(questions))]
        lengths = np.array([[len(tokens) for tokens in each] for each in filled], np.int32)
        places = np.zeros((*lengths.shape, 1 << (longest - 1).bit_length()), np.int32)
        for row, each in enumerate(filled):
            for number, tokens in enumerate(each):
                places[row, number, : len(tokens)] = tokens
        return Questions(places, lengths)

    def _placed(self, arrays: T) -> T:
        """Arrays that this process has whole, split over the devices."""

        def place(array: np.ndarray) -> jax.Array:
            return jax.make_array_from_callback(
                array.shape, batch_sharding(self.mesh, array.shape), lambda part: array[part]
            )

        return jax.tree.map(place, arrays)
