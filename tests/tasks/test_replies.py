"""Replies of real forms, by value: what is read behind thoughts, tokens, fences, fields, boxes and marks."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import TESTS
from tests.tasks.real_replies import ANSWERS, JUDGED, OPTIONS
from videmo_jax.evaluation.judges.judging import SIX, Question
from videmo_jax.evaluation.judges.rules import NO_REPLY, read_reply
from videmo_jax.tasks.answers import Option, read_choice, read_letters, read_tags, read_units
from videmo_jax.tasks.replies import MAX_CHARACTERS, final_answer, short_answer
from videmo_jax.tasks.taxonomy import ACTION_TAGS, ACTION_UNITS, APPEARANCE_TAGS, EMOTION_LETTERS

# Read as open so far: whether «A:» is a letter or says «answer» cannot be told from «A: she is sad».
OPEN = {"Q: What is the emotion? A: Sadness"}


@pytest.mark.parametrize("reply", ANSWERS, ids=lambda reply: f"{reply.form}: {reply.text[:40]!r}")
def test_answers_are_read_and_never_guessed(reply):
    reading = read_choice(reply.text, OPTIONS[reply.options])
    expected = None if reply.letter in ("?", "-") or reply.text in OPEN else reply.letter
    assert reading.letter == expected


# Answers of the lots by other authors that are not read yet: shares, a check of every option, what needs the question.
UNREAD = (
    "I would rate the emotion as", "A. Disappointed", "The video shows a young man", "She's not wearing a hat",
    "Let's look at the details", "\u274c A. Up", "My choice is C because B", "Between 6 and 8",
)  # fmt: skip


@pytest.mark.parametrize("lot", ["sixth", "seventh"])
def test_answers_of_other_authors_are_read_and_never_guessed(lot):
    lines = (TESTS / "golden" / "replies" / f"{lot}.jsonl").read_text().splitlines()
    wrong = 0
    for record in map(json.loads, lines):
        options = [Option(letter, text) for letter, text in record["options"].items()]
        read = read_choice(record["text"], options).letter
        if record["text"].startswith(UNREAD) and read is None:
            wrong += 1
        else:
            assert read == (None if record["letter"] == "?" else record["letter"]), record["text"]
    assert len(lines) == 160 and wrong / 160 < 0.04


@pytest.mark.parametrize("reply", JUDGED, ids=lambda reply: f"{reply.kind}, {reply.form}: {reply.text[:30]!r}")
def test_judges_are_read_by_strict_rules(reply):
    labels = {"letters": EMOTION_LETTERS, "units": ACTION_UNITS}.get(reply.kind)
    kind = "labels" if labels else reply.kind
    verdict = read_reply(Question(kind, "f#0", "f", "q", reply.worth or "", "r", labels or ()), reply.text, "strict")
    assert verdict.readable == (reply.worth is not None) and verdict is not NO_REPLY
    if labels and reply.worth is not None:
        assert verdict.values == (100.0,)  # the labels are those of the truth
    elif not labels:
        worth = reply.worth or " ".join("0" * (len(SIX) if kind == "six" else 1))
        assert verdict.values == tuple(map(float, worth.split()))


WRAPPINGS = (
    "<think>Or is it «{other}»?</think>{said}",
    "<think>\nFirst: {other}\n\n</think>\n\n{said}\n",
    "It may be {other}.\n</think>\n\n{said}",
    "<thinking>{other}</thinking>\n<answer>{said}</answer>",
    "```\n{said}\n```",
    "```json\n{{\"reason\": \"not {other}\", \"answer\": \"{said}\"}}\n```",
    '{{"answer": "{said}"}}',
    "**{said}**",
    "$\\boxed{{\\text{{{said}}}}}$",
    "\u200b{said}\ufeff",
    "\u00a0{said}<|im_end|>\n<|im_start|>user\n{other}",
    "<|im_start|>assistant\n{said}<|im_end|>",
    "<|channel|>analysis<|message|>{other}<|end|><|start|>assistant<|channel|>final<|message|>{said}<|return|>",
    "[THINK]{other}[/THINK]{said}</s>",
)  # fmt: skip


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_reader_reads_behind_every_wrapping(wrapping):
    def wrapped(said, other):
        return wrapping.format(said=said, other=other)

    assert read_choice(wrapped("(B) Sad", "(A) Happy"), OPTIONS["seven"]).letter == "B"
    assert read_letters(wrapped("BD", "(A) Happy"), OPTIONS["seven"]) == ("B", "D")
    assert read_tags(wrapped("smile, talk", "nod"), ACTION_TAGS) == ("smile", "talk")
    assert read_tags(wrapped("no_beard", "goatee"), APPEARANCE_TAGS) == ("no_beard",)
    assert read_units(wrapped("AU6, AU12", "AU1"), ACTION_UNITS) == ("AU6", "AU12")
    for kind, said, labels, truth in (
        ("match", "yes", (), ""),
        ("score", "100", (), ""),
        ("labels", "GI", EMOTION_LETTERS, "GI"),
        ("labels", "AU6,AU12", ACTION_UNITS, "AU6,AU12"),
    ):
        verdict = read_reply(Question(kind, "", "", "", truth, "", labels), wrapped(said, "no"), "strict")
        assert verdict.values == (100.0,) and verdict.readable


@pytest.mark.parametrize(
    "text, answer",
    [
        ("She smiles.\n</think>\n\nHe frowns.", "He frowns."),
        ("<think>She smiles.", ""),
        ("He frowns. <think>She smiles.", "He frowns."),
        ("He frowns. <think>Or?</think>He is sad.", "He frowns. He is sad."),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<think>a</think>b</think>c", "c"),
        ("<Thinking>\na\n</Thinking>b", "b"),
        ("a</think>", ""),
        ("b</answer>", "b"),
        ("<answer></answer>b", "b"),
        ("```\nHe frowns.\n```", "He frowns."),
        ("```\nHe frowns.", "He frowns."),
        ("He says ```hi``` and **waves**.", "He says ```hi``` and **waves**."),  # a caption keeps its own marks
        ('{"caption": "He frowns."}', "He frowns."),
        ('{"answer": null}', ""),
        ("{He frowns.}", "{He frowns.}"),
        ("He\u00a0frowns\u200b.", "He frowns."),
        ("He frowns.<|im_end|>\n<|im_start|>user\nAnd she?", "He frowns."),
        ("assistant\nHe frowns.", "He frowns."),
        ("He frowns at the assistant\nand leaves.", "He frowns at the assistant\nand leaves."),
    ],
)
def test_what_a_caption_is(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text, answer",
    [
        ("~~A~~ B", "B"),
        ("close\\_eyes", "close_eyes"),
        ("### B", "B"),
        ("<b>B</b>", "B"),
        ("\\(\\boxed{B}\\)", "B"),
        ("\\boxed{A} or \\boxed{B}", "A\nB"),
        ('{"answer": "B", "reason": "a } in a text"}', "B"),
        ('{"answer": "B", "reason": "cut', "B"),
        ('{"frames": 3, "people": 2}', '{"frames": 3, "people": 2}'),
    ],
)
def test_what_a_short_answer_is(text, answer):
    assert short_answer(text) == answer


def test_an_answer_behind_a_long_thought_is_read():
    thought = "Perhaps (A) Happy, perhaps (D) Angry. " * 5_000
    assert len(thought) > 5 * MAX_CHARACTERS
    for begun in ("<think>", ""):
        assert read_choice(f"{begun}{thought}</think>(B) Sad", OPTIONS["seven"]).letter == "B"


HOSTILE = (
    "<think>", "<answer>", "```json\n", "\\boxed{", '{"answer":', "~~a", "(A) ", "A\n", "\n", "\u200b", "<|im_end|>",
    "\n\t", "\n\nuser", "\nanswer",
    "Answer:\n", "I choose A ", "weak ", "sad or ", "could be sad ", "A? ", "wrong answer is A ", "(G) Fear ", "1/",
)  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_replies_of_100_kb_take_no_time(piece):
    """A reading that takes more than linear time would not end here."""
    text = (piece * (100_000 // len(piece) + 1))[:100_000]
    read_choice(text, OPTIONS["strength"]), read_letters(text, OPTIONS["four"])
    for kind, labels in (("score", ()), ("six", ()), ("labels", EMOTION_LETTERS)):
        read_reply(Question(kind, "", "", "", "", "", labels), text, "strict")


@given(st.text(max_size=120))
def test_any_text_is_read_once_and_for_all(text):
    answer = final_answer(text)
    assert len(answer) <= len(text) and final_answer("<think>x</think>" + answer) == final_answer(answer)
    short_answer(text)
