"""The written form: any tree comes back, any broken line is named, and nothing is read without bounds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videmo_jax.affective import text as module
from videmo_jax.affective.parser import parse_caption
from videmo_jax.affective.text import TreeTextError, from_text, read_tree, to_text
from videmo_jax.affective.tree import LEVELS, AffectiveTree, Node, Person

# Any characters, with the form's own signs and words more often than chance has them.
SIGNS = st.sampled_from(
    ["|", ":", " | ", ": ", "person", "  ", "emotion", "emotion | a: b", "(", "\u2028", "\x1c", "\x00"]
)
WORDS = st.lists(st.text(max_size=6) | SIGNS, min_size=1, max_size=4).map(
    lambda parts: " ".join("".join(parts).split())
)
ITEMS = WORDS.filter(bool)
ASPECTS = ITEMS.map(lambda text: " ".join(text.replace(":", " ").split())).filter(bool)


LINES = st.tuples(st.integers(0, 4), st.integers(0, 2), ASPECTS, ITEMS)


def assembled(lines):
    """People of nodes at about the depths and levels drawn; depth 0 opens a person."""
    people, stack = [], []
    for depth, rank, aspect, item in lines:
        depth = min(depth, len(stack))
        del stack[depth:]
        if depth == 0:
            people.append([])
            stack.append((2, people[-1]))
        else:
            above, siblings = stack[-1]
            children = []
            siblings.append((LEVELS[min(rank, above)], aspect, item, children))
            stack.append((min(rank, above), children))
    return AffectiveTree(tuple(Person(tuple(map(closed, person))) for person in people))


def closed(opened):
    level, aspect, item, children = opened
    return Node(level, aspect, item, tuple(map(closed, children)))


TREES = st.lists(LINES, max_size=14).map(assembled)


@given(TREES)
@settings(max_examples=300, deadline=None)
def test_every_tree_comes_back(tree):
    text = to_text(tree)
    assert from_text(text) == tree
    assert read_tree(text) == tree
    assert to_text(from_text(text)) == text


def test_written_form_to_the_letter():
    shown = Node("expression", "eyebrows", "drawn together", (Node("attribute", "eyebrows", "thick"),))
    person = Person((Node("attribute", "hair", "brown"), Node("emotion", "feeling", "sadness (strong)", (shown,))))
    assert to_text(AffectiveTree((person, Person()))) == (
        "person\n"
        "  emotion | feeling: sadness (strong)\n"
        "    expression | eyebrows: drawn together\n"
        "      attribute | eyebrows: thick\n"
        "  attribute | hair: brown\n"
        "person\n"
    )


def test_order_empty_lines_and_line_ends_do_not_matter():
    text = "person\r\n\r\n  attribute | hair: brown   \r\n  emotion | feeling: joy\r\n \r\n"
    assert from_text(text) == from_text("person\n  emotion | feeling: joy\n  attribute | hair: brown")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("people", "line 1: 'people': a line that is not indented must read `person`"),
        ("person\n\n attribute | hair: brown", "line 3: 1 spaces before it"),
        ("  attribute | hair: brown", "line 1: 2 spaces before it: at most 0 may stand here"),
        ("person\n    attribute | hair: brown", "line 2: 4 spaces before it: at most 2 may stand here"),
        ("person\n\tattribute | hair: brown", "line 2: it must be indented by spaces alone"),
        ("person\n  attribute hair brown", "line 2: 'attribute hair brown': expected `LEVEL | ASPECT: ITEM`"),
        ("person\n  attribute | hair:brown", "line 2: .* expected `LEVEL | ASPECT: ITEM`"),
        ("person\n  attribute | hair: ", "line 2: .* expected `LEVEL | ASPECT: ITEM`"),
        ("person\n  attribute | hair: a  b", "line 2: item 'a  b': it must be one line of words"),
        (
            "person\n  feeling | hair: brown",
            "line 2: level 'feeling': it must be one of attribute, expression, emotion",
        ),
        (
            "person\n  attribute | mouth: small\n    expression | mouth: open",
            "line 3: expression cannot support attribute",
        ),
    ],
)
def test_errors_name_the_line(text, message):
    with pytest.raises(TreeTextError, match=f"^{message.replace('|', '[|]')}"):
        from_text(text)


def test_sizes_are_bounded(monkeypatch):
    line = "  attribute | hair: brown\n"
    whole = "person\n" + line * (module.MAX_NODES - 1)
    assert len(from_text(whole)) == module.MAX_NODES - 1
    with pytest.raises(TreeTextError, match=r"line 10001: more than 10,000 nodes"):
        from_text(whole + line)
    with pytest.raises(ValueError, match=r"at most 10,000 can be written"):
        to_text(AffectiveTree((Person((Node("attribute", "hair", "brown"),) * module.MAX_NODES),)))
    monkeypatch.setattr(module, "MAX_CHARACTERS", 20)
    with pytest.raises(TreeTextError, match="32 characters: a tree has at most 20"):
        from_text("person\n" + line[:-1])


def test_depth_is_bounded():
    deepest = "person\n" + "".join(
        f"{'  ' * depth}emotion | feeling: joy\n" for depth in range(1, module.MAX_DEPTH + 1)
    )
    assert to_text(from_text(deepest)) == deepest
    with pytest.raises(TreeTextError, match=f"line {module.MAX_DEPTH + 2}: more than {module.MAX_DEPTH} nodes"):
        from_text(deepest + "  " * (module.MAX_DEPTH + 1) + "emotion | feeling: joy")
    top = from_text(deepest).people[0].nodes
    with pytest.raises(ValueError, match="above each other cannot be written"):
        to_text(AffectiveTree((Person((Node("emotion", "feeling", "joy", top),)),)))


@given(st.text() | st.lists(SIGNS | st.just("\n"), max_size=20).map("".join))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_as_one_or_the_other(text):
    try:
        expected = from_text(text)
    except TreeTextError:
        expected = parse_caption(text)
    assert read_tree(text) == expected


def test_a_tree_with_a_broken_line_is_a_caption():
    assert read_tree("person\n  emotion | feeling sadness") == parse_caption("emotion feeling sadness")
    assert len(read_tree("person\n  emotion | feeling sadness")) == 1
