"""The affective tree: aspect-item nodes on three levels, joined by rationale (PAPER.md section 3).

The paper's edges run from attribute to expression to emotion. Here what follows stands above what it follows from: an
emotion's children are the expressions that show it, an expression's children the attributes that it is seen in. What
supports nothing stands directly below its person. The order of children is fixed, so that equal content is an equal
tree.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

Level = Literal["attribute", "expression", "emotion"]
LEVELS: tuple[Level, ...] = get_args(Level)  # bottom-up


@dataclass(frozen=True, slots=True)
class Node:
    """One item of one aspect.

    Attributes:
      level: attribute, expression or emotion.
      aspect: what is looked at, such as `hair`; one line of text without a colon.
      item: what is seen there, such as `long brown`; one line of text.
      children: what it follows from, on the same or a lower level; in order, see `ordered`.
    """

    level: Level
    aspect: str
    item: str
    children: tuple["Node", ...] = ()

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level {self.level!r}: it must be one of {', '.join(LEVELS)}")
        for name in ("aspect", "item"):
            text = getattr(self, name)
            if not text or text != " ".join(text.split()):
                raise ValueError(f"{name} {text!r}: it must be one line of words with single spaces between them")
        if ":" in self.aspect:
            raise ValueError(f"aspect {self.aspect!r}: no colon may stand in it")
        rank = LEVELS.index(self.level)
        if any(LEVELS.index(child.level) > rank for child in self.children):
            raise ValueError(f"{self.aspect}: {self.item} has a child of a higher level than {self.level}")
        object.__setattr__(self, "children", ordered(self.children))

    def walk(self) -> Iterator["Node"]:
        """This node, then all below it, in order."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Person:
    """The nodes of one person that support no other node; emotions come first."""

    nodes: tuple[Node, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", ordered(self.nodes))

    def walk(self) -> Iterator[Node]:
        """All nodes, in order."""
        for node in self.nodes:
            yield from node.walk()


@dataclass(frozen=True, slots=True)
class AffectiveTree:
    """The people of a video, in the order in which they are spoken of."""

    people: tuple[Person, ...] = ()

    def walk(self) -> Iterator[Node]:
        """All nodes of all people, in order."""
        for person in self.people:
            yield from person.walk()

    def __len__(self) -> int:
        """The number of nodes."""
        return sum(1 for _ in self.walk())


def ordered(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The canonical order of siblings: from the highest level down, then by aspect, item and what stands below."""
    return tuple(sorted(nodes, key=_key))


def _key(node: Node) -> tuple[int, str, str, tuple]:
    return -LEVELS.index(node.level), node.aspect, node.item, tuple(_key(child) for child in node.children)
