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
    assert "nothing was logged" in write_training_report(tmp_path, "new", {}).read_text()
