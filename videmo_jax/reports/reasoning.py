"""The page of a reasoning run: the frames, the affective tree, and the candidates of each level with their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from videmo_jax.affective.tree import AffectiveTree, Level
from videmo_jax.reports.clips import CLIP_STYLE, ShownClip, clip_figure
from videmo_jax.reports.page import facts_list, page
from videmo_jax.reports.trees import TREE_STYLE, tree_figure

STYLE = f"""{CLIP_STYLE}{TREE_STYLE}
h2 {{ margin: 2rem 0 .5rem; }} .asked {{ margin: .25rem 0 .75rem; opacity: .8; overflow-wrap: anywhere; }}
article {{ background: var(--card); border-radius: .5rem; padding: .75rem; min-width: 0;
  border-left: 3px solid transparent; }}
article.kept {{ border-left-color: var(--line); }}
article p {{ margin: .35rem 0; white-space: pre-line; overflow-wrap: anywhere; max-height: 20rem; overflow-y: auto; }}
article h3 {{ margin: 0; font-size: 14px; }} .kept h3 {{ color: var(--line); }}
.score {{ display: grid; grid-template-columns: 5.5rem 1fr 4.5rem; gap: .5rem; align-items: center; font-size: 13px;
  font-variant-numeric: tabular-nums; }}
.score i {{ height: .5rem; border-radius: 2px; background: var(--grid); }}
.score b {{ display: block; height: 100%; border-radius: 2px; background: var(--line); }}
.score span:last-child {{ text-align: right; }}
.frames {{ flex-wrap: wrap; gap: .25rem; }} .frames img {{ height: auto; width: 8.4rem; display: block; }}
.said {{ border-left: 3px solid var(--line); padding-left: .75rem; white-space: pre-line; overflow-wrap: anywhere; }}
:root {{ --line: light-dark(#2563eb, #7aa5ff); }}
"""


@dataclass(frozen=True)
class ShownCandidate:
    """A candidate: its text, its scores by name in their own units, their weighted sum, whether the limit cut it."""

    text: str
    scores: Mapping[str, float]
    score: float
    cut: bool = False


@dataclass(frozen=True)
class ShownLevel:
    """A level: what was asked, what was said, and the place of what was kept."""

    level: Level
    question: str
    candidates: Sequence[ShownCandidate]
    chosen: int


@dataclass(frozen=True)
class ReasoningView:
    """All that the page says.

    Attributes:
      title: of the page.
      clips: the frames that the model saw.
      tree: of all that was kept.
      levels: bottom-up.
      scorer: which sum decided, such as `mbr+0.5*logprob`.
      question, answer: the last question and its answer; both empty where there was none.
      about: other facts by name, such as the checkpoint and the seed.
    """

    title: str
    clips: Sequence[ShownClip]
    tree: AffectiveTree
    levels: Sequence[ShownLevel]
    scorer: str
    question: str = ""
    answer: str = ""
    about: Mapping[str, str] = field(default_factory=dict)


def reasoning_page(view: ReasoningView) -> str:
    """The page as one HTML document without outside parts."""
    last = f'<h2>Answer</h2><p class="asked">{escape(view.question)}</p><p class="said">{escape(view.answer)}</p>'
    body = [
        *(clip_figure(clip, times=True) for clip in view.clips),
        last if view.question else "",
        "<h2>Affective tree</h2>",
        '<p class="asked">From what is seen to what is felt. Each line joins what follows to what it follows from.</p>',
        tree_figure(view.tree),
        *(_level(level, view.scorer) for level in view.levels),
        _about(view.about),
    ]
    return page(view.title, "".join(body), style=STYLE)


def _level(level: ShownLevel, scorer: str) -> str:
    count = len(level.candidates)
    decided = f"{count} candidates, kept by {escape(scorer)}" if count > 1 else "one candidate"
    order = sorted(range(count), key=lambda place: (place != level.chosen, -level.candidates[place].score, place))
    cards = "".join(_candidate(level, place) for place in order)
    return (
        f'<h2>{level.level.capitalize()}s</h2><p class="small">{decided}</p>'
        f'<p class="asked">{escape(level.question)}</p><main>{cards}</main>'
    )


def _candidate(level: ShownLevel, place: int) -> str:
    each, kept = level.candidates[place], place == level.chosen
    heading = f"candidate {place + 1}{' · kept' * kept}{' · cut off' * each.cut}"
    scores = "".join(_score(level, name, value) for name, value in each.scores.items())
    if len(each.scores) > 1:
        scores += f'<div class="score"><span>sum</span><span></span><span>{each.score:.3f}</span></div>'
    text = escape(each.text) if each.text.strip() else "<em>nothing</em>"
    return f"<article{' class=kept' * kept}><h3>{heading}</h3><p>{text}</p>{scores}</article>"


def _score(level: ShownLevel, name: str, value: float) -> str:
    """A bar from the worst candidate of the level to the best, and the value in its own unit."""
    values = [each.scores[name] for each in level.candidates]
    low, high = min(values), max(values)
    share = (value - low) / (high - low) if high > low else 1.0
    return (
        f'<div class="score"><span>{escape(name)}</span><i><b style="width:{share:.1%}"></b></i>'
        f"<span>{value:.3f}</span></div>"
    )


def _about(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    return (
        f'<h2>How</h2>{facts_list(facts)}<p class="small">logprob: mean log-probability of a '
        "token, nats; mbr: minus the summed tree edit distance to the other candidates; yes: the model's own "
        "probability that its answer is right. Bars run from the worst candidate of a level to the best.</p>"
    )
