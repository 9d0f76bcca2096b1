"""The page of a run: whole, without outside parts, and honest about what was not logged."""

import math
import re
import xml.etree.ElementTree as ET

from videmo_jax.reports.figures import HEIGHT, WIDTH, line_chart
from videmo_jax.reports.training import write_training_report
from videmo_jax.training.metrics import MetricsWriter


def points(chart):
    return [tuple(map(float, pair.split(","))) for pair in re.search(r'points="([^"]*)"', chart)[1].split()]


def test_a_curve_stays_inside_and_has_the_shape_of_its_values():
    chart = line_chart([1, 2, 3], [5.0, 1.0, 3.0], title="loss <nats>", x_label="step")
    ET.fromstring(chart)
    (x1, y1), (x2, y2), (x3, y3) = points(chart)
    assert 0 < x1 < x2 < x3 < WIDTH
    assert 0 < y1 < y3 < y2 < HEIGHT  # larger values stand higher
    assert x2 - x1 == x3 - x2


def test_curves_of_one_chart_share_its_axes_and_are_told_apart():
    others = {"<b>": ([2, 4], [9.0, 1.0]), "none": ([1], [math.nan])}
    chart = line_chart([0, 2], [1.0, 5.0], title="reward", x_label="step", others=others)
    (first, second, empty), root = re.findall(r'points="([^"]*)"', chart), ET.fromstring(chart)
    at = [[tuple(map(float, pair.split(","))) for pair in each.split()] for each in (first, second)]
    assert at[0][0][1] == at[1][1][1] and at[0][1][0] == at[1][0][0]  # equal values, equal steps
    assert at[1][0][1] < at[0][1][1] and not empty
    assert [line.get("class") for line in root.iter("polyline")] == [None, "tick0", "tick1"]
    assert [key.find("svg").tail for key in root.iter("span")] == ["<b>", "none"]


def test_curves_without_numbers():
    assert "nothing was logged" in line_chart([1], [math.nan], title="loss", x_label="step")
    assert len(points(line_chart([1], [2.0], title="loss", x_label="step"))) == 1


def test_the_report_is_one_file(tmp_path):
    with MetricsWriter(tmp_path, after_step=0) as metrics:
        for step in range(1, 30):
            metrics.write({"step": step, "loss": 1 / step, "learning_rate": 1e-3})
    text = write_training_report(tmp_path, "a & b", {"model": "<tiny>"}).read_text()
    assert text.count("<svg") == 2
    assert "a &amp; b" in text
    assert "&lt;tiny&gt;" in text
    assert not re.search(r"(src|href)=", text)


def test_a_run_without_metrics_has_a_page_too(tmp_path):
    assert "nothing was logged" in write_training_report(tmp_path, title="new", config={}).read_text()


def charts(text):
    return dict(re.findall(r"<figcaption>([^<]*)</figcaption><svg[^>]*>(.*?)</svg>", text))


def test_a_run_of_reinforcement_learning_has_its_curves(tmp_path):
    names = [
        *("reward", "flat_groups", "failed_groups", "kl", "clipped_low", "clipped_high", "entropy", "length", "cut"),
        *("left_out_flat", "draws", "dropped_groups"),
        *("log_prob_gap", "seconds_rollout", "seconds_reward", "seconds_update"),
        *(f"{name}/{branch}" for name in ("reward", "reward_std") for branch in ("rule", "caption", "tree", "own")),
    ]
    with MetricsWriter(tmp_path, after_step=0) as metrics:
        for step in range(1, 12):
            metrics.write({"step": step, "loss": 1 / step, **{name: float(step) for name in names}})
    text = write_training_report(tmp_path, title="rl", config={}).read_text()
    found = charts(text)
    assert len(found) == text.count("<svg") == 1 + len(names)
    drawn = {title: points(chart) for title, chart in found.items()}
    assert len(drawn["reward, affective trees"]) == 11 and len(drawn["seconds of the rollout"]) == 10
    heights = [y for _, y in drawn["reward, mean"]]
    assert heights == sorted(heights, reverse=True)


def test_only_rates_leave_out_the_step_that_compiles(tmp_path):
    with MetricsWriter(tmp_path, after_step=0) as metrics:
        for step in range(1, 4):
            metrics.write({"step": step, "loss": 9.0 / step, "tokens_per_second": 5.0 if step == 1 else 900.0})
    drawn = charts(write_training_report(tmp_path, title="sft", config={}).read_text())
    counts = {title: len(points(chart)) for title, chart in drawn.items()}
    assert counts == {"loss, nats a token": 3, "tokens a second, text and vision": 2}


def test_steps_that_lack_a_branch_are_left_out_of_its_curve(tmp_path):
    with MetricsWriter(tmp_path, after_step=0) as metrics:
        for step in range(1, 6):
            own = {"reward/own": 0.5, "reward/mixed/a:b": 0.1} if step in (2, 4) else {}
            metrics.write({"step": step, "loss": 1.0, "reward": math.nan if step == 3 else 0.1 * step, **own})
    drawn = {
        title: len(points(chart))
        for title, chart in charts(write_training_report(tmp_path, title="rl", config={}).read_text()).items()
    }
    parts = {"reward, one&#x27;s own": 2, "a:b, mean in mixtures": 2}
    assert drawn == {"loss, nats a token": 5, "reward, mean": 4, **parts}


def test_held_out_measurements_are_a_table_and_curves(tmp_path):
    with MetricsWriter(tmp_path, after_step=-1) as metrics:
        metrics.write({"step": 0, "measured": "before <it>", "held_out/tree": 0.25, "held_out/rule": 0.5})
        metrics.write({"step": 1, "loss": 2.0, "reward": 0.3})
        metrics.write({"step": 10, "measured": "later", "held_out/tree": 0.75})
    text = write_training_report(tmp_path, title="rl", config={}).read_text()
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr><td>.*?</tr>", text)]
    assert rows == [["before &lt;it&gt;", "0", "0.25", "0.5"], ["later", "10", "0.75", "-"]]
    assert len(points(charts(text)["tree, held out"])) == 2 and "rule, held out" not in charts(text)
    assert "Last: step 1," in text


def test_the_report_links_to_the_page_of_samples_where_there_is_one(tmp_path):
    assert "href=" not in write_training_report(tmp_path, title="rl", config={}).read_text()
    (tmp_path / "samples.html").write_text("")
    assert '<a href="samples.html">' in write_training_report(tmp_path, title="rl", config={}).read_text()
