"""Hugging Face's config.json to ours and back.

Read are the flat style of the hub and transformers 4.x (`rope_scaling`, `rope_theta`) and the nested one of
transformers 5 (`text_config`, `rope_parameters`). Written is the hub's flat style, which both and vLLM read.
"""

from collections.abc import Mapping
from typing import Any

from videmo_jax.files.errors import UserError
from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig

ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"


class HfConfigError(UserError):
    """A config.json that does not describe a model we know."""


def model_config_from_hf(config: Mapping[str, Any]) -> ModelConfig:
    """Our configuration of a Hugging Face config.json; what the file says is believed.

    Raises:
      HfConfigError: another architecture, a missing field, or a feature this model does not have.
    """
    if config.get("model_type") != "qwen2_5_vl":
        raise HfConfigError(
            f"config.json: model_type is {config.get('model_type')!r}; only 'qwen2_5_vl' can be imported"
        )
    nested = _section(config, "text_config")
    text = {**config, **nested}
    rope = {**_section(text, "rope_scaling"), **_section(text, "rope_parameters")}
    if text.get("use_sliding_window"):
        raise HfConfigError("config.json: use_sliding_window is true; this model has full attention only")
    if rope.get("rope_type", rope.get("type", "default")) not in ("default", "mrope"):
        raise HfConfigError(f"config.json: rope type {rope.get('rope_type', rope.get('type'))!r} is not supported")
    for section in (text, _section(config, "vision_config")):
        if section.get("hidden_act", "silu") != "silu":
            raise HfConfigError(f"config.json: hidden_act is {section['hidden_act']!r}; only 'silu' is supported")
    heads = _size(text, "num_attention_heads")
    try:
        return ModelConfig(
            TextConfig(
                width=_size(text, "hidden_size"),
                layers=_size(text, "num_hidden_layers"),
                heads=heads,
                kv_heads=text.get("num_key_value_heads") or heads,
                head_width=text.get("head_dim") or _size(text, "hidden_size") // heads,
                mlp_width=_size(text, "intermediate_size"),
                vocab=_size(text, "vocab_size"),
                mrope_sections=tuple(rope.get("mrope_section") or (16, 24, 24)),
                rope_theta=float(rope.get("rope_theta") or text.get("rope_theta") or 1e6),
                norm_eps=float(_need(text, "rms_norm_eps")),
                # Either place may say so: transformers 4 wrote it inside text_config, 5 writes it outside.
                tied=bool(config.get("tie_word_embeddings") or nested.get("tie_word_embeddings")),
                max_positions=int(text.get("max_position_embeddings", TextConfig.max_positions)),
            ),
            _vision_from_hf(_section(config, "vision_config")),
        )
    except HfConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise HfConfigError(f"config.json does not describe a Qwen2.5-VL: {error}") from error


def _vision_from_hf(vision: Mapping[str, Any]) -> VisionConfig:
    return VisionConfig(
        width=_size(vision, "hidden_size"),
        layers=_size(vision, "depth"),
        heads=_size(vision, "num_heads"),
        mlp_width=_size(vision, "intermediate_size"),
        out_width=_size(vision, "out_hidden_size"),
        full_attention=tuple(_need(vision, "fullatt_block_indexes")),
        window=vision.get("window_size", 112),
        patch=vision.get("patch_size", vision.get("spatial_patch_size", 14)),
        temporal_patch=vision.get("temporal_patch_size", 2),
        merge=vision.get("spatial_merge_size", 2),
        channels=vision.get("in_channels", vision.get("in_chans", 3)),
        tokens_per_second=int(vision.get("tokens_per_second", 2)),
    )


def model_config_to_hf(config: ModelConfig, token_ids: Mapping[str, int], dtype: str) -> dict[str, Any]:
    """A config.json in the hub's flat style.

    Args:
      config: the model.
      token_ids: `bos`, `eos`, `vision_start`, `vision_end`, `image`, `video`: the tokenizer's.
      dtype: of the exported tensors, `float32`, `bfloat16` or `float16`.
    """
    text, vision = config.text, config.vision
    if text.head_width * text.heads != text.width:
        raise HfConfigError("a head_width other than width / heads has no place in Qwen2.5-VL's config.json")
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "qwen2_5_vl",
        "attention_dropout": 0.0,
        **{f"{name}_token_id": value for name, value in token_ids.items()},
        "hidden_act": "silu",
        "hidden_size": text.width,
        "initializer_range": 0.02,
        "intermediate_size": text.mlp_width,
        "max_position_embeddings": text.max_positions,
        "max_window_layers": text.layers,
        "num_attention_heads": text.heads,
        "num_hidden_layers": text.layers,
        "num_key_value_heads": text.kv_heads,
        "rms_norm_eps": text.norm_eps,
        "rope_theta": text.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": list(text.mrope_sections)},
        "sliding_window": text.max_positions,
        "tie_word_embeddings": text.tied,
        "torch_dtype": dtype,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": text.vocab,
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "depth": vision.layers,
            "hidden_act": "silu",
            "hidden_size": vision.width,
            "intermediate_size": vision.mlp_width,
            "num_heads": vision.heads,
            "in_chans": vision.channels,
            "in_channels": vision.channels,
            "out_hidden_size": vision.out_width,
            "patch_size": vision.patch,
            "spatial_merge_size": vision.merge,
            "spatial_patch_size": vision.patch,
            "window_size": vision.window,
            "fullatt_block_indexes": list(vision.full_attention),
            "tokens_per_second": vision.tokens_per_second,
            "temporal_patch_size": vision.temporal_patch,
        },
    }


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name) or {}
    if not isinstance(section, Mapping):
        raise HfConfigError(f"config.json: {name} is {section!r}; an object is needed")
    return section


def _need(values: Mapping[str, Any], name: str) -> Any:
    if values.get(name) is None:
        raise HfConfigError(f"config.json has no field '{name}'")
    return values[name]


def _size(values: Mapping[str, Any], name: str) -> int:
    value = _need(values, name)
    if type(value) is not int or value <= 0:
        raise HfConfigError(f"config.json: {name} is {value!r}; a whole number above 0 is needed")
    return value
