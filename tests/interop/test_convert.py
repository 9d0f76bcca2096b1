"""Round trips through a checkpoint, bit for bit, and what the checkpoint holds in between."""

import json
import os
import signal
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from tests.interop.hf_directories import (
    edit_json,
    edit_tensors,
    hf_tensors_of,
    in_memory_name,
    require_same,
    small,
    write_hf,
)
from tests.pytorch import torch
from tests.reference import our_parameters
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.interop import stored_arrays
from videmo_jax.interop.export_hf import export_hf
from videmo_jax.interop.hf_names import parameters
from videmo_jax.interop.import_hf import import_hf
from videmo_jax.training.checkpoint import (
    CheckpointError,
    Meta,
    find_checkpoint,
    read_meta,
    read_tokenizer_files,
    restore_params,
)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shard", ["1GB", "60KB"], ids=["one file", "shards"])
def test_import_then_export_is_bit_identical(tmp_path, tied, dtype, shard):
    expected = write_hf(tmp_path / "hf", tied=tied, dtype=dtype, shard=shard)
    assert ("lm_head.weight" in expected) == (not tied)
    assert ((tmp_path / "hf" / "model.safetensors.index.json").exists()) == (shard == "60KB")
    import_hf(tmp_path / "hf", tmp_path / "ckpt")
    export_hf(tmp_path / "ckpt", tmp_path / "out", shard_bytes=60_000 if shard == "60KB" else 10**9)
    require_same(expected, hf_tensors_of(tmp_path / "out"))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_in_memory_names_come_out_as_hub_names(tmp_path, tied):
    expected = write_hf(tmp_path / "hf", tied=tied)

    def rename(tensors):
        for name in list(tensors):
            tensors[in_memory_name(name)] = tensors.pop(name)
        assert "model.language_model.norm.weight" in tensors and "model.visual.merger.mlp.0.bias" in tensors

    edit_tensors(tmp_path / "hf", rename)
    import_hf(tmp_path / "hf", tmp_path / "ckpt")
    export_hf(tmp_path / "ckpt", tmp_path / "out")
    require_same(expected, hf_tensors_of(tmp_path / "out"))


def test_tied_head_that_equals_the_embedding_is_dropped(tmp_path):
    expected = write_hf(tmp_path / "hf", tied=True)

    def add(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    edit_tensors(tmp_path / "hf", add)
    import_hf(tmp_path / "hf", tmp_path / "ckpt")
    export_hf(tmp_path / "ckpt", tmp_path / "out")
    require_same(expected, hf_tensors_of(tmp_path / "out"))


def test_chunks_and_row_blocks_do_not_change_values(tmp_path, monkeypatch):
    """Tables are read and written by rows; here several blocks each, the last one short."""
    monkeypatch.setattr(stored_arrays, "CHUNK_BYTES", 50 * 32 * 4)
    expected = write_hf(tmp_path / "hf", tied=False)
    import_hf(tmp_path / "hf", tmp_path / "ckpt")
    embedding = stored_arrays.open_array(tmp_path / "ckpt/checkpoints/0/params", ("language", "embedding"))
    assert embedding.chunk_layout.read_chunk.shape == (50, 32) and 2060 % 50
    export_hf(tmp_path / "ckpt", tmp_path / "out")
    require_same(expected, hf_tensors_of(tmp_path / "out"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_checkpoint_equals_a_plain_orbax_save(tmp_path, dtype):
    tensors = write_hf(tmp_path / "hf", tied=False, dtype=dtype)
    wanted = nnx.to_pure_dict(our_parameters(small(False), tensors))
    wanted = jax.tree.map(lambda a: a.astype("float32" if dtype == torch.float32 else "bfloat16"), wanted)
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "plain", wanted)
    checkpoint = import_hf(tmp_path / "hf", tmp_path / "ckpt")
    with ocp.StandardCheckpointer() as reader:
        plain, ours = reader.restore(tmp_path / "plain"), reader.restore(checkpoint / "params")
        held = reader.metadata(checkpoint / "params").item_metadata.tree
    restored = nnx.to_pure_dict(restore_params(tmp_path / "ckpt"))
    assert jax.tree.structure(plain) == jax.tree.structure(ours) == jax.tree.structure(restored)
    for one, other, third, spec in zip(*map(jax.tree.leaves, (plain, ours, restored, held)), strict=True):
        assert one.dtype == other.dtype == third.dtype == spec.dtype and one.shape == spec.shape
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes() == np.asarray(third).tobytes()


def test_checkpoint_tells_where_it_comes_from(tmp_path):
    write_hf(tmp_path / "hf", dtype=torch.bfloat16)
    import_hf(tmp_path / "hf", tmp_path / "ckpt", seconds_per_grid="nominal")
    meta = read_meta(tmp_path / "ckpt")
    assert meta.model == small(True) and meta.step == 0
    assert meta.inputs["seconds_per_grid"] == "nominal" and meta.inputs["frames"]["max_frames"] == 16
    assert meta.origin["hf"] == "hf" and meta.origin["dtype"] == ["bfloat16"]
    assert meta.origin["config"]["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert read_tokenizer_files(tmp_path / "ckpt") == Tokenizer.embedded().files


def test_export_casts_on_request(tmp_path):
    expected = write_hf(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "ckpt")
    export_hf(tmp_path / "ckpt", tmp_path / "half", dtype="bfloat16")
    require_same({name: value.bfloat16() for name, value in expected.items()}, hf_tensors_of(tmp_path / "half"))
    import_hf(tmp_path / "half", tmp_path / "half-ckpt")
    export_hf(tmp_path / "half-ckpt", tmp_path / "wide", dtype="float32")
    require_same({name: value.bfloat16().float() for name, value in expected.items()}, hf_tensors_of(tmp_path / "wide"))


def test_two_dtypes_in_one_model_stay_apart(tmp_path):
    """A table of one type beside layers of another; the narrow one comes last in the file, so the wide stay aligned."""
    write_hf(tmp_path / "hf", tied=True, dtype=torch.float32)
    edit_tensors(tmp_path / "hf", lambda t: t.update({"model.norm.weight": t["model.norm.weight"].bfloat16()}))
    expected = hf_tensors_of(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "ckpt")
    export_hf(tmp_path / "ckpt", tmp_path / "out")
    require_same(expected, hf_tensors_of(tmp_path / "out"))


def test_a_checkpoint_that_orbax_saved_whole_is_exported(tmp_path):
    """A training run's arrays lie in chunks of many layers; they come out the same."""
    tensors = write_hf(tmp_path / "hf", tied=False)
    params = nnx.to_pure_dict(our_parameters(small(False), tensors))
    inputs = {"seconds_per_grid": "sampled"}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as saver:
        saver.save(
            tmp_path / "run/checkpoints/7",
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                meta=ocp.args.JsonSave(Meta(small(False), 7, inputs).to_json()),
                tokenizer=ocp.args.JsonSave(Tokenizer.embedded().files),
            ),
        )
    array = stored_arrays.open_array(tmp_path / "run/checkpoints/7/params", ("language", "layers", "q"))
    assert array.chunk_layout.read_chunk.shape[0] == small(False).text.layers
    export_hf(tmp_path / "run", tmp_path / "out")
    require_same(tensors, hf_tensors_of(tmp_path / "out"))


def test_arrays_are_stored_by_layers_and_bounded_pieces():
    for path, param in nnx.to_flat_state(parameters(small(False))):
        stacked = "layers" in path or "blocks" in path
        chunk = stored_arrays.ArraySpec(param.shape, np.dtype(np.float32), stacked).chunk
        assert chunk == ((1, *param.shape[1:]) if stacked else param.shape)
    table = stored_arrays.ArraySpec((152_064, 8192), np.dtype(ml_dtypes.bfloat16), stacked=False)
    assert table.chunk == (4096, 8192)  # 64 MiB of rows, of the largest tensor of the family
    layer = stored_arrays.ArraySpec((80, 8192, 29_568), np.dtype(np.float32), stacked=True)
    assert layer.chunk == (1, 567, 29_568)


KILLED_IMPORT = """
import os, signal, sys
from videmo_jax.interop.import_hf import import_hf
done = []
def report(name, size, total):
    done.append(name)
    if len(done) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
import_hf(sys.argv[1], sys.argv[2], report=report)
"""


def test_a_killed_import_leaves_no_checkpoint_and_can_be_repeated(tmp_path):
    expected = write_hf(tmp_path / "hf")
    command = [sys.executable, "-c", KILLED_IMPORT, str(tmp_path / "hf"), str(tmp_path / "ckpt")]
    killed = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((tmp_path / "ckpt" / "checkpoints").iterdir())  # it was at work
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        find_checkpoint(tmp_path / "ckpt")
    import_hf(tmp_path / "hf", tmp_path / "ckpt")
    export_hf(tmp_path / "ckpt", tmp_path / "out")
    require_same(expected, hf_tensors_of(tmp_path / "out"))


def test_a_killed_export_leaves_nothing_under_its_name_and_can_be_repeated(tmp_path):
    expected = write_hf(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "ckpt")

    def interrupt(name, size, total):
        if name.startswith("model.layers.1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_hf(tmp_path / "ckpt", tmp_path / "out", report=interrupt)
    assert not (tmp_path / "out").exists()
    export_hf(tmp_path / "ckpt", tmp_path / "out")
    require_same(expected, hf_tensors_of(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt", "hf", "out"]


def test_reports_add_up(tmp_path):
    expected = write_hf(tmp_path / "hf", tied=False)
    heard = {"import": [], "export": []}
    import_hf(tmp_path / "hf", tmp_path / "ckpt", report=lambda *event: heard["import"].append(event))
    export_hf(tmp_path / "ckpt", tmp_path / "out", report=lambda *event: heard["export"].append(event))
    total = sum(value.nbytes for value in expected.values())
    for events in heard.values():
        assert sorted(name for name, _, _ in events) == sorted(expected)
        assert sum(size for _, size, _ in events) == total and {last for _, _, last in events} == {total}


def test_nested_config_of_transformers_5_and_flat_config_of_the_hub_mean_the_same(tmp_path):
    write_hf(tmp_path / "nested")
    import_hf(tmp_path / "nested", tmp_path / "a")
    export_hf(tmp_path / "a", tmp_path / "flat")
    import_hf(tmp_path / "flat", tmp_path / "b")
    configs = [read_meta(tmp_path / name).origin["config"] for name in "ab"]
    assert "text_config" in configs[0] and "text_config" not in configs[1]
    assert read_meta(tmp_path / "a").model == read_meta(tmp_path / "b").model == small(True)


def test_tie_may_be_declared_in_text_config(tmp_path):
    """transformers 4 wrote it there."""
    write_hf(tmp_path / "hf", tied=True)
    path = tmp_path / "hf" / "config.json"
    nested = json.loads(path.read_text())["text_config"] | {"tie_word_embeddings": True}
    edit_json(path, tie_word_embeddings=None, text_config=nested)
    import_hf(tmp_path / "hf", tmp_path / "ckpt")
    assert read_meta(tmp_path / "ckpt").model.text.tied
