"""Line charts as inline SVG: no library, no network, readable in light and dark and on a phone."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 640, 260  # of the view box, which scales to the page
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 36  # margins for the labels


def line_chart(xs: Sequence[float], ys: Sequence[float], *, title: str, x_label: str) -> str:
    """One curve; values that are no numbers leave a gap."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    if not points:
        return f"<figure><figcaption>{escape(title)}</figcaption><p>nothing was logged</p></figure>"
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _span([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM),
        )

    curve = " ".join(f"{px:.1f},{py:.1f}" for px, py in (place(x, y) for x, y in points))
    marks = []
    for y in _ticks(y_low, y_high):
        _, py = place(x_low, y)
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        marks.append(f'<text x="{LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    for x in _ticks(x_low, x_high):
        px, _ = place(x, y_low)
        marks.append(f'<text x="{px:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:.4g}</text>')
    axis = f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>'
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(marks)}{axis}<polyline points="{curve}"/></svg></figure>'
    )


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
