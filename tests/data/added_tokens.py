"""The embedded tokenizer with tokens that a user added."""

import json
from collections.abc import Collection, Sequence

import tokenizers
from tokenizers import AddedToken

from videmo_jax.data.tokenizer import CONFIG_FILE, MAIN_FILE, Tokenizer

# What Qwen2.5's tokenizer has beside its special tokens.
QWENS_OWN = [
    AddedToken(token, normalized=False, special=False)
    for token in (
        *("<tool_call>", "</tool_call>"),
        *(f"<|{name}|>" for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")),
    )
]
REASONING = [
    *(AddedToken(token, special=True) for token in ("<think>", "</think>")),
    *(AddedToken(token, special=False) for token in ("<answer>", "</answer>")),
]


def extended(tokens: Sequence[AddedToken], where: Collection[str] = (MAIN_FILE, CONFIG_FILE)) -> dict[str, str]:
    """The files with further tokens, declared in tokenizer.json, in tokenizer_config.json or in both."""
    files = Tokenizer.embedded().files
    library = tokenizers.Tokenizer.from_str(files[MAIN_FILE])
    library.add_tokens(list(tokens))
    config = json.loads(files[CONFIG_FILE])
    added = sorted(library.get_added_tokens_decoder().items())
    config["added_tokens_decoder"] = {str(id): token.__getstate__() for id, token in added}
    written = {MAIN_FILE: library.to_str(), CONFIG_FILE: json.dumps(config)}
    return files | {name: written[name] for name in where}
