"""The small files of an exported model: generation, chat template, image and video preprocessing."""

import dataclasses
import json
from typing import Any

from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.tokenizer import CONFIG_FILE, Tokenizer
from videmo_jax.data.video import FrameSpec
from videmo_jax.model.config import VisionConfig
from videmo_jax.model.vision import PIXEL_MEAN, PIXEL_STD

PROCESSOR = "Qwen2_5_VLProcessor"


def fit_inputs(inputs: InputSpec, vision: VisionConfig) -> InputSpec:
    """The same limits with the patch sizes of a model."""
    frames = dataclasses.replace(
        inputs.frames, patch=vision.patch, merge=vision.merge, temporal_patch=vision.temporal_patch
    )
    return dataclasses.replace(inputs, frames=frames)


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Greedy answers that end with the turn; the ids are the tokenizer's."""
    return {
        "bos_token_id": tokenizer.endoftext,
        "pad_token_id": tokenizer.endoftext,
        "eos_token_id": [tokenizer.im_end, tokenizer.endoftext],
        "do_sample": False,
    }


def image_processor_config(spec: FrameSpec) -> dict[str, Any]:
    """preprocessor_config.json: an image is resized within the same limits as a frame."""
    return {"image_processor_type": "Qwen2VLImageProcessor", **_pixels(spec)}


def video_processor_config(spec: FrameSpec) -> dict[str, Any]:
    """video_preprocessor_config.json: what transformers needs to prepare frames that are already sampled."""
    return {
        "video_processor_type": "Qwen2VLVideoProcessor",
        **_pixels(spec),
        "do_sample_frames": False,
        "fps": spec.rate,
        "min_frames": spec.min_frames,
        "max_frames": spec.max_frames,
    }


def _pixels(spec: FrameSpec) -> dict[str, Any]:
    return {
        "processor_class": PROCESSOR,
        # Twice: transformers before 4.52 knows the pixels' names only, later ones read `size`.
        "min_pixels": spec.min_pixels,
        "max_pixels": spec.max_pixels,
        "size": {"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels},
        "patch_size": spec.patch,
        "temporal_patch_size": spec.temporal_patch,
        "merge_size": spec.merge,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
    }


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, str]:
    """The tokenizer's files word for word, unless tokenizer_config.json lists added tokens and not all of them.

    transformers believes that list alone and would not know the others: it is completed.
    """
    files = tokenizer.files
    config = json.loads(files.get(CONFIG_FILE, "{}"))
    listed = config.get("added_tokens_decoder")
    added = {str(id): token.__getstate__() for id, token in tokenizer.added.items()}
    if listed is None or listed.keys() >= added.keys():
        return files
    config["added_tokens_decoder"] = added
    return files | {CONFIG_FILE: json.dumps(config, indent=2, ensure_ascii=False) + "\n"}


def chat_template_files(tokenizer: Tokenizer) -> dict[str, str]:
    """The processor's chat template as a file of its own, where the tokenizer's files have none.

    Taken is the template inside tokenizer_config.json if it knows videos (that of a text model does not), else the
    embedded one.
    """
    files = tokenizer.files
    if "chat_template.json" in files or "chat_template.jinja" in files:
        return {}
    own = json.loads(files.get(CONFIG_FILE, "{}")).get("chat_template")
    if not isinstance(own, str) or "<|video_pad|>" not in own:
        own = json.loads(Tokenizer.embedded().files[CONFIG_FILE])["chat_template"]
    return {"chat_template.jinja": own}
