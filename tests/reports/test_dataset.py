"""The page of a dataset: whole, without outside parts, and safe with whatever texts the data holds."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
from PIL import Image

from videmo_jax.reports.clips import ShownClip
from videmo_jax.reports.dataset import MOST_REJECTED, DatasetView, ShownSample, dataset_page, why
from videmo_jax.reports.figures import histogram

FILE = "test/attribute/full/MEAD_ID.json"


def page(clips=(), turns=(("user", "Who?"), ("assistant", "She.")), rejected=()):
    shown = [ShownSample(f"{FILE}#0", FILE, turns, clips)]
    return dataset_page(
        DatasetView("a & b", {FILE: 1200, "test/qa/full/mine.json": 3}, [1, 2], [3, 3], shown, rejected)
    )


def test_a_histogram_counts_every_value_once():
    chart = histogram([0, 1, 1, 5, 100], title="words", x_label="words", most_bars=10)
    ET.fromstring(chart)
    titles = re.findall(r"<title>([^<]*)</title>", chart)
    assert titles == ["0 to 10: 4", "99 to 109: 1"]
    assert "nothing to count" in histogram([], title="words", x_label="words")
    assert re.findall(r"<title>([^<]*)</title>", histogram([7, 7], title="w", x_label="w")) == ["7: 2"]


def test_frames_are_inside_and_in_order():
    frames = np.stack([np.full((20, 30, 3), value, np.uint8) for value in (10, 200)])
    text = page([ShownClip("videos/a.mp4", frames, (0.0, 1.5), "2 frames")])
    images = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', text)
    assert [alt for _, alt in images] == ["0.0 s", "1.5 s"]
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data, _ in images]
    assert shown[0].shape == (20, 30, 3) and abs(shown[0].mean() - 10) < 3 and abs(shown[1].mean() - 200) < 3


def test_nothing_from_the_data_becomes_markup_and_nothing_is_loaded():
    evil = "<script>alert(1)</script>"
    text = page([ShownClip(evil, fault=evil)], (("user", evil), ("assistant", evil)), [(evil, evil)])
    assert "<script" not in text and text.count("&lt;script&gt;") == 6
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import', text)


def test_tasks_come_with_stage_and_form_and_unknown_ones_are_named():
    text = page()
    assert "<td>identity</td><td>attribute</td><td>choice</td>" in text and "1,200" in text
    assert "<td>unknown</td>" in text and "a &amp; b" in text


def test_the_split_and_why_samples_and_clips_are_missing_stand_at_the_top():
    clips = [ShownClip(f"{n}.mp4", fault="<no> frames") for n in range(2)]
    rejected = [*((f"x#{n}", "video 'a.mp4' is missing") for n in range(3)), ("y#0", "no answer")]
    view = DatasetView("a", {FILE: 2}, [1], [3], [ShownSample("i", FILE, (), tuple(clips))], rejected, "train")
    top = dataset_page(view).partition("<h2>Tasks")[0]
    assert "Split train: 2 samples, 4 left out." in top
    assert "Left out: 3 times video &#x27;a.mp4&#x27; is missing; no answer." in top
    assert "Clips without frames: 2 times &lt;no&gt; frames." in top
    assert why(["a", "b", "b", "c", "d", "e"]) == "2 times b; a; c; 2 other reasons"


def test_lengths_say_where_they_are_those_of_some_samples():
    assert "<h2>Lengths of 2 random samples</h2>" in page()
    shown = dataset_page(DatasetView("a", {FILE: 2}, [1, 2], [3, 3], [], []))
    assert "<h2>Lengths</h2>" in shown


def test_a_flood_of_rejected_samples_is_cut_and_counted():
    text = page(rejected=[(f"x#{n}", "bad") for n in range(MOST_REJECTED + 7)])
    assert (
        text.count('<td class="id">bad') == MOST_REJECTED
        and "And 7 more" in text
        and f"{MOST_REJECTED + 7} left out" in text
    )
