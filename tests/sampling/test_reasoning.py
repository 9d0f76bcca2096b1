"""The three-level search against decoding by hand, and what its scorers promise."""

import json
import random
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.affective.test_edit_distance import random_tree
from tests.evaluation.conftest import write_checkpoint
from videmo_jax.affective.edit_distance import Costs, tree_edit_distance
from videmo_jax.affective.tree import AffectiveTree, Node, Person
from videmo_jax.data.inputs import Preparer
from videmo_jax.data.rows import Budget, build_row, stack_rows
from videmo_jax.data.sample import Message, Sample
from videmo_jax.data.video import Clip
from videmo_jax.evaluation.answers.answerer import Answerer
from videmo_jax.sampling.decode import generate
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sampling.policy import Answer
from videmo_jax.sampling.reasoning import Prompts, Settings, Subject, joined, level_seed, reason
from videmo_jax.sampling.reasoning_scores import Contest, Scorer

PROMPTS = Prompts("What is seen?", "What is shown?", "What is felt?", "Is it so?")
GREEDY = Settings(candidates=1, temperature=0, max_new_tokens=6, prompts=PROMPTS)
SAMPLED = replace(GREEDY, candidates=4, temperature=1.0)
LEVELS = ("attribute", "expression", "emotion")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return Answerer(write_checkpoint(tmp_path_factory.mktemp("checkpoint")), Decoding(6), "float32").policy


def clip(seed):
    frames = np.random.default_rng(seed).integers(0, 256, (4, 56, 56, 3), np.uint8)
    return Clip(frames, np.arange(4), 4, 2.0, 1.0)


SUBJECT = Subject("a", (clip(0),), seed=7)


def read(text):
    """A node a word: any text has a tree, and different texts have different ones."""
    nodes = [Node(LEVELS[len(word) % 3], "abc"[len(word) % 3], word) for word in text.split()]
    return AffectiveTree((Person(tuple(nodes)),))


def by_hand(policy, turns, clips, decoding, seed):
    """Texts and log-probabilities of the answers to a conversation, one row, without the search's own code."""
    sample = Sample("x", "", tuple(turns), ())
    prompt = Preparer(policy.tokenizer, policy.inputs)(sample, clips, answer=False)
    row = build_row([prompt], Budget(512, 8, 16), policy.model.vision)
    drawn = generate(
        policy.graph, policy.params, jax.tree.map(jnp.asarray, stack_rows([row]).rows), jnp.asarray([seed], jnp.uint32),
        decoding=decoding, stop_ids=policy.stop_ids, banned_ids=policy.banned_ids,
    )  # fmt: skip
    answers = []
    for tokens, log_probs, length in zip(drawn.tokens[0], drawn.log_probs[0], drawn.lengths[0], strict=True):
        said = [int(token) for token in tokens[:length] if int(token) not in policy.stop_ids]
        answers.append((policy.tokenizer.decode(said), np.asarray(log_probs[:length])))
    return answers


def assert_equal(candidates, expected):
    assert [each.answer.text for each in candidates] == [text for text, _ in expected]
    for each, (_, log_probs) in zip(candidates, expected, strict=True):
        np.testing.assert_allclose(each.answer.log_probs, log_probs, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_one_candidate_is_plain_decoding_level_by_level(policy, temperature):
    question = Message("user", "<video>.What does she feel?")
    clips = (clip(0), clip(1))
    (result,) = reason(
        policy, [Subject("a", clips, (question,), seed=3)], replace(GREEDY, temperature=temperature), read
    )
    turns = [Message("user", "<video><video>What is seen?")]
    for number, (step, asked) in enumerate(zip(result.steps, ("What is shown?", "What is felt?", None), strict=True)):
        expected = by_hand(policy, turns, clips, Decoding(6, temperature=temperature), level_seed(3, number))
        assert step.level == LEVELS[number] and step.chosen == 0
        assert_equal(step.candidates, expected)
        turns += [Message("assistant", expected[0][0]), Message("user", asked or "What does she feel?")]
    ((text, log_probs),) = by_hand(policy, turns, clips, Decoding(6), level_seed(3, 3))
    assert result.answer.text == text
    np.testing.assert_allclose(result.answer.log_probs, log_probs, atol=1e-4)
    assert len({step.kept.answer.text for step in result.steps}) == 3  # not one text over and over


def test_a_seed_gives_one_tree_and_what_is_kept_is_built_on(policy):
    (result,) = reason(policy, [SUBJECT], SAMPLED, read)
    assert reason(policy, [SUBJECT], SAMPLED, read) == [result]
    (other,) = reason(policy, [replace(SUBJECT, seed=8)], SAMPLED, read)
    assert other != result
    turns = [Message("user", "<video>What is seen?")]
    for number, step in enumerate(result.steps):
        decoding = Decoding(6, answers=4, temperature=1.0)
        assert_equal(step.candidates, by_hand(policy, turns, SUBJECT.clips, decoding, level_seed(7, number)))
        assert len({each.answer.text for each in step.candidates}) > 1
        asked = ("What is shown?", "What is felt?", "")[number]
        turns += [Message("assistant", step.candidates[step.chosen].answer.text), Message("user", asked)]
    assert result.tree == joined([step.kept.tree for step in result.steps])
    assert result.answer is None


def test_subjects_do_not_depend_on_each_other(policy):
    system = (Message("system", "Look well."), Message("user", "<video>Who?"))
    subjects = [SUBJECT, Subject("b", (clip(1),), system, seed=1), Subject("c", (), (Message("user", "Well?"),))]
    together = reason(policy, subjects, SAMPLED, read)
    for subject, result in zip(subjects[:2], together, strict=False):
        (alone,) = reason(policy, [subject], SAMPLED, read)
        assert [step.chosen for step in alone.steps] == [step.chosen for step in result.steps]
        assert alone.tree == result.tree
        assert (alone.answer and alone.answer.text) == (result.answer and result.answer.text)
    assert [result.answer is None for result in together] == [True, False, False]


def test_a_system_message_opens_the_conversation(policy):
    system, question = Message("system", "Look well."), Message("user", "Who?")
    (result,) = reason(policy, [Subject("b", (clip(1),), (system, question))], GREEDY, read)
    turns = [system, Message("user", "<video>What is seen?")]
    assert_equal(result.steps[0].candidates, by_hand(policy, turns, (clip(1),), Decoding(6), level_seed(0, 0)))


def test_conversations_that_grow_too_long_are_given_up_and_others_are_not(policy):
    long = Subject("long", (), (Message("user", "word " * 300),))
    settings = replace(GREEDY, max_prompt_tokens=250)
    first, second = reason(policy, [long, SUBJECT], settings, read)
    assert "tokens at the last question, more than the limit of 250" in first and second.tree is not None
    (third,) = reason(policy, [SUBJECT], replace(settings, max_prompt_tokens=20), read)
    assert "at the level attribute, more than the limit of 20" in third
    # The question of the check is longer than everything else.
    prompts = replace(PROMPTS, check="so " * 200)
    (fourth,) = reason(policy, [SUBJECT], replace(settings, prompts=prompts, scorer=Scorer.parse("yes")), read)
    assert "at the check of level attribute" in fourth


def test_yes_is_the_models_own_probability(policy):
    """Against the logits of the whole model."""
    settings = replace(SAMPLED, scorer=Scorer.parse("yes"))
    (result,) = reason(policy, [SUBJECT], settings, read)
    model = nnx.merge(policy.graph, policy.params)
    words = {word: policy.tokenizer.encode(word)[0] for word in ("yes", "Yes", "no", "No")}
    assert len(set(words.values())) == 4
    step, prompts = result.steps[0], []
    for each in step.candidates:
        turns = ("<video>What is seen?", each.answer.text, "Is it so?")
        messages = tuple(map(Message, ("user", "assistant", "user"), turns))
        sample = Sample("x", "", messages, ())
        prompts.append(Preparer(policy.tokenizer, policy.inputs)(sample, SUBJECT.clips, answer=False))
    rows = stack_rows([build_row([prompt], Budget(128, 2, 16), policy.model.vision) for prompt in prompts]).rows
    logits = jax.jit(lambda rows: model.logits(model(rows)[0]))(jax.tree.map(jnp.asarray, rows))
    chances, found = np.asarray(jax.nn.softmax(logits), np.float64), []
    for row, prompt in enumerate(prompts):
        last = chances[row, len(prompt.encoded.tokens) - 1]
        yes, no = (last[words[a]] + last[words[b]] for a, b in (("yes", "Yes"), ("no", "No")))
        found.append(yes / (yes + no))
    np.testing.assert_allclose([each.scores["yes"] for each in step.candidates], found, rtol=1e-3)
    assert step.chosen == int(np.argmax(found)) and len({round(value, 6) for value in found}) > 1


def contest(texts, log_probs, yes=()):
    answers = [Answer(text, (value,), False) for text, value in zip(texts, log_probs, strict=True)]
    return Contest(answers, [read(text) for text in texts], Costs(), yes)


def test_scores_by_hand():
    texts = ("one two", "one two ten", "mad mad mad mad", "one six")
    scores, total, chosen = Scorer.parse("mbr")(contest(texts, (-1, -2, -3, -4)))
    trees = [read(text) for text in texts]
    sums = [sum(tree_edit_distance(a, b) for b in trees) for a in trees]
    assert scores["mbr"] == [-value for value in sums] and chosen == int(np.argmin(sums))
    assert total == pytest.approx([(max(sums) - value) / (max(sums) - min(sums)) for value in sums])
    assert Scorer.parse("logprob")(contest(texts, (-4, -2, -1, -3)))[2] == 2
    scores, total, chosen = Scorer.parse("0.5*logprob+yes")(contest(texts, (-4, -2, -1, -3), (0.5, 0.2, 0.4, 0.1)))
    assert total == pytest.approx([0 + 1, 0.5 * 2 / 3 + 0.25, 0.5 + 0.75, 0.5 / 3 + 0])
    assert chosen == 2 and scores == {"logprob": [-4, -2, -1, -3], "yes": [0.5, 0.2, 0.4, 0.1]}


def test_ties_go_to_the_likelier_and_then_to_the_first():
    same = ("one", "one", "one")
    assert Scorer.parse("mbr")(contest(same, (-3, -1, -2)))[2] == 1
    assert Scorer.parse("mbr")(contest(same, (-1, -1, -2)))[2] == 0
    assert Scorer.parse("mbr+logprob")(contest(("one",), (-1,)))[1:] == ([0.0], 0)
    assert Scorer.parse("yes")(contest(same, (-2, -1, -3), (0.3, 0.1 + 0.2, 0.1)))[2] == 1  # equal but for rounding


@pytest.mark.parametrize("text", ["", "mbr+", "mode", "mbr*2", "0*mbr", "-1*mbr", "mbr+mbr", "mbr;yes", "1e9*mbr"])
def test_scorers_without_meaning_are_refused(text):
    with pytest.raises(ValueError, match="scorer"):
        Scorer.parse(text)


def test_a_scorer_is_written_as_it_is_read():
    for text in ("mbr", "mbr+0.5*logprob", "2*yes+0.25*mbr+logprob"):
        assert str(Scorer.parse(text)) == text
    assert Scorer.parse(" .5*mbr + yes ") == Scorer((("mbr", 0.5), ("yes", 1.0)))


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match="4 candidates at temperature 0 would be 4 times the same"):
        Settings(candidates=4, temperature=0)
    with pytest.raises(ValueError, match="decoding"):
        Settings(candidates=0)
    for wrong in ({"attribute": " "}, {"check": "<video>?"}, {"emotions": "x"}, {"emotion": 3}, []):
        with pytest.raises(ValueError, match="prompts"):
            Prompts.from_json(wrong)
    assert Prompts.from_json({"check": "Really?"}) == replace(Prompts(), check="Really?")


def test_the_outcome_and_its_settings_are_json(policy):
    settings = replace(SAMPLED, scorer=Scorer.parse("mbr+0.5*logprob"))
    (result,) = reason(policy, [replace(SUBJECT, turns=(Message("user", "Who?"),))], settings, read)
    shown = json.loads(json.dumps(result.to_json()))
    assert [level["level"] for level in shown["levels"]] == list(LEVELS)
    first = shown["levels"][0]
    assert first["candidates"][first["chosen"]]["text"] == result.steps[0].kept.answer.text
    assert set(first["candidates"][0]["scores"]) == {"mbr", "logprob"} and shown["answer"]["text"] == result.answer.text
    assert sum(map(len, shown["tree"]["people"])) == len(result.tree)
    about = json.loads(json.dumps(settings.to_json()))
    assert (
        about["scorer"] == "mbr+0.5*logprob"
        and about["costs"]["similarity"] == "videmo_jax.affective.lexicon.similarity"
    )


def test_trees_of_the_levels_become_one():
    hair, cheeks = Node("attribute", "hair", "brown"), Node("attribute", "cheeks", "raised")
    smile = Node("expression", "mouth", "smile")
    seen_smile, other_smile = replace(smile, children=(cheeks,)), replace(smile, item="half a smile")
    happy = Node("emotion", "feeling", "happy")
    attributes = AffectiveTree((Person((hair, cheeks)), Person((hair,))))
    expressions = AffectiveTree((Person((seen_smile, other_smile)),))
    emotions = AffectiveTree((Person((replace(happy, children=(smile,)),)), Person((happy,))))
    first = replace(happy, children=(seen_smile,))
    whole = AffectiveTree((Person((first, other_smile, hair)), Person((happy, hair))))
    assert joined([attributes, expressions, emotions]) == whole
    assert joined([emotions, attributes, expressions, attributes, whole]) == whole
    assert joined([emotions]) == emotions and joined([]) == AffectiveTree()


def test_trees_that_contradict_each_other_lose_nothing():
    a, b = Node("expression", "mouth", "open"), Node("expression", "eyes", "wide")
    trees = [AffectiveTree((Person((replace(x, children=(y,)),)),)) for x, y in ((a, b), (b, a))]
    whole = joined(trees)
    assert {node.item for node in whole.walk()} == {"open", "wide"} and len(whole.people[0].nodes) == 1


@pytest.mark.parametrize("seed", range(30))
def test_joining_loses_and_invents_nothing(seed):
    rng = random.Random(seed)
    trees = [random_tree(rng, 12) for _ in range(3)]
    whole = joined(trees)
    for place in range(3):
        said = [tree.people[place].walk() for tree in trees if place < len(tree.people)]
        expected = {(node.level, node.aspect, node.item) for nodes in said for node in nodes}
        of_whole = whole.people[place].walk() if place < len(whole.people) else ()
        assert {(node.level, node.aspect, node.item) for node in of_whole} == expected
    assert joined([whole, whole]) == joined([whole])
