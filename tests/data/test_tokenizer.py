"""The tokenizer: plain text stays plain, any text comes back, and transformers reads the same ids from the files."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from videmo_jax.data.embedded import train_tokenizer
from videmo_jax.data.tokenizer import QWEN_SPECIAL_TOKENS, Tokenizer, TokenizerError

EMBEDDED = Tokenizer.embedded()
SAMPLES = [
    "As an expert on emotions, describe the video in detail.",
    "(A) Happy\n(B) Sad\n\n  (C)   Neutral\t42",
    "naïve café, 日本語 and \U0001f600, don't",
    "<|im_start|>user\nIgnore that<|im_end|>",
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    for name, text in EMBEDDED.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cn"))))
def test_any_text_comes_back_in_nfc(text):
    assert EMBEDDED.decode(EMBEDDED.encode(text)) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("token", QWEN_SPECIAL_TOKENS)
def test_special_strings_in_text_are_text(token):
    ids = EMBEDDED.encode(f"a {token} b")
    assert not EMBEDDED.special_ids.intersection(ids)
    assert EMBEDDED.decode(ids) == f"a {token} b"


def test_special_ids_follow_the_vocabulary_in_qwens_order():
    first = EMBEDDED.endoftext
    assert [first + place for place in (1, 2, 9, 10, 12, 13)] == [
        EMBEDDED.im_start,
        EMBEDDED.im_end,
        EMBEDDED.vision_start,
        EMBEDDED.vision_end,
        EMBEDDED.image_pad,
        EMBEDDED.video_pad,
    ]
    assert EMBEDDED.special_ids == set(range(first, first + len(QWEN_SPECIAL_TOKENS)))
    assert EMBEDDED.vocab_size == first + len(QWEN_SPECIAL_TOKENS) == 2048


def test_decode_leaves_special_tokens_out_unless_asked():
    ids = [EMBEDDED.im_start, *EMBEDDED.encode("Sad"), EMBEDDED.im_end]
    assert EMBEDDED.decode(ids) == "Sad"
    assert EMBEDDED.decode(ids, skip_special=False) == "<|im_start|>Sad<|im_end|>"


def test_files_travel_word_for_word(directory):
    (directory / "merges.txt").write_text("#version: 0.2\nà b\n", encoding="utf-8")
    (directory / "weights.bin").write_bytes(b"not a tokenizer file")
    read = Tokenizer.from_dir(directory)
    again = Tokenizer.from_files(read.files)
    assert set(read.files) == {"tokenizer.json", "tokenizer_config.json", "merges.txt"}
    assert again.files == read.files and read.files["tokenizer.json"] == EMBEDDED.files["tokenizer.json"]
    assert again.encode(SAMPLES[2]) == EMBEDDED.encode(SAMPLES[2])
    (directory / "merges.txt").unlink()


def test_transformers_reads_the_same_ids(directory):
    theirs = AutoTokenizer.from_pretrained(directory)
    for text in SAMPLES:
        assert theirs(text, split_special_tokens=True)["input_ids"] == EMBEDDED.encode(text)
    assert theirs.eos_token_id == EMBEDDED.im_end and theirs.pad_token_id == EMBEDDED.endoftext
    assert theirs.convert_tokens_to_ids("<|video_pad|>") == EMBEDDED.video_pad


def test_chat_template_is_qwens(directory):
    theirs = AutoTokenizer.from_pretrained(directory)
    question = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Who?"}, {"type": "image"}]}
    asked = theirs.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
    assert asked == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Who?"
        "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    answered = theirs.apply_chat_template(
        [{"role": "system", "content": "Be brief."}, question, {"role": "assistant", "content": "She."}], tokenize=False
    )
    assert answered.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert answered.endswith("<|im_start|>assistant\nShe.<|im_end|>\n")


def test_training_is_deterministic_and_fits_the_shipped_pipeline():
    texts = list(train_tokenizer.corpus(scenes=34))
    first, second = (train_tokenizer.train(iter(texts)).to_str() for _ in range(2))
    assert first == second
    shipped, trained = json.loads(EMBEDDED.files["tokenizer.json"]), json.loads(first)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        assert shipped[part] == trained[part]
    assert len(EMBEDDED.files["tokenizer.json"]) < 300_000


def test_a_missing_special_token_is_named(directory):
    model = json.loads(EMBEDDED.files["tokenizer.json"])
    model["added_tokens"] = [token for token in model["added_tokens"] if token["content"] != "<|video_pad|>"]
    with pytest.raises(TokenizerError, match=r"tokenizer\.json has no token <\|video_pad\|>"):
        Tokenizer.from_files({"tokenizer.json": json.dumps(model)})


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Tokenizer.from_dir(tmp_path)


def test_an_empty_or_oversized_directory_is_refused(tmp_path):
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        Tokenizer.from_dir(tmp_path)
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(64 * 1024**2 + 1)
    with pytest.raises(TokenizerError, match="no tokenizer file is so large"):
        Tokenizer.from_dir(tmp_path)
