"""The page of a training run: its curves and its config."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from videmo_jax.files.writing import write_text
from videmo_jax.reports.figures import line_chart
from videmo_jax.reports.page import page
from videmo_jax.reports.rollouts import FILE as SAMPLES
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

RATES = frozenset({"tokens_per_second", "mfu", "goodput", "data_wait_share"})  # over time

BRANCHES = {
    **{"rule": "rules", "caption": "short captions", "tree": "affective trees", "own": "one's own"},
    "mixed": "mixtures",
}
# Of reinforcement learning; steps in which a name was not logged are left out of its curve.
RL_CURVES = {
    "reward": "reward, mean",
    **{f"reward/{branch}": f"reward, {label}" for branch, label in BRANCHES.items()},
    **{f"reward_std/{branch}": f"spread of the reward in a group, {label}" for branch, label in BRANCHES.items()},
    "flat_groups": "share of groups without any spread",
    "failed_groups": "groups left out because a reward failed",
    "left_out_flat": "groups left out because they teach nothing",
    "draws": "rollouts of a step",
    "dropped_groups": "groups that teach something, drawn beyond the batch",
    "kl": "KL from the frozen reference, nats a token",
    "clipped_low": "share of tokens clipped below",
    "clipped_high": "share of tokens clipped above",
    "entropy": "entropy, nats a token",
    "length": "length of an answer, tokens",
    "cut": "share of answers that the limit of tokens cut off",
    "log_prob_gap": "gap of log-probabilities between sampler and trainer, nats, mean of its size",
    "seconds_rollout": "seconds of the rollout",
    "seconds_reward": "seconds of the rewards",
    "seconds_update": "seconds of the update",
}

MIXED = "reward/mixed/"
PERPLEXITY = "perplexity_"
HELD_OUT = "held_out/"


def write_training_report(workdir: Path, title: str, config: Mapping[str, Any]) -> Path:
    """Writes WORKDIR/report.html, one file without outside parts, from metrics.jsonl."""
    lines = read_metrics(workdir)
    trained = [line for line in lines if "loss" in line]
    charts = [
        *(_curve(lines, name, label) for name, label in (RL_CURVES | _components(lines)).items()),
        *(_curve(trained, name, label) for name, label in CURVES.items()),
    ]
    last = (
        ", ".join(f"{name} {_number(value)}" for name, value in trained[-1].items())
        if trained
        else "nothing was logged"
    )
    path = workdir / "report.html"
    body = (
        f"<p>Last: {escape(last)}.</p>{_samples(workdir)}{_levels(lines)}{_held_out(lines)}"
        f"<main>{''.join(charts)}</main>"
        f"<details><summary>Config</summary><pre>{escape(json.dumps(config, indent=2))}</pre></details>"
    )
    write_text(path, page(title, body))
    return path


def _components(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The curves of components of mixed rewards."""
    names = sorted({name for line in lines for name in line if name.startswith(MIXED)})
    return {name: f"{name.removeprefix(MIXED)}, mean in mixtures" for name in names}


def _curve(lines: Sequence[Mapping[str, Any]], name: str, label: str) -> str:
    """A chart of one name over the steps that have it; empty where none has."""
    points = [(line["step"], line[name]) for line in lines if isinstance(line.get(name), int | float)]
    if name.startswith("seconds_") or name in RATES:
        points = points[1:] or points  # the first holds the compilation, which would hide those after it
    if not points:
        return ""
    xs, ys = zip(*points, strict=True)
    return line_chart(xs, ys, title=label, x_label="step")


def _samples(workdir: Path) -> str:
    """A link to the page of samples, where there is one."""
    if not (workdir / SAMPLES).exists():
        return ""
    return f'<p><a href="{SAMPLES}">Samples: answers with their rewards and affective trees</a></p>'


def _held_out(lines: Sequence[Mapping[str, Any]]) -> str:
    """What was measured on held-out prompts: a curve for each name that has several steps, and all values."""
    measured = [line for line in lines if any(name.startswith(HELD_OUT) for name in line)]
    if not measured:
        return ""
    names = list(dict.fromkeys(name for line in measured for name in line if name.startswith(HELD_OUT)))
    charts = []
    for name in names:
        if len({line["step"] for line in measured if name in line}) > 1:
            charts.append(_curve(measured, name, f"{name.removeprefix(HELD_OUT)}, held out"))
    head = "".join(f'<th class="number">{escape(name.removeprefix(HELD_OUT))}</th>' for name in names)
    rows = []
    for line in measured:
        cells = "".join(f'<td class="number">{escape(_number(line.get(name, "-")))}</td>' for name in names)
        when = escape(str(line.get("measured", "")))
        rows.append(f'<tr><td>{when}</td><td class="number">{line["step"]}</td>{cells}</tr>')
    return (
        f'<h2>Held-out prompts</h2><main>{"".join(charts)}</main><div class="wide"><table><tr><th>when</th>'
        f'<th class="number">step</th>{head}</tr>{"".join(rows)}</table></div><h2>Training</h2>'
    )


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
