"""What transformers makes of an exported directory, and the names and shapes of the full-size models."""

import json
import re

import numpy as np
import pytest
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from tests.interop.hf_directories import write_hf
from tests.pytorch import torch
from tests.reference import TOKEN_IDS
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.interop.export_hf import export_hf
from videmo_jax.interop.hf_config import model_config_from_hf, model_config_to_hf
from videmo_jax.interop.hf_files import chat_template_files
from videmo_jax.interop.hf_names import hf_tensors, hub_name
from videmo_jax.interop.import_hf import import_hf
from videmo_jax.model.config import PRESETS

TEXT_FIELDS = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "rms_norm_eps",
    "hidden_act",
    "layer_types",
    "max_position_embeddings",
    "attention_dropout",
    "use_sliding_window",
]
VISION_FIELDS = [
    "depth",
    "hidden_size",
    "num_heads",
    "intermediate_size",
    "out_hidden_size",
    "fullatt_block_indexes",
    "window_size",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
    "tokens_per_second",
    "in_channels",
    "hidden_act",
]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def exported(request, tmp_path_factory):
    """A directory that went in and out, and whether it is tied."""
    folder = tmp_path_factory.mktemp("exported")
    write_hf(folder / "hf", tied=request.param, dtype=torch.bfloat16)
    import_hf(folder / "hf", folder / "ckpt")
    export_hf(folder / "ckpt", folder / "out", shard_bytes=60_000)
    return folder / "out", request.param


def test_nothing_missing_or_unexpected(exported):
    folder, tied = exported
    model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True, dtype="auto")
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info[problem], (problem, info[problem])
    assert model.dtype == torch.bfloat16
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied


def test_the_loaded_model_computes_what_the_original_does(exported):
    folder, _ = exported
    models = [
        Qwen2_5_VLForConditionalGeneration.from_pretrained(place, dtype=torch.float32)
        for place in (folder, folder.parent / "hf")
    ]
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        ours, theirs = (model(input_ids=ids).logits for model in models)
    assert torch.equal(ours, theirs) and ours.std() > 0.1


def test_config_says_what_the_original_said(exported):
    folder, tied = exported
    ours, theirs = (AutoConfig.from_pretrained(place) for place in (folder, folder.parent / "hf"))
    for name in TEXT_FIELDS:
        assert getattr(ours.text_config, name) == getattr(theirs.text_config, name), name
    for name in ("mrope_section", "rope_theta"):
        assert ours.text_config.rope_parameters[name] == theirs.text_config.rope_parameters[name], name
    for name in VISION_FIELDS:
        assert getattr(ours.vision_config, name) == getattr(theirs.vision_config, name), name
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings == tied
    assert ours.text_config.rms_norm_eps == 1e-6  # transformers 5 would take 1e-5 where it is not written


def test_ids_are_the_tokenizers(exported):
    folder, _ = exported
    tokenizer, config = Tokenizer.embedded(), AutoConfig.from_pretrained(folder)
    assert config.video_token_id == tokenizer.video_pad and config.image_token_id == tokenizer.image_pad
    assert config.vision_start_token_id == tokenizer.vision_start
    assert config.vision_end_token_id == tokenizer.vision_end
    assert (config.text_config.bos_token_id, config.text_config.eos_token_id) == (tokenizer.endoftext, tokenizer.im_end)
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == [tokenizer.im_end, tokenizer.endoftext] and not generation.do_sample
    assert generation.bos_token_id == generation.pad_token_id == tokenizer.endoftext
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs.convert_tokens_to_ids("<|video_pad|>") == tokenizer.video_pad
    text = "A smile, then a frown."
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    for name, content in tokenizer.files.items():
        assert (folder / name).read_text() == content


def test_image_processor_has_the_limits(exported):
    """The video processor and AutoProcessor need torchvision; without it their files are checked as JSON below."""
    folder, _ = exported
    processor = AutoImageProcessor.from_pretrained(folder)
    assert processor.size["shortest_edge"] == 100_352 and processor.size["longest_edge"] == 105_369
    assert (processor.patch_size, processor.merge_size, processor.temporal_patch_size) == (14, 2, 2)
    pixels = processor(np.zeros((360, 640, 3), np.uint8), return_tensors="pt")
    assert pixels["image_grid_thw"].tolist() == [[1, 16, 30]]  # 224 x 420 pixels
    np.testing.assert_allclose(processor.image_mean, [0.48145466, 0.4578275, 0.40821073])


def test_video_processor_file(exported):
    folder, _ = exported
    values = json.loads((folder / "video_preprocessor_config.json").read_text())
    assert values["video_processor_type"] == "Qwen2VLVideoProcessor"
    assert values["size"] == {"shortest_edge": 100_352, "longest_edge": 105_369}
    assert (values["fps"], values["min_frames"], values["max_frames"]) == (2.0, 4, 16)
    assert values["do_sample_frames"] is False


def test_chat_template_stands_in_a_file_of_its_own(exported):
    folder, _ = exported
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == (folder / "chat_template.jinja").read_text()
    content = [{"type": "video"}, {"type": "text", "text": "Why?"}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Why?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chat_template_of_the_tokenizer_wins_unless_it_is_blind():
    files = Tokenizer.embedded().files
    settings = json.loads(files["tokenizer_config.json"])
    embedded = settings["chat_template"]

    def templates(template, **more):
        config = json.dumps(settings | {"chat_template": template})
        return chat_template_files(Tokenizer.from_files(files | {"tokenizer_config.json": config} | more))

    assert templates("{{ 'text only' }}") == {"chat_template.jinja": embedded}
    assert templates("{{ '<|video_pad|>' }}") == {"chat_template.jinja": "{{ '<|video_pad|>' }}"}
    assert templates("{{ 'text only' }}", **{"chat_template.json": "{}"}) == {}


def test_limits_of_the_checkpoint_reach_the_files(tmp_path):
    write_hf(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "ckpt", seconds_per_grid="nominal")
    meta = tmp_path / "ckpt/checkpoints/0/meta/metadata"
    values = json.loads(meta.read_text())
    values["inputs"]["frames"] |= {"rate": 3.0, "max_frames": 8, "min_pixels": 3136, "max_pixels": 50_000}
    meta.write_text(json.dumps(values))
    export_hf(tmp_path / "ckpt", tmp_path / "out")
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        written = json.loads((tmp_path / "out" / name).read_text())
        assert written["size"] == {"shortest_edge": 3136, "longest_edge": 50_000}
    assert (written["fps"], written["min_frames"], written["max_frames"]) == (3.0, 4, 8)
    text = (tmp_path / "out" / "README.md").read_text()
    assert '"fps": 3,' in text and '"max_frames": 8, "min_pixels": 3136, "max_pixels": 50000' in text
    assert '"num_frames": 8, "fps": 3' in text
    assert text.count("sampled = [2.0 for _ in frames]") == 2  # two frames in one second, whatever the rate


def test_readme_of_sampled_timing_keeps_the_sampled_rate(exported):
    assert "for _ in frames" not in (exported[0] / "README.md").read_text()


def test_readme_holds_python_that_compiles_and_no_gap(exported):
    text = (exported[0] / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 2 and "$" not in text
    for snippet in snippets:
        compile(snippet, "README.md", "exec")
    served = re.findall(r"^vllm serve MODEL (?:.*\\\n)*.*", text, re.MULTILINE)
    assert len(served) == 2 and all("--dtype bfloat16" in command for command in served)
    assert all("--max-model-len 512 " in command for command in served)  # all positions of this model
    assert ["--trust-request-mm-kwargs" in command for command in served] == [False, True]
    assert 'LLM("MODEL", dtype="bfloat16"' in snippets[1] and snippets[1].endswith("    main()\n")
    for fact in ("4.57", "5.23", "max(height, width)", "100352 to 105369", "<|im_end|>", "decord"):
        assert fact in text, fact


@pytest.mark.parametrize("size", ["3b", "7b", "32b", "72b"])
def test_full_size_names_and_shapes_are_transformers(size):
    config = PRESETS[size]
    values = model_config_to_hf(config, TOKEN_IDS, "bfloat16")
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(values))
    tied = {"lm_head.weight"} if config.text.tied else set()
    theirs = {hub_name(name): tuple(value.shape) for name, value in model.state_dict().items()}
    theirs = {name: shape for name, shape in theirs.items() if name not in tied}
    ours = {tensor.name: tensor.shape for tensor in hf_tensors(config)}
    assert ours == theirs
    assert len(ours) == 12 * config.text.layers + 12 * config.vision.layers + 8 + (not config.text.tied)
    assert model_config_from_hf(values) == config
