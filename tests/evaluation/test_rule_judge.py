"""The embedded judge: what it says to answers of every form, and that a perfect answer is perfect."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation import by_hand
from videmo_jax.affective.tree import AffectiveTree, Node, Person
from videmo_jax.data.sample import Message
from videmo_jax.evaluation.annotations import read_annotations
from videmo_jax.evaluation.answers.predictions import Prediction
from videmo_jax.evaluation.judges.by_rules import RuleJudge, remarks, true_option
from videmo_jax.evaluation.judges.caption_overlap import Overlap, bag, compare, token_cues, tree_cues
from videmo_jax.evaluation.judges.judging import Question
from videmo_jax.evaluation.judges.rules import RULES, read_reply
from videmo_jax.evaluation.scoring import question_of, score
from videmo_jax.evaluation.tables.columns import COLUMNS

EMOTION = "What is the emotion?\n(A) Happy\n(B) Sad\n(C) Neutral"
MAFW = "Which emotions?\n" + "\n".join(
    f"({letter}) {text}"
    for letter, text in zip(
        "ABCDEFGHIJK",
        ("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise", "Contempt", "Anxiety",
         "Helplessness", "Disappointment"),
        strict=True,
    )
)  # fmt: skip
TRUTH = "A young woman smiles with raised cheeks. She is happy and a little shy."


def asked(file, query, truth, response):
    return question_of(file, 0, Prediction(response, truth, (Message("user", query),)))


def reply(*parts):
    (text,) = RuleJudge().judge([asked(*parts)])
    return text


@pytest.mark.parametrize(
    "truth, response, said",
    [
        ("(B) Sad", "(B) Sad", "yes"),
        ("(B) Sad", "B", "yes"),
        ("(B) Sad", "sad", "yes"),
        ("(B) Sad", "The answer is (B) Sad.", "yes"),
        ("(B) Sad", "I think she is sad", "yes"),
        ("Sad", "(B)", "yes"),
        ("(B) Sad", "(A) Happy", "no"),
        ("(B) Sad", "happy or sad", "no"),
        ("(B) Sad", "not sad", "no"),
        ("(B) Sad", "", "no"),
        ("(D) Angry", "(D) Angry", "yes"),  # a truth that is no option, word by word
        ("(D) Angry", "angry", "no"),
        ("", "", "no"),
    ],
)
def test_choices(truth, response, said):
    assert reply("DFEW_Single-Label-Emotion-Recognition", "<video>." + EMOTION, truth, response) == said


def test_choices_without_options_in_the_question():
    assert reply("MEAD_ID", "Same?", "yes", "Yes, they are.") == "yes"
    assert reply("MEAD_ID", "Same?", "yes", "They are not") == "no"


@pytest.mark.parametrize(
    "file, query, response, said",
    [
        ("MAFW_Multiple-Label-Emotion-Recognition", MAFW, "surprise and fear", "CG"),
        ("MAFW_Multiple-Label-Emotion-Recognition", MAFW, "IG", "GI"),
        ("MAFW_Multiple-Label-Emotion-Recognition", "no options", "G, I", "GI"),
        ("MAFW_Multiple-Label-Emotion-Recognition", MAFW, "no emotion", "none"),
        ("AffWild2_Action_Unit_Detection", "Which?", "AU 12 and the lips part", "AU12,AU25"),
        ("AffWild2_Action_Unit_Detection", "Which?", "AU12 and AU6", "AU6,AU12"),
        ("AffWild2_Action_Unit_Detection", "Which?", "none", "none"),
        ("CelebV-HQ_Action-Recognition", "Which?", "She nods and smiles.", "nod,smile"),
        ("CelebV-HQ_Appearance-Recognition", "Which?", "long brown hair", "brown_hair,long_hair"),
        ("CelebV-HQ_Appearance-Recognition", "Which?", "", "none"),
    ],
)
def test_labels_are_named_in_the_form_of_the_prompts(file, query, response, said):
    assert reply(file, query, "", response) == said


def test_open_questions_with_options_are_right_or_wrong_and_others_graded():
    options = "Open or closed?\n(A) open\n(B) closed"
    assert reply("QA_test_sampling_all", options, "(B) closed", "they are closed") == "100"
    assert reply("QA_test_sampling_all", options, "(B) closed", "open") == "0"
    assert reply("QA_test_sampling_all", "Hair?", "It is brown and long.", "It is brown and long.") == "100"
    graded = int(reply("QA_test_sampling_all", "Hair?", "It is brown and long.", "It is brown and short."))
    assert 0 < graded < 100


def test_captions_by_value():
    """Truth: 9 words but fillers, 2 of them emotions; the response shares 3 of 4 words, 1 emotion of 1."""
    truth = "She smiles with raised cheeks and looks happy, shy."
    response = "He smiles, raised brows, happy."
    # she smile with raise cheek and look happi shi: 9 / he smile raise brow happi: 5; shared: smile, raise, happi
    assert bag(truth).total() == 9 and bag(response).total() == 5
    found = compare(truth, response, token_cues)
    shared = 2 * 3 / 14
    assert found.video_text_relevance == round(100 * shared)
    assert found.response_accuracy == 60
    assert found.label_overlap == round(100 * 2 * 1 / 3)
    assert found.clue_overlap == round(100 * 2 * 2 / 11)
    assert found.whole == round(100 * shared)
    assert found.instruction_adherence == round(100 * (5 / 9 + 1) / 2)


def test_a_denied_cue_is_no_cue():
    said = compare("She wears no glasses.", "She wears glasses.", token_cues)
    same = compare("She wears no glasses.", "She wears no glasses.", token_cues)
    assert said.whole < same.whole == 100


@pytest.mark.parametrize("thought", ["<think>{0}</think>", "{0}\n</think>\n\n", "<thinking>{0}</thinking>\n"])
def test_thoughts_are_no_part_of_a_caption(thought):
    """An empty answer behind a thought is worth nothing, and a right one all, whatever was thought."""
    said = thought.format("He is angry. " + TRUTH)
    assert compare(TRUTH, said, token_cues) == Overlap(0, 0, 0, 0, 0, 0, 0)
    wrong = "He laughs at the dog."
    assert compare(TRUTH, said + wrong, token_cues) == compare(TRUTH, wrong, token_cues)
    assert compare(TRUTH, thought.format(wrong) + TRUTH, token_cues) == Overlap(*[100] * 7)


@given(st.text(max_size=200), st.text(max_size=200))
def test_scores_of_captions_are_whole_numbers_up_to_100(truth, response):
    found = compare(truth, response, token_cues)
    values = [getattr(found, name) for name in Overlap.__dataclass_fields__]
    assert all(isinstance(value, int) and 0 <= value <= 100 for value in values)
    assert (min(values) >= 1) or not any(values)


def test_an_empty_response_has_nothing_and_the_truth_all():
    assert compare(TRUTH, " ", token_cues) == Overlap(0, 0, 0, 0, 0, 0, 0)
    assert compare(TRUTH, TRUTH, token_cues) == Overlap(*[100] * 7)


def test_saying_the_same_again_is_not_fluent():
    assert compare(TRUTH, TRUTH + " " + "She is happy. " * 20, token_cues).fluency < 60


def test_cues_can_come_from_an_affective_tree():
    trees = {
        "truth": AffectiveTree(
            (Person((Node("emotion", "emotion", "joy", (Node("expression", "mouth", "smile"),)),)),)
        ),
        "said": AffectiveTree((Person((Node("emotion", "emotion", "joy"), Node("attribute", "hair", "brown"))),)),
    }
    read = tree_cues(trees.__getitem__)
    assert read("truth").labels == Counter(["emotion: joy"]) and read("truth").clues == Counter(["mouth: smile"])
    found = compare("truth", "said", read)
    assert (found.label_overlap, found.clue_overlap) == (100, 1)


def test_its_replies_are_always_readable_and_the_same_again():
    files = [*by_hand.ALL_FILES]
    questions = [
        asked(file, query, truth, response)
        for file in files
        for query in (EMOTION, MAFW, "Describe.", "")
        for truth in ("(B) Sad", "none", "", TRUTH)
        for response in ("(B) Sad", "none", "", TRUTH, "[Score]: 100 " * 6, "yes", "100")
    ]
    replies = RuleJudge().judge(questions)
    assert replies == RuleJudge().judge(questions)
    for question, text in zip(questions, replies, strict=True):
        for rules in RULES:
            verdict = read_reply(question, text, rules)
            assert verdict.readable and verdict.values is not None
            assert all(0 <= value <= 100 for value in verdict.values)


def test_it_says_how_far_it_is_and_what_is_ambiguous():
    heard = []
    questions = [
        Question("match", f"MEAD_ID#{n}", "MEAD_ID", EMOTION, "(B) Sad", "happy or sad" if n == 7 else "sad")
        for n in range(250)
    ]
    RuleJudge().judge(questions, lambda done, total: heard.append((done, total)))
    assert heard == [(100, 250), (200, 250), (250, 250)]
    assert remarks(questions) == {"MEAD_ID#7": "ambiguous: names the options A, B"}
    lines = [Prediction("happy or sad", "(B) Sad", (Message("user", EMOTION),))]
    results = score({"MEAD_ID": lines}, RuleJudge())
    assert results.files[0].judged.ambiguous == 1 and results.columns["identity"] == 0
    assert results.items[0].remark == "ambiguous: names the options A, B"


def test_it_is_not_comparable_with_the_paper():
    assert not RuleJudge().info.comparable and "not comparable" in " ".join(RuleJudge().info.notes)


def test_the_true_option():
    assert true_option(EMOTION, "(B) Sad").text == "Sad" and true_option(EMOTION, "sad").letter == "B"
    assert true_option(EMOTION, "(B) Happy") is None and true_option(EMOTION, "Angry") is None
    assert true_option("Who?", "(B) Sad") is None


def perfect(root):
    """The truth as the answer, of every test file."""
    predictions = {}
    for path in sorted((root / "jsons" / "test").glob("*/full/*.json")):
        lines = predictions.setdefault(path.stem, [])
        for record in json.loads(path.read_text()):
            *prompt, answer = record["messages"]
            messages = tuple(Message(turn["role"], turn["content"]) for turn in prompt)
            lines.append(Prediction(answer["content"], answer["content"], messages, tuple(record["videos"])))
    return predictions


def test_perfect_answers_about_the_real_clips_have_100(emo_cfg_mini):
    """All 40 columns by strict rules; officially «none» for «none» counts 0, here 1 of 6 action units."""
    predictions, annotations = perfect(emo_cfg_mini), read_annotations(emo_cfg_mini, "test", "full")
    strict = score(predictions, RuleJudge(), "strict", annotations=annotations)
    assert {name: value for name, value in strict.columns.items() if value != 100} == {}
    assert strict.overall == 100 and not strict.missing_files and len(strict.columns) == 40
    official = score(predictions, RuleJudge(), "official", annotations=annotations)
    less = {name: value for name, value in official.columns.items() if value != 100}
    truths = [line.labels for line in predictions["AffWild2_Action_Unit_Detection"]]
    units = 100 * (1 - truths.count("none") / len(truths))
    assert less == {"action_units": pytest.approx(units), "cues_average": pytest.approx((100 + units) / 2)}


def test_perfect_answers_to_synthetic_questions_have_100(dataset):
    predictions, annotations = perfect(dataset), read_annotations(dataset, "test", "full")
    results = score(predictions, RuleJudge(), "strict", annotations=annotations)
    there = {name: value for name, value in results.columns.items() if value is not None}
    assert len(there) > 30 and set(there.values()) == {100}
    assert set(results.gaps) == {column.name for column in COLUMNS} - set(there)
