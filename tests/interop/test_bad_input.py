"""Directories that cannot be converted: each gives one line that says what is wrong, and leaves nothing behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.hf_directories import SINGLE, edit_json, edit_tensors, small, write_hf
from tests.pytorch import torch
from videmo_jax.data.tokenizer import TokenizerError
from videmo_jax.files.errors import FileError
from videmo_jax.interop.export_hf import export_hf
from videmo_jax.interop.hf_config import HfConfigError, model_config_from_hf
from videmo_jax.interop.import_hf import import_hf
from videmo_jax.interop.safetensors_files import ConversionError
from videmo_jax.training.checkpoint import CheckpointError

ROOT = Path(__file__).parents[2]
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undamaged directories: one file, and shards."""
    folder = tmp_path_factory.mktemp("whole")
    write_hf(folder / "one")
    write_hf(folder / "shards", shard="60KB")
    return folder


@pytest.fixture
def one(whole, tmp_path):
    shutil.copytree(whole / "one", tmp_path / "hf")
    return tmp_path / "hf"


@pytest.fixture
def shards(whole, tmp_path):
    shutil.copytree(whole / "shards", tmp_path / "hf")
    return tmp_path / "hf"


def refused(folder: Path, *parts: str, error: type[Exception] = ConversionError, **flags) -> None:
    """Importing fails with one line that holds all `parts`, and there is no output afterwards."""
    with pytest.raises(error) as caught:
        import_hf(folder, folder.parent / "ckpt", **flags)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    assert not (folder.parent / "ckpt").exists()


def test_missing_directory(tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "no such directory")


def test_missing_config(one):
    (one / "config.json").unlink()
    refused(one, "config.json", "No such file", error=FileError)


def test_adapters_of_peft_say_how_they_are_merged(one):
    edit_tensors(one, lambda t: [t.__setitem__(f"base_model.model.{name}", t.pop(name)) for name in [*t]])
    refused(one, "base_model.model.", "names of a model inside PEFT", "merge_and_unload()")
    (one / "adapter_config.json").write_text("{}")
    refused(one, "an adapter of PEFT alone", "merge_and_unload()")


@pytest.mark.parametrize("text", ["{", "", "[1]", "\udcff"])
def test_broken_config(one, text):
    (one / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(one, "config.json", "fetch a broken file again", error=FileError)


def test_another_architecture(one):
    edit_json(one / "config.json", model_type="qwen2_vl")
    refused(one, "'qwen2_vl'", "qwen2_5_vl", error=HfConfigError)


def test_config_without_a_size(one):
    values = json.loads((one / "config.json").read_text())
    del values["vision_config"]["depth"]
    (one / "config.json").write_text(json.dumps(values))
    refused(one, "no field 'depth'", error=HfConfigError)


@pytest.mark.parametrize("field, value", [("hidden_size", "wide"), ("num_attention_heads", 0), ("vision_config", [])])
def test_config_of_nonsense(one, field, value):
    values = json.loads((one / "config.json").read_text())
    (values if field in values else values["text_config"])[field] = value
    (one / "config.json").write_text(json.dumps(values))
    refused(one, "config.json", error=HfConfigError)


def test_no_weights(one):
    (one / SINGLE).unlink()
    refused(one, SINGLE, INDEX, "pickled weights")


@pytest.mark.parametrize("keep", [0, 5, 300, -4])
def test_file_that_was_cut_off(one, keep):
    data = (one / SINGLE).read_bytes()
    (one / SINGLE).write_bytes(data[:keep])
    refused(one, SINGLE, "fetch it again")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]},
        {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]},
        {"dtype": "F32", "shape": [1]},
        [],
    ],
)
def test_header_of_nonsense(one, entry):
    header = json.dumps({"model.norm.weight": entry}).encode()
    (one / SINGLE).write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    refused(one, SINGLE, "again")


def test_missing_shard(shards):
    name = sorted(shards.glob("*.safetensors"))[1].name
    (shards / name).unlink()
    refused(shards, name, "is missing")


def test_index_names_a_tensor_that_its_shard_lacks(shards):
    places = json.loads((shards / INDEX).read_text())["weight_map"]
    first, other = sorted(set(places.values()))[:2]
    moved = next(name for name, place in places.items() if place == first)
    edit_json(shards / INDEX, weight_map=places | {moved: other})
    refused(shards, moved, other, "lacks")


@pytest.mark.parametrize("place", ["../hf/model-00001.safetensors", "/etc/passwd", ".."])
def test_index_that_leaves_the_directory(shards, place):
    places = json.loads((shards / INDEX).read_text())["weight_map"]
    edit_json(shards / INDEX, weight_map=places | {"model.norm.weight": place})
    refused(shards, place, "plain file name")


@pytest.mark.parametrize("weight_map", [None, [], {"model.norm.weight": 3}])
def test_index_of_nonsense(shards, weight_map):
    edit_json(shards / INDEX, weight_map=weight_map)
    refused(shards, INDEX, "weight_map")


def test_missing_tensors(one):
    edit_tensors(one, lambda t: [t.pop(f"model.layers.{i}.self_attn.q_proj.bias") for i in (0, 2)])
    refused(
        one, "2 tensors are missing", "model.layers.0.self_attn.q_proj.bias", "model.layers.2.self_attn.q_proj.bias"
    )


def test_untied_without_head(one):
    edit_json(one / "config.json", tie_word_embeddings=False)
    refused(one, "lm_head.weight", "tie_word_embeddings")


def test_tied_with_another_head(one):
    edit_tensors(one, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    refused(one, "lm_head.weight differs", "tie_word_embeddings")


def test_unexpected_tensors(one):
    edit_tensors(one, lambda t: t.update({"model.layers.3.mlp.up_proj.weight": torch.ones(2, 2)}))
    refused(one, "1 tensors have no place", "model.layers.3.mlp.up_proj.weight")


def test_both_styles_of_names_at_once(one):
    edit_tensors(one, lambda t: t.update({"model.language_model.norm.weight": torch.ones(32)}))
    refused(one, "model.norm.weight twice")


def test_wrong_shape(one):
    edit_tensors(one, lambda t: t.update({"visual.blocks.1.mlp.up_proj.weight": torch.ones(40, 25)}))
    refused(one, "visual.blocks.1.mlp.up_proj.weight", "(40, 25)", "(40, 24)")


@pytest.mark.parametrize("dtype, name", [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.float64, "F64")])
def test_other_dtypes(one, dtype, name):
    edit_tensors(one, lambda t: t.update({"model.norm.weight": torch.ones(32).to(dtype)}))
    refused(one, "model.norm.weight", name, "unquantised")


def test_layers_of_two_dtypes(one):
    name = "model.layers.2.mlp.up_proj.weight"
    edit_tensors(one, lambda t: t.update({name: t[name].bfloat16()}))
    refused(one, name, "bfloat16", "float32")


def test_no_tokenizer(one, tmp_path, whole):
    (one / "tokenizer.json").unlink()
    refused(one, "no tokenizer.json", "--tokenizer DIR")
    import_hf(one, tmp_path / "ckpt", tokenizer=whole / "one")


def test_broken_tokenizer(one):
    (one / "tokenizer.json").write_text("{}")
    refused(one, "tokenizer.json", error=TokenizerError)


def test_tokenizer_of_a_larger_model(one):
    """Its ids would index past the embedding, silently."""
    values = json.loads((one / "config.json").read_text())
    values["text_config"]["vocab_size"] = 2000
    (one / "config.json").write_text(json.dumps(values))
    refused(one, "2,048 ids", "2,000 rows")


def test_output_that_exists(one, tmp_path):
    import_hf(one, tmp_path / "ckpt")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConversionError, match="exists already"):
        import_hf(one, tmp_path / "ckpt")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(ConversionError, match="exists already"):
        import_hf(one, tmp_path / "run")
    with pytest.raises(ConversionError, match="exists already"):
        export_hf(tmp_path / "ckpt", tmp_path / "run")
    assert sorted(set(tmp_path.rglob("*")) - {tmp_path / "run", tmp_path / "run" / "config.json"}) == before


def test_unknown_mode(one):
    refused(one, "'fast'", "sampled, nominal", error=ValueError, seconds_per_grid="fast")


def test_export_without_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        export_hf(tmp_path, tmp_path / "out")


def test_export_of_a_damaged_checkpoint(one, tmp_path):
    checkpoint = import_hf(one, tmp_path / "ckpt")
    for file in (checkpoint / "params").glob("d/*"):
        file.unlink()
    with pytest.raises(CheckpointError, match=r"parameter .* cannot be read"):
        export_hf(tmp_path / "ckpt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sliding_window_is_refused():
    with pytest.raises(HfConfigError, match="full attention only"):
        model_config_from_hf({"model_type": "qwen2_5_vl", "use_sliding_window": True})


def test_the_command(one, tmp_path):
    """Import and export by the command line; an error is one line and exit code 1, never a traceback."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "launch/convert.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)

    assert "examples:" in run("--help").stdout and "--seconds-per-grid" in run("import", "--help").stdout
    done = run("import", "--hf", str(one), "--out", str(tmp_path / "ckpt"))
    assert done.returncode == 0 and f"wrote {tmp_path / 'ckpt'}" in done.stdout, done.stderr
    done = run("export", "--checkpoint", str(tmp_path / "ckpt"), "--out", str(tmp_path / "out"), "--dtype", "bfloat16")
    assert done.returncode == 0 and (tmp_path / "out" / SINGLE).stat().st_size < (one / SINGLE).stat().st_size
    failed = run("import", "--hf", str(one), "--out", str(tmp_path / "ckpt"))
    assert failed.returncode == 1 and failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
    assert "exists already" in failed.stderr and "Traceback" not in failed.stdout + failed.stderr


def test_small_model_has_every_kind_of_tensor(whole):
    """The fixtures would prove little if a parameter were left out of them."""
    assert small(True).text.layers > 1 and len(list((whole / "shards").glob("*.safetensors"))) > 2
