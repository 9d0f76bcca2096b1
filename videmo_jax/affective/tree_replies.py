"""Trees by a language model: the same result as `parse_caption`, from a model that is asked through a function.

The model gets the prompt of tree_prompt.json, which explains the written form of `text` and the aspects of `lexicon`,
and answers with a tree. Who asks (over HTTP, with what patience) is the caller's business: `ask` takes prompts and
gives replies in the same order, None where there was none.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from videmo_jax.affective.lexicon import ASPECTS, LEXICON
from videmo_jax.affective.text import MAX_CHARACTERS, PERSON, TreeTextError, from_text
from videmo_jax.affective.tree import LEVELS, AffectiveTree
from videmo_jax.tasks.replies import blocks, final_answer

CAPTION = "{caption}"
FEELINGS = "{feelings}"
VOCABULARY = "{vocabulary}"


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """A caption of which there is no tree.

    Attributes:
      caption: the caption.
      reply: what the model answered, None where there was no answer.
      reason: what is wrong with it.
    """

    caption: str
    reply: str | None
    reason: str


TreeParser = Callable[[Sequence[str]], list[AffectiveTree | ParseFailure]]


def tree_prompt(caption: str) -> str:
    """The question to a language model for the tree of a caption."""
    data = json.loads(files("videmo_jax.affective").joinpath("tree_prompt.json").read_text("utf-8"))
    template = "\n".join(data["lines"])
    vocabulary = "\n".join(f"{level}: {', '.join(ASPECTS[level])}" for level in reversed(LEVELS))
    # The caption comes last, so that braces in it are never filled in.
    filled = template.replace(VOCABULARY, vocabulary).replace(FEELINGS, ", ".join(LEXICON.feelings))
    return filled.replace(CAPTION, caption)


def tree_from_reply(reply: str) -> AffectiveTree:
    """The tree in a model's reply, behind its thoughts: the first fenced block with a line `person`, else the whole.

    What stands before that line is left out.

    Raises:
      TreeTextError: the reply has no tree in the written form; lines are counted in the block.
    """
    answer = final_answer(reply, MAX_CHARACTERS)
    for text in (*blocks(answer), answer):
        lines = text.splitlines()
        start = next((at for at, line in enumerate(lines) if line.rstrip() == PERSON), None)
        if start is not None:
            return from_text("\n".join([""] * start + lines[start:]))
    raise TreeTextError(f"no line `{PERSON}` in the reply")


def endpoint_parser(ask: Callable[[Sequence[str]], Sequence[str | None]]) -> TreeParser:
    """A parser that asks a language model.

    Args:
      ask: gives the replies to prompts, in the same order; None for a prompt that got none.

    Raises (when the parser is called):
      ValueError: `ask` gave another number of replies.
    """

    def parse(captions: Sequence[str]) -> list[AffectiveTree | ParseFailure]:
        replies = ask([tree_prompt(caption) for caption in captions])
        if len(replies) != len(captions):
            raise ValueError(f"{len(replies)} replies to {len(captions)} prompts: each must get one, or None")
        return [_read(caption, reply) for caption, reply in zip(captions, replies, strict=True)]

    return parse


def _read(caption: str, reply: str | None) -> AffectiveTree | ParseFailure:
    if reply is None:
        return ParseFailure(caption, None, "no reply")
    try:
        return tree_from_reply(reply)
    except TreeTextError as error:
        return ParseFailure(caption, reply, str(error))
