"""The page of what a policy answered: groups of answers with their rewards, beside the truth, and their trees."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import shorten

from videmo_jax.affective.difference import DiffLine
from videmo_jax.affective.tree import AffectiveTree, Person
from videmo_jax.files.writing import write_text
from videmo_jax.reports.filters import FILTER_STYLE, filter_form, filtered
from videmo_jax.reports.page import page
from videmo_jax.reports.trees import TREE_STYLE, tree_figure

FILE = "samples.html"
MOST_GROUPS = 200  # on a page
FIRST, NEWEST = 40, 60  # of these, the first and the last of the run; the others are spread evenly between them
BEGINNING = 200  # characters of an answer that is closed, before the line's end cuts them
HEAD = '<p class="head-row"><span class="row"><span></span><b>reward</b><span></span><b>advantage</b></span></p>'
SIGNS = {"same": "", "other": "~", "added": "+", "missing": "-"}

STYLE = f"""{FILTER_STYLE}{TREE_STYLE}
:root {{ --line: light-dark(#2563eb, #7aa5ff); --bad: light-dark(#b00020, #ff8a8a);
  --odd: light-dark(#9a5b00, #f5b94d); }}
main {{ grid-template-columns: minmax(0, 1fr); }}
article {{ background: var(--card); border-radius: .5rem; padding: .75rem; min-width: 0; content-visibility: auto;
  contain-intrinsic-size: auto 40rem; }}
h3 {{ margin: 0; font-size: 1rem; }} h4 {{ margin: .75rem 0 .25rem; font-size: 14px; }}
.small {{ font-size: 13px; opacity: .8; overflow-wrap: anywhere; margin: .15rem 0; }}
.bad {{ color: var(--bad); }} .text {{ white-space: pre-line; overflow-wrap: anywhere; margin: .25rem 0; }}
.text {{ max-height: 18rem; overflow-y: auto; }}
.sides {{ display: grid; gap: 0 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }}
.sides > div {{ min-width: 0; }} .tree figcaption {{ font-size: 14px; }}
details {{ border-top: 1px solid var(--grid); padding: .3rem 0; }} summary {{ cursor: pointer; font-size: 13px; }}
.row {{ display: inline-grid; width: calc(100% - 1.25rem); vertical-align: top; align-items: center; gap: 0 .5rem;
  grid-template-columns: 2.25rem minmax(0, 1fr) 3rem minmax(0, 1fr) 3.5rem; font-variant-numeric: tabular-nums; }}
.row > span {{ text-align: right; }} .row small {{ grid-column: 2 / -1; opacity: .8; font-size: 12px; }}
.row q {{ grid-column: 2 / -1; font-size: 13px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }}
.row q::before, .row q::after {{ content: none; }} details[open] .row q {{ display: none; }}
.head-row {{ margin: 0; padding-left: 1.25rem; font-size: 12px; }} .head-row .row {{ width: 100%; }}
.bar-of {{ height: .55rem; border-radius: 2px; background: var(--grid); position: relative; overflow: hidden; }}
.bar-of b {{ position: absolute; top: 0; bottom: 0; background: var(--line); }}
.bar-of b.below {{ background: var(--bad); }}
.outline p {{ margin: 0; font-size: 13px; line-height: 1.45; display: flex; gap: .5rem; overflow-wrap: anywhere;
  padding-left: calc(1.1rem * min(var(--d), 8)); }}
.outline p > b {{ width: .8rem; flex: none; text-align: center; }} .outline p > span {{ flex: 1; min-width: 0; }}
.outline p > small {{ flex: none; opacity: .8; font-variant-numeric: tabular-nums; }}
.outline em {{ font-style: normal; font-weight: 600; }}
.outline .attribute em {{ color: light-dark(#0f766e, #2dd4bf); }}
.outline .expression em {{ color: light-dark(#1d4ed8, #7aa5ff); }}
.outline .emotion em {{ color: light-dark(#b4236b, #ff8ac2); }}
.outline .other {{ background: light-dark(#fff1d6, #3d2c0a); }}
.outline .added {{ background: light-dark(#ffe1e4, #4a1420); }}
.outline .added span {{ text-decoration: line-through; }}
.outline .missing {{ outline: 1px dashed var(--bad); outline-offset: -1px; opacity: .85; }}
.outline .other > b {{ color: var(--odd); }} .outline .added > b, .outline .missing > b {{ color: var(--bad); }}
.key p {{ display: inline-flex; padding: 0 .4rem; margin: 0 .5rem .25rem 0; }}
"""


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One answer.

    Attributes:
      number: in its group, from 1 on.
      text: as it was sampled.
      reward: in [0, 1]; None where there is none.
      advantage: of the answer.
      tokens: its length.
      cut: whether the limit of tokens ended it.
      lines: its tree laid over the truth's; None where trees are not compared.
    """

    number: int
    text: str
    reward: float | None
    advantage: float
    tokens: int
    cut: bool
    lines: Sequence[DiffLine] | None = None


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """A prompt and its answers.

    Attributes:
      step: of the update that they are for.
      id, file: of the sample and its annotation file.
      task, branch: what was asked, and what branch of the reward scored it.
      videos: paths.
      question, truth: texts.
      tree: of the truth; None where trees are not compared.
      answers: best first.
      failure: why there are no rewards; None where there are.
    """

    step: int
    id: str
    file: str
    task: str
    branch: str
    videos: Sequence[str]
    question: str
    truth: str
    tree: AffectiveTree | None
    answers: Sequence[ShownAnswer]
    failure: str | None = None


def spread(count: int, most: int = MOST_GROUPS, first: int = FIRST, newest: int = NEWEST) -> list[int]:
    """Which of `count` groups to show: all, or `most`: the `first` and the `newest`, and between them at even steps."""
    if count <= most:
        return list(range(count))
    middle, room = count - first - newest, most - first - newest
    between = [first + (2 * place + 1) * middle // (2 * room) for place in range(room)]
    return [*range(first), *between, *range(count - newest, count)]


def write_rollouts_page(folder: Path, *, title: str, groups: Sequence[ShownGroup]) -> Path:
    """Writes FOLDER/samples.html, one file without outside parts, and gives its path.

    Args:
      folder: which is there.
      title: plain text.
      groups: by step; of many, MOST_GROUPS are asked for and shown (`spread`), newest first.
    """
    shown = [groups[place] for place in spread(len(groups))]
    write_text(folder / FILE, rollouts_page(title, shown[::-1], len(groups)))
    return folder / FILE


def rollouts_page(title: str, groups: Sequence[ShownGroup], in_all: int) -> str:
    """The page as one HTML document; `in_all` groups were logged, of which these are shown, in their order."""
    some = (
        f"{len(groups):,} of {in_all:,} groups, newest first: the first {FIRST} and the newest {NEWEST} of the run, "
        "and others spread evenly between them."
        if len(groups) < in_all
        else f"{in_all:,} groups, newest first."
    )
    body = [
        f"<p>{some} Answers are sorted by reward; the bars of advantages have the scale of their group.</p>",
        _key() if any(group.tree is not None for group in groups) else "",
        filter_form(
            {
                "step": [str(group.step) for group in groups],
                "branch": sorted({group.branch for group in groups}),
                "task": sorted({group.task for group in groups}),
            },
            boxes={"failed": ("yes", "only without rewards")},
        ),
        filtered(map(_group, groups)),
    ]
    return page(title, "".join(body), style=STYLE)


def _key() -> str:
    words = {
        "other": "in place of another node of the truth",
        "added": "not in the truth",
        "missing": "in the truth alone",
    }
    marks = "".join(f'<p class="{mark}"><b>{SIGNS[mark]}</b>{text}</p>' for mark, text in words.items())
    return f'<div class="outline key">{marks}<span class="small">numbers: cost in the edit distance</span></div>'


def _group(group: ShownGroup) -> str:
    videos = "".join(f" · {video}" for video in group.videos)
    failure = f'<p class="bad">Left out, no rewards: {escape(group.failure)}</p>' if group.failure is not None else ""
    picture = ""
    if group.tree is not None:
        name = f"its affective tree, {len(group.tree)} nodes"
        picture = f"<details open><summary>{name}</summary>{tree_figure(group.tree)}</details>"
    return (
        f'<article data-step="{group.step}" data-branch="{escape(group.branch)}" data-task="{escape(group.task)}" '
        f'data-failed="{"no" if group.failure is None else "yes"}">'
        f"<h3>step {group.step} · {escape(group.task)} · {escape(group.branch)}</h3>"
        f'<p class="small">{escape(group.id)}{escape(videos)}</p>{failure}<div class="sides"><div>'
        f'<h4>Question</h4><p class="text">{escape(group.question)}</p>'
        f'<h4>Truth</h4><p class="text">{escape(group.truth)}</p>{picture}</div>'
        f"<div><h4>{len(group.answers)} answers</h4>{HEAD}{_answers(group.answers)}</div></div></article>"
    )


def _answers(answers: Sequence[ShownAnswer]) -> str:
    """The best one is open; a text that was there already is not shown again."""
    scale = max((abs(answer.advantage) for answer in answers), default=0.0)
    parts, said = [], dict[str, int]()
    for place, answer in enumerate(answers):
        if answer.text in said:
            inside = f'<p class="small">The same text as answer {said[answer.text]}.</p>'
        else:
            said[answer.text] = answer.number
            text = escape(answer.text) if answer.text.strip() else "<em>nothing</em>"
            inside = f'<p class="text">{text}</p>{_outline(answer.lines)}'
        parts.append(f"<details{' open' * (place == 0)}><summary>{_row(answer, scale)}</summary>{inside}</details>")
    return "".join(parts)


def _row(answer: ShownAnswer, scale: float) -> str:
    """Reward and advantage as bars and numbers, and the length below."""
    reward = "none" if answer.reward is None else f"{answer.reward:.3f}"
    share = abs(answer.advantage) / scale / 2 if scale else 0.0
    side = "left:50%" if answer.advantage >= 0 else "right:50%"
    below = ' class="below"' if answer.advantage < 0 else ""
    edits = ""
    if answer.lines is not None:
        edits = f" · edit distance {sum(line.cost for line in answer.lines):.2f}"
    cut = ' · <span class="bad">cut off by the limit</span>' if answer.cut else ""
    return (
        f'<span class="row"><span>#{answer.number}</span>'
        f'<i class="bar-of"><b style="left:0;width:{min(answer.reward or 0.0, 1):.1%}"></b></i>'
        f'<span title="reward">{reward}</span>'
        f'<i class="bar-of"><b{below} style="{side};width:{share:.1%}"></b></i>'
        f'<span title="advantage">{answer.advantage:+.2f}</span>'
        f"<small>{answer.tokens} tokens{edits}{cut}</small>"
        f"<q>{escape(shorten(answer.text[:BEGINNING], BEGINNING, placeholder=' …'))}</q></span>"
    )


def _outline(lines: Sequence[DiffLine] | None) -> str:
    """The tree of an answer over the truth's, a node a line."""
    if lines is None:
        return ""
    return f'<div class="outline">{"".join(map(_line, lines))}</div>' if lines else '<p class="small">Empty tree.</p>'


def _line(line: DiffLine) -> str:
    level = "person" if isinstance(line.node, Person) else line.node.level
    truth = f" <small>truth: {_said(line.truth)}</small>" if line.truth is not None else ""
    cost = f"<small>{line.cost:.2f}</small>" if line.cost else ""
    return (
        f'<p class="{level} {line.mark}" style="--d:{line.depth}"><b>{SIGNS[line.mark]}</b>'
        f"<span>{_said(line.node)}{truth}</span>{cost}</p>"
    )


def _said(node: object) -> str:
    return "person" if isinstance(node, Person) else f"<em>{escape(node.aspect)}</em> {escape(node.item)}"
