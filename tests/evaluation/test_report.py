"""What the page of an evaluation is given: which items, which frames, which of the paper's rows."""

import re

import pytest

from videmo_jax.data.sample import Message
from videmo_jax.evaluation.answers.predictions import Prediction
from videmo_jax.evaluation.judges.by_rules import RuleJudge
from videmo_jax.evaluation.report import choose, is_right, read_strips, report
from videmo_jax.evaluation.scoring import score
from videmo_jax.evaluation.tables.scores import ItemScore


def item(number: int, value: float | None) -> ItemScore:
    return ItemScore(f"f#{number}", "f", "", "match", "yes", None if value is None else (value,), True)


@pytest.mark.parametrize(
    ("wrong", "right", "expected"), [(100, 100, (4, 4)), (2, 100, (2, 6)), (100, 1, (7, 1)), (1, 2, (1, 2))]
)
def test_half_of_the_shown_items_are_wrong_where_there_are_enough(wrong, right, expected):
    items = [item(n, 0.0) for n in range(wrong)] + [item(wrong + n, 100.0) for n in range(right)]
    chosen = choose(items, 8)
    assert (sum(not is_right(each) for each in chosen), sum(bool(is_right(each)) for each in chosen)) == expected
    assert [items.index(each) for each in chosen] == sorted(items.index(each) for each in chosen)


def test_an_item_without_a_reply_is_shown_among_the_wrong_ones():
    assert is_right(item(0, None)) is None
    assert choose([item(0, None), item(1, 100.0)], 1) != []


def test_clips_outside_of_the_dataset_are_not_read(tmp_path, emo_cfg_mini):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.mp4").write_bytes((emo_cfg_mini / "videos/Pexels/sad.mp4").read_bytes())
    assert read_strips(tmp_path / "data", ["../secret.mp4", str(tmp_path / "secret.mp4"), "missing.mp4"]) == {}
    assert list(read_strips(emo_cfg_mini, ["videos/Pexels/sad.mp4"])) == ["videos/Pexels/sad.mp4"]


def test_the_page_names_the_rules_and_that_rows_are_not_comparable():
    line = Prediction("(A) Yes", "(A) Yes", messages=(), videos=())
    predictions = {"MEAD_ID": [line]}
    page = report(
        score(predictions, RuleJudge(), "strict"), predictions, "ours", {"recipe": {"dtype": "float32"}}, None
    )
    assert "Evaluation of ours" in page and "recipe.dtype" in page
    assert "the rules are `strict`, not `official`" in page
    assert "no predictions for" in page  # 21 files are gaps
    assert len(re.findall("(?i)not comparable", page)) == 1 and "(a language model judged its rows)" in page
    assert page.index("NOT comparable") < page.index("<h2>Table 1") < page.index("no predictions for")


def test_the_chart_and_the_table_show_the_same_digits():
    asked = (Message("user", "Is it the same person?\n(A) Yes\n(B) No"),)
    lines = [Prediction(f"({letter})", "(A) Yes", asked) for letter in "AAB"]  # 66.67 %: cut off 66.6, rounded 66.7
    page = report(score({"MEAD_ID": lines}, RuleJudge(), "official"), {"MEAD_ID": lines}, "ours", {}, None)
    chart, tables = page.split("<h2>Table 1")
    assert ">66.6</text>" in chart and ">66.6</td>" in tables and ">66.7</text>" not in chart
