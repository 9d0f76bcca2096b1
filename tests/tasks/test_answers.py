"""What free answers are read as, by value; and that nothing is guessed."""

import re
from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videmo_jax.tasks.answers import (
    UNIT_NAMES,
    Option,
    final_answer,
    parse_options,
    read_choice,
    read_letters,
    read_tags,
    read_units,
)
from videmo_jax.tasks.taxonomy import ACTION_TAGS, ACTION_UNITS, APPEARANCE_TAGS, EMOTION_LETTERS


def options(*texts):
    return tuple(Option(letter, text) for letter, text in zip(ascii_uppercase, texts, strict=False))


EMOTIONS = options("Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear")
ELEVEN = options(
    "Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise", "Contempt", "Anxiety", "Helplessness",
    "Disappointment",
)  # fmt: skip
DEGREES = options("positive", "weakly positive", "neutral", "negative", "highly negative")
POSES = options(
    "Front", "Right 60 degrees", "Left 60 degrees", "Left 30 degrees", "Right 30 degrees", "Down", "Up"
)  # fmt: skip
YES_NO = options("Yes", "No")


@pytest.mark.parametrize(
    "question, letters",
    [
        ("<video>.Same?\n(A) Yes\n(B) No", "AB"),
        ("Is it? (A) Yes (B) No", "AB"),
        ("Is it?\nA. Yes\nB. No", "AB"),
        ("Is it?\nA) Yes\n B) No", "AB"),
        ("Is it?\n(A) Yes, she (C) said so\n(B) No", "AB"),
        ("Is it?\n(A) Yes", ""),
        ("Is it?\n(B) Yes\n(C) No", ""),
        ("Is it (A) or what?", ""),
        ("", ""),
    ],
)
def test_options_are_those_of_the_question(question, letters):
    assert "".join(option.letter for option in parse_options(question)) == letters


def test_options_of_the_real_questions_are_the_lines_below_them(emo_cfg_mini):
    import json

    seen = 0
    for path in (emo_cfg_mini / "jsons" / "test").glob("*/full/*.json"):
        for record in json.loads(path.read_text()):
            question = record["messages"][0]["content"]
            lines = [line for line in question.split("\n") if re.match(r"\([A-Z]\) ", line)]
            assert [f"({o.letter}) {o.text}" for o in parse_options(question)] == lines
            seen += bool(lines)
    assert seen > 80


@pytest.mark.parametrize(
    "response, letter",
    [
        ("(B) Sad", "B"),
        ("(b) sad", "B"),
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("B. Sad", "B"),
        ("B: Sad\nShe cries all the time.", "B"),
        ("Option B", "B"),
        ("sad", "B"),
        ("SAD.", "B"),
        ("The answer is (B) Sad.", "B"),
        ("The answer is B", "B"),
        ("the correct answer is: C", "C"),
        ("Answer: B", "B"),
        ("Final Answer: **C**", "C"),
        ("Option B is correct", "B"),
        ("Option A is correct", "A"),
        ("A is correct", "A"),
        ("It is A.", "A"),
        ("I would choose B, because of her mouth", "B"),
        ("It's B", "B"),
        ("not B but D", "D"),
        ("not (B) but (D)", "D"),
        ("D. The man looks furious", "D"),
        ("She shows the emotion(s) of fear", "G"),
        ("The answer is A happy person", "A"),
        ("The answer is A person who is sad", "B"),
        ("Answer: (G) Fear, not (A) Happy", "G"),
        ("I think she is sad", "B"),
        ("A woman is sad", "B"),
        ("She feels sadness.", "B"),
        ("He looks surprised", "E"),
        ("She is fearful", "G"),
        ("The person shows joy", "A"),
        ("an angry man", "D"),
        ("not happy but sad", "B"),
        ("neither happy nor sad, but angry", "D"),
        ("She is happy and shows no sign of sadness or fear.", "A"),
        ("She isn\u2019t happy; she\u2019s angry", "D"),
        ("angry rather than sad", "D"),
        ("(A) is wrong, the answer is (B) Sad", "B"),
        ("It could be sad or angry. Final answer: angry", "D"),
        ("<think>Perhaps (A)?</think><answer>(C)</answer>", "C"),
        ("<think>Happy? Sad?</think>Fear", "G"),
        # Nothing, or several: no reading.
        ("", None),
        ("H", None),
        ("(Z)", None),
        ("I am not sure", None),
        ("She is not sad", None),
        ("sad or angry", None),
        ("Happy. Sad.", None),
        ("A and B", None),
        ("(A) (B)", None),
        ("(B) Happy", None),
        ("B. Happy", None),
        ("A: She is sad", None),  # «A» for answer?
        ("B or C", None),
        ("It is B or C", None),
        ("I", None),
        ("I, for one, cannot say", None),
        ("A", "A"),
        ("The answer is A sad person", None),  # an article? (A) is Happy
        ("<think>It is (A), because", None),
        ("Describe the video", None),
    ],
)
def test_the_option_that_an_answer_names(response, letter):
    assert read_choice(response, EMOTIONS).letter == letter


@pytest.mark.parametrize(
    "response, choices, letter",
    [
        ("weakly positive", DEGREES, "B"),
        ("The mood is weakly positive", DEGREES, "B"),
        ("positive", DEGREES, "A"),
        ("a highly negative mood", DEGREES, "E"),
        ("60 degrees to the right", POSES, "B"),
        ("turned left 30\u00b0", POSES, "D"),
        ("The head points left by about 30 degrees", POSES, "D"),
        ("weak or strong anger", options("weak anger", "medium anger", "strong anger"), None),
        ("strong anger", options("weak anger", "medium anger", "strong anger"), "C"),
        ("anger", options("weak anger", "medium anger", "strong anger"), None),
        ("Right", POSES, None),
        ("The head points down.", POSES, "F"),
        ("Yes, they are the same", YES_NO, "A"),
        ("No, they are not", YES_NO, "B"),
        ("no doubt yes", YES_NO, None),
        ("They are not the same", YES_NO, None),
        ("She wears none", options("earrings", "none"), "B"),
        ("cries", options("cry", "cries"), "B"),
        ("she cries", options("cry", "cries"), None),
        ("yes", (), None),
    ],
)
def test_options_of_other_questions(response, choices, letter):
    assert read_choice(response, choices).letter == letter


def test_ambiguous_answers_say_what_they_name():
    assert read_choice("sad or angry", EMOTIONS).named == ("B", "D")
    assert read_choice("sad or angry", EMOTIONS).ambiguous
    assert read_choice("(B) Happy", EMOTIONS).named == ("A", "B")
    assert read_choice("A and B", EMOTIONS).named == ("A", "B")
    for clear in ("sad", "(B)", "nothing", ""):
        assert not read_choice(clear, EMOTIONS).ambiguous


WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=9)


@given(st.lists(WORDS, min_size=2, max_size=22, unique=True), st.data())
def test_every_way_to_name_an_option_is_read(texts, data):
    choices = options(*texts)
    one = data.draw(st.sampled_from(choices))
    form = data.draw(
        st.sampled_from(["({0}) {1}", "{0}", "({0})", "{0}. {1}", "The answer is ({0}) {1}.", "{1}", "{0}: {1}"])
    )
    assert read_choice(form.format(one.letter, one.text), choices).letter == one.letter


@given(st.permutations(EMOTIONS), st.integers(2, 7))
def test_several_options_named_equally_are_never_guessed(order, count):
    for form in ("({0}) {1}", "{1}", "({0})"):
        said = " or ".join(form.format(option.letter, option.text) for option in order[:count])
        reading = read_choice(said, EMOTIONS)
        assert reading.letter is None and set(reading.named) == {option.letter for option in order[:count]}


@given(st.text(max_size=200))
def test_any_text_is_accepted(text):
    reading = read_choice(text, EMOTIONS)
    assert reading.letter is None or reading.letter in reading.named
    assert set(read_letters(text, ELEVEN)) <= set(EMOTION_LETTERS)
    assert set(read_tags(text, APPEARANCE_TAGS)) <= set(APPEARANCE_TAGS)
    assert set(read_units(text, ACTION_UNITS)) <= set(ACTION_UNITS)


@pytest.mark.parametrize(
    "text", ["<think>" * 3000, "(" * 20_000, "A," * 10_000, "answer is " * 2000, "AU1,and " * 3000]
)
def test_long_texts_take_no_time(text):
    """A reading that takes more than linear time would not end here."""
    read_choice(text, EMOTIONS), read_letters(text, ELEVEN), read_units(text, ACTION_UNITS)
    read_tags(text, ACTION_TAGS), parse_options(text)


@pytest.mark.parametrize(
    "response, letters",
    [
        ("GI", "GI"),
        ("IG", "GI"),
        ("G, I", "GI"),
        ("G and I", "GI"),
        ("(G), (I)", "GI"),
        ("g, i", "GI"),
        ("(G) Surprise and fear", "CG"),
        ("Answer: GI", "GI"),
        ("The answers are G and I", "GI"),
        ("sad and disappointed", "FK"),
        ("Happy, not sad", "D"),
        ("G. Surprise\nI. Anxiety", "GI"),
        ("I think she is sad", "F"),
        ("A sad face", "F"),
        ("none", ""),
        ("", ""),
        ("bad", ""),
        ("Z", ""),
        ("ABCDEFGHIJK", "ABCDEFGHIJK"),
    ],
)
def test_the_letters_that_an_answer_names(response, letters):
    assert "".join(read_letters(response, ELEVEN)) == letters


@pytest.mark.parametrize(
    "response, allowed, tags",
    [
        ("smile,close_eyes", ACTION_TAGS, "close_eyes smile"),
        ("Smile, Close Eyes.", ACTION_TAGS, "close_eyes smile"),
        ("She smiles and closes her eyes.", ACTION_TAGS, "close_eyes smile"),
        ("talking; nodding", ACTION_TAGS, "nod talk"),
        ("not smiling, laughing", ACTION_TAGS, "laugh"),
        ("the head is wagging", ACTION_TAGS, "head_wagging"),
        ("He reads while listening to music", ACTION_TAGS, "listen_to_music read"),
        ("none", ACTION_TAGS, ""),
        ("dance", ACTION_TAGS, ""),
        ("", ACTION_TAGS, ""),
        ("brown_hair,no_beard", APPEARANCE_TAGS, "brown_hair no_beard"),
        (
            "A young man with long, straight brown hair, no glasses and no beard",
            APPEARANCE_TAGS,
            "male young brown_hair straight_hair long_hair no_beard",
        ),
        ("Black eyes and brown hair", APPEARANCE_TAGS, "brown_hair"),
        ("grey hair and spectacles", APPEARANCE_TAGS, "gray_hair eyeglasses"),
        ("She wears earrings and a hat.", APPEARANCE_TAGS, "wearing_earrings wearing_hat"),
        ("no hat, bags under her eyes", APPEARANCE_TAGS, "bags_under_eyes"),
        ("a 5 o'clock shadow", APPEARANCE_TAGS, "5_o_clock_shadow"),
        ("female", APPEARANCE_TAGS, ""),
    ],
)
def test_the_tags_that_an_answer_names(response, allowed, tags):
    assert " ".join(read_tags(response, allowed)) == tags


@pytest.mark.parametrize(
    "response, units",
    [
        ("AU12", "AU12"),
        ("AU 12", "AU12"),
        ("au_12", "AU12"),
        ("AU06", "AU6"),
        ("AU12 and AU6", "AU6 AU12"),
        ("AU1,AU4", "AU1 AU4"),
        ("AU1+AU2", "AU1 AU2"),
        ("AUs: 1, 4", "AU1 AU4"),
        ("Action Units (AUs): 6, 12", "AU6 AU12"),
        ("action units 1, 2 and 4.", "AU1 AU2 AU4"),
        ("lip corner puller", "AU12"),
        ("The lip corners are pulled down", "AU15"),
        ("AU12 (lip corner puller), AU25 (lips part)", "AU12 AU25"),
        ("lips parted and jaw dropped", "AU25 AU26"),
        ("no AU12", ""),
        ("AU5", ""),
        ("AU126", ""),
        ("none", ""),
        ("", ""),
    ],
)
def test_the_action_units_that_an_answer_names(response, units):
    assert " ".join(read_units(response, ACTION_UNITS)) == units


@given(st.lists(st.sampled_from(ACTION_UNITS), unique=True), st.sampled_from([",", ", ", " and ", "; ", " + "]))
def test_units_in_any_order_and_by_their_names(units, between):
    ordered = tuple(unit for unit in ACTION_UNITS if unit in units)
    assert read_units(between.join(units), ACTION_UNITS) == ordered
    assert read_units(between.join(UNIT_NAMES[unit][0] for unit in units), ACTION_UNITS) == ordered


@given(st.lists(st.sampled_from(ACTION_TAGS + APPEARANCE_TAGS), unique=True), st.sampled_from([",", ", ", "; ", " . "]))
def test_tags_in_any_order(tags, between):
    allowed = ACTION_TAGS + APPEARANCE_TAGS
    assert set(read_tags(between.join(tags), allowed)) == set(tags)


def test_the_last_answer_counts():
    assert final_answer("<answer>a</answer> no: <answer> b </answer>") == "b"
    assert final_answer("<answer>a") == "a"
    assert final_answer(" plain ") == "plain"
    assert final_answer("<think>x") == ""
