"""The page of a training run: its curves and its config."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from videmo_jax.reports.figures import line_chart
from videmo_jax.training.metrics import read_metrics

CURVES = {
    "loss": "loss, nats a token",
    "accuracy": "share of trained tokens ranked first",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm before clipping",
    "tokens_per_second": "tokens a second, text and vision",
    "data_wait_share": "share of time waiting for data",
}
STYLE = """
:root { color-scheme: light dark; --line: #2563eb; --grid: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
polyline { fill: none; stroke: var(--line); stroke-width: 2; } .grid { stroke: var(--grid); }
text { fill: currentColor; font-size: 13px; } pre { overflow: auto; font-size: 13px; }
"""


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
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><p>Last: {escape(last)}.</p><main>{''.join(charts)}</main>"
        f"<details><summary>Config</summary><pre>{escape(json.dumps(config, indent=2))}</pre></details></body></html>\n"
    )
    return path
