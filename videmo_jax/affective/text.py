"""The written form of an affective tree, which a person can read and a language model can emit.

    person
      emotion | feeling: sadness (strong)
        expression | eyebrows: drawn together
          attribute | eyebrows: thick
      attribute | hair: brown

A line `person` opens each person; below it a node a line, `LEVEL | ASPECT: ITEM`, two spaces deeper than what it
supports. Writing takes the tree's own order, so equal trees are equal texts; reading takes any order, empty lines and
spaces at the ends of lines. Whatever is written is read back as the same tree.
"""

from videmo_jax.affective.parser import parse_caption
from videmo_jax.affective.tree import LEVELS, AffectiveTree, Node, Person

MAX_NODES = 10_000
MAX_DEPTH = 64  # nodes above each other
MAX_CHARACTERS = 4 * 1024**2
INDENT = "  "
PERSON = "person"


class TreeTextError(ValueError):
    """A text is no tree in the written form; the message says which line, what is wrong and what belongs there."""


def to_text(tree: AffectiveTree) -> str:
    """The tree in the written form, each line ended; the empty tree is the empty text.

    Raises:
      ValueError: the tree has more than MAX_NODES nodes and people, more than MAX_DEPTH nodes above each other or more
        than MAX_CHARACTERS of text, and could not be read back.
    """
    lines: list[str] = []
    for person in tree.people:
        lines.append(PERSON)
        _write(person.nodes, 1, lines)
    if len(lines) > MAX_NODES:
        raise ValueError(f"a tree of {len(lines):,} nodes and people: at most {MAX_NODES:,} can be written")
    text = "".join(f"{line}\n" for line in lines)
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a tree of {len(text):,} characters: at most {MAX_CHARACTERS:,} can be written")
    return text


def from_text(text: str) -> AffectiveTree:
    """The tree of a text in the written form.

    Raises:
      TreeTextError: a line has another form or stands too deep, a node's level is above that of the node that it
        supports, or the text is larger than the limits of this module.
    """
    if len(text) > MAX_CHARACTERS:
        raise TreeTextError(f"{len(text):,} characters: a tree has at most {MAX_CHARACTERS:,}")
    entries = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(entries) > MAX_NODES:
        raise TreeTextError(f"line {entries[MAX_NODES][0]}: more than {MAX_NODES:,} nodes and people")
    people: list[_Open] = []
    above: list[_Open] = []  # the person and the nodes that the line before stands below, itself included
    for number, line in entries:
        depth = _depth(number, line, len(above))
        opened = _person(number, line) if depth == 0 else _node(number, line, above[depth - 1])
        del above[depth:]
        (above[-1].children if above else people).append(opened)
        above.append(opened)
    return AffectiveTree(tuple(Person(tuple(map(_closed, person.children))) for person in people))


def read_tree(text: str) -> AffectiveTree:
    """The tree of a text: exactly, if it is one in the written form, else as a free caption."""
    try:
        return from_text(text)
    except TreeTextError:
        return parse_caption(text)


class _Open:
    """A person (no words) or a node whose children are still being read."""

    __slots__ = ("children", "words")

    def __init__(self, words: tuple[str, str, str] | None) -> None:
        self.words = words
        self.children: list[_Open] = []


def _depth(number: int, line: str, deepest: int) -> int:
    spaces = len(line) - len(line.lstrip())
    if not line.startswith(" " * spaces):
        raise TreeTextError(f"line {number}: it must be indented by spaces alone")
    depth, rest = divmod(spaces, len(INDENT))
    if rest:
        raise TreeTextError(f"line {number}: {spaces} spaces before it: each step is {len(INDENT)} spaces")
    if depth > deepest:
        raise TreeTextError(f"line {number}: {spaces} spaces before it: at most {deepest * len(INDENT)} may stand here")
    if depth > MAX_DEPTH:
        raise TreeTextError(f"line {number}: more than {MAX_DEPTH} nodes above each other")
    return depth


def _person(number: int, line: str) -> _Open:
    if line.strip() != PERSON:
        raise TreeTextError(f"line {number}: {_shown(line)}: a line that is not indented must read `{PERSON}`")
    return _Open(None)


def _node(number: int, line: str, parent: _Open) -> _Open:
    level, bar, rest = line.strip().partition(" | ")
    aspect, colon, item = rest.partition(":")
    if not bar or not colon or not item.startswith(" "):
        raise TreeTextError(f"line {number}: {_shown(line)}: expected `LEVEL | ASPECT: ITEM`")
    try:
        node = Node(level, aspect, item[1:])
        if parent.words is not None and LEVELS.index(level) > LEVELS.index(parent.words[0]):
            raise ValueError(f"{level} cannot support {parent.words[0]}, which is a lower level")
    except ValueError as error:
        raise TreeTextError(f"line {number}: {error}") from None
    return _Open((node.level, node.aspect, node.item))


def _closed(opened: _Open) -> Node:
    return Node(*opened.words, tuple(map(_closed, opened.children)))


def _write(nodes: tuple[Node, ...], depth: int, lines: list[str]) -> None:
    if nodes and depth > MAX_DEPTH:
        raise ValueError(f"a tree of more than {MAX_DEPTH} nodes above each other cannot be written")
    for node in nodes:
        lines.append(f"{INDENT * depth}{node.level} | {node.aspect}: {node.item}")
        _write(node.children, depth + 1, lines)


def _shown(line: str, most: int = 80) -> str:
    line = line.strip()
    return repr(line if len(line) <= most else line[: most - 1] + "…")
