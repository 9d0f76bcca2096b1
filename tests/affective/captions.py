"""The captions with their trees in tests/golden/affective: a header `== KIND CLIP`, the caption, `--`, the tree."""

from typing import NamedTuple

from tests.conftest import TESTS
from videmo_jax.affective.text import from_text
from videmo_jax.affective.tree import AffectiveTree


class Example(NamedTuple):
    name: str
    caption: str
    tree: AffectiveTree


def examples(name: str) -> list[Example]:
    blocks = (TESTS / "golden" / "affective" / f"{name}.txt").read_text().split("== ")[1:]
    found = []
    for block in blocks:
        header, _, rest = block.partition("\n")
        caption, _, tree = rest.partition("\n--\n")
        found.append(Example(header, caption, from_text(tree)))
    return found
