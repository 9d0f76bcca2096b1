"""Makes the embedded tokenizer: `python -m videmo_jax.data.embedded.train_tokenizer`.

Qwen2.5's pipeline (NFC, Qwen2's splitting expression, byte-level BPE) with a vocabulary of 2,048, trained on the
texts of the synthetic set and on captions.json beside this file. The same inputs give the same files.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from videmo_jax.data.synthetic.questions import records
from videmo_jax.data.synthetic.scene import draw_scene
from videmo_jax.data.tokenizer import QWEN_SPECIAL_TOKENS

FOLDER = Path(__file__).parent
VOCAB_SIZE = 2048
SCENES = 1700
CAPTION_REPEATS = 20  # So that the English of the captions weighs against thousands of synthetic texts.

# The expression of Qwen2's published tokenizer.json.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

# What Qwen2.5-VL-Instruct's own template does: a default system message, vision spans for images and videos.
CHAT_TEMPLATE = """\
{%- set pictures = namespace(images=0, videos=0) -%}
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}
{%- set pictures.images = pictures.images + 1 -%}
{%- if add_vision_id -%}{{- 'Picture ' ~ pictures.images ~ ': ' -}}{%- endif -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'video' or 'video' in part -%}
{%- set pictures.videos = pictures.videos + 1 -%}
{%- if add_vision_id -%}{{- 'Video ' ~ pictures.videos ~ ': ' -}}{%- endif -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def corpus(scenes: int = SCENES) -> Iterator[str]:
    """The training texts: questions and answers of synthetic scenes, then the captions."""
    for index in range(scenes):
        for record in records(0, draw_scene(0, "train", index)):
            yield record.question.removeprefix("<video>")
            yield record.answer
    captions = json.loads((FOLDER / "captions.json").read_text(encoding="utf-8"))
    for _ in range(CAPTION_REPEATS):
        yield from captions


def train(texts: Iterator[str]) -> Tokenizer:
    """A byte-level BPE of VOCAB_SIZE ids, the last of which are Qwen's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(QWEN_SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in QWEN_SPECIAL_TOKENS])
    return tokenizer


def config(tokenizer: Tokenizer) -> dict[str, object]:
    """tokenizer_config.json with the settings of Qwen2.5-VL-Instruct."""
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in QWEN_SPECIAL_TOKENS
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(QWEN_SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def main() -> None:
    """Writes both files beside this one."""
    tokenizer = train(corpus())
    (FOLDER / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
    text = json.dumps(config(tokenizer), indent=1, ensure_ascii=False)
    (FOLDER / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
