"""The page of an evaluation: nothing from outside is taken as HTML, pictures are held once, gaps stay gaps."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np

from videmo_jax.reports.clips import strip
from videmo_jax.reports.evaluation import EvaluationView, ShownItem, ShownTable, evaluation_page
from videmo_jax.reports.figures import Row, row_chart

NASTY = '</script><script>alert("x")</script>&amp;'


class Page(HTMLParser):
    """Elements by tag, and whether all that open also close."""

    VOID = frozenset({"meta", "input", "img", "line", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def item(number: int, right: bool | None, clip: str) -> ShownItem:
    return ShownItem(f"MEAD_ID#{number}", NASTY, NASTY, NASTY, NASTY, "100", right, NASTY, (clip,))


def view() -> EvaluationView:
    frames = np.zeros((9, 40, 60, 3), np.uint8)
    return EvaluationView(
        NASTY,
        {NASTY: NASTY},
        [NASTY],
        [Row(NASTY, None, NASTY, {NASTY: 12.0}), Row("hair", 50.0, "50.0", {})],
        [ShownTable(NASTY, [NASTY], [(NASTY, True, ["-"]), ("paper", False, ["100"])], [NASTY])],
        [item(0, True, "a.mp4"), item(1, False, "a.mp4"), item(2, None, "gone.mp4")],
        7,
        {"a.mp4": strip(frames, NASTY)},
    )


def test_what_comes_from_outside_is_text():
    page = Page(text := evaluation_page(view()))
    assert not page.open
    assert len(page.all("script")) == 1  # the page's own
    assert "alert(" in text and "<script>alert" not in text
    assert not re.search(r'(src|href)="(?!data:)', text) and "http" not in text.replace("data:image", "")


def test_the_page_opens_with_its_results():
    text = evaluation_page(replace(view(), headline="overall 58.1", terms=["a term"], warnings=["a warning"]))
    places = [text.index(each) for each in ("overall 58.1", "a term", 'class="bar"', "<table>", "a warning", "<dl>")]
    assert places == sorted(places) and text.index("<dl>") < text.index("<article")


def test_items_tell_the_filter_their_task_and_verdict():
    articles = Page(evaluation_page(view())).all("article")
    assert [each["data-verdict"] for each in articles] == ["right", "wrong", ""]
    assert {each["data-task"] for each in articles} == {NASTY}


def test_a_picture_of_a_clip_that_many_items_ask_about_is_held_once():
    text = evaluation_page(view())
    assert text.count("data:image/jpeg") == 1
    assert text.count('class="s0"') == 2
    assert "gone.mp4: no frames to show" in text


def test_a_strip_holds_frames_evenly_spread_from_first_to_last():
    frames = np.stack([np.full((40, 60, 3), value, np.uint8) for value in range(0, 250, 25)])
    made = strip(frames, "clip", height=20, most=4)
    assert (made.width, made.height) == (4 * 30, 20)


def test_a_gap_has_no_bar_and_ticks_lie_where_their_values_are():
    page = Page(
        row_chart(
            [Row("gap", None, "-", {"other": 0.0}), Row("full", 100.0, "100", {"other": 100.0})],
            title="t",
            low=0,
            high=100,
        )
    )
    (bar,) = page.all("rect")
    ticks = [each for each in page.all("line") if each["class"] == "tick0" and each["x1"] != "4"]
    assert [float(tick["x1"]) for tick in ticks] == [float(bar["x"]), float(bar["x"]) + float(bar["width"])]
