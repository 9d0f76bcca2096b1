"""The frame that all pages share: one file without outside parts, light and dark, readable on a phone."""

from collections.abc import Mapping
from html import escape

STYLE = """
:root { color-scheme: light dark; --line: #2563eb; --grid: #8884; --card: #8881; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
polyline { fill: none; stroke: var(--line); stroke-width: 2; } .grid { stroke: var(--grid); }
.tick0 { stroke: #d97706; } .tick1 { stroke: #059669; } .tick2 { stroke: #c026d3; } .tick3 { stroke: #64748b; }
[class^=tick] { stroke-width: 3; } .keys { margin: .25rem 0; font-size: 14px; } .key { margin-right: 1rem; }
figure.rows { max-width: 44rem; } .mark { width: 8px; height: 1em; vertical-align: -.15em; margin-right: .35rem; }
.bar { fill: var(--line); } text { fill: currentColor; font-size: 13px; } pre { overflow: auto; font-size: 13px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--grid); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: minmax(auto, 16rem) 1fr; gap: .1rem 1rem; margin: 0; font-size: 14px; }
dt { opacity: .75; overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl { grid-template-columns: minmax(0, 1fr); } dd { margin-bottom: .35rem; } }
"""


def facts_list(facts: Mapping[str, str]) -> str:
    """Facts by name as a definition list; on a phone each stands below its name."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in facts.items())}</dl>"


def page(title: str, body: str, *, style: str = "") -> str:
    """A whole HTML document.

    Args:
      title: plain text, which is also the first heading.
      body: HTML below it; whoever writes it escapes what comes from outside.
      style: CSS of this page alone, added to the common one.
    """
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{style}</style></head>'
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )
