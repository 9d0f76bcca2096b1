"""Hugging Face weights into a checkpoint, tensor by tensor."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from etils import epath
from flax import nnx

from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.tokenizer import MAIN_FILE, SIDE_FILES, Tokenizer
from videmo_jax.files.json_records import read_json
from videmo_jax.files.paths import absolute, open_path
from videmo_jax.interop.hf_config import model_config_from_hf
from videmo_jax.interop.hf_files import fit_inputs
from videmo_jax.interop.hf_names import HfTensor, Path, hf_tensors, hub_name, parameters
from videmo_jax.interop.safetensors_files import (
    ConversionError,
    Report,
    StoredTensor,
    some,
    stored_tensors,
)
from videmo_jax.interop.stored_arrays import ArraySpec, open_array, save_filled
from videmo_jax.model.config import ModelConfig
from videmo_jax.training.checkpoint import FOLDER, Meta, steps

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
# Values that old files carry although they follow from the configuration.
HARMLESS = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq")


MERGE = "merge it into its model (model.merge_and_unload().save_pretrained(DIR)) and import DIR"


def import_hf(
    hf: epath.PathLike,
    out: epath.PathLike,
    *,
    tokenizer: epath.PathLike | None = None,
    seconds_per_grid: str = "sampled",
    report: Report | None = None,
) -> epath.Path:
    """Writes `out`/checkpoints/0 from a Hugging Face directory; dtypes and bits stay as they are.

    Args:
      hf: a directory with config.json, safetensors and a tokenizer.
      out: a new directory, which becomes a CKPT.
      tokenizer: a directory with tokenizer.json, where `hf` has none.
      seconds_per_grid: which time between slabs the model is fed, `sampled` or `nominal` (PAPER.md section 7).
      report: hears of every tensor written.

    Returns:
      The checkpoint.

    Raises:
      ConversionError: the weights or `out` cannot be used.
      HfConfigError: config.json describes another model.
      TokenizerError: the tokenizer cannot be used.
    """
    hf, out = open_path(hf), open_path(out)
    inputs = InputSpec(seconds_per_grid=seconds_per_grid)
    if not hf.is_dir():
        raise ConversionError(f"{hf}: no such directory; give a Hugging Face model directory")
    if (hf / "adapter_config.json").exists():
        raise ConversionError(f"{hf}: holds an adapter of PEFT alone; {MERGE}")
    _refuse_existing(out)
    config = read_json(hf / "config.json", "give a Hugging Face model directory, and fetch a broken file again")
    model = model_config_from_hf(config)
    files = _tokenizer_files(hf if tokenizer is None else open_path(tokenizer), model)
    pairs = _pair(model, stored_tensors(hf), hf)
    arrays = _arrays(model, pairs)
    # In the files' order: they are then read from start to end.
    pairs.sort(key=lambda pair: (pair[1].path, pair[1].offset))
    total = sum(stored.nbytes for _, stored in pairs)

    def fill(params: epath.Path) -> None:
        stores = {path: open_array(params, path, create=spec) for path, spec in arrays.items()}
        for tensor, stored in pairs:
            for index, value in _pieces(tensor, stored, arrays[tensor.path].chunk[0]):
                stores[tensor.path][index].write(value).result()
            if report:
                report(tensor.name, stored.nbytes, total)

    meta = Meta(
        model,
        inputs=fit_inputs(inputs, model.vision).to_json(),
        origin={
            "hf": absolute(hf).name,
            "config": config,
            "dtype": sorted({spec.dtype.name for spec in arrays.values()}),
        },
    )
    checkpoint = out / FOLDER / "0"
    save_filled(checkpoint, arrays, fill, meta=meta.to_json(), tokenizer=files)
    return checkpoint


def _refuse_existing(out: epath.Path) -> None:
    """Refuses an output in use; what a killed import left behind is removed."""
    if not out.exists():
        return
    if not out.is_dir() or steps(out) or any(entry.name != FOLDER for entry in out.iterdir()):
        raise ConversionError(f"{out}: exists already; give a new directory, nothing is overwritten")
    out.rmtree()


def _tokenizer_files(folder: epath.Path, model: ModelConfig) -> dict[str, str]:
    if not (folder / MAIN_FILE).exists():
        raise ConversionError(f"{folder}: no {MAIN_FILE}; name a directory that has one with --tokenizer DIR")
    with tempfile.TemporaryDirectory() as local:
        for name in (MAIN_FILE, *SIDE_FILES):
            if (folder / name).exists():
                (folder / name).copy(os.path.join(local, name))
        tokenizer = Tokenizer.from_dir(local)
    if tokenizer.vocab_size > model.text.vocab:
        raise ConversionError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} ids, the model's embedding {model.text.vocab:,} "
            "rows; give the tokenizer that belongs to the model with --tokenizer DIR"
        )
    return tokenizer.files


def _pair(
    model: ModelConfig, stored: Mapping[str, StoredTensor], folder: epath.Path
) -> list[tuple[HfTensor, StoredTensor]]:
    """Each tensor of the model with the one of the files; nothing may be missing, left over or of another shape."""
    by_name: dict[str, StoredTensor] = {}
    if wrapped := [name for name in stored if name.startswith("base_model.") or ".base_layer." in name]:
        raise ConversionError(f"{folder}: {some(wrapped)}: names of a model inside PEFT; {MERGE}")
    for name, tensor in stored.items():
        if hub_name(name) in by_name:
            raise ConversionError(f"{folder}: holds {hub_name(name)} twice, under both styles of names")
        by_name[hub_name(name)] = tensor
    wanted = list(hf_tensors(model))
    names = {tensor.name for tensor in wanted}
    missing = [tensor.name for tensor in wanted if tensor.name not in by_name]
    if missing:
        hint = "; set tie_word_embeddings in config.json if it shares the embedding" if missing == [HEAD] else ""
        raise ConversionError(f"{folder}: {len(missing)} tensors are missing: {some(missing)}{hint}")
    for tensor in wanted:
        shape = by_name[tensor.name].shape
        if shape != tensor.shape:
            raise ConversionError(
                f"{folder}: {tensor.name} has shape {shape}; config.json asks for {tensor.shape}, "
                "so weights and config.json are of different models"
            )
    if model.text.tied and HEAD in by_name:
        _require_equal(by_name.pop(HEAD), by_name[EMBEDDING])
    unexpected = [name for name in by_name if name not in names and not name.endswith(HARMLESS)]
    if unexpected:
        raise ConversionError(
            f"{folder}: {len(unexpected)} tensors have no place in this model: {some(unexpected)}; "
            "it is not a plain Qwen2.5-VL of this config.json"
        )
    return [(tensor, by_name[tensor.name]) for tensor in wanted]


def _require_equal(head: StoredTensor, embedding: StoredTensor) -> None:
    """A tied model has one table; a file that holds two different ones contradicts its config.json."""
    rows = ArraySpec(embedding.shape, embedding.dtype, stacked=False).chunk[0]
    equal = (head.shape, head.dtype) == (embedding.shape, embedding.dtype) and all(
        head.read(start, stop).tobytes() == embedding.read(start, stop).tobytes()
        for start, stop in _ranges(embedding.shape[0], rows)
    )
    if not equal:
        raise ConversionError(
            f"{head.path}: {HEAD} differs from {EMBEDDING}, although config.json ties them; "
            "set tie_word_embeddings to false in config.json to keep both"
        )


def _arrays(model: ModelConfig, pairs: Sequence[tuple[HfTensor, StoredTensor]]) -> dict[Path, ArraySpec]:
    """Shape and dtype of every parameter; its layers must agree on the dtype."""
    shapes = {path: param.shape for path, param in nnx.to_flat_state(parameters(model))}
    arrays = {}
    for path, group in groupby(pairs, key=lambda pair: pair[0].path):
        layers = list(group)
        first, one = layers[0]
        for tensor, stored in layers:
            if stored.dtype != one.dtype:
                raise ConversionError(
                    f"{tensor.name} is {stored.dtype.name}, but {first.name} {one.dtype.name}; layers are kept as one "
                    "array, so save the weights in one dtype"
                )
        arrays[path] = ArraySpec(shapes[path], one.dtype, stacked=first.layer is not None)
    return arrays


def _pieces(tensor: HfTensor, stored: StoredTensor, rows: int) -> Iterator[tuple[Any, np.ndarray]]:
    """A tensor's place in our array, and its values in our layout; large tables come by rows."""
    if tensor.plain:
        for start, stop in _ranges(stored.shape[0], rows):
            yield slice(start, stop), stored.read(start, stop)
    else:
        yield ... if tensor.layer is None else tensor.layer, tensor.to_ours(stored.read())


def _ranges(count: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, step):
        yield start, min(start + step, count)
