"""The page of an evaluation: tables, a chart beside the paper's rows, and items to look through."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from videmo_jax.reports.clips import Strip
from videmo_jax.reports.figures import Row, row_chart
from videmo_jax.reports.filters import FILTER_STYLE, filter_form, filtered
from videmo_jax.reports.page import facts_list, page

STYLE = (
    FILTER_STYLE
    + """
h2 { margin: 2rem 0 .5rem; } h3 { margin: 0; font-size: 1rem; }
table { white-space: nowrap; } tr.ours td { font-weight: 700; background: var(--card); }
td:first-child, th:first-child { position: sticky; left: 0; background: Canvas; }
.headline { font-weight: 700; margin: .25rem 0; }
.small { font-size: 13px; opacity: .8; overflow-wrap: anywhere; margin: .25rem 0; }
article { background: var(--card); border-radius: .5rem; padding: .75rem; min-width: 0; }
article .text { white-space: pre-line; overflow-wrap: anywhere; margin: .5rem 0 0; }
article .text { max-height: 14rem; overflow-y: auto; }
.answer { border-left: 3px solid var(--line); padding-left: .6rem; }
.truth { border-left: 3px solid var(--grid); padding-left: .6rem; }
.verdict { float: right; font-weight: 700; padding: 0 .5rem; border-radius: .5rem; }
.right { color: light-dark(#166534, #86efac); } .wrong { color: light-dark(#b00020, #ff8a8a); }
.strip { overflow-x: auto; margin: .5rem 0; } .strip div { border-radius: 2px; }
"""
)


@dataclass(frozen=True)
class ShownTable:
    """A table: its title, headings, lines as (label, whether it is this run's, cells), and notes below."""

    title: str
    heading: Sequence[str]
    rows: Sequence[tuple[str, bool, Sequence[str]]]
    notes: Sequence[str]


@dataclass(frozen=True)
class ShownItem:
    """One judged item.

    Attributes:
      id: file and line.
      task: what the filter offers.
      question, answer, truth: texts.
      verdict: what the item is worth, in a word or number.
      right: whether it counts as right; None where that cannot be said.
      remark: of the judge, or empty.
      clips: names in the view's strips, or of clips that could not be read.
    """

    id: str
    task: str
    question: str
    answer: str
    truth: str
    verdict: str
    right: bool | None
    remark: str
    clips: Sequence[str]


@dataclass(frozen=True)
class EvaluationView:
    """All that the page says.

    Attributes:
      title: of the page.
      facts: how answers were made and judged, by name.
      warnings: what a reader must know of the answers.
      comparison: this run's values beside the paper's.
      tables: all tables.
      items: those to look through.
      items_in_all: of the evaluation.
      strips: frames by clip; what is missing here could not be read.
      headline: the results in one line; empty without.
      terms: whether the results may be compared with the paper's rows, and what else holds for all tables.
    """

    title: str
    facts: Mapping[str, str]
    warnings: Sequence[str]
    comparison: Sequence[Row]
    tables: Sequence[ShownTable]
    items: Sequence[ShownItem]
    items_in_all: int
    strips: Mapping[str, Strip]
    headline: str = ""
    terms: Sequence[str] = ()


def evaluation_page(view: EvaluationView) -> str:
    """The page as one HTML document, frames inside; it needs no network, and can be read without its script."""
    numbers = {clip: number for number, clip in enumerate(view.strips)}
    pictures = "".join(
        f".s{numbers[clip]}{{width:{strip.width}px;height:{strip.height}px;background:url({strip.url})}}"
        for clip, strip in view.strips.items()
    )
    body = [
        f'<p class="headline">{escape(view.headline)}</p>' if view.headline else "",
        *(f'<p class="small">{escape(text)}</p>' for text in view.terms),
        "<h2>Beside the paper</h2>",
        row_chart(view.comparison, title="all columns, in percent", low=0, high=100),
        *map(_table, view.tables),
        "<h2>What to look at</h2>" if view.warnings else "",
        *(f'<p class="small wrong">{escape(text)}</p>' for text in view.warnings),
        f"<h2>How</h2>{facts_list(view.facts)}",
        f"<h2>Items</h2><p>{len(view.items):,} of {view.items_in_all:,}, spread evenly over each file: as many wrong "
        "ones as right ones, where there are.</p>",
        filter_form({"task": [item.task for item in view.items]}, boxes={"verdict": ("wrong", "only wrong")}),
        filtered(_item(item, view, numbers) for item in view.items),
    ]
    return page(view.title, "".join(body), style=STYLE + pictures)


def _table(table: ShownTable) -> str:
    heading = "".join(f'<th class="number">{escape(name)}</th>' for name in table.heading)
    rows = "".join(
        f'<tr class="{"ours" * ours}"><td>{escape(label)}</td>'
        + "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for label, ours, cells in table.rows
    )
    notes = "".join(f'<p class="small">{escape(note)}</p>' for note in table.notes)
    return (
        f'<h2>{escape(table.title)}</h2><div class="wide"><table><tr><th></th>{heading}</tr>{rows}</table></div>{notes}'
    )


def _item(item: ShownItem, view: EvaluationView, numbers: Mapping[str, int]) -> str:
    kind = {True: "right", False: "wrong", None: ""}[item.right]
    remark = f'<p class="small">{escape(item.remark)}</p>' if item.remark else ""
    return (
        f'<article data-task="{escape(item.task)}" data-verdict="{kind}">'
        f'<span class="verdict {kind}">{escape(item.verdict)}</span><h3>{escape(item.task)}</h3>'
        f'<p class="small">{escape(item.id)}</p>{"".join(_clip(clip, view, numbers) for clip in item.clips)}'
        f'<p class="text">{escape(item.question)}</p>'
        f'<p class="text answer"><span class="small">answer </span>{escape(item.answer) or "<i>none</i>"}</p>'
        f'<p class="text truth"><span class="small">truth </span>{escape(item.truth)}</p>{remark}</article>'
    )


def _clip(clip: str, view: EvaluationView, numbers: Mapping[str, int]) -> str:
    if clip not in numbers:
        return f'<p class="small wrong">{escape(clip)}: no frames to show</p>'
    label = escape(view.strips[clip].label)
    return (
        f'<div class="strip"><div class="s{numbers[clip]}" role="img" aria-label="{label}" title="{label}"></div></div>'
    )
