"""The page of rollouts: sorted, bounded, marked, and safe with whatever a policy says."""

import re
from itertools import pairwise

import pytest

from tests.reports.test_evaluation import NASTY, Page
from videmo_jax.affective.difference import differences
from videmo_jax.affective.edit_distance import Costs
from videmo_jax.affective.tree import AffectiveTree, Node, Person
from videmo_jax.reports.rollouts import ShownAnswer, ShownGroup, rollouts_page, spread, write_rollouts_page

HAIR, JOY = Node("attribute", "hair", "brown"), Node("emotion", "feeling", "joy")
TRUTH = AffectiveTree((Person((JOY, HAIR)),))
SAID = AffectiveTree((Person((Node("emotion", "feeling", "grief"), Node("expression", "mouth", "a smile"))),))


def group(step=3, *, answers=None, tree=TRUTH, said=SAID, **more):
    lines = None if tree is None else tuple(differences(tree, said, Costs()))
    answers = answers or [
        ShownAnswer(2, "a text", 0.75, 1.5, 40, False, lines),
        ShownAnswer(1, "b", 0.25, -0.75, 9, True, lines),
    ]
    facts = {"id": "s#1", "file": "f", "task": "captions", "branch": "tree", "videos": ("a.mp4",)}
    return ShownGroup(
        **{**facts, "step": step, "question": "What?", "truth": "She.", **more}, tree=tree, answers=answers
    )


def test_each_answer_has_its_bars_and_numbers():
    rows = re.findall(r'<span class="row">(.*?)</span></summary>', rollouts_page("run", [group()], 1))
    assert len(rows) == 2
    assert re.findall(r"width:([\d.]+)%", rows[0]) == ["75.0", "50.0"] and "left:50%" in rows[0]
    assert re.findall(r"width:([\d.]+)%", rows[1]) == ["25.0", "25.0"] and "right:50%" in rows[1]
    assert "#2" in rows[0] and "0.750" in rows[0] and "+1.50" in rows[0] and "40 tokens" in rows[0]
    assert "cut off" in rows[1] and "cut off" not in rows[0] and "-0.75" in rows[1]
    flat = group(answers=[ShownAnswer(1, "a", None, 0.0, 3, False)], tree=None, failure="no endpoint")
    page = rollouts_page("run", [flat], 1)
    assert re.findall(r"width:([\d.]+)%", page.split("<article")[1]) == ["0.0", "0.0"]
    assert "no endpoint" in page and ">none<" in page and 'data-failed="yes"' in page


def test_wrong_and_missing_nodes_are_marked():
    text = rollouts_page("run", [group()], 1)
    assert text.count("<svg") == 1  # the truth's picture
    outline = re.search(r'<div class="outline">(.*?)</div>', text)[1]
    lines = re.findall(r'<p class="(\w+) (\w+)" style="--d:(\d)"><b>(.?)</b>(.*?)</p>', outline)
    found = {re.sub("<.*?>", "", rest): (level, mark, depth, sign) for level, mark, depth, sign, rest in lines}
    assert found == {
        "person": ("person", "same", "0", ""),
        "feeling grief truth: feeling joy0.50": ("emotion", "other", "1", "~"),
        "mouth a smile truth: hair brown1.00": ("expression", "other", "1", "~"),
    }
    added = rollouts_page("run", [group(tree=AffectiveTree((Person((JOY,)),)), said=TRUTH)], 1)
    missing = rollouts_page("run", [group(said=AffectiveTree((Person((JOY,)),)))], 1)
    assert 'class="attribute added"' in added and 'class="attribute missing"' in missing
    assert "Empty tree" in rollouts_page("run", [group(tree=AffectiveTree(), said=AffectiveTree())], 1)


def test_a_text_that_is_there_twice_is_shown_once():
    lines = tuple(differences(TRUTH, SAID, Costs()))
    page = rollouts_page(
        "run", [group(answers=[ShownAnswer(n, "same", 0.5, 0.0, 3, False, lines) for n in (1, 2, 3)])], 1
    )
    assert page.count('<div class="outline">') == 1 and page.count("The same text as answer 1.") == 2


def test_what_comes_from_outside_is_text_and_nothing_is_loaded():
    evil = AffectiveTree((Person((Node("emotion", "<script>", NASTY),)),))
    answers = [ShownAnswer(1, NASTY, 0.5, 0.1, 3, True, tuple(differences(TRUTH, evil, Costs())))]
    names = dict.fromkeys(("id", "file", "task", "branch", "question", "truth", "failure"), NASTY)
    text = rollouts_page(NASTY, [group(tree=evil, answers=answers, **names, videos=(NASTY,))], 1)
    page = Page(text)
    assert not page.open and len(page.all("script")) == 1
    assert "<script>alert" not in text and "alert(" in text
    assert not re.search(r"(src|href)=|url\(|@import|http", text)
    (article,) = page.all("article")
    assert article["data-task"] == article["data-branch"] == NASTY and article["data-step"] == "3"


def test_the_filter_offers_what_there_is_under_the_names_of_the_data():
    groups = [group(20, branch="rule", tree=None), group(10, task="faces"), group(10)]
    page = Page(rollouts_page("run", groups, 3))
    assert [each["name"] for each in page.all("select")] == ["step", "branch", "task"]
    values = [each["value"] for each in page.all("option")]
    assert values == ["", "20", "10", "", "rule", "tree", "", "captions", "faces"]
    for each in page.all("select") + [box for box in page.all("input") if box["type"] == "checkbox"]:
        assert all(f"data-{each['name']}" in article for article in page.all("article"))


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 202, 250, 399, 1000, 123_456])
def test_of_many_groups_the_first_the_newest_and_an_even_spread_are_shown(count):
    places = spread(count)
    assert len(places) == min(count, 200) and places == sorted(set(places))
    assert all(0 <= place < count for place in places)
    if count > 200:
        assert places[:40] == list(range(40)) and places[-60:] == list(range(count - 60, count))
        gaps = {b - a for a, b in pairwise(places[40:140])}
        assert max(gaps) - min(gaps) <= 1


def test_a_page_of_many_groups_is_bounded_and_says_so(tmp_path):
    class Many(list):
        asked = 0

        def __getitem__(self, place):
            Many.asked += 1
            return super().__getitem__(place)

    path = write_rollouts_page(tmp_path, title="run", groups=Many(group(step) for step in range(3000)))
    text = path.read_text()
    assert path == tmp_path / "samples.html" and Many.asked == 200 and list(tmp_path.iterdir()) == [path]
    steps = [int(each["data-step"]) for each in Page(text).all("article")]
    assert len(steps) == 200 and steps == sorted(steps, reverse=True) and steps[0] == 2999 and steps[-1] == 0
    assert "200 of 3,000 groups" in text
    assert "200 of" not in rollouts_page("run", [group()], 1)
    assert "0 groups" in write_rollouts_page(tmp_path, title="run", groups=[]).read_text()
