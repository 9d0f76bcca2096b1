"""Qwen2.5-VL's chat template: messages and vision grids become tokens, labels and the segments of M-RoPE.

The pieces are tokenised one by one, so that nothing written by a user can become a special token. They are cut where
the special tokens stand, and before an answer: a prompt's tokens always begin those of the prompt with its answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from jaxtyping import Bool, Int32

from videmo_jax.data.sample import VIDEO_TAG, Message
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.model.positions import VisionGrid

# PAPER.md section 7; a sample's own system message takes its place.
DEFAULT_SYSTEM = Message("system", "You are a helpful assistant.")


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sample in tokens.

    Attributes:
      tokens: ids; a video stands as one `<|video_pad|>` for each of its merged tokens.
      trained: whether the model learns to predict this token (answers and the `<|im_end|>` after them).
      vision: which of the sample's merged vision tokens stands here, counted over all its videos; -1 for text.
      segments: lengths of text and grids in turn, as `mrope_ids` takes them.
    """

    tokens: Int32[np.ndarray, "T"]
    trained: Bool[np.ndarray, "T"]
    vision: Int32[np.ndarray, "T"]
    segments: tuple[int | VisionGrid, ...]


def encode(
    messages: Sequence[Message],
    grids: Sequence[VisionGrid],
    tokenizer: Tokenizer,
    *,
    answer: bool = True,
    merge: int = 2,
) -> Encoded:
    """Writes a conversation in Qwen's template.

    Args:
      messages: the turns; each `<video>` in a user's turn takes the next grid.
      grids: one for each tag, in order.
      tokenizer: gives the ids of text and of the special tokens.
      answer: True for the whole conversation; False for the prompt of its last answer, which ends in
        `<|im_start|>assistant` and a newline, whether that answer is there or not.
      merge: patches a merged token has along height and along width.

    Raises:
      ValueError: the tags are not as many as the grids, or the answer is wanted and missing.
    """
    answered = bool(messages) and messages[-1].role == "assistant"
    if answer and not answered:
        raise ValueError("the last message is not the assistant's; pass answer=False to get the prompt alone")
    turns = list(messages[:-1] if answered and not answer else messages)
    tags = sum(turn.content.count(VIDEO_TAG) for turn in turns if turn.role == "user")
    if tags != len(grids):
        raise ValueError(f"{tags} {VIDEO_TAG} in the user's turns, but {len(grids)} grids")
    turns = _instructed(turns)

    tokens: list[int] = []
    trained: list[bool] = []
    vision: list[int] = []
    segments: list[int | VisionGrid] = []
    text = seen = 0
    for piece, learn in _pieces(turns, iter(grids), tokenizer, open_answer=not answer):
        if isinstance(piece, VisionGrid):
            count = piece.merged_tokens(merge)
            ids = [tokenizer.video_pad] * count
            vision += range(seen, seen + count)
            segments += [text, piece]
            text, seen = 0, seen + count
        else:
            ids = [piece] if isinstance(piece, int) else tokenizer.encode(piece)
            vision += [-1] * len(ids)
            text += len(ids)
        tokens += ids
        trained += [learn] * len(ids)
    return Encoded(np.array(tokens, np.int32), np.array(trained, bool), np.array(vision, np.int32), (*segments, text))


def count_text_tokens(conversations: Sequence[Sequence[Message]], tokenizer: Tokenizer) -> Int32[np.ndarray, "N"]:
    """Tokens of N whole conversations but for those of their clips: what `encode` gives, less its vision tokens."""
    any_grid = VisionGrid(1, 1, 1)
    written = [
        [piece for piece, _ in _pieces(_instructed(turns), repeat(any_grid), tokenizer, open_answer=False)]
        for turns in conversations
    ]
    # Most pieces are the same everywhere: each is tokenised once.
    texts = list({piece: None for pieces in written for piece in pieces if isinstance(piece, str)})
    tokens = dict(zip(texts, tokenizer.count(texts), strict=True))
    # What is no text is one special token, or a grid, which counts nothing.
    return np.array(
        [
            sum(tokens[piece] if isinstance(piece, str) else isinstance(piece, int) for piece in pieces)
            for pieces in written
        ],
        np.int32,
    )


def _instructed(turns: Sequence[Message]) -> list[Message]:
    """The turns with a system message in front."""
    return [*turns] if turns and turns[0].role == "system" else [DEFAULT_SYSTEM, *turns]


def _pieces(
    turns: Sequence[Message], grids: Iterator[VisionGrid], tokenizer: Tokenizer, *, open_answer: bool
) -> Iterator[tuple[str | int | VisionGrid, bool]]:
    """Plain text, ids of special tokens and grids in order, each with whether it is learnt."""
    for turn in turns:
        yield tokenizer.im_start, False
        if turn.role == "assistant":
            yield "assistant\n", False
            yield turn.content, True
        else:
            # One text with what follows it, as in the rendered template: a newline may merge with the next ones.
            written = f"{turn.role}\n{turn.content}"
            first, *rest = written.split(VIDEO_TAG) if turn.role == "user" else [written]
            yield first, False
            for text in rest:
                yield tokenizer.vision_start, False
                yield next(grids), False
                yield tokenizer.vision_end, False
                yield text, False
        yield tokenizer.im_end, turn.role == "assistant"
        yield "\n", False
    if open_answer:
        yield tokenizer.im_start, False
        yield "assistant\n", False
