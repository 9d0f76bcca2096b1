"""The page of a training run: its curves and its config."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from videmo_jax.reports.figures import line_chart
from videmo_jax.reports.page import page
from videmo_jax.training.metrics import read_metrics

CURVES = {
    "loss": "loss, nats a token",
    "accuracy": "share of trained tokens ranked first",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm before clipping",
    "tokens_per_second": "tokens a second, text and vision",
    "data_wait_share": "share of time waiting for data",
}


def write_training_report(workdir: Path, *, title: str, config: Mapping[str, Any]) -> Path:
    """Writes WORKDIR/report.html, one file without outside parts, from metrics.jsonl."""
    lines = read_metrics(workdir)
    # The first logged step holds the compilation, which would hide the rates after it.
    steady = lines[1:] or lines
    charts = [
        line_chart([line["step"] for line in steady], [line[name] for line in steady], title=label, x_label="step")
        for name, label in CURVES.items()
        if steady and name in steady[-1]
    ]
    last = ", ".join(f"{name} {value:.4g}" for name, value in lines[-1].items()) if lines else "nothing was logged"
    path = workdir / "report.html"
    body = (
        f"<p>Last: {escape(last)}.</p><main>{''.join(charts)}</main>"
        f"<details><summary>Config</summary><pre>{escape(json.dumps(config, indent=2))}</pre></details>"
    )
    path.write_text(page(title, body))
    return path
