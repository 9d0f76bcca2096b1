"""Exact match against a computation of its own."""

import io

import numpy as np
import pytest
from rich.console import Console

from videmo_jax.evaluation import scores
from videmo_jax.evaluation.predictions import Prediction


def predictions(seed, count):
    """Random answers among few, some with white space around, and which are right."""
    rng = np.random.default_rng(seed)
    options = ["(A) Yes", "(B) No", "none", "AU1,AU4"]
    pairs = rng.integers(0, 4, (count, 2))
    padding = rng.choice(["", " ", "\n"], count)
    lines = [Prediction(p + options[a] + p, options[b]) for (a, b), p in zip(pairs, padding, strict=True)]
    return lines, int((pairs[:, 0] == pairs[:, 1]).sum())


def test_exact_match_equals_its_computation():
    names = {"MEAD_ID": 40, "DFEW_Single-Label-Emotion-Recognition": 7, "AffWild2_Action_Unit_Detection": 30, "own": 9}
    drawn = {name: predictions(seed, count) for seed, (name, count) in enumerate(names.items())}
    result = scores.to_json(scores.score_all({name: lines for name, (lines, _) in drawn.items()}), recipe={"x": 1})
    right = {name: correct for name, (_, correct) in drawn.items()}
    for name, count in names.items():
        assert result["files"][name]["items"] == count
        assert result["files"][name]["exact_match"] == pytest.approx(100 * right[name] / count)
    choices = ["MEAD_ID", "DFEW_Single-Label-Emotion-Recognition"]
    assert result["closed_choice"] == pytest.approx(100 * sum(right[name] for name in choices) / 47)
    assert result["overall"] == pytest.approx(100 * sum(right.values()) / 86)
    assert (result["rules"], result["recipe"]) == ("exact", {"x": 1})
    assert [result["files"][name]["form"] for name in names] == ["choice", "choice", "units", None]


def test_near_is_not_exact_and_nothing_is_never_right():
    lines = [Prediction("(a) yes", "(A) Yes"), Prediction("A", "(A) Yes"), Prediction("", ""), Prediction(" ", "x")]
    assert scores.score_file("MEAD_ID", lines).correct == 0
    assert scores.score_file("MEAD_ID", [*lines, Prediction("(A) Yes\n", "(A) Yes")]).correct == 1


def test_what_could_not_be_asked_is_told_from_what_was_not_answered():
    lines = [Prediction("", "x"), Prediction("", "x", log_probs=(-0.1,)), Prediction("x", "x")]
    score = scores.score_file("MEAD_ID", lines, cut=1)
    assert (score.items, score.correct, score.skipped, score.cut) == (3, 1, 1, 1)


def test_without_items_there_is_no_share():
    result = scores.to_json(scores.score_all({"MEAD_ID": [], "caption_train": [Prediction("a", "a")]}))
    assert result["closed_choice"] is None and result["files"]["MEAD_ID"]["exact_match"] is None
    assert result["overall"] == 100


def test_the_table_shows_every_file():
    scored = scores.score_all({"MEAD_ID": [Prediction("x", "x"), Prediction("x", "y")], "own": [Prediction("x", "y")]})
    output = io.StringIO()
    Console(file=output, width=120).print(scores.table(scored))
    shown = [line.split() for line in output.getvalue().splitlines()]
    assert ["│", "MEAD_ID", "│", "choice", "│", "2", "│", "50.0", "│", "0", "│", "0", "│"] in shown
    assert ["│", "own", "│", "unknown", "│", "1", "│", "0.0", "│", "0", "│", "0", "│"] in shown
    assert scores.summary(scored) == "closed-choice: 50.0 % of 2 items\noverall: 33.3 % of 3 items"
