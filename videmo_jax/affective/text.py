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

from itertools import accumulate

from videmo_jax.affective.parser import Spans, parse_caption, parse_spans
from videmo_jax.affective.tree import LEVELS, AffectiveTree, Node, Person
from videmo_jax.files.errors import UserError

MAX_NODES = 10_000
MAX_DEPTH = 64  # nodes above each other
MAX_CHARACTERS = 4 * 1024**2
INDENT = "  "
PERSON = "person"


class TreeTextError(UserError):
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
    return from_text_spans(text)[0]


def from_text_spans(text: str) -> tuple[AffectiveTree, Spans]:
    """As `from_text`, with the line of each node, without the spaces around it."""
    places: dict[int, tuple[int, int]] = {}
    people = [Person(tuple(_closed(node, places) for node in person.children)) for person in _opened(text)]
    tree = AffectiveTree(tuple(people))
    return tree, {number: places[id(node)] for number, node in enumerate(tree.walk())}


def _opened(text: str) -> list["_Open"]:
    """The people of a text in the written form, with what stands below them."""
    if len(text) > MAX_CHARACTERS:
        raise TreeTextError(f"{len(text):,} characters: a tree has at most {MAX_CHARACTERS:,}")
    lines = text.splitlines(keepends=True)
    starts = accumulate((len(line) for line in lines), initial=0)
    entries = [
        (number, line.splitlines()[0], start)
        for number, (line, start) in enumerate(zip(lines, starts, strict=False), 1)
        if line.strip()
    ]
    if len(entries) > MAX_NODES:
        raise TreeTextError(f"line {entries[MAX_NODES][0]}: more than {MAX_NODES:,} nodes and people")
    people: list[_Open] = []
    above: list[_Open] = []  # the person and the nodes that the line before stands below, itself included
    for number, line, start in entries:
        depth = _depth(number, line, len(above))
        opened = _person(number, line) if depth == 0 else _node(number, line, above[depth - 1])
        opened.place = start + len(INDENT) * depth, start + len(line.rstrip())
        del above[depth:]
        (above[-1].children if above else people).append(opened)
        above.append(opened)
    return people


def read_tree(text: str) -> AffectiveTree:
    """The tree of a text: exactly, if it is one in the written form, else as a free caption."""
    try:
        return from_text(text)
    except TreeTextError:
        return parse_caption(text)


def read_tree_spans(text: str) -> tuple[AffectiveTree, Spans]:
    """As `read_tree`, with the place of each node's words: a line of the written form, or as `parse_spans` gives it."""
    try:
        return from_text_spans(text)
    except TreeTextError:
        return parse_spans(text)


class _Open:
    """A person (no words) or a node whose children are still being read."""

    __slots__ = ("children", "place", "words")

    def __init__(self, words: tuple[str, str, str] | None) -> None:
        self.words = words
        self.children: list[_Open] = []
        self.place = (0, 0)  # of its line in the text, in characters


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


def _closed(opened: _Open, places: dict[int, tuple[int, int]]) -> Node:
    """The node, whose place is noted by its identity: siblings are put into order."""
    node = Node(*opened.words, tuple(_closed(child, places) for child in opened.children))
    places[id(node)] = opened.place
    return node


def _write(nodes: tuple[Node, ...], depth: int, lines: list[str]) -> None:
    if nodes and depth > MAX_DEPTH:
        raise ValueError(f"a tree of more than {MAX_DEPTH} nodes above each other cannot be written")
    for node in nodes:
        lines.append(f"{INDENT * depth}{node.level} | {node.aspect}: {node.item}")
        _write(node.children, depth + 1, lines)


def _shown(line: str, most: int = 80) -> str:
    line = line.strip()
    return repr(line if len(line) <= most else line[: most - 1] + "…")
