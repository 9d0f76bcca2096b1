"""The page that shows a dataset: counts, lengths, samples with their frames, and what was left out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from videmo_jax.reports.clips import CLIP_STYLE, ShownClip, clip_figure
from videmo_jax.reports.figures import histogram
from videmo_jax.reports.page import page
from videmo_jax.tasks.taxonomy import task_of

MOST_REJECTED = 500  # lines; a broken download of millions must not make a page that no browser opens
MOST_REASONS = 3  # told at the top
STYLE = (
    CLIP_STYLE
    + """
h2 { margin: 2rem 0 .5rem; } h3 { margin: 0 0 .25rem; font-size: 1rem; }
@media (max-width: 40rem) {
  .tasks tr { display: grid; grid-template-columns: 1fr 5.5rem 4.5rem 4.5rem; border-bottom: 1px solid var(--grid); }
  .tasks td, .tasks th { border: 0; padding-bottom: 0; } .tasks td.id { grid-column: 1 / -1; opacity: .75; }
  .tasks th:last-child { display: none; } td.id { min-width: 6rem; }
}
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--grid); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.id { overflow-wrap: anywhere; min-width: 14rem; }
article { background: var(--card); border-radius: .5rem; padding: .75rem; min-width: 0; }
.turn { white-space: pre-line; overflow-wrap: anywhere; margin: .5rem 0 0; max-height: 16rem; overflow-y: auto; }
.answer { border-left: 3px solid var(--line); padding-left: .6rem; font-weight: 600; }
"""
)


@dataclass(frozen=True)
class ShownSample:
    """A sample to show: its id, annotation file, turns as (role, text), and clips."""

    id: str
    file: str
    turns: tuple[tuple[str, str], ...]
    clips: tuple[ShownClip, ...]


@dataclass(frozen=True)
class DatasetView:
    """All that the page says.

    Attributes:
      title: of the page.
      counts: samples by annotation file.
      answer_words: words of the answer of every sample, or of random ones where there are many.
      question_words: words of the first question of the same ones.
      shown: the samples to show.
      rejected: (id, reason) of every sample that was left out.
      split: of the dataset; empty where it has none.
    """

    title: str
    counts: Mapping[str, int]
    answer_words: Sequence[int]
    question_words: Sequence[int]
    shown: Sequence[ShownSample]
    rejected: Sequence[tuple[str, str]]
    split: str = ""


def why(reasons: Iterable[str]) -> str:
    """The reasons in a line, the most frequent first, each with how often it is there; empty without any."""
    counts = Counter(reasons)
    texts = [f"{count:,} times {reason}" if count > 1 else reason for reason, count in counts.most_common(MOST_REASONS)]
    more = [f"{len(counts) - MOST_REASONS:,} other reasons"] if len(counts) > MOST_REASONS else []
    return "; ".join([*texts, *more])


def dataset_page(view: DatasetView) -> str:
    """The page as one HTML document, frames inside."""
    split = f"Split {escape(view.split)}: " if view.split else ""
    reasons = [reason for _, reason in view.rejected]
    faults = [clip.fault for sample in view.shown for clip in sample.clips if clip.fault]
    # One alone is told where its sample stands.
    troubles = [
        f"{what}: {why(many)}."
        for what, many in (("Left out", reasons), ("Clips without frames", faults))
        if len(many) > 1
    ]
    body = [
        f"<p>{split}{sum(view.counts.values()):,} samples, {len(view.rejected):,} left out.</p>",
        *(f'<p class="small wrong">{escape(text)}</p>' for text in troubles),
        "<h2>Tasks</h2>",
        _task_table(view.counts),
        _lengths_heading(len(view.answer_words), sum(view.counts.values())),
        histogram(view.answer_words, title="words of an answer", x_label="words"),
        histogram(view.question_words, title="words of a question", x_label="words"),
        "</main>",
        f"<h2>{len(view.shown)} random samples</h2><main>",
        *map(_card, view.shown),
        "</main><h2>Left out</h2>",
        _rejected(view.rejected),
    ]
    return page(view.title, "".join(body), style=STYLE)


def _lengths_heading(measured: int, samples: int) -> str:
    some = f" of {measured:,} random samples" if measured < samples else ""
    return f"<h2>Lengths{some}</h2><main>"


def _task_table(counts: Mapping[str, int]) -> str:
    rows = []
    for file, count in counts.items():
        task = task_of(file)
        name, stage, form = (task.name, task.stage, task.form) if task else ("unknown", "-", "-")
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{stage}</td><td>{form.replace('_', ' ')}</td>"
            f'<td class="number">{count:,}</td><td class="id">{escape(file)}</td></tr>'
        )
    return (
        '<div class="wide tasks"><table><tr><th>task</th><th>stage</th><th>answers</th><th class="number">samples</th>'
        f"<th>file</th></tr>{''.join(rows)}</table></div>"
    )


def _card(sample: ShownSample) -> str:
    task = task_of(sample.file)
    heading = f"{task.name} · {task.stage} · {task.form.replace('_', ' ')}" if task else "unknown task"
    turns = "".join(
        f'<p class="turn{" answer" * (role == "assistant")}">{_role(role)}{escape(text)}</p>'
        for role, text in sample.turns
    )
    return (
        f'<article><h3>{escape(heading)}</h3><p class="small">{escape(sample.id)}</p>'
        f"{''.join(map(clip_figure, sample.clips))}{turns}</article>"
    )


def _role(role: str) -> str:
    """Questions and answers can be told apart by their look; only instructions need a name."""
    return '<span class="small">system: </span>' if role == "system" else ""


def _rejected(rejected: Sequence[tuple[str, str]]) -> str:
    if not rejected:
        return "<p>None.</p>"
    rows = "".join(
        f'<tr><td class="id">{escape(id)}</td><td class="id">{escape(reason)}</td></tr>'
        for id, reason in rejected[:MOST_REJECTED]
    )
    more = f"<p>And {len(rejected) - MOST_REJECTED:,} more.</p>" if len(rejected) > MOST_REJECTED else ""
    return f'<div class="wide"><table><tr><th>sample</th><th>reason</th></tr>{rows}</table></div>{more}'
