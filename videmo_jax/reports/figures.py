"""Charts as inline SVG: no library, no network, readable in light and dark and on a phone."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 260  # of the view box, which scales to the page
TICKS = 4  # colours of page.STYLE for what stands beside a bar
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 36  # margins for the labels


Curve = tuple[Sequence[float], Sequence[float]]  # xs and ys


def line_chart(
    xs: Sequence[float],
    ys: Sequence[float],
    *,
    title: str,
    x_label: str,
    others: Mapping[str, Curve] | None = None,
) -> str:
    """One curve, and others on the same axes by the name of their owner; values that are no numbers leave a gap."""
    curves = [
        [(x, y) for x, y in zip(*each, strict=True) if math.isfinite(y)]
        for each in ((xs, ys), *(others or {}).values())
    ]
    points = [point for curve in curves for point in curve]
    if not points:
        return _empty(title, "nothing was logged")
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _span([y for _, y in points])

    place, drawn = _Place(x_low, x_high, y_low, y_high), []
    for number, curve in enumerate(curves):
        line = " ".join(f"{place.x(x):.1f},{place.y(y):.1f}" for x, y in curve)
        owner = f' class="tick{(number - 1) % TICKS}"' if number else ""
        drawn.append(f'<polyline{owner} points="{line}"/>')
    return _figure(title, x_label, place, "".join(drawn), _keys(list(others)) if others else "")


def histogram(values: Sequence[int], *, title: str, x_label: str, most_bars: int = 40) -> str:
    """How many of the values (whole numbers, 0 or more) fall into each of up to `most_bars` equal, whole spans."""
    if not values:
        return _empty(title, "there is nothing to count")
    low, high = min(values), max(values)
    width = math.ceil((high - low + 1) / most_bars)
    counts = Counter((value - low) // width for value in values)
    place = _Place(low, low + width * (max(counts) + 1), 0, max(counts.values()))
    bars = []
    for number, count in sorted(counts.items()):
        left, right = place.x(low + width * number), place.x(low + width * (number + 1))
        span = f"{low + width * number}" + (f" to {low + width * (number + 1) - 1}" if width > 1 else "")
        bars.append(
            f'<rect class="bar" x="{left:.1f}" y="{place.y(count):.1f}" width="{max(right - left - 1, 0.5):.1f}" '
            f'height="{place.y(0) - place.y(count):.1f}"><title>{span}: {count:,}</title></rect>'
        )
    return _figure(title, x_label, place, "".join(bars))


@dataclass(frozen=True)
class Row:
    """A line of `row_chart`: a value, or None for a gap, how it is written, and others by the name of their owner."""

    label: str
    value: float | None
    shown: str
    others: Mapping[str, float]
    strong: bool = False  # such as an average


def row_chart(rows: Sequence[Row], *, title: str, low: float, high: float) -> str:
    """A bar for each row's value, and a tick for each of the others; owners are told apart by colour."""
    owners = list(dict.fromkeys(name for row in rows for name in row.others))
    left, line, top = 190, 20, 22
    height = top + line * len(rows) + 4

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (WIDTH - left - 52)

    drawn = [
        f'<line class="grid" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{top - 4}" y2="{height}"/>'
        f'<text x="{x(mark):.1f}" y="12" text-anchor="middle">{mark:.4g}</text>'
        for mark in _ticks(low, high)
    ]
    for number, row in enumerate(rows):
        y, name = top + line * number, escape(row.label)
        weight, shown = ' font-weight="700"' if row.strong else "", escape(row.shown)
        drawn.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end"{weight}>{name}</text>')
        drawn.append(f'<text x="{WIDTH - 2}" y="{y + 14}" text-anchor="end"{weight}>{shown}</text>')
        if row.value is not None:
            size = f'width="{x(row.value) - left:.1f}" height="10"'
            drawn.append(
                f'<rect class="bar" x="{left}" y="{y + 5}" {size} rx="2"><title>{name}: {shown}</title></rect>'
            )
        drawn += [
            f'<line class="tick{owners.index(owner) % TICKS}" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{y + 1}" '
            f'y2="{y + 19}"><title>{escape(owner)}, {name}: {value:.1f}</title></line>'
            for owner, value in row.others.items()
        ]
    return (
        f'<figure class="rows"><figcaption>{escape(title)}</figcaption>{_keys(owners)}'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(drawn)}</svg></figure>'
    )


def _keys(owners: Sequence[str]) -> str:
    """Which colour is whose."""
    keys = "".join(
        '<span class="key"><svg viewBox="0 0 8 16" class="mark">'
        f'<line class="tick{number % TICKS}" x1="4" x2="4" y1="0" y2="16"/></svg>{escape(owner)}</span>'
        for number, owner in enumerate(owners)
    )
    return f'<p class="keys">{keys}</p>'


@dataclass(frozen=True)
class _Place:
    """Where values stand in the view box."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def _figure(title: str, x_label: str, place: _Place, drawn: str, keys: str = "") -> str:
    """Title, keys, grid and labels around what is drawn."""
    marks = []
    for y in _ticks(place.y_low, place.y_high):
        py = place.y(y)
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        marks.append(f'<text x="{LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    for x in _ticks(place.x_low, place.x_high):
        marks.append(f'<text x="{place.x(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:.4g}</text>')
    axis = f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>'
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'{keys}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(marks)}{axis}{drawn}</svg></figure>"
    )


def _empty(title: str, reason: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption><p>{escape(reason)}</p></figure>"


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value, apart also where they are equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers between low and high."""
    raw = (high - low) / 5
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
