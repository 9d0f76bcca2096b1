"""The page of a training run: its curves and its config."""

import json
from collections.abc import Mapping, Sequence
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
    "mfu": "model FLOPs utilisation, in steps",
    "goodput": "goodput: share of time since the start that went into steps",
    "data_wait_share": "share of time in which devices wait for data",
    "hbm_share": "share of the device's memory, highest so far",
}

PERPLEXITY = "perplexity_"


def write_training_report(workdir: Path, title: str, config: Mapping[str, Any]) -> Path:
    """Writes WORKDIR/report.html, one file without outside parts, from metrics.jsonl."""
    lines = read_metrics(workdir)
    trained = [line for line in lines if "loss" in line]
    # The first logged step holds the compilation, which would hide the rates after it.
    steady = trained[1:] or trained
    charts = [
        line_chart([line["step"] for line in steady], [line[name] for line in steady], title=label, x_label="step")
        for name, label in CURVES.items()
        if steady and name in steady[-1]
    ]
    last = (
        ", ".join(f"{name} {_number(value)}" for name, value in trained[-1].items())
        if trained
        else "nothing was logged"
    )
    path = workdir / "report.html"
    body = (
        f"<p>Last: {escape(last)}.</p>{_levels(lines)}"
        f"<main>{''.join(charts)}</main>"
        f"<details><summary>Config</summary><pre>{escape(json.dumps(config, indent=2))}</pre></details>"
    )
    path.write_text(page(title, body))
    return path


def _levels(lines: Sequence[Mapping[str, Any]]) -> str:
    """Perplexity of held-out samples of each level, before the first stage and after each one."""
    measured = [line for line in lines if any(name.startswith(PERPLEXITY) for name in line)]
    if not measured:
        return ""
    names = [name for name in measured[0] if name.startswith(PERPLEXITY)]
    head = "".join(f'<th class="number">{escape(name.removeprefix(PERPLEXITY))}</th>' for name in names)
    rows = []
    for line in measured:
        cells = "".join(f'<td class="number">{line[name]:.3f}</td>' for name in names)
        rows.append(f'<tr><td>{escape(line["measured"])}</td><td class="number">{line["step"]}</td>{cells}</tr>')
    return (
        '<h2>Perplexity of held-out samples</h2><div class="wide"><table><tr><th>when</th>'
        f'<th class="number">step</th>{head}</tr>{"".join(rows)}</table></div>'
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
