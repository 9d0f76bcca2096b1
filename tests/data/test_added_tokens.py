"""Tokens that a user added, special or not: transformers reads the same ids, and they are words of the text."""

import json
import pickle
import random
import unicodedata

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from tests.data.added_tokens import QWENS_OWN, REASONING, extended
from videmo_jax.data.chat import count_text_tokens, encode
from videmo_jax.data.records import tokenizer_id
from videmo_jax.data.sample import Message
from videmo_jax.data.tokenizer import CONFIG_FILE, MAIN_FILE, QWEN_SPECIAL_TOKENS, Tokenizer, TokenizerError

ADDED = [
    *QWENS_OWN,
    *REASONING,
    AddedToken("<thinking>", special=True),  # begins as another one
    AddedToken("<left>", lstrip=True, special=True),
    AddedToken("<right>", rstrip=True, special=True),
    AddedToken("<both>", lstrip=True, rstrip=True, special=False),
    AddedToken("joy", single_word=True, special=True),
    AddedToken("calm", single_word=True, special=False),
    AddedToken(" she", special=False),
    AddedToken("<e\u0301>", normalized=True, special=True),
    AddedToken("日本", special=True),
    AddedToken("\n\n", special=True),
    AddedToken("q", special=True),  # a token of the vocabulary already
]
PIECES = [
    *(token.content for token in ADDED),
    *(
        " ",
        "  ",
        "\n",
        "\t",
        "a",
        "joyful",
        "uncalm",
        "\u00e9",
        "e\u0301",
        "日本語",
        "\U0001f642",
        "<",
        "|",
        ">",
        "_",
        "1",
    ),
    *("Hello world", " I feel", "<|im_", "think>"),
]
SAVED = ("by transformers", "in both files", f"in {CONFIG_FILE}", f"in {MAIN_FILE}")


def texts(pieces, count, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choices(pieces, k=rng.randint(1, 14))) for _ in range(count)]


def write(folder, files):
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=SAVED)
def pair(request, tmp_path_factory):
    """Our tokenizer and transformers', of the same directory."""
    folder = tmp_path_factory.mktemp("added")
    if request.param == "by transformers":
        theirs = AutoTokenizer.from_pretrained(write(folder, Tokenizer.embedded().files))
        for token in ADDED:
            theirs.add_tokens([token], special_tokens=token.special)
        theirs.save_pretrained(folder)
    else:
        where = [name for name in (MAIN_FILE, CONFIG_FILE) if request.param.endswith((name, "both files"))]
        write(folder, extended(ADDED, where))
    ours = Tokenizer.from_dir(folder)
    if request.param == f"in {MAIN_FILE}":  # transformers reads it without the list in the other file
        config = json.loads((folder / CONFIG_FILE).read_text())
        del config["added_tokens_decoder"]
        (folder / CONFIG_FILE).write_text(json.dumps(config))
    return ours, AutoTokenizer.from_pretrained(folder)


def test_a_text_has_the_ids_that_transformers_gives_it(pair):
    ours, theirs = pair
    assert ours.vocab_size == len(theirs) == 2048 + len(ADDED) - 1 and not ours.unused_ids
    written = texts(PIECES, 1500)
    ids = [ours.encode(text) for text in written]
    assert ids == [theirs(text, add_special_tokens=False)["input_ids"] for text in written]
    assert ours.count(written) == [len(each) for each in ids]
    seen = {id for each in ids for id in each}
    assert {theirs.convert_tokens_to_ids(token.content) for token in ADDED} <= seen


def test_a_decoded_text_keeps_what_a_user_added_and_nothing_of_qwens(pair):
    ours, theirs = pair
    rng = random.Random(0)
    for _ in range(300):
        ids = rng.choices(range(ours.vocab_size - 60, ours.vocab_size), k=rng.randint(1, 12))
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids)
        assert ours.decode(ids) == theirs.decode([id for id in ids if id not in ours.special_ids])


def test_few_ids_for_tags_of_reasoning():
    text = "<think>calm</think><answer>A</answer>"
    tokenizer = Tokenizer.from_files(extended(REASONING))
    assert len(Tokenizer.embedded().encode(text)) > 20
    assert tokenizer.encode(text) == [2048, *tokenizer.encode("calm"), 2049, 2050, *tokenizer.encode("A"), 2051]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_qwens_control_tokens_in_a_text_stay_text(pair):
    ours, _ = pair
    plain = [token.content for token in ADDED if not (token.lstrip or token.rstrip or token.normalized)]
    for text in texts([*QWEN_SPECIAL_TOKENS, *plain, " a", "\n"], 300):
        ids = ours.encode(text)
        assert not ours.special_ids.intersection(ids)
        assert unicodedata.normalize("NFC", ours.decode(ids)) == unicodedata.normalize("NFC", text)


def test_an_id_stands_where_its_text_does(pair):
    ours, _ = pair
    rng = random.Random(2)
    drawn = [rng.choices(range(ours.vocab_size), k=12) for _ in range(300)]
    spoken = [[id for id in ids if id not in ours.special_ids] for ids in drawn]
    for ids in [*map(ours.encode, texts(PIECES, 300, seed=1)), *spoken]:
        whole = [*ids, ours.im_end]
        text, places = ours.decode(whole), ours.places(whole)
        assert len(places) == len(whole) and places[-1] == (len(text), len(text))
        assert {at for start, end in places for at in range(start, end)} == set(range(len(text)))
        assert places == sorted(places)
        for id, (start, end) in zip(ids, places, strict=False):
            if id in ours.added:
                assert ours.decode([id]) in text[start:end]


def test_a_half_character_before_the_end_has_a_place():
    tokenizer = Tokenizer.embedded()
    half = tokenizer.encode("\U0001f642")[:1]
    assert tokenizer.places([*tokenizer.encode("a"), *half, tokenizer.im_end]) == [(0, 1), (1, 2), (2, 2)]


def test_answers_with_added_tokens_are_trained():
    tokenizer = Tokenizer.from_files(extended(REASONING))
    answer = "<think>She smiles.</think>\n<answer>(A)</answer>"
    messages = [Message("user", "Think in <think>."), Message("assistant", answer)]
    encoded = encode(messages, [], tokenizer)
    assert encoded.tokens[encoded.trained].tolist() == [*tokenizer.encode(answer), tokenizer.im_end]
    assert encoded.tokens.tolist().count(2048) == 2
    assert count_text_tokens([messages], tokenizer).tolist() == [len(encoded.tokens)]


def test_records_are_measured_again_where_texts_are_read_otherwise():
    plain = Tokenizer.embedded()
    ids = {tokenizer_id(Tokenizer.from_files(extended(REASONING, where))) for where in ((MAIN_FILE,), (CONFIG_FILE,))}
    assert plain.definition == plain.files[MAIN_FILE]
    assert tokenizer_id(plain) not in ids and len(ids) == 1


def test_a_copy_reads_as_the_original_does():
    tokenizer = Tokenizer.from_files(extended(REASONING))
    copy = pickle.loads(pickle.dumps(tokenizer))
    text = "<think>a<|im_end|>"
    assert copy.encode(text) == tokenizer.encode(text) and copy.files == tokenizer.files


def test_ids_without_a_token_are_known():
    files = Tokenizer.embedded().files
    model = json.loads(files[MAIN_FILE])
    last = max(model["model"]["vocab"], key=model["model"]["vocab"].get)
    model["model"]["vocab"][last] += 100
    tokenizer = Tokenizer.from_files({MAIN_FILE: json.dumps(model)})
    assert len(tokenizer.unused_ids) == tokenizer.vocab_size - 2048 > 0
    assert all(tokenizer.token(id) is None for id in tokenizer.unused_ids)


@pytest.mark.parametrize("decoder", ['"x"', "[1]", '{"a": {}}', '{"7": 5}', '{"7": {"content": 5}}'])
def test_added_tokens_that_cannot_be_read_are_refused(decoder):
    files = Tokenizer.embedded().files | {CONFIG_FILE: f'{{"added_tokens_decoder": {decoder}}}'}
    with pytest.raises(TokenizerError, match=rf"files: the added tokens of {CONFIG_FILE}"):
        Tokenizer.from_files(files)
