"""The line of controls that says which articles of a page are shown (filter.js)."""

from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources

FILTER_STYLE = """
.filters { display: flex; flex-wrap: wrap; gap: .75rem; align-items: center; margin: .5rem 0 1rem; }
.filters select, .filters input[type=search] { font: inherit; max-width: 100%; min-width: 0; }
article[hidden] { display: none; }
"""


def filter_form(choices: Mapping[str, Iterable[str]], *, boxes: Mapping[str, tuple[str, str]] = {}) -> str:
    """A select for each of `choices`, a box for each of `boxes`, and a search in all text; the page needs FILTER_STYLE.

    Args:
      choices: by the name of a data attribute, the values that it has, with repetitions.
      boxes: by the name of a data attribute, (value, label) of a box that leaves only articles with that value.
    """
    selects = []
    for name, values in choices.items():
        options = "".join(f'<option value="{escape(each)}">{escape(each)}</option>' for each in dict.fromkeys(values))
        selects.append(f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>')
    checks = [
        f'<label><input type="checkbox" name="{name}" value="{escape(value)}"> {escape(label)}</label>'
        for name, (value, label) in boxes.items()
    ]
    return (
        f'<form class="filters" onsubmit="return false">{"".join(selects)}{"".join(checks)}'
        '<label>text <input type="search" name="text"></label><output id="count"></output></form>'
    )


def filtered(articles: Iterable[str]) -> str:
    """The articles that the form speaks of, and its script; without a script all of them are shown."""
    script = resources.files(__package__).joinpath("filter.js").read_text("utf-8")
    return f'<main id="items">{"".join(articles)}</main><script>{script}</script>'
