"""The tokenizer: a Hugging Face `tokenizer.json` as it is, with the ids of Qwen's special tokens read from it.

A tokenizer is a set of small text files. Checkpoints carry them (`Tokenizer.files`), exports write them back
unchanged, and nothing in this project knows an id by heart (PAPER.md section 7).

There is one vocabulary: a token that text can hold is trained, sampled, credited, and kept in the text of an answer.
Only Qwen's control tokens and ids without a token are outside of it, on both sides.
"""

import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import tokenizers

from videmo_jax.files.errors import UserError

MAIN_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"

# Kept word for word beside it, where a directory has them: an exported model needs them.
SIDE_FILES = (
    CONFIG_FILE,
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
)

# Qwen2.5's special tokens in Qwen's order: their ids follow the vocabulary. They are control tokens: they open and end
# turns, and stand for pixels and places in a picture. The chat template writes them; whatever a user types, no text
# makes them, and so no answer holds them. All other added tokens are words of the text: Qwen's own that it does not
# call special (`<tool_call>`, `<|fim_prefix|>`), and what a user adds (`<think>`), special or not. «Special» asks
# readers to hide a token; whoever reads our answers looks for it.
QWEN_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

MAX_FILE_BYTES = 64 * 1024**2


class TokenizerError(UserError):
    """The tokenizer's files cannot be used; the message says which file, what is wrong and what to do."""


class Tokenizer:
    """Text to ids and back.

    Attributes:
      im_start, im_end, endoftext, vision_start, vision_end, image_pad, video_pad: ids of the special tokens.
      vocab_size: the highest id + 1; a model's embedding may have more rows.
      special_ids: the ids of Qwen's control tokens (QWEN_SPECIAL_TOKENS).
      unused_ids: those below `vocab_size` that have no token.
      added: the added tokens by id, Qwen's and a user's, with the flags of the files.
      definition: the text of tokenizer.json as it is read here: what ids depend on.
    """

    def __init__(self, files: Mapping[str, str], origin: str = "the tokenizer's files") -> None:
        """Reads the texts of the files by name; prefer `from_dir`, `from_files` and `embedded`."""
        if MAIN_FILE not in files:
            raise TokenizerError(f"{origin}: no {MAIN_FILE}; a model's own one (Hugging Face format) is needed.")
        main, configured = f"{origin}: {MAIN_FILE}", _configured(files, origin)
        try:
            self.definition, added = _as_read(files[MAIN_FILE], configured)
            self._tokenizer = tokenizers.Tokenizer.from_str(self.definition)
        except Exception as error:  # The Rust library raises bare Exceptions.
            raise TokenizerError(f"{main} is not a valid tokenizer: {error}. Fetch the file again.") from None
        # What a user types is text, also where it looks like `<|im_end|>`.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._files = dict(files)
        self._main = main
        self.endoftext = self._id("<|endoftext|>")
        self.im_start = self._id("<|im_start|>")
        self.im_end = self._id("<|im_end|>")
        self.vision_start = self._id("<|vision_start|>")
        self.vision_end = self._id("<|vision_end|>")
        self.image_pad = self._id("<|image_pad|>")
        self.video_pad = self._id("<|video_pad|>")
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values()) + 1
        self.special_ids = frozenset(ids[token] for token in QWEN_SPECIAL_TOKENS if token in ids)
        self.unused_ids = frozenset(range(self.vocab_size)).difference(ids.values())
        self.added = {ids[token.content]: token for token in added if token.content}

    @classmethod
    def from_dir(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a Hugging Face directory; raises TokenizerError where files are missing, too large or no text."""
        folder = Path(path)
        names = [name for name in (MAIN_FILE, *SIDE_FILES) if (folder / name).is_file()]
        return cls({name: _read(folder / name) for name in names}, str(folder))

    @classmethod
    def from_files(cls, files: Mapping[str, str]) -> Self:
        """The same from texts by file name, as `files` gives them and as a checkpoint carries them."""
        return cls(files)

    @classmethod
    def embedded(cls) -> Self:
        """The small English tokenizer of this package (`embedded/train_tokenizer.py`): byte-level BPE as Qwen's."""
        return cls(_embedded_files(), "the embedded tokenizer")

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is read from the files again: the library's own copies would read control tokens in texts."""
        return type(self).from_files, (self._files,)

    @property
    def files(self) -> dict[str, str]:
        """The texts of all its files by name, word for word."""
        return dict(self._files)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, as transformers gives them, but for strings such as `<|im_end|>`.

        Those become ordinary tokens, never special ids. All other added tokens stay whole.
        """
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many ids `encode` gives for each text; many at once take half the time or less."""
        return [len(each) for each in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids, without Qwen's special tokens unless they are asked for. Broken UTF-8 gives U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)

    def token(self, id: int) -> str | None:
        """The token that an id stands for; None where it has none."""
        return self._tokenizer.id_to_token(id)

    def places(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Where each id stands in `decode(ids)`: half-open, in characters; special tokens have empty ranges.

        Ids that make a character together share its place.
        """
        stream, spoken, waiting, end = tokenizers.decoders.DecodeStream(skip_special_tokens=True), [], 0, 0
        for id in ids:
            if id not in self.special_ids:
                waiting += 1
                piece = stream.step(self._tokenizer, id)
                if piece is not None:
                    spoken += [(end, end + len(piece))] * waiting
                    waiting, end = 0, end + len(piece)
        spoken += [(end, len(self.decode(ids)))] * waiting
        found, places, end = iter(spoken), [], 0
        for id in ids:
            places.append((end, end) if id in self.special_ids else next(found))
            end = places[-1][1]
        return places

    def _id(self, token: str) -> int:
        id = self._tokenizer.token_to_id(token)
        if id is None:
            raise TokenizerError(f"{self._main} has no token {token}; a Qwen2 or Qwen2.5-VL tokenizer is needed.")
        return id


def _configured(files: Mapping[str, str], origin: str) -> dict[int, tokenizers.AddedToken]:
    """The added tokens of tokenizer_config.json by id."""
    try:
        found = json.loads(files.get(CONFIG_FILE, "{}")).get("added_tokens_decoder") or {}
        return {int(id): tokenizers.AddedToken(**token) for id, token in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise TokenizerError(f"{origin}: the added tokens of {CONFIG_FILE} cannot be read: {error}.") from None


def _as_read(text: str, configured: Mapping[int, tokenizers.AddedToken]) -> tuple[str, list[tokenizers.AddedToken]]:
    """tokenizer.json as it is read here, and all added tokens in the order of their ids, with the files' flags.

    Where both files declare a token, transformers believes tokenizer_config.json. «Special» are Qwen's tokens alone,
    because the library can tell only by that flag which ones a text makes and which ones its decoding leaves out.
    """
    model = json.loads(text)
    tokens = {token["content"]: token for token in model["added_tokens"]}
    for id, token in configured.items():
        tokens[token.content] = {"id": id} | tokens.get(token.content, {}) | token.__getstate__()
    declared = sorted(tokens.values(), key=itemgetter("id"))
    read = [token | {"special": token["content"] in QWEN_SPECIAL_TOKENS} for token in declared]
    if read != model["added_tokens"]:
        text = json.dumps(model | {"added_tokens": read})
    return text, [tokenizers.AddedToken(**{name: token[name] for name in token if name != "id"}) for token in declared]


def _read(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise TokenizerError(f"{path}: {size:,} bytes, more than {MAX_FILE_BYTES:,}: no tokenizer file is so large.")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not UTF-8 at byte {error.start}. Fetch the file again.") from None


@cache
def _embedded_files() -> Mapping[str, str]:
    folder = Path(__file__).parent / "embedded"
    return {name: _read(folder / name) for name in (MAIN_FILE, CONFIG_FILE)}
