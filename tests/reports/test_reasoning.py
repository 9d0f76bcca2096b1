"""The picture of a tree and the page of a reasoning run: whole, in place, and safe with whatever a model says."""

import random
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tests.affective.test_edit_distance import random_tree
from videmo_jax.affective.tree import LEVELS, AffectiveTree, Node, Person
from videmo_jax.reports.clips import ShownClip
from videmo_jax.reports.reasoning import ReasoningView, ShownCandidate, ShownLevel, reasoning_page
from videmo_jax.reports.trees import TREE_STYLE, WIDTH, tree_figure

SMILE = Node("expression", "mouth", "a wide smile", (Node("attribute", "cheeks", "raised"),))
JOY = Node("emotion", "feeling", "joy", (Node("emotion", "sentiment", "positive"), SMILE))
HAIR = Node("attribute", "hair", "brown")
TREE = AffectiveTree((Person((JOY, HAIR)),))


def boxes(figure):
    """(title, left, top, right, bottom) of every node."""
    svg = ET.fromstring(figure).find("svg")
    found = []
    for group in svg.iter("g"):
        rect = group.find("rect")
        x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
        found.append((group.find("title").text, x, y, x + width, y + height))
    return found


def edges(figure):
    """Both ends of every edge."""
    paths = re.findall(r'<path d="M(\S+) (\S+) C\S+ \S+ \S+ \S+ (\S+) (\S+)"', figure)
    return [tuple(map(float, path)) for path in paths]


def test_every_node_has_its_box_and_every_rationale_its_edge():
    figure = tree_figure(TREE, title="a <tree>")
    found = {title: (left, top, right, bottom) for title, left, top, right, bottom in boxes(figure)}
    assert set(found) == {
        "feeling: joy", "sentiment: positive", "mouth: a wide smile", "cheeks: raised", "hair: brown",
    }  # fmt: skip
    assert found["cheeks: raised"][0] == found["hair: brown"][0] < found["mouth: a wide smile"][0]
    assert found["mouth: a wide smile"][0] < found["feeling: joy"][0] == found["sentiment: positive"][0]

    def joined(child, parent):
        (_, top, right, bottom), (left, up, _, down) = found[child], found[parent]
        ends = [(right, (top + bottom) / 2, left, (up + down) / 2)]
        return ends[0] in edges(figure)

    assert joined("cheeks: raised", "mouth: a wide smile") and joined("mouth: a wide smile", "feeling: joy")
    assert len(edges(figure)) == 3 and "a &lt;tree&gt;" in figure


@pytest.mark.parametrize("seed", range(20))
def test_boxes_never_meet_and_stay_inside(seed):
    tree = random_tree(random.Random(seed), 40)
    figure = tree_figure(tree)
    height = float(ET.fromstring(figure).find("svg").get("viewBox").split()[3])
    found = boxes(figure)
    assert len(found) == 40
    assert len(edges(figure)) == 40 - sum(len(person.nodes) for person in tree.people)
    for title, left, top, right, bottom in found:
        assert 0 < left < right < WIDTH and 0 < top < bottom < height, title
    for place, (_, left, top, _, bottom) in enumerate(found):
        for _, other_left, other_top, _, other_bottom in found[place + 1 :]:
            assert left != other_left or bottom <= other_top or other_bottom <= top
    for each in edges(figure):
        assert all(0 < value < max(WIDTH, height) for value in each)


def test_all_columns_fit_on_a_phone():
    assert WIDTH <= 390 and "min-width" not in TREE_STYLE and "overflow" not in TREE_STYLE
    assert max(right for *_, right, _ in boxes(tree_figure(TREE))) <= WIDTH


def test_long_and_odd_items_stay_in_their_boxes():
    long = Node("attribute", "a very long aspect that goes on and on", "x" * 90 + " " + "word " * 60 + "end")
    figure = tree_figure(AffectiveTree((Person((long,)),)))
    texts = re.findall(r"<text x=[^>]*>([^<]*)</text>", figure)
    assert len(texts) == 4 and max(map(len, texts)) <= 21 and texts[-1].endswith("…")
    assert f"{'x' * 90} word" in figure  # the tooltip has it all


def test_a_tree_without_a_node_says_so():
    for empty in (AffectiveTree(), AffectiveTree((Person(), Person()))):
        figure = tree_figure(empty)
        ET.fromstring(figure)
        assert "Nothing was read" in figure and "<svg" not in figure
    two = tree_figure(AffectiveTree((Person((HAIR,)), Person())))
    assert "person 1" in two and "person 2" in two
    assert "person 1" not in tree_figure(TREE)


EVIL = "<script>alert('x')</script>"


def view(text="a text", **more):
    frames = np.stack([np.full((20, 30, 3), value, np.uint8) for value in (10, 200)])
    candidates = [
        ShownCandidate(text, {"mbr": -12.0, "logprob": -0.5}, 0.25),
        ShownCandidate("the best", {"mbr": -2.0, "logprob": -1.5}, 1.0, cut=True),
        ShownCandidate("", {"mbr": -7.0, "logprob": -1.5}, 0.5),
    ]
    levels = [ShownLevel(level, f"{text} {level}?", candidates, 1) for level in LEVELS]
    clips = [ShownClip(text, frames, (0.0, 1.5))]
    return ReasoningView(text, clips, TREE, levels, "mbr+0.5*logprob", **more)


def test_the_page_shows_frames_tree_levels_and_scores_in_order():
    text = reasoning_page(view(question="Who?", answer="She.", about={"seed": "7"}))
    assert re.findall(r"<figcaption>(\d\.\d s)</figcaption>", text) == ["0.0 s", "1.5 s"]
    assert text.count("data:image/jpeg;base64,") == 2 and text.count("<svg") == 1
    assert re.findall(r"<h2>(\w+)", text) == ["Answer", "Affective", "Attributes", "Expressions", "Emotions", "How"]
    cards = re.findall(r"<article.*?</article>", text)
    assert len(cards) == 9
    first, second, third = cards[:3]  # what was kept, then by their sums
    assert "candidate 2 · kept · cut off" in first and "class=kept" in first and "the best" in first
    assert "candidate 3" in second and "<em>nothing</em>" in second and "candidate 1" in third
    assert re.findall(r"width:([\d.]+)%", first) == ["100.0", "0.0"]
    assert re.findall(r"width:([\d.]+)%", second) == ["50.0", "0.0"]
    assert "-12.000" in third and "0.250" in third
    assert "<h2>Answer" not in reasoning_page(view()) and "<h2>How" not in reasoning_page(view())


def test_nothing_that_a_model_says_becomes_markup_and_nothing_is_loaded():
    evil = AffectiveTree((Person((Node("emotion", "<script>", EVIL),)),))
    text = reasoning_page(view(EVIL, question=EVIL, answer=EVIL, about={EVIL: EVIL}))
    assert "<script" not in text and "<script" not in tree_figure(evil, title=EVIL)
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import', text)
