"""Answers with tokens that a user added: their texts, and which of their tokens bear the credit of a node."""

import numpy as np
import pytest

from tests.data.added_tokens import REASONING, extended
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.rl.advantages import Advantages, AdvantageSpec
from videmo_jax.rl.answered import Answered
from videmo_jax.rl.rewards.reward import GroupRewards

TOKENIZER = Tokenizer.from_files(extended(REASONING))


def answers(*texts):
    """The answers to one prompt, each with its end."""
    ids = [[*TOKENIZER.encode(text), TOKENIZER.im_end] for text in texts]
    slots = max(map(len, ids))
    tokens = np.array([each + [TOKENIZER.im_end] * (slots - len(each)) for each in ids])
    return Answered((object(),), tokens[None], np.array([[len(each) for each in ids]]), TOKENIZER, (TOKENIZER.im_end,))


def test_an_answer_that_was_cut_counts_for_the_others_and_teaches_nothing():
    rollout = answers("sad", "happy", "a long answer without an end")
    rollout.lengths[0, 2] -= 1
    found = GroupRewards(np.array([[0.0, 1.0, 0.5]]), np.ones(1, bool), ("rule",))
    plain, masked = (rollout.advantages(found, AdvantageSpec(), mask_cut=mask) for mask in (False, True))
    np.testing.assert_array_equal(plain.values, masked.values)
    assert plain.valid.tolist() == [[True] * 3] and masked.valid.tolist() == [[True, True, False]]


def test_texts_keep_added_tokens():
    text = "<think>Her eyes are wet.</think><answer>She is sad.</answer>"
    assert answers(text, "happy").texts == [[text, "happy"]]


@pytest.mark.parametrize("tags", [("", ""), ("<think>", "</think>"), ("<answer>", "</answer>")], ids=str)
def test_the_credit_of_a_node_lies_on_the_tokens_that_say_it(tags):
    before, after = tags
    text = f"{before}He frowns a lot{after} and is happy today"
    start = text.index(" happy")
    credit = (((start, start + len(" happy"), -1.0),), None)
    found = GroupRewards(np.zeros((1, 2)), np.ones(1, bool), ("tree",), credit=(credit,))
    advantages = Advantages(np.zeros((1, 2), np.float32), np.ones((1, 2), bool), 0, 0)
    rollout = answers(text, "sad")
    own = rollout.by_token(advantages, found, 1.0)[0, 0]
    credited = rollout.tokens[0, 0][own > 0]
    assert TOKENIZER.decode(credited.tolist()) == " happy"
    assert len(credited) == len(TOKENIZER.encode(" happy"))


def test_rewards_and_their_parts_stand_in_the_rows_that_hold_a_prompt():
    rollout = Answered((None, object()), np.zeros((2, 2, 1), int), np.ones((2, 2), int), TOKENIZER, ())
    found = GroupRewards(np.array([[0.0, 1.0]]), np.ones(1, bool), ("mixed",), parts={"mixed/tree": np.array([0.5])})
    np.testing.assert_array_equal(rollout.all_rewards(found), [[np.nan, np.nan], [0, 1]])
    np.testing.assert_array_equal(rollout.all_parts(found)["mixed/tree"], [np.nan, 0.5])
    nobody = Answered((None,), np.zeros((1, 2, 1), int), np.ones((1, 2), int), TOKENIZER, ())
    empty = GroupRewards(np.zeros((0, 0)), np.ones(0, bool), (), parts={"mixed/tree": np.zeros(0)})
    np.testing.assert_array_equal(nobody.all_parts(empty)["mixed/tree"], [np.nan])
