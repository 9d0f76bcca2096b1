"""Rewards against zss and scikit-learn, by hand, and by what every reward obeys."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import zss
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from tests.affective.captions import examples
from tests.evaluation.chat_server import ChatServer, Do
from videmo_jax.affective.lexicon import similarity
from videmo_jax.affective.parser import parse_caption
from videmo_jax.affective.text import to_text
from videmo_jax.affective.tree import Person
from videmo_jax.rl.rewards.reward import Rewards
from videmo_jax.rl.rewards.spec import Query, RewardEndpoint, RewardError, RewardSpec
from videmo_jax.tasks.taxonomy import APPEARANCE_TAGS, TASKS, declared_task, task_of

OWN = "tests.rl.reward_functions"
TEXT = ("caption", "open_qa", "rationale", "fine_caption")
FINE, SHORT = task_of("caption_train"), task_of("CelebV-Text_Emotion-Caption")
CAPTIONS = [example.caption for example in examples("varied")]
PLAIN = RewardSpec()
CHOICE = "<video>Which emotion?\n(A) Happy\n(B) Sad\n(C) Angry"


def asked(task, truth, question="<video>Describe.", id="x#0"):
    return Query(id, f"train/x/{task.files[0]}.json", task, question, truth)


def rewards_of(task, truth, answers, spec=PLAIN, question="<video>Describe."):
    result = Rewards(spec)([asked(task, truth, question)], [answers])
    assert result.valid.tolist() == [True], result.failures
    return result.rewards[0].tolist()


def by_zss(truth, answer):
    """The distance with unit weights and the lexicon's similarity, by another implementation."""

    def tree(each, label):
        kids = each.people if label == "root" else each.nodes if label == "person" else each.children
        node = zss.Node(label)
        for kid in kids:
            node.addkid(tree(kid, "person" if isinstance(kid, Person) else kid))
        return node

    def weight(label):
        return 0 if label == "root" else 1

    def substitution(x, y):
        if isinstance(x, str) or isinstance(y, str):
            return 0 if x == y else math.inf
        return 1 - similarity(x, y)

    return zss.distance(
        tree(truth, "root"),
        tree(answer, "root"),
        zss.Node.get_children,
        insert_cost=lambda node: weight(node.label),
        remove_cost=lambda node: weight(node.label),
        update_cost=lambda x, y: substitution(x.label, y.label),
    )


def test_tree_rewards_are_those_of_zss_and_the_printed_formula():
    rng = random.Random(0)
    pairs = [rng.sample(CAPTIONS, 2) for _ in range(60)]
    for truth, answer in pairs:
        a, b = parse_caption(truth), parse_caption(answer)
        distance, size = by_zss(a, b), max(len(a), len(b))
        [value] = rewards_of(FINE, truth, [answer])
        assert value == pytest.approx(math.exp(-2 * distance / size), abs=1e-9)
        [value] = rewards_of(FINE, truth, [answer], RewardSpec(decay=0.1, normalise="printed"))
        assert value == pytest.approx(math.exp(-0.1 * distance), abs=1e-9)


def test_tree_rewards_by_hand():
    truth = "A woman with brown hair smiles. She is happy."
    # gender, hair, smile below happiness: 4 nodes and a person.
    assert len(parse_caption(truth)) == 4
    answers = [
        truth,
        "A woman with brown hair smiles.",  # happiness is missing: 1 of 4
        "A woman with blonde hair smiles. She is happy.",  # another hair: 1 of 4
        "A woman with brown hair smiles. She is very happy.",  # an intensity: 0.15 of 4
        "",  # 4 nodes and the person are missing: 5 of 4
        "A woman with brown hair and blue eyes smiles. She is happy.",  # one too many: 1 of 5
    ]
    expected = [math.exp(-2 * share) for share in (0, 1 / 4, 1 / 4, 0.15 / 4, 5 / 4, 1 / 5)]
    assert rewards_of(FINE, truth, answers) == pytest.approx(expected)
    heavy = RewardSpec.from_config({"decay": 1.0, "costs": {"emotion": 2.0}})
    assert rewards_of(FINE, truth, answers[:3], heavy) == pytest.approx([1, math.exp(-2 / 4), math.exp(-1 / 4)])


def test_trees_written_out_are_read_as_such_only_where_the_truth_is_written_out():
    odd = "person\n  attribute | hair: shimmering\n  attribute | hair: brown\n"  # no caption says the former
    assert rewards_of(FINE, odd, [odd, "Her hair is brown."]) == pytest.approx([1, math.exp(-2 * 2 / 2)])
    assert rewards_of(FINE, "Her hair is brown.", [odd]) == rewards_of(FINE, "Her hair is brown.", ["Hair: brown."])


def test_without_the_tree_branch_fine_captions_are_short_captions():
    truth, answers = CAPTIONS[0], [CAPTIONS[0], CAPTIONS[1], ""]
    result = Rewards(RewardSpec(tree=False))([asked(FINE, truth)], [answers])
    assert result.branches == ("caption",)
    assert result.rewards[0].tolist() == rewards_of(SHORT, truth, answers)
    assert result.rewards[0, 0] == 1 and result.rewards[0, 2] == 0


def test_choices_are_accuracy():
    rng = random.Random(1)
    task = task_of("DFEW_Single-Label-Emotion-Recognition")
    names = {"A": "happy", "B": "sad", "C": "angry"}
    forms = [
        "({0}) {1}",
        "{0}",
        "I think the person is {1}.",
        "The answer is ({0}).",
        "<think>no</think><answer>{0}</answer>",
    ]
    truths = [rng.choice("ABC") for _ in range(50)]
    said = [[rng.choice("ABC") for _ in range(8)] for _ in truths]
    answers = [[rng.choice(forms).format(letter, names[letter]) for letter in group] for group in said]
    prompts = [asked(task, f"({letter}) {names[letter].title()}", CHOICE) for letter in truths]
    result = Rewards(RewardSpec())(prompts, answers)
    for truth, group, values in zip(truths, said, result.rewards, strict=True):
        assert values.mean() == accuracy_score([truth] * 8, group)
        assert values.tolist() == [float(letter == truth) for letter in group]
    assert rewards_of(task, "(B) Sad", ["", "happy or sad", "no idea", "(B"], question=CHOICE) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "task", [task for task in TASKS if task.form in ("tags", "units", "multi_label")], ids=lambda task: task.name
)
def test_labels_are_f1(task):
    rng = random.Random(2)
    joint = "" if task.form == "multi_label" else ", "
    for _ in range(30):
        truth, *said = ([label for label in task.labels if rng.random() < 0.2] for _ in range(9))
        truth = truth or [task.labels[0]]
        values = rewards_of(task, joint.join(truth), [joint.join(labels) or "none" for labels in said])
        for labels, value in zip(said, values, strict=True):
            vectors = [[label in chosen for label in task.labels] for chosen in (truth, labels)]
            assert value == pytest.approx(f1_score(*vectors, zero_division=0.0))


def test_labels_by_hand():
    task = task_of("CelebV-HQ_Appearance-Recognition")
    assert rewards_of(task, "male, young", ["young, male", "male", "male, bald", "none", ""]) == pytest.approx(
        [1, 2 / 3, 1 / 2, 0, 0]
    )
    assert rewards_of(task, "none", ["none", "male"]) == [1, 0]
    assert rewards_of(task, "male", [", ".join(APPEARANCE_TAGS)]) == pytest.approx([2 / 41])


@pytest.mark.parametrize("thought", ["<think>{0}</think>", "{0}\n</think>\n\n", "<thinking>{0}</thinking>\n"])
@pytest.mark.parametrize("credit", [False, True])
def test_what_is_rewarded_is_the_answer_behind_the_thoughts(thought, credit):
    """The same as without the thought in every branch; a right thought without an answer earns what silence does."""
    spec = RewardSpec(node_credit=credit, length_slack=1.5)
    for task in TASKS:
        truth, question = truth_of(task, CAPTIONS[3])
        wrong = {"choice": "(A) Happy", "units": "AU4", "multi_label": "A", "tags": task.labels[4:5]}.get(
            task.form, CAPTIONS[5]
        )
        wrong = wrong if isinstance(wrong, str) else "".join(wrong)
        answers = [truth, wrong, ""]
        said = [thought.format(other) + answer for other, answer in zip([wrong, truth, truth], answers, strict=True)]
        cut = ["<think>" + truth]
        expected = rewards_of(task, truth, answers, spec, question)
        assert rewards_of(task, truth, said, spec, question) == expected
        assert rewards_of(task, truth, cut, spec, question) == expected[2:]


def test_a_judge_of_captions_is_asked_about_the_answer_alone(tmp_path):
    seen = []
    with ChatServer(lambda request: seen.append(request.text) or Do("**Score: 70**")) as server:
        spec = RewardSpec(caption="openai", endpoint=RewardEndpoint(server.url, "m", str(tmp_path)))
        values = rewards_of(SHORT, "She smiles.", ["Or does she cry?\n</think>\n\nShe smiles."], spec)
    assert values == [0.7] and "cry" not in seen[0] and "She smiles." in seen[0]


TEXTS = st.one_of(
    st.text(max_size=80), st.sampled_from(CAPTIONS), st.sampled_from(["(B) Sad", "AU1,AU4", "GI", "none"])
)
FORMS = {
    "choice": ("(B) Sad", CHOICE),
    "units": ("AU1,AU12", ""),
    "multi_label": ("GI", ""),
}


def truth_of(task, caption):
    """A truth of a task, and its question."""
    if task.form == "tags":
        return ", ".join(task.labels[1:3]), ""
    return FORMS.get(task.form, (caption, "<video>Say."))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TASKS), st.lists(TEXTS, min_size=3, max_size=3), st.permutations(range(3)), st.booleans())
def test_what_every_reward_obeys(task, answers, order, credit):
    """In [0, 1]; 1 for the truth; the same in every order of the answers."""
    truth, question = truth_of(task, CAPTIONS[3])
    spec = RewardSpec(node_credit=credit, length_slack=1.5)
    values = rewards_of(task, truth, answers, spec, question)
    assert all(0 <= value <= 1 for value in values)
    assert rewards_of(task, truth, [truth], spec, question) == [1]
    assert rewards_of(task, truth, [answers[at] for at in order], spec, question) == [values[at] for at in order]


def mixed(count, seed=0, size=4):
    """Prompts of all branches with answers of all kinds."""
    rng = random.Random(seed)
    prompts, answers = [], []
    for number in range(count):
        task = rng.choice(TASKS)
        truth, question = truth_of(task, rng.choice(CAPTIONS))
        prompts.append(asked(task, truth, question, f"sample#{number}"))
        answers.append([rng.choice([*CAPTIONS, truth, "", "(B) Sad", "AU1", "I", "smile"]) for _ in range(size)])
    return prompts, answers


def same(one, other):
    np.testing.assert_array_equal(one.rewards, other.rewards)
    np.testing.assert_array_equal(one.valid, other.valid)
    assert (one.branches, one.failures, one.credit) == (other.branches, other.failures, other.credit)
    assert one.parts.keys() == other.parts.keys()
    for name, means in one.parts.items():
        np.testing.assert_array_equal(means, other.parts[name])


def test_groups_do_not_influence_each_other():
    prompts, answers = mixed(30)
    prompts[7] = replace(prompts[7], truth=" ")
    rewards = Rewards(RewardSpec(node_credit=True))
    whole = rewards(prompts, answers)
    assert set(whole.branches) == {"rule", "caption", "tree"} and np.flatnonzero(~whole.valid).tolist() == [7]
    for at in range(30):
        alone = Rewards(RewardSpec(node_credit=True))([prompts[at]], [answers[at]])
        np.testing.assert_array_equal(alone.rewards[0], whole.rewards[at])
        assert alone.credit[0] == whole.credit[at]


def test_what_cannot_be_rewarded_is_left_out_with_its_reason():
    tags = task_of("CelebV-HQ_Appearance-Recognition")
    prompts = [
        asked(FINE, "", id="empty"),
        asked(FINE, "Lorem ipsum.", id="no nodes"),
        asked(tags, "purple", id="no label"),
        asked(FINE, CAPTIONS[0], id="good"),
        asked(declared_task("Mine=attribute/tags"), "red", id="no list"),
    ]
    result = Rewards(RewardSpec(node_credit=True))(prompts, [["", "She smiles."]] * 5)
    assert result.valid.tolist() == [False, False, False, True, False]
    assert np.isnan(result.rewards[~result.valid]).all() and not np.isnan(result.rewards[3]).any()
    assert [(each.group, each.id, each.branch) for each in result.failures] == [
        (0, "empty", "tree"), (1, "no nodes", "tree"), (2, "no label", "rule"), (4, "no list", "rule"),
    ]  # fmt: skip
    for failure, word in zip(
        result.failures, ("no answer", "nothing for a tree", "names no label", "no list"), strict=True
    ):
        assert word in failure.reason
    metrics = result.metrics()
    assert metrics["failed_groups"] == 4 and metrics["failed_groups/tree"] == 2 and "reward/rule" not in metrics
    assert metrics["reward"] == metrics["reward/tree"] == result.rewards[3].mean()


def test_trees_too_large_for_a_table_fail_alone():
    comb = "person\n" + "".join(
        f"  emotion | feeling: sad {i}\n    expression | mouth: open {i}\n" for i in range(4000)
    )
    prompts = [asked(FINE, to_text(parse_caption(CAPTIONS[0]))), asked(FINE, comb), asked(FINE, CAPTIONS[1])]
    long = comb[:19_000]
    spec = RewardSpec()
    from videmo_jax.affective import edit_distance

    before = edit_distance.MOST_CELLS
    edit_distance.MOST_CELLS = 10**6
    try:
        result = Rewards(spec)(prompts, [[CAPTIONS[0]], [long], [CAPTIONS[1]]])
    finally:
        edit_distance.MOST_CELLS = before
    assert result.valid.tolist() == [True, False, True]
    assert result.rewards[[0, 2], 0].tolist() == [1, 1] and "cells" in result.failures[0].reason


def test_metrics_by_hand():
    task = task_of("DFEW_Single-Label-Emotion-Recognition")
    prompts = [asked(task, "(B) Sad", CHOICE)] * 2
    metrics = Rewards(RewardSpec())(prompts, [["B", "A"], ["B", "B"]]).metrics()
    assert metrics == {
        "failed_groups": 0, "reward": 0.75, "flat_groups": 0.5, "reward/rule": 0.75, "reward_std/rule": 0.25,
    }  # fmt: skip


def test_long_captions_pay():
    truth = "A woman with brown hair smiles."  # 6 words
    spec = RewardSpec(length_slack=1.5, length_power=2.0)
    long = truth + " " + "well " * 6  # 12 words, of which 9 are allowed
    [plain], [short] = rewards_of(FINE, truth, [long]), rewards_of(FINE, truth, [long], spec)
    assert plain == 1 and short == pytest.approx((9 / 12) ** 2)


def test_the_reference_scores_captions():
    seen = []

    def chance(questions):
        seen.extend(questions)
        return [len(question.response) / 10 for question in questions]

    rewards = Rewards(RewardSpec(caption="reference"), reference=chance)
    result = rewards([asked(SHORT, "She smiles.", "<video>.Say."), asked(FINE, CAPTIONS[0])], [["a", "ab"]] * 2)
    assert result.rewards[0].tolist() == [0.1, 0.2] and result.branches == ("caption", "tree")
    assert [(each.query, each.truth, each.response) for each in seen] == [
        ("Say.", "She smiles.", "a"), ("Say.", "She smiles.", "ab"),
    ]  # fmt: skip
    nan = Rewards(
        RewardSpec(caption="reference"), reference=lambda questions: [0.5] * (len(questions) - 1) + [math.nan]
    )
    result = nan([asked(SHORT, "She smiles.")] * 2, [["a", "b"]] * 2)
    assert result.valid.tolist() == [True, False] and "nan" in result.failures[0].reason
    with pytest.raises(RewardError, match="belong together"):
        Rewards(RewardSpec(caption="reference"))


def endpoint_spec(url, folder, **changes):
    endpoint = RewardEndpoint(url, "judge", str(folder), attempts=1, max_failures_in_a_row=2, concurrency=1, **changes)
    return RewardSpec(caption="openai", endpoint=endpoint)


def test_an_endpoint_scores_captions_and_its_faults_leave_groups_out(tmp_path):
    prompts = [asked(SHORT, f"truth {number}") for number in range(4)]
    answers = [["good", "fair"], ["good", "unclear"], ["good", "broken"], ["good", "good"]]

    def plan(seen):
        said = next((word for word in ("unclear", "broken", "fair") if word in seen.text), "good")
        return {"good": Do("100"), "fair": Do("40"), "unclear": Do("quite"), "broken": Do(status=400)}[said]

    with ChatServer(plan) as server:
        spec = endpoint_spec(server.url, tmp_path)
        result = Rewards(spec)(prompts, answers)
        asked_for = len(server.seen)
        again = Rewards(spec)(prompts[:1] + prompts[3:], answers[:1] + answers[3:])
        assert len(server.seen) == asked_for == 7  # equal questions, and replies that are kept, cost nothing
    assert result.rewards[[0, 3]].tolist() == again.rewards.tolist() == [[1, 0.4], [1, 1]]
    assert result.valid.tolist() == [True, False, False, True]
    assert "'quite' is no number" in result.failures[0].reason and "HTTP 400" in result.failures[1].reason


def test_an_endpoint_that_is_down_leaves_captions_out_and_nothing_else(tmp_path):
    spec = endpoint_spec("http://127.0.0.1:9/v1", tmp_path, longest_wait=0.01)
    prompts = [asked(SHORT, f"truth {number}") for number in range(6)] + [asked(FINE, CAPTIONS[0])]
    result = Rewards(spec)(prompts, [["a", "b"]] * 6 + [[CAPTIONS[0], ""]])
    assert result.valid.tolist() == [False] * 6 + [True] and result.rewards[6, 0] == 1
    assert len(result.failures) == 6 and all("endpoint" in failure.reason for failure in result.failures)


def test_replies_that_cannot_be_kept_leave_captions_out(tmp_path):
    (tmp_path / "replies").mkdir()
    with ChatServer(lambda seen: Do("100")) as server:
        rewards = Rewards(endpoint_spec(server.url, tmp_path / "replies"))
        (tmp_path / "replies").rmdir()
        (tmp_path / "replies").touch()  # no folder any more
        result = rewards([asked(SHORT, "truth"), asked(FINE, CAPTIONS[0])], [["a"], [CAPTIONS[0]]])
    assert result.valid.tolist() == [False, True] and "a reply cannot be written" in result.failures[0].reason


def own(function):
    return RewardSpec(own=(("caption_*", f"{OWN}:{function}"),))


def test_rewards_of_ones_own():
    prompts = [asked(FINE, ""), asked(SHORT, "She smiles.")]
    result = Rewards(own("share_of_a"))(prompts, [["aab", ""], ["She smiles.", ""]])
    assert result.branches == ("own", "caption")
    np.testing.assert_allclose(result.rewards, [[2 / 3, 0], [1, 0]])
    for name, reason in (
        ("wrong_range", "1.5"), ("too_few", "1 rewards for 2 answers"), ("not_a_number", "nan"),
        ("raises", "RuntimeError: no such sensor"),
    ):  # fmt: skip
        result = Rewards(own(name))([asked(FINE, "", "bad")], [["", ""]])
        assert not result.valid.any() and reason in result.failures[0].reason


MIXED = (
    ("caption_*", ("tree", 7), ("caption", 3)),
    ("*", ("task", 0.25), (f"{OWN}:share_of_a", 0.5)),
)


def mixture(**more):
    return RewardSpec.from_config({"mixed": MIXED, "length_slack": 1.5} | more)


def test_mixtures_are_means_by_weight_of_what_each_component_gives_alone():
    prompts, answers = mixed(40)
    result = Rewards(mixture())(prompts, answers)
    alone = {
        "task": Rewards(replace(mixture(), mixed=())),
        "caption": Rewards(RewardSpec(tree=False, length_slack=1.5)),
        "own": Rewards(RewardSpec(own=(("*", f"{OWN}:share_of_a"),))),
    }
    alone = {name: rewards(prompts, answers) for name, rewards in alone.items()}
    fine = np.array([query.task is FINE for query in prompts])[:, None]
    by_task, overlap, own = (alone[name].rewards for name in ("task", "caption", "own"))
    expected = np.where(fine, (7 * by_task + 3 * overlap) / 10, (by_task + 2 * own) / 3)
    np.testing.assert_allclose(result.rewards, expected, rtol=1e-15)
    assert set(result.branches) == {"mixed"} and {"rule", "caption", "tree"} == set(alone["task"].branches)
    metrics = result.metrics()
    assert metrics["reward/mixed"] == metrics["reward"]
    assert metrics["reward/mixed/tree"] == pytest.approx(by_task[fine[:, 0]].mean())
    assert metrics[f"reward/mixed/{OWN}:share_of_a"] == pytest.approx(own[~fine[:, 0]].mean())
    captions = [overlap[at] if fine[at] else by_task[at] for at, query in enumerate(prompts) if query.task.form in TEXT]
    assert metrics["reward/mixed/caption"] == pytest.approx(np.mean(captions))


def test_the_truth_has_1_whatever_the_weights():
    for weights in ((0.1, 0.2, 0.3), (0.7, 0.1, 1e-9), (1e300, 3.0, 1 / 3)):
        parts = zip(("tree", "caption", f"{OWN}:certain"), weights, strict=True)
        assert rewards_of(FINE, CAPTIONS[0], [CAPTIONS[0]], RewardSpec(mixed=(("*", tuple(parts)),))) == [1]


def test_a_group_fails_with_any_of_its_components():
    prompts = [asked(FINE, CAPTIONS[0], id="good"), asked(FINE, CAPTIONS[0], "bad"), asked(FINE, "Lorem ipsum.")]
    spec = RewardSpec.from_config({"mixed": [["*", ["tree", 1], [f"{OWN}:raises", 1]]], "node_credit": True})
    result = Rewards(spec)(prompts, [["", CAPTIONS[0]]] * 3)
    assert result.valid.tolist() == [True, False, False] and np.isnan(result.rewards[1:]).all()
    first, second = (failure.reason for failure in result.failures)
    assert first == f"{OWN}:raises: RuntimeError: no such sensor" and second.startswith("tree: the truth holds nothing")
    metrics = result.metrics()
    assert metrics["failed_groups/mixed"] == 2 and metrics["reward/mixed"] == result.rewards[0].mean()
    # Components are those of groups that count: their means add up to that of the mixture.
    assert metrics[f"reward/mixed/{OWN}:raises"] == 0.25
    assert metrics["reward/mixed"] == pytest.approx((metrics["reward/mixed/tree"] + 0.25) / 2)
    assert result.credit[1:] == ((None, None),) * 2


def test_node_credit_of_a_mixture_is_that_of_its_tree_by_its_share():
    prompts, answers = [asked(FINE, CAPTIONS[0]), asked(SHORT, CAPTIONS[0])], [CAPTIONS[:3]] * 2
    whole = Rewards(RewardSpec(node_credit=True))(prompts, answers)
    result = Rewards(mixture(node_credit=True))(prompts, answers)
    assert result.credit[1] == (None,) * 3 and any(result.credit[0])
    for spans, before in zip(result.credit[0], whole.credit[0], strict=True):
        assert spans == tuple((start, end, 7 / 10 * cost) for start, end, cost in before)


@pytest.mark.parametrize(
    ("task", "component", "refused"),
    [
        ("MEAD_ID", "tree", True),
        ("MEAD_ID", "caption", True),
        ("CelebV-HQ_Action-Recognition", "tree", True),
        ("caption_train", "rule", True),
        ("caption_train", "caption", False),
        ("QA_train", "tree", False),
        ("MEAD_ID", "task", False),
        ("MEAD_ID", f"{OWN}:raises", False),
    ],
)
def test_a_component_that_cannot_score_a_task_is_refused_by_name(task, component, refused):
    spec = RewardSpec.from_config({"mixed": [[f"{task[:4]}*", [component, 1]]]})
    file = f"jsons/train/x/{task}.json"
    spec.require_components("jsons/test/x/DFEW.json", declared_task("DFEW=expression/choice"))  # not of the mixture
    if refused:
        with pytest.raises(RewardError, match=f"component '{component}' cannot score {file}.* of the form"):
            spec.require_components(file, task_of(task))
    else:
        spec.require_components(file, task_of(task))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"decay": 0}, "decay is 0"),
        ({"decay": math.nan}, "decay is nan"),
        ({"decay": "2"}, "decay is '2'"),
        ({"normalise": "none"}, "one of size, printed"),
        ({"caption": "gpt"}, "one of overlap, openai, reference"),
        ({"caption": "openai"}, "belong together"),
        ({"endpoint": {"url": "http://x/v1", "model": "m", "replies": "r"}}, "belong together"),
        ({"endpoint": {"url": "http://x/v1"}}, "missing 2 required"),
        ({"tree": 1}, "True or False"),
        ({"tree": False, "node_credit": True}, "needs the tree branch"),
        ({"length_slack": 0.5}, "length_slack is 0.5"),
        ({"lamda": 1}, "no field 'lamda'"),
        ({"costs": {"attribute": -1}}, "attribute is -1"),
        ({"costs": {"similarity": 1}}, "no field 'similarity'"),
        ({"own": {"a": "nowhere"}}, "expected package.module:function"),
        ({"own": {"a": "no.such.module:f"}}, "cannot be imported"),
        ({"own": {"a": "tests.rl.reward_functions:nothing"}}, "cannot be imported"),
        ({"own": {"a": "tests.rl.reward_functions:NOT_A_FUNCTION"}}, "is no function"),
        ({"mixed": ("a", ("tree", 1))}, "expected rows such as"),
        ({"mixed": (("a", "tree", 1),)}, "expected rows such as"),
        ({"mixed": ((1, ("tree", 1)),)}, "expected rows such as"),
        ({"mixed": (("a", (2, 1)),)}, "expected rows such as"),
        ({"mixed": (("a",),)}, r"mixed\['a'\] has the components \[\]; it must have at least one"),
        ({"mixed": (("a", ("tree", 1), ("tree", 2)),)}, "each once"),
        ({"mixed": (("a", ("tree", 0)),)}, "the weight of 'tree' is 0; it must be a number above 0"),
        ({"mixed": (("a", ("tree", "much")),)}, "the weight of 'tree' is 'much'"),
        ({"mixed": (("a", ("capton", 1)),)}, r"mixed\['a'\]: there is no component 'capton'; did you mean 'caption'"),
        ({"mixed": (("a", ("own", 1)),)}, "known: rule, caption, tree, task, package.module:function"),
        ({"mixed": (("a", ("no.such.module:f", 1)),)}, r"mixed\['a'\]: .*cannot be imported"),
        ({"mixed": (("a", ("tree", 1)),), "tree": False}, "needs rewards.tree = True"),
    ],
)
def test_configs_that_cannot_be_are_refused_at_the_start(config, words):
    with pytest.raises(RewardError, match=words):
        RewardSpec.from_config(config)


def test_an_endpoint_that_is_none_is_refused_at_the_start(tmp_path):
    with pytest.raises(RewardError, match=r"rewards\.endpoint: .*expected the form"):
        Rewards(endpoint_spec("ftp://x", tmp_path))


def test_a_spec_survives_its_config(tmp_path):
    spec = RewardSpec.from_config(
        {
            "decay": 1,
            "costs": {"emotion": 3},
            "own": {"caption_*": "tests.rl.reward_functions:raises"},
            "node_credit": True,
            "mixed": MIXED,
        }
    )
    written = json.loads(json.dumps(spec.to_config()))
    assert RewardSpec.from_config(written) == spec != RewardSpec()
    del written["mixed"]  # as in checkpoints of before there were any
    assert RewardSpec.from_config(written) == replace(spec, mixed=())
    spec = endpoint_spec("http://127.0.0.1/v1", tmp_path)
    assert RewardSpec.from_config(spec.to_config()) == spec


def test_groups_must_fit():
    rewards = Rewards(RewardSpec())
    with pytest.raises(ValueError, match="one group"):
        rewards([asked(FINE, "x")], [])
    with pytest.raises(ValueError, match="one size"):
        rewards([asked(FINE, "x")] * 2, [["a"], ["a", "b"]])
    assert rewards([], []).rewards.shape == (0, 0) and rewards([], []).metrics() == {"failed_groups": 0}
