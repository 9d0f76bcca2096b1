"""Trees out of a language model's replies, whatever stands around them."""

import re

import pytest

from videmo_jax.affective.lexicon import ASPECTS
from videmo_jax.affective.parser import parse_caption
from videmo_jax.affective.text import TreeTextError, from_text, to_text
from videmo_jax.affective.tree_replies import ParseFailure, endpoint_parser, tree_from_reply, tree_prompt

TEXT = "person\n  emotion | feeling: joy\n    expression | expression: smile\nperson\n  attribute | hair: brown\n"


@pytest.mark.parametrize(
    "reply",
    [
        TEXT,
        f"```\n{TEXT}```",
        f"Here is the tree:\n\n```text\n{TEXT}```\nI hope that this helps.",
        f"Sure!\n{TEXT}",
        TEXT.replace("\n", "\r\n"),
        "\n\n" + TEXT.rstrip(),
        f"<think>\n```\nperson\n  emotion | feeling: anger\n```\nNo.\n</think>\n\n```\n{TEXT}```",
        f"person\n  emotion | feeling: anger\n</think>\n{TEXT}",
        f"The form is:\n```\nLEVEL | ASPECT: ITEM\n```\nThe tree is:\n```tree\n{TEXT}```",
        f"```\n{TEXT}",
        f"{TEXT}<|im_end|>",
        f"<answer>\n{TEXT}</answer>",
    ],
)
def test_the_tree_is_found(reply):
    assert tree_from_reply(reply) == from_text(TEXT)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("", "no line `person`"),
        ("I cannot help with that.", "no line `person`"),
        (f"<think>\n{TEXT}", "no line `person`"),
        ("```\nperson\n  joy\n```", "line 2: 'joy'"),
        (f"Well:\n{TEXT}And that is all.", "line 7: 'And that is all.'"),
    ],
)
def test_other_replies_are_refused(reply, message):
    with pytest.raises(TreeTextError, match=re.escape(message)):
        tree_from_reply(reply)


def test_each_caption_gets_a_tree_or_a_reason():
    captions = ["She smiles.", "{vocabulary} {caption}", "He nods.", "He is sad."]
    replies = dict(
        zip(map(tree_prompt, captions), (TEXT, None, "no", to_text(parse_caption("He is sad."))), strict=True)
    )
    found = endpoint_parser(lambda prompts: [replies[prompt] for prompt in prompts])(captions)
    assert found[0] == from_text(TEXT)
    assert found[1] == ParseFailure(captions[1], None, "no reply")
    assert isinstance(found[2], ParseFailure) and found[2].reply == "no"
    assert found[3] == parse_caption("He is sad.")


def test_a_lost_reply_is_no_shift():
    with pytest.raises(ValueError, match="1 replies to 2 prompts"):
        endpoint_parser(lambda prompts: ["person"])(["a", "b"])


def test_the_prompt_explains_the_form():
    prompt = tree_prompt("He winks {caption}.")
    assert prompt.endswith("Description: He winks {caption}.")
    assert "{vocabulary}" not in prompt
    assert "happiness, sadness, anger" in prompt
    for level, aspects in ASPECTS.items():
        assert f"{level}: {', '.join(aspects)}" in prompt
    # The example in the prompt is a tree, and what the parser makes of its caption.
    caption = prompt.partition("Example. Description: ")[2].partition("\n")[0]
    assert tree_from_reply(prompt) == parse_caption(caption)
