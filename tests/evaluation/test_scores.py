"""Scores against a computation by hand, with the same predictions and the same replies of a judge."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score

from tests.evaluation import by_hand
from videmo_jax.data.sample import Message
from videmo_jax.evaluation.annotations import AnnotatedQuestion
from videmo_jax.evaluation.answers.predictions import Prediction
from videmo_jax.evaluation.judges.by_rules import RuleJudge
from videmo_jax.evaluation.judges.judging import SIX, JudgeInfo
from videmo_jax.evaluation.judges.rules import RULES
from videmo_jax.evaluation.results import write_results
from videmo_jax.evaluation.scoring import question_of, score
from videmo_jax.evaluation.tables.columns import COLUMNS, TEST_FILES
from videmo_jax.evaluation.tables.layout import summary_lines
from videmo_jax.evaluation.tables.paper import paper_results
from videmo_jax.evaluation.tables.scores import exact_score, is_exact

OPTIONS = ("Happy", "Sad", "Neutral", "Angry")
MATCH_REPLIES = ("yes", "no", "Yes", "YES \n", "Yes.", "yes, it is", "maybe", None, "no", "yes")
NUMBER_REPLIES = (
    "85",
    "85.5",
    " 70\n",
    "0",
    "100",
    "Score: 85",
    "120",
    "-5",
    "8_5",
    "+7",
    "eighty",
    "85/100",
    None,
    "nan",
)
LABEL_REPLIES = {
    "tags": (
        "none",
        "smile,talk",
        "talk, smile",
        "SMILE",
        "smile;talk",
        "dance",
        "smile,,nod",
        "None",
        "male",
        None,
        ",",
    ),
    "units": ("AU1,AU4", "au4,au1", "AU4, AU1", "none", "NONE", "AU5", "AU12,AU6,AU25", None, "I see AU1", "AU01"),
    "letters": ("GI", "IG", "G, I", "none", "A", "gi", "ABCDEFGHIJK", None, "GG", "(B) Surprise", "Z"),
}
SIX_REPLIES = (
    "\n".join(f"{i}. x: good, [Score]: {n}" for i, n in enumerate((90, 80, 70, 60, 50, 40), start=1)),
    " ".join(f"score: {n}" for n in (1, 2, 3, 4, 5, 6)),
    " ".join(f"[Scores]: {n}.5" for n in (10, 20, 30, 40, 50, 60)),
    " ".join(f"[Score]: {n}" for n in (1, 2, 3, 4, 5)),
    " ".join(f"[Score]: {n}" for n in (1, 2, 3, 4, 5, 6, 7)),
    "[score]:90 " * 6,
    "no scores",
    None,
    " ".join(f"SCORE: {n}" for n in (100, 100, 100, 150, 100, 0)),
)


class Table:
    """A judge with a fixed table of replies."""

    def __init__(self, replies, comparable=False):
        self.replies = replies
        self.info = JudgeInfo("table", comparable=comparable)

    def judge(self, questions, on_progress=None):
        assert len({question.id for question in questions}) == len(questions)
        return [self.replies[question.id] for question in questions]


def labels_of(file, rng):
    """Truth and pool of replies of a file with several labels in an answer."""
    if file == "MAFW_Multiple-Label-Emotion-Recognition":
        return ("GI", "A", "", "BZ", "none")[rng.integers(5)], LABEL_REPLIES["letters"]
    if file == "AffWild2_Action_Unit_Detection":
        return ("AU1,AU4", "AU1, AU4", "none", "AU12", "au6,AU25")[rng.integers(5)], LABEL_REPLIES["units"]
    return ("smile,talk", "talk, smile", "none", "Male,YOUNG", "", "nod")[rng.integers(6)], LABEL_REPLIES["tags"]


def world(seed, items=23):
    """Predictions for all 22 files, their annotations and a table of replies, by file and by id."""
    rng = np.random.default_rng(seed)
    predictions, annotations, replies, aspects = {}, {}, {}, {}
    for file in by_hand.ALL_FILES:
        lines = []
        count = items * (3 if file == by_hand.QA else 1)
        for number in range(count):
            question = f"<video>.{file} {number}?"
            truth = "a long truth"
            if file in by_hand.YES_NO:
                order = [OPTIONS[i] for i in rng.permutation(4)]
                listed = [f"({letter}) {option}" for letter, option in zip("ABCD", order, strict=True)]
                question, truth, pool = "\n".join([question, *listed]), listed[rng.integers(4)], MATCH_REPLIES
            elif file in by_hand.LABELS:
                truth, pool = labels_of(file, rng)
            else:
                pool = SIX_REPLIES if file == by_hand.CAPTIONS else NUMBER_REPLIES
            aspect = by_hand.ASPECTS[number % 15] if file == by_hand.QA else ""
            reply = pool[rng.integers(len(pool))]
            response = ("", "an answer", truth, "none")[rng.integers(4)]
            lines.append(Prediction(response, truth, (Message("user", question),), (f"videos/{number}.mp4",), (-1.0,)))
            replies[f"{file}#{number}"] = reply
            aspects[f"{file}#{number}"] = aspect
            record = AnnotatedQuestion((question, f"videos/{number}.mp4"), question, truth, aspect)
            annotations.setdefault(file, []).append(record)
        predictions[file] = lines
    return predictions, annotations, replies, aspects


def expected_scores(predictions, replies, aspects, rules):
    def pairs(file, aspect=None):
        return [
            (line.labels, replies[f"{file}#{number}"])
            for number, line in enumerate(predictions[file])
            if aspect is None or aspects[f"{file}#{number}"] == aspect
        ]

    def one(file, part=None):
        if file == by_hand.CAPTIONS:
            return by_hand.file_score(file, pairs(file), rules)[part]
        return by_hand.file_score(file, pairs(file, part), rules)[0]

    return by_hand.forty(one)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("seed", range(4))
def test_all_columns_and_summaries_equal_those_by_hand(seed, rules):
    predictions, annotations, replies, aspects = world(seed)
    results = score(predictions, Table(replies), rules, annotations=annotations)
    expected = expected_scores(predictions, replies, aspects, rules)
    assert list(results.columns) == [name for names in paper_results()["columns"].values() for name in names]
    np.testing.assert_allclose(list(results.columns.values()), expected, rtol=0, atol=1e-9)
    summary, overall = by_hand.summaries(expected)
    np.testing.assert_allclose(list(results.summary.values()), summary, rtol=0, atol=1e-9)
    assert results.overall == pytest.approx(overall, abs=1e-9)
    written = json.loads(json.dumps(results.to_json(recipe={"frames": 16}), allow_nan=False))
    assert written["columns"] == results.columns and written["rules"] == rules and written["recipe"] == {"frames": 16}
    assert set(written["files"]) == set(by_hand.ALL_FILES) == set(TEST_FILES)


def test_both_rules_differ_on_this_data():
    """Else the tests above would not see a rule that is not kept."""
    predictions, annotations, replies, _ = world(0)
    official, strict = (score(predictions, Table(replies), rules, annotations=annotations) for rules in RULES)
    free = {"identity", "head_pose", "sentiment_single", "sentiment_fine", "sentiment_average", "conversation"}
    free |= {"emotion_single", "emotion_fine", "micro_expression"}
    differing = {name for name, value in official.columns.items() if value != strict.columns[name]}
    assert differing == {column.name for column in COLUMNS} - free


def test_the_order_of_files_and_of_lines_does_not_matter():
    predictions, annotations, replies, _ = world(5)
    first = score(predictions, Table(replies), "strict", annotations=annotations)
    rng = np.random.default_rng(0)
    moved, moved_replies = {}, {}
    for file in reversed(predictions):
        order = rng.permutation(len(predictions[file]))
        moved[file] = [predictions[file][i] for i in order]
        moved_replies |= {f"{file}#{new}": replies[f"{file}#{old}"] for new, old in enumerate(order)}
    second = score(moved, Table(moved_replies), "strict", annotations=annotations)
    np.testing.assert_allclose(list(second.columns.values()), list(first.columns.values()), rtol=0, atol=1e-12)
    assert all(matching.moved and not matching.missing for matching in second.matching.values())


def test_uar_and_war_equal_scikit_learns():
    predictions, annotations, replies, _ = world(1, items=60)
    results = score(predictions, Table(replies), annotations=annotations)
    seen = 0
    for file in results.files:
        if file.name not in by_hand.YES_NO:
            assert file.judged.uar is None and file.judged.war is None
            continue
        seen += 1
        truth = [line.labels[4:] for line in predictions[file.name]]  # without its letter
        said = [
            true if (replies[f"{file.name}#{i}"] or "").strip().lower() == "yes" else "another"
            for i, true in enumerate(truth)
        ]
        expected = recall_score(truth, said, labels=sorted(set(truth)), average="macro", zero_division=0)
        assert file.judged.uar == pytest.approx(100 * expected, abs=1e-9)
        assert file.judged.war == pytest.approx(100 * accuracy_score(truth, said), abs=1e-9)
        assert file.judged.war == pytest.approx(file.judged.parts[""].score, abs=1e-9)
    assert seen == 13


def test_open_questions_have_their_aspect_from_the_annotations_only():
    predictions, _, replies, _ = world(2)
    alone = score({by_hand.QA: predictions[by_hand.QA]}, Table(replies))
    (file,) = alone.files
    assert file.judged.no_aspect == len(predictions[by_hand.QA])
    assert alone.columns["hair"] is None and alone.gaps["hair"] == [f"{by_hand.QA}/Hair"]
    # The same question about another video may ask about something else.
    records = [AnnotatedQuestion(("q", "a.mp4"), "q", "t", "Hair"), AnnotatedQuestion(("q", "b.mp4"), "q", "t", "Nose")]
    lines = [Prediction("r", "t", (Message("user", "q"),), (video,)) for video in ("b.mp4", "a.mp4", "c.mp4")]
    table = Table({f"{by_hand.QA}#0": "10", f"{by_hand.QA}#1": "90"})
    results = score({by_hand.QA: lines}, table, annotations={by_hand.QA: records})
    assert (results.columns["nose"], results.columns["hair"]) == (10, 90)
    assert results.files[0].judged.no_aspect == 1


def test_a_question_with_two_aspects_has_the_last_one_officially_and_both_strictly():
    records = [AnnotatedQuestion(("q", "a.mp4"), "q", "t", "Hair"), AnnotatedQuestion(("q", "a.mp4"), "q", "t", "Nose")]
    lines = [Prediction("r", "t", (Message("user", "q"),), ("a.mp4",))] * 2
    table = Table({f"{by_hand.QA}#0": "10", f"{by_hand.QA}#1": "90"})
    official, strict = (score({by_hand.QA: lines}, table, rules, annotations={by_hand.QA: records}) for rules in RULES)
    assert (official.columns["hair"], official.columns["nose"]) == (None, 50)
    assert (strict.columns["hair"], strict.columns["nose"]) == (10, 90)


def lines_of(*numbers):
    return [Prediction("r", "t", (Message("user", f"q{n}"),), ("a.mp4",)) for n in numbers]


def test_missing_extra_and_repeated_lines():
    """Officially the lines that there are count; strictly the records do."""
    file = "CelebV-Text_Action-Caption"
    records = [AnnotatedQuestion((f"q{n}", "a.mp4"), f"q{n}", "t") for n in range(4)]
    lines = lines_of(2, 0, 0, 9)  # 1 and 3 are missing, 0 comes again, 9 was never asked
    table = Table({f"{file}#{line}": reply for line, reply in enumerate(("80", "40", "20", "100"))})
    official, strict = (score({file: lines}, table, rules, annotations={file: records}) for rules in RULES)
    assert official.columns["action_caption"] == (80 + 40 + 20 + 100) / 4
    assert strict.columns["action_caption"] == (80 + 40) / 4
    matching = strict.matching[file]
    assert (matching.missing, matching.again, matching.unknown, matching.moved) == ((1, 3), (2,), (3,), (0, 1))
    said = matching.to_json()
    assert (said["missing"], said["again"], said["unknown"], said["records"], said["lines"]) == (2, 1, 1, 4, 4)
    assert said["examples"]["missing"] == [1, 3]


def test_records_without_a_line_count_in_uar_and_in_aspects_strictly():
    file = "MEAD_ID"
    asked = [f"q{n}\n(A) Yes\n(B) No" for n in range(4)]
    records = [
        AnnotatedQuestion((text, "a.mp4"), text, truth)
        for text, truth in zip(asked, ("(A) Yes", "(B) No") * 2, strict=True)
    ]
    lines = [Prediction("r", "(A) Yes", (Message("user", asked[0]),), ("a.mp4",))]
    results = score({file: lines}, Table({f"{file}#0": "yes"}), "strict", annotations={file: records})
    judged = results.files[0].judged
    assert (judged.parts[""].items, judged.war, judged.uar) == (4, 25, 25)  # classes: yes 1 of 2, no 0 of 2
    records = [AnnotatedQuestion((f"q{n}", "a.mp4"), f"q{n}", "t", "Hair") for n in range(4)]
    results = score(
        {by_hand.QA: lines_of(1)}, Table({f"{by_hand.QA}#0": "60"}), "strict", annotations={by_hand.QA: records}
    )
    assert results.columns["hair"] == 15


def test_a_file_without_any_reply_is_a_gap_officially_and_zero_strictly():
    lines = lines_of(0, 1)
    for file in ("CelebV-Text_Action-Caption", "AffWild2_Action_Unit_Detection", by_hand.CAPTIONS):
        table = Table({f"{file}#0": None, f"{file}#1": None})
        official, strict = (score({file: lines}, table, rules) for rules in RULES)
        names = set(official.columns)
        assert all(official.columns[name] is None for name in names)
        assert any(strict.columns[name] == 0 for name in names)
        assert official.files[0].judged.failed == 2
    table = Table({"MEAD_ID#0": None, "MEAD_ID#1": "yes"})
    assert score({"MEAD_ID": lines}, table).columns["identity"] == 50  # yes/no is over all items


@pytest.mark.parametrize("rules", RULES)
def test_a_file_of_unreadable_replies_is_a_gap_and_no_zero(rules):
    files = ("MEAD_ID", "CelebV-Text_Action-Caption", "AffWild2_Action_Unit_Detection", by_hand.CAPTIONS)
    lines = {file: lines_of(0, 1) for file in files}
    wild = score(lines, Table({f"{file}#{n}": "I cannot say." for file in files for n in range(2)}), rules)
    assert set(wild.unread_files) == set(files) == set(wild.to_json()["unread_files"])
    assert all(value is None for value in wild.columns.values())
    assert [file.judged.unreadable for file in wild.files] == [2] * 4 and wild.files[0].judged.war is None
    replies = {f"{file}#{n}": "I cannot say." for file in files for n in range(2)}
    half = score(lines, Table(replies | {"MEAD_ID#0": "yes"}), rules)
    assert half.columns["identity"] == 50 and "MEAD_ID" not in half.unread_files
    silent = score(lines, Table(dict.fromkeys(replies)), rules)
    assert silent.unread_files == []  # no replies are another fault


def test_official_rules_say_what_strict_ones_could_read():
    replies = ("<think>no?</think>\n\nyes", "**yes**", "Yes.", "yes")
    table = Table({f"MEAD_ID#{n}": reply for n, reply in enumerate(replies)})
    official, strict = (score({"MEAD_ID": lines_of(*range(4))}, table, rules) for rules in RULES)
    judged = official.files[0].judged
    assert (judged.unreadable, judged.strict_reads, official.columns["identity"]) == (3, 2, 25)
    assert official.to_json()["files"]["MEAD_ID"]["strict_reads"] == 2
    assert (strict.files[0].judged.unreadable, strict.files[0].judged.strict_reads) == (1, 0)
    assert strict.columns["identity"] == 75
    assert "3 unreadable replies (2 of them by the rules `strict`), which count 0" in summary_lines(official)


def test_strict_judges_are_asked_about_the_answer_alone():
    asked = []

    class Listening(Table):
        def judge(self, questions, on_progress=None):
            asked.extend(question.response for question in questions)
            return ["yes"] * len(questions)

    lines = [Prediction("Or sad?\n</think>\n\n(A) Happy", "(A) Happy", (Message("user", "q"),))]
    for rules in RULES:
        score({"MEAD_ID": lines}, Listening({}), rules)
    assert asked == ["Or sad?\n</think>\n\n(A) Happy", "(A) Happy"]


def test_a_partial_set_has_gaps_and_no_zeros():
    predictions, annotations, replies, _ = world(3)
    del predictions["MEAD_ID"], annotations["MEAD_ID"]
    predictions["DFEW_Single-Label-Emotion-Recognition"] = []
    predictions["my_own"] = [Prediction("a", "a"), Prediction("b", "c")]
    results = score(predictions, Table(replies), annotations=annotations)
    gaps = {name for name, value in results.columns.items() if value is None}
    assert gaps == {"identity", "closed_average", "emotion_single", "emotion_average"} == set(results.gaps)
    assert results.gaps["closed_average"] == ["MEAD_ID"]
    assert results.overall is None and results.summary["attribute"] is None and results.summary["mean"] is None
    assert results.summary["emotion"] is not None
    assert results.missing_files == ["MEAD_ID", "DFEW_Single-Label-Emotion-Recognition"]
    assert results.unknown_files == ["my_own"] and results.to_json()["files"]["my_own"]["score"] is None
    assert results.to_json()["files"]["my_own"]["exact_match"] == 50


def test_scores_are_comparable_only_by_official_rules_with_the_authors_judge():
    lines = {"MEAD_ID": lines_of(0)}
    replies = {"MEAD_ID#0": "yes"}
    assert score(lines, Table(replies, comparable=True), "official").comparable
    strict = score(lines, Table(replies, comparable=True), "strict")
    other = score(lines, Table(replies), "official")
    assert not strict.comparable and "strict" in strict.obstacles[0]
    assert not other.comparable and "authors' prompts" in other.obstacles[0]
    assert not score(lines, RuleJudge(), "official").comparable


def test_a_set_of_another_size_is_named():
    """PAPER.md section 6: 500 per closed task, 300 per aspect, of actions and of expressions some less, 2,600."""
    files = {name: lines_of(*range(5)) for name in ("MEAD_ID", "DFEW_Single-Label-Emotion-Recognition")}
    files |= {name: lines_of(0) for name in ("AffWild2_Action_Unit_Detection", by_hand.CAPTIONS, by_hand.QA)}
    replies = {f"{name}#{n}": "yes" for name in files for n in range(5)}
    records = {by_hand.QA: [AnnotatedQuestion(("q0", "a.mp4"), "q0", "t", "Head_actions")]}
    sizes = score(files, Table(replies), annotations=records).other_sizes
    assert sizes["MEAD_ID"] == (5, 500) and sizes["DFEW_Single-Label-Emotion-Recognition"] == (5, 300)
    assert sizes["AffWild2_Action_Unit_Detection"] == (1, 87) and sizes[by_hand.CAPTIONS] == (1, 2600)
    aspects = {name: both for name, both in sizes.items() if name.startswith(by_hand.QA)}
    assert len(aspects) == 15 and aspects[f"{by_hand.QA}/Head_actions"] == (1, 4)
    assert sum(both[1] for both in aspects.values()) == 13 * 300
    whole = {"MEAD_ID": lines_of(*range(500))}
    assert score(whole, Table({f"MEAD_ID#{n}": "yes" for n in range(500)})).other_sizes == {}


def test_a_judge_that_loses_replies_is_refused():
    class Short(Table):
        def judge(self, questions, on_progress=None):
            return ["yes"]

    with pytest.raises(ValueError, match="1 replies to 2 questions"):
        score({"MEAD_ID": lines_of(0, 1)}, Short({}))


def test_every_judged_item_is_listed():
    predictions, annotations, replies, aspects = world(4)
    results = score(predictions, Table(replies), annotations=annotations)
    assert {item.id: item.reply for item in results.items} == replies
    assert {item.id: item.part for item in results.items} == aspects
    failed = [item for item in results.items if item.values is None]
    assert all(item.remark == "no reply" for item in failed)
    assert len(failed) == sum(file.judged.failed for file in results.files) == sum(r is None for r in replies.values())
    captions = [item for item in results.items if item.file == by_hand.CAPTIONS and item.values]
    assert all(len(item.values) == len(SIX) for item in captions)


def test_a_truth_that_is_no_option_is_listed_and_judged_all_the_same():
    options = (Message("user", "<video>.q\n(A) Happy\n(B) Sad"),)
    lines = [Prediction("(A) Happy", "(C) Angry", options), Prediction("(B) Sad", "(A) Sad", options)]
    results = score({"MEAD_ID": lines}, RuleJudge())
    assert results.files[0].judged.odd_truths == 2 and results.columns["identity"] == 0


def test_the_query_is_the_first_users_message():
    turns = (Message("system", "Be brief."), Message("user", "<video>.q"), Message("user", "again"))
    asked = question_of("MEAD_ID", 3, Prediction("r", "t", turns))
    assert (asked.id, asked.query, asked.kind, asked.labels) == ("MEAD_ID#3", "q", "match", ())
    assert question_of("MEAD_ID", 0, Prediction("r", "t")).query == ""


def test_replies_that_are_no_text_are_written_all_the_same(tmp_path):
    results = score({"MEAD_ID": lines_of(0)}, Table({"MEAD_ID#0": "half \ud83d \u7b11"}))
    write_results(tmp_path, results, "m")
    (line,) = (tmp_path / "judged.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["reply"] == "half ? \u7b11" and json.loads(line)["remark"] == "unreadable reply"


# Exact match, beside the judged scores.


def test_near_is_not_exact_and_nothing_is_never_right():
    lines = [Prediction("(a) yes", "(A) Yes"), Prediction("A", "(A) Yes"), Prediction("", ""), Prediction(" ", "x")]
    assert exact_score("MEAD_ID", lines).correct == 0
    assert exact_score("MEAD_ID", [*lines, Prediction("(A) Yes\n", "(A) Yes")]).correct == 1


def test_what_could_not_be_asked_is_told_from_what_was_not_answered():
    lines = [Prediction("", "x"), Prediction("", "x", log_probs=(-0.1,)), Prediction("x", "x")]
    file = exact_score("MEAD_ID", lines, cut=1)
    assert (file.items, file.correct, file.skipped, file.cut) == (3, 1, 1, 1)


def test_exact_match_is_over_all_items_and_over_those_of_choices():
    rng = np.random.default_rng(0)
    names = {"MEAD_ID": 40, "DFEW_Single-Label-Emotion-Recognition": 7, "AffWild2_Action_Unit_Detection": 30, "own": 9}
    said = ["(A) Yes", "(B) No", "none", "AU1,AU4"]
    drawn = {
        name: [Prediction(said[a], said[b] + " ") for a, b in rng.integers(0, 4, (count, 2))]
        for name, count in names.items()
    }
    result = score(drawn, RuleJudge()).to_json()
    right = {name: sum(is_exact(line) for line in lines) for name, lines in drawn.items()}
    assert right["MEAD_ID"] == sum(line.response == line.labels.strip() for line in drawn["MEAD_ID"]) > 0
    for name, count in names.items():
        assert result["files"][name]["exact_match"] == pytest.approx(100 * right[name] / count)
    choices = right["MEAD_ID"] + right["DFEW_Single-Label-Emotion-Recognition"]
    assert result["closed_choice"] == pytest.approx(100 * choices / 47)
    assert result["exact_match"] == pytest.approx(100 * sum(right.values()) / 86)
    assert [result["files"][name]["form"] for name in names] == ["choice", "choice", "units", None]
