"""Node-level credit: which words bear which cost, by hand, and that nothing of the distance is lost."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rl.test_rewards import CAPTIONS, FINE, asked
from videmo_jax.affective.edit_distance import Costs, tree_edit_distance
from videmo_jax.affective.lexicon import similarity
from videmo_jax.affective.parser import parse_caption, parse_spans
from videmo_jax.affective.text import from_text, from_text_spans, read_tree, read_tree_spans, to_text
from videmo_jax.rl.rewards.credit import answer_credit, spread_advantage, token_credit
from videmo_jax.rl.rewards.reward import Rewards
from videmo_jax.rl.rewards.spec import RewardSpec
from videmo_jax.tasks.answers import final_answer

COSTS = Costs(similarity=similarity, within="level")
ODD = "İn AUs 1, 4 + 12 her brows aren't raised; she's NOT sad. İt's a man's SMILE, isn't it? "
TEXTS = st.one_of(
    st.text(max_size=60), st.lists(st.sampled_from([*CAPTIONS, ODD, "", " . "]), max_size=3).map(" ".join)
)


def node_costs(text, truth, costs):
    """The credit of an answer's nodes at a rate of 1, the answer read as rewards read it."""
    return [*answer_credit(text, read_tree_spans(final_answer(text)), truth, costs, 1.0)]


def said(text):
    """The words of each node."""
    tree, places = parse_spans(text)
    return {
        f"{node.aspect}: {node.item}": text[slice(*places[at])] for at, node in enumerate(tree.walk()) if at in places
    }


def test_the_words_of_nodes_by_hand():
    assert said("A young woman with long brown hair doesn't smile. Her eyebrows are raised, and she's deeply sad.") == {
        "feeling: sadness (strong)": "deeply sad",
        "expression: no smile": "n't smile",
        "eyebrows: raised": "eyebrows are raised",
        "age: young": "young",
        "gender: female": "woman",
        "hair: brown": "brown hair",
        "hair: long": "long brown hair",
    }
    assert said("He wears a red hat. Then he becomes happy. He is very happy.") == {
        "feeling: happiness (strong)": "very happy",
        "accessories: red hat": "red hat",
        "gender: male": "He",
    }
    assert said("İİ AU12 is active; she isn't sad.")["mouth: corners up"] == "AU12"
    assert said("İİ AU12 is active; she isn't sad.")["feeling: no sadness"] == "n't sad"


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_places_belong_to_the_tree_of_the_caption(text):
    tree, places = parse_spans(text)
    assert tree == parse_caption(text)
    assert places.keys() <= set(range(len(tree)))
    assert all(0 <= start < end <= len(text) for start, end in places.values())


def test_nearly_every_node_of_real_captions_has_a_place():
    counts = [(len(parse_spans(text)[1]), len(parse_caption(text))) for text in CAPTIONS]
    assert sum(placed for placed, _ in counts) >= 0.99 * sum(nodes for _, nodes in counts) > 100


def test_places_of_written_trees_are_lines():
    for caption in CAPTIONS:
        text = "\n" + to_text(parse_caption(caption)).replace("\n", "  \r\n")
        tree, places = from_text_spans(text)
        assert tree == from_text(text) == parse_caption(caption)
        for at, node in enumerate(tree.walk()):
            assert text[slice(*places[at])] == f"{node.level} | {node.aspect}: {node.item}"


def test_node_costs_by_hand():
    truth = parse_caption("A woman with brown hair smiles. She is happy.")
    text = "<think>hm</think> A woman with blonde hair smiles. She wears a red hat."
    costs = node_costs(text, truth, COSTS)
    # Right: the person, the woman, the smile. Another hair costs what it saves, a hat is too many; that happiness is
    # missing costs what it does in silence.
    assert [(text[start:end], cost) for start, end, cost in costs] == [
        ("woman", -1), ("woman with blonde hair smiles. She wears a red hat", -1), ("smiles", -1), ("red hat", 1),
    ]  # fmt: skip
    text = "A woman with brown hair smiles. She is happy."
    assert sum(cost for *_, cost in node_costs(text, truth, COSTS)) == -tree_edit_distance(truth, from_text(""), COSTS)
    assert node_costs("", truth, COSTS) == node_costs("A plain wall.", truth, COSTS) == []
    # Somebody too many is told of by all that is said of them.
    text = "A woman with brown hair smiles. She is happy. A man frowns."
    wrong = [(text[start:end], cost) for start, end, cost in node_costs(text, truth, COSTS) if cost > 0]
    assert wrong == [("man", 1), ("man frowns", 1), ("frowns", 1)]
    # Half a substitution saves half a deletion; weights and factors are those of the distance.
    near = "A woman with brown hair smiles. She is mildly happy."
    dear = Costs(similarity=similarity, within="level", emotion=3.0, delete=2.0)
    (apart,) = {tree_edit_distance(truth, parse_caption(near), dear)}
    happy = [cost for start, end, cost in node_costs(near, truth, dear) if "happy" in near[start:end]]
    assert 0 < apart < 6 and min(happy) == apart - 6.0


@settings(max_examples=150, deadline=None)
@given(
    TEXTS,
    st.sampled_from(CAPTIONS),
    st.sampled_from(["{}", "<think>x</think> {}", "a<think>b</think>c {}", "<answer>{}</answer>"]),
)
def test_all_costs_add_up_to_the_distance_less_that_of_silence(text, truth, form):
    from videmo_jax.tasks.answers import final_answer

    answer, tree = form.format(text), parse_caption(truth)
    spans = node_costs(answer, tree, COSTS)
    distance = tree_edit_distance(tree, read_tree(final_answer(answer)), COSTS)
    over_silence = distance - tree_edit_distance(tree, parse_caption(""), COSTS)
    assert math.fsum(cost for *_, cost in spans) == pytest.approx(over_silence, abs=1e-9)
    assert all(0 <= start <= end <= len(answer) and cost for start, end, cost in spans)
    offsets = [(at, min(at + 3, len(answer))) for at in range(0, len(answer), 3)] + [(len(answer), len(answer))]
    credit = token_credit(answer, offsets, spans)
    assert credit.sum() == pytest.approx(over_silence, abs=1e-9)
    advantages = spread_advantage(0.7, credit)
    assert advantages.mean() == pytest.approx(0.7, abs=1e-6 * (1 + distance))


def test_token_credit_by_hand():
    text = "blonde hair, happy"
    offsets = [(0, 3), (3, 6), (6, 11), (11, 12), (12, 18), (18, 18)]  # the last is the end
    np.testing.assert_allclose(token_credit(text, offsets, [(0, 11, 3.0)]), [1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(token_credit(text, offsets, [(0, 18, 3.0)]), [0.5] * 6)
    np.testing.assert_allclose(token_credit(text, offsets, [(4, 5, 2.0), (13, 18, 1.0)]), [0, 2, 0, 0, 1, 0])
    np.testing.assert_allclose(token_credit(text, offsets[:2], [(13, 18, 1.0)]), [0.5, 0.5])  # cut off
    assert token_credit("", [], [(0, 0, 1.0)]).shape == (0,)
    np.testing.assert_allclose(spread_advantage(1.0, np.array([0.5, 0, 0, 0.5]), 0.5), [0.5, 1.5, 1.5, 0.5])


def test_the_credit_of_rewards_is_their_logarithm_over_that_of_silence():
    for spec in (RewardSpec(node_credit=True), RewardSpec(node_credit=True, normalise="printed", decay=0.1)):
        prompts = [asked(FINE, CAPTIONS[at]) for at in range(6)]
        result = Rewards(spec)(prompts, [CAPTIONS[:8]] * 6)
        for prompt, rewards, credits in zip(prompts, result.rewards, result.credit, strict=True):
            truth = parse_caption(prompt.truth)
            silence = tree_edit_distance(truth, parse_caption(""), spec.costs)
            for reward, credit, answer in zip(rewards, credits, CAPTIONS[:8], strict=True):
                size = max(len(truth), len(parse_caption(answer))) if spec.normalise == "size" else 1
                added = math.fsum(cost for *_, cost in credit)
                assert added == pytest.approx(-math.log(reward) - spec.decay * silence / size, abs=1e-9)
    assert Rewards(RewardSpec())(prompts, [CAPTIONS[:8]] * 6).credit == ()


def test_words_without_a_node_are_no_way_out():
    """Weighed alike, words that say nothing get less than a right node, and a wrong node less than a right one."""
    truth, rate = parse_caption("A woman with brown hair smiles. She is happy."), 0.4
    text = "In a park, in a park. A woman with blonde hair smiles. She wears a hat."
    spans = [(start, end, rate * cost) for start, end, cost in node_costs(text, truth, COSTS)]
    words = [(at, at + len(word)) for word in text.split() for at in [text.index(word)]]
    by_word = dict(zip(text.split(), spread_advantage(0.0, token_credit(text, words, spans)), strict=True))
    assert by_word["smiles."] > by_word["blonde"] > by_word["hat."]
    assert by_word["smiles."] > 0 > by_word["park,"] > by_word["hat."]
