"""Replies by value, by both rules: every sentence of PAPER.md section 6 that has a trap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videmo_jax.evaluation.judges.judging import Question, judged_query
from videmo_jax.evaluation.judges.rules import RULES, Verdict, mean_of, named_labels, read_reply
from videmo_jax.tasks.taxonomy import ACTION_TAGS, ACTION_UNITS, EMOTION_LETTERS


def question(kind, truth="", labels=()):
    return Question(kind, "f#0", "f", "q", truth, "r", labels)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(
    "reply, value, readable",
    [
        ("yes", 100, True),
        (" YES\n", 100, True),
        ("no", 0, True),
        ("Yes.", 0, False),
        ("yes, it is", 0, False),
        ("ja", 0, False),
    ],
)
def test_yes_and_no(reply, value, readable, rules):
    assert read_reply(question("match"), reply, rules) == Verdict((value,), readable)


@pytest.mark.parametrize(
    "reply, official, strict",
    [
        ("85", 85, 85),
        (" 85\n", 85, 85),
        ("85.5", None, 85.5),
        ("85.0", None, 85),
        ("Score: 85", None, 85),
        ("85/100", None, 85),
        ("85 %", None, 85),
        ("120", 120, None),
        ("-5", -5, None),
        ("+7", 7, 7),
        ("8_5", 85, None),
        ("\u0668\u0665", 85, None),  # Arabic digits
        ("80 or 90", None, None),
        ("80-90", None, None),
        ("eighty", None, None),
        ("nan", None, None),
        ("inf", None, None),
        ("1e2", None, None),
        ("9" * 400, None, None),  # more than a float holds
        ("9" * 5000, None, None),  # more than Python converts
        ("0", 0, 0),
        ("100", 100, 100),
    ],
)
def test_numbers(reply, official, strict):
    for rules, value in zip(RULES, (official, strict), strict=True):
        expected = Verdict((0,), False) if value is None else Verdict((value,))
        assert read_reply(question("score"), reply, rules) == expected


@pytest.mark.parametrize(
    "labels, truth, reply, official, strict",
    [
        (ACTION_UNITS, "AU1,AU4", "AU4,AU1", 100, 100),
        (ACTION_UNITS, "AU1,AU4", "au1,AU4", 100, 100),
        (ACTION_UNITS, "AU1,AU4", "AU1, AU4", 200 / 3, 100),  # « AU4» is no name officially
        (ACTION_UNITS, "AU1, AU4", "AU1,AU4", 200 / 3, 100),
        (ACTION_UNITS, "AU1,AU4", "AU1,AU99", 200 / 3, 200 / 3),
        (ACTION_UNITS, "AU1,AU4", "none", 0, 0),
        (ACTION_UNITS, "none", "AU1", 0, 0),
        (ACTION_UNITS, "none", "none", 0, 100),
        (ACTION_UNITS, "none", " None \n", 0, 100),
        (ACTION_UNITS, "", "none", 0, 100),
        (ACTION_UNITS, "AU1", "AU1,AU1", 100, 100),
        (ACTION_TAGS, "smile", "SMILE", 100, 100),
        (ACTION_TAGS, "smile,talk", "smile;talk", 0, 0),
        (EMOTION_LETTERS, "GI", "IG", 100, 100),
        (EMOTION_LETTERS, "GI", "G, I", 100, 100),
        (EMOTION_LETTERS, "GI", "gi", 0, 0),
        (EMOTION_LETTERS, "GI", "GIZ", 100, 100),
        (EMOTION_LETTERS, "G", "(G) Surprise", 100, 100),  # «S» is no label
        (EMOTION_LETTERS, "G", "(G) Anger", 200 / 3, 100),  # officially its «A» counts
        (EMOTION_LETTERS, "E", "NONE", 100, 0),  # officially its «E» counts
        (EMOTION_LETTERS, "", "none", 0, 100),
    ],
)
def test_labels(labels, truth, reply, official, strict):
    for rules, value in zip(RULES, (official, strict), strict=True):
        (found,) = read_reply(question("labels", truth, labels), reply, rules).values
        assert found == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    "kind, reply", [("match", "yes"), ("score", "85"), ("labels", "GI"), ("six", "[Score]: 9 " * 6)]
)
def test_strict_rules_read_behind_thoughts_and_marks_and_official_ones_nothing(kind, reply):
    asked = question(kind, "GI", EMOTION_LETTERS if kind == "labels" else ())
    plain = read_reply(asked, reply, "strict")
    assert plain.readable and plain == read_reply(asked, reply, "official")
    for wrapped in (
        f"<think>\nA sad man: no. [Score]: 3, or 4?\n</think>\n\n{reply}",
        f"A sad man: no. [Score]: 3, or 4?\n</think>\n\n{reply}",
        f"```\n{reply}\n```",
        f"**{reply.strip()}**",
        f"\ufeff{reply}<|im_end|>",
    ):
        assert read_reply(asked, wrapped, "strict") == plain
        if kind in ("match", "score"):
            assert not read_reply(asked, wrapped, "official").readable
    cut = read_reply(asked, f"<think>\n{reply}", "strict")
    assert not cut.readable and set(cut.values) == {0.0}


@pytest.mark.parametrize(
    "reply, named",
    [
        ("GI", "GI"),
        ("G and I", "GI"),
        ("(G) Surprise, (I) Anxiety", "GI"),
        ("G. Surprise\nI. Anxiety", "GI"),
        ("A sad face", ""),
        ("The answer names Anger and Fear", ""),
        ("I think G", ""),
        ("BAD ANSWER", ""),
    ],
)
def test_letters_count_where_they_stand_as_letters(reply, named):
    assert named_labels(reply, EMOTION_LETTERS, "strict") == frozenset(named)
    assert read_reply(question("labels", "GI", EMOTION_LETTERS), reply, "strict").readable == bool(named)


@pytest.mark.parametrize(
    "reply, value",
    [
        ("Score: 85. Three of the 4 cues are right.", 85),
        ("I give 80 out of 100", 80),
        ("Score: 8/10", None),
        ("Score: 80-90", None),
        ("Score: 80, no, 85", None),
        ("Score: 80\nScore: 85", None),
    ],
)
def test_of_several_numbers_the_score_counts(reply, value):
    expected = Verdict((0,), False) if value is None else Verdict((value,))
    assert read_reply(question("score"), reply, "strict") == expected


SIX_LINES = [
    "1. Video-Text Relevance: good, [Score]: 90",
    "2. [score]: 80",
    "Scores: 70",
    "score: 60",
    "[Scores]: 50 %",
]


@pytest.mark.parametrize("rules", RULES)
def test_six_scores_are_six_or_nothing(rules):
    read = lambda text: read_reply(question("six"), text, rules)  # noqa: E731
    assert read("\n".join([*SIX_LINES, "SCORE: 40.9"])) == Verdict((90, 80, 70, 60, 50, 40))
    for other in ("\n".join(SIX_LINES), "\n".join([*SIX_LINES, "score: 1", "score: 2"]), "1 2 3 4 5 6", "score:1 " * 6):
        assert read(other) == Verdict((0,) * 6, False)
    assert read(" ".join(["[Score]: 150"] * 6)).values == (150,) * 6  # no bound


@pytest.mark.parametrize("kind", ["match", "score", "six", "labels"])
def test_no_reply_is_no_reply(kind):
    asked = question(kind, "AU1", ACTION_UNITS)
    for rules in RULES:
        assert read_reply(asked, None, rules).values is None
    assert read_reply(asked, " \n", "strict").values is None
    # Of labels the official code reads the empty set; of the others it asks again until it gives up.
    assert read_reply(asked, " \n", "official").values == ((0.0,) if kind == "labels" else None)


def test_the_means_have_the_denominators_of_their_kind():
    yes, no, nothing = Verdict((100.0,)), Verdict((0.0,)), Verdict(None)
    verdicts = [yes, no, nothing, nothing]
    assert mean_of(verdicts, "match", "official") == (25,)
    assert mean_of(verdicts, "score", "official") == mean_of(verdicts, "labels", "official") == (50,)
    assert mean_of(verdicts, "score", "strict") == (25,)
    assert mean_of(verdicts, "score", "strict", missing=4) == (12.5,)
    assert mean_of(verdicts, "match", "official", missing=4) == (25,)
    assert mean_of([Verdict((1, 2, 3, 4, 5, 6)), nothing], "six", "official") == (1, 2, 3, 4, 5, 6)
    assert mean_of([Verdict((1, 2, 3, 4, 5, 6)), nothing], "six", "strict") == (0.5, 1, 1.5, 2, 2.5, 3)
    assert mean_of([], "match", "official") is None and mean_of([nothing], "score", "official") is None
    assert mean_of([nothing], "score", "strict") == (0,) and mean_of([], "score", "strict", missing=1) == (0,)


@given(st.text(max_size=60), st.sampled_from(["match", "score", "labels", "six"]), st.sampled_from(RULES))
def test_any_reply_is_worth_something_or_nothing(reply, kind, rules):
    verdict = read_reply(question(kind, "AU1,none", ACTION_UNITS), reply, rules)
    assert verdict.values is None or len(verdict.values) == (6 if kind == "six" else 1)
    if kind in ("match", "labels") and verdict.values:
        assert 0 <= verdict.values[0] <= 100


@given(st.permutations(ACTION_UNITS), st.integers(0, 12), st.sampled_from(RULES))
def test_the_order_of_labels_does_not_matter(units, count, rules):
    assert named_labels(",".join(units[:count]), ACTION_UNITS, rules) == {unit.lower() for unit in units[:count]}


def test_the_judge_sees_the_question_without_the_dotted_tag_only():
    assert judged_query("<video>.Same?") == "Same?"
    assert judged_query("<video>Same?") == "<video>Same?"
    assert judged_query("<video>.a <video>.b") == "a b"
