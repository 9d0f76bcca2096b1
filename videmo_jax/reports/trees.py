"""The picture of an affective tree: three columns from what is seen to what is felt, joined by rationale edges."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from videmo_jax.affective.tree import LEVELS, AffectiveTree, Level, Node

# In units of the view box, which are pixels where the picture is not scaled: all columns fit on a phone.
COLUMN, BETWEEN = 106, 18  # width of a box, and between columns
MARGIN, GAP = 2, 8  # around all, and between boxes
HEAD, LINE, PADDING = 24, 15, 6  # heights: of a heading, of a line of text; inside a box
WIDTH = 2 * MARGIN + 3 * (COLUMN + BETWEEN)  # the last column, too, has room for edges within it
IN_A_LINE = 15  # characters that fit into a box
MOST_LINES = 4

TREE_STYLE = """
.tree svg { max-width: 34rem; display: block; }
.tree .attribute { --level: light-dark(#0f766e, #2dd4bf); } .tree .expression { --level: light-dark(#1d4ed8, #7aa5ff); }
.tree .emotion { --level: light-dark(#b4236b, #ff8ac2); }
.tree rect { fill: var(--level); fill-opacity: .1; stroke: var(--level); stroke-width: 1.2; }
.tree path { fill: none; stroke: currentColor; stroke-opacity: .45; stroke-width: 1.5; }
.tree text { font-size: 12px; } .tree text.head { fill: var(--level); font-weight: 700; font-size: 13px; }
.tree text.aspect { fill: var(--level); font-size: 11px; } .tree text.person { font-weight: 700; font-size: 13px; }
"""


def tree_figure(tree: AffectiveTree, *, title: str = "") -> str:
    """The tree as an HTML figure with an inline SVG; the page needs TREE_STYLE.

    Each node is a box in the column of its level. An edge runs from a node to the one that follows from it. Long items
    are shortened in the box and whole in its tooltip.

    Args:
      tree: of any size; people stand below each other.
      title: above the picture; plain text.
    """
    caption = f"<figcaption>{escape(title)}</figcaption>" if title else ""
    if not len(tree):
        return f'<figure class="tree">{caption}<p>Nothing was read that could be drawn.</p></figure>'
    heads = [
        f'<text class="head {level}" x="{_left(level) + COLUMN / 2}" y="16" text-anchor="middle">{level}s</text>'
        for level in LEVELS
    ]
    drawn, lowest = [], float(HEAD)
    for number, person in enumerate(tree.people, 1):
        if len(tree.people) > 1:
            drawn.append(f'<text class="person" x="{MARGIN}" y="{lowest + 16:.1f}">person {number}</text>')
            lowest += HEAD
        tops = dict.fromkeys(LEVELS, lowest)
        for node in person.nodes:
            columns = _columns(node)
            box = _placed(node, max(tops[level] for level in columns))
            drawn += _draw(box)
            tops |= dict.fromkeys(columns, box.bottom + GAP)
        lowest = max(tops.values())
    height = lowest - GAP + MARGIN
    says = f"affective tree of {len(tree)} nodes"
    return (
        f'<figure class="tree">{caption}<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{says}">'
        f"{''.join(heads)}{''.join(drawn)}</svg></figure>"
    )


@dataclass(frozen=True)
class _Box:
    """A node with its place: its own top, and the lowest edge of it and of all that it follows from."""

    node: Node
    lines: tuple[str, ...]
    top: float
    bottom: float
    below: tuple["_Box", ...]

    @property
    def middle(self) -> float:
        return self.top + _height(self.lines) / 2


def _columns(node: Node) -> tuple[Level, ...]:
    """The columns that a node and all below it stand in, and those that their edges cross."""
    lowest = min(LEVELS.index(each.level) for each in node.walk())
    return LEVELS[lowest : LEVELS.index(node.level) + 1]


def _placed(node: Node, top: float) -> _Box:
    """The node and all below it in a band of their own that begins at `top`, so that no two boxes meet.

    A node stands beside the middle of its children, or above them where one of them is in its own column.
    """
    lines, beside = _lines(node.item), all(child.level != node.level for child in node.children)
    own = _height(lines)
    at = top if beside or not node.children else top + own + GAP
    below = []
    for child in node.children:
        below.append(_placed(child, at))
        at = below[-1].bottom + GAP
    bottom = max(top + own, at - GAP)
    if beside and node.children:
        middle = (below[0].middle + below[-1].middle) / 2
        return _Box(node, lines, min(max(middle - own / 2, top), bottom - own), bottom, tuple(below))
    return _Box(node, lines, top, bottom, tuple(below))


def _lines(item: str) -> tuple[str, ...]:
    lines = textwrap.wrap(item, IN_A_LINE, max_lines=MOST_LINES, placeholder=" …")
    return tuple(lines)


def _height(lines: Iterable[str]) -> float:
    return 2 * PADDING + LINE * (1 + len(tuple(lines)))


def _left(level: Level) -> float:
    return MARGIN + LEVELS.index(level) * (COLUMN + BETWEEN)


def _draw(box: _Box) -> Iterator[str]:
    """The edges to a box, the box, and all below it."""
    node, left = box.node, _left(box.node.level)
    for child in box.below:
        yield _edge(child, box)
        yield from _draw(child)
    text = "".join(
        f'<text x="{left + 8}" y="{box.top + PADDING + LINE * (number + 2) - 4:.1f}">{escape(line)}</text>'
        for number, line in enumerate(box.lines)
    )
    aspect = textwrap.shorten(node.aspect, IN_A_LINE, placeholder=" …")
    yield (
        f'<g class="{node.level}"><title>{escape(f"{node.aspect}: {node.item}")}</title>'
        f'<rect x="{left}" y="{box.top:.1f}" width="{COLUMN}" height="{_height(box.lines):.1f}" rx="5"/>'
        f'<text class="aspect" x="{left + 8}" y="{box.top + PADDING + LINE - 4:.1f}">{escape(aspect)}</text>{text}</g>'
    )


def _edge(child: _Box, parent: _Box) -> str:
    """From what is seen to what follows from it; within a column the edge bends out to the right."""
    start, end = _left(child.node.level) + COLUMN, _left(parent.node.level)
    bend = (start + end) / 2
    if child.node.level == parent.node.level:
        end, bend = start, start + 0.6 * BETWEEN
    below, above = f"{child.middle:.1f}", f"{parent.middle:.1f}"
    return f'<path d="M{start} {below} C{bend} {below} {bend} {above} {end} {above}"/>'
