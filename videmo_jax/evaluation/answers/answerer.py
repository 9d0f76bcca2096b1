"""A checkpoint that answers: loaded once, spread over all devices, one compiled loop for each shape of prompts."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.evaluation.answers.batches import Batching, Group, Shape, row_shape, stack
from videmo_jax.files.errors import UserError
from videmo_jax.model.videmo import abstract_model
from videmo_jax.sampling.decode import generate
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sampling.policy import Answer, Policy, banned_ids, read_answer, stop_ids
from videmo_jax.sharding.devices import platform
from videmo_jax.sharding.rules import batch_sharding, make_mesh
from videmo_jax.training.checkpoint import (
    CheckpointError,
    Meta,
    find_checkpoint,
    read_meta,
    read_tokenizer_files,
    restore_plain,
)

DTYPES = ("float32", "bfloat16")


def default_dtype() -> str:
    """float32 on the CPU, bfloat16 elsewhere."""
    return "float32" if platform() == "cpu" else "bfloat16"


class Answerer:
    """Answers prompts with the model of a checkpoint.

    Attributes:
      meta: what the checkpoint says of itself.
      tokenizer: the checkpoint's own.
      inputs: how clips become tokens; they must be prepared by it.
      longest_prompt: tokens that the model's positions leave for a prompt.
    """

    def __init__(self, checkpoint: epath.PathLike, decoding: Decoding, dtype: str) -> None:
        """Loads a checkpoint.

        Args:
          checkpoint: a work directory or one checkpoint.
          decoding: how answers are drawn.
          dtype: of the parameters in memory and of the computation, one of DTYPES.

        Raises:
          CheckpointError: there is none, or its tokenizer has more tokens than the model.
          ValueError: answers may be longer than the model has positions.
          TokenizerError: its tokenizer cannot be used.
        """
        self.meta: Meta = read_meta(checkpoint)
        self.tokenizer = Tokenizer.from_files(read_tokenizer_files(checkpoint))
        self.inputs = InputSpec.from_json(self.meta.inputs)
        if self.tokenizer.vocab_size > self.meta.model.text.vocab:
            raise CheckpointError(
                f"{checkpoint}: its tokenizer has {self.tokenizer.vocab_size:,} tokens, the model only "
                f"{self.meta.model.text.vocab:,}; they do not belong together. Import the weights again."
            )
        positions = self.meta.model.text.max_positions
        self.longest_prompt = positions - decoding.max_new_tokens
        if self.longest_prompt < 1:
            raise UserError(
                f"{decoding.max_new_tokens} new tokens, but the model has {positions} positions in all; "
                "lower --max-new-tokens"
            )
        self._decoding, self._dtype = decoding, jnp.dtype(dtype)
        self._mesh = make_mesh({"data": -1})
        self._params, plain = restore_plain(checkpoint, mesh=self._mesh, dtype=self._dtype)
        self._graph = nnx.graphdef(abstract_model(plain))

    def batching(self, size: int) -> Batching:
        """How `size` prompts at once lie on the devices."""
        return Batching(size, self._mesh.size, self.meta.model.vision.merge)

    def __call__(self, batch: Sequence[Group], shape: Shape, rows: int) -> list[Answer]:
        """Answers a batch of groups in `rows` rows of one shape; returns each group's answers, one after another."""
        stacked, questions = stack(batch, shape, rows, self.meta.model.vision)
        with jax.set_mesh(self._mesh):
            stacked, questions = jax.tree.map(
                lambda a: jax.device_put(a, batch_sharding(self._mesh, a.shape)), (stacked, questions)
            )
            answers = generate(
                self._graph,
                self._params,
                stacked,
                jnp.zeros((rows, shape.questions) if shape.questions else rows, jnp.uint32),
                questions,
                decoding=self._decoding,
                stop_ids=stop_ids(self.tokenizer),
                banned_ids=banned_ids(self.tokenizer, self.meta.model),
                dtype=self._dtype,
            )
        places = [(row, place) for row, group in enumerate(batch) for place in range(len(group.items))]
        tokens, log_probs, lengths = (
            np.asarray(array).reshape(rows, -1, *array.shape[-1:])
            for array in (answers.tokens[..., 0, :], answers.log_probs[..., 0, :], answers.lengths)
        )
        return [self._answer(tokens[at], log_probs[at], int(lengths[at][0])) for at in places]

    def _answer(self, tokens: np.ndarray, log_probs: np.ndarray, length: int) -> Answer:
        """One row's text."""
        return read_answer(tokens, log_probs, length, self.tokenizer, stop_ids(self.tokenizer))

    @cached_property
    def policy(self) -> Policy:
        """The model, for the search over candidates (sampling/reasoning.py)."""
        return Policy(
            graph=self._graph,
            params=self._params,
            mesh=self._mesh,
            model=self.meta.model,
            tokenizer=self.tokenizer,
            inputs=self.inputs,
            dtype=self._dtype,
            stop_ids=stop_ids(self.tokenizer),
            banned_ids=banned_ids(self.tokenizer, self.meta.model),
            shape_of=partial(row_shape, merge=self.meta.model.vision.merge),
        )


def identity(checkpoint: epath.PathLike) -> dict[str, Any]:
    """What tells a checkpoint from every other one, wherever it lies: its step, its origin and a hash.

    The hash is that of its description and of the small file that the stored parameters begin with, which is another
    one each time something is saved: files of gigabytes need not be read.
    """
    folder = find_checkpoint(checkpoint)
    meta = read_meta(folder)
    digest = hashlib.sha256(json.dumps(meta.to_json(), sort_keys=True).encode())
    digest.update((folder / "params" / "manifest.ocdbt").read_bytes())
    return {"step": meta.step, "origin": meta.origin, "hash": digest.hexdigest()[:16]}
