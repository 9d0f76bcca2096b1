"""A checkpoint into a directory that transformers and vLLM load, tensor by tensor."""

import json
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from typing import Any

import ml_dtypes
import numpy as np
import tensorstore as ts
from etils import epath
from flax import nnx

from videmo_jax.data.inputs import InputSpec
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.files.errors import UserError
from videmo_jax.files.paths import absolute
from videmo_jax.files.writing import whole_folder, write_text
from videmo_jax.interop.hf_config import model_config_to_hf
from videmo_jax.interop.hf_files import (
    chat_template_files,
    fit_inputs,
    generation_config,
    image_processor_config,
    tokenizer_files,
    video_processor_config,
)
from videmo_jax.interop.hf_names import HfTensor, Path, hf_tensors
from videmo_jax.interop.hf_readme import readme
from videmo_jax.interop.safetensors_files import ConversionError, Report, TensorSpec, write_shards
from videmo_jax.interop.stored_arrays import open_array
from videmo_jax.model.config import LoraConfig, ModelConfig
from videmo_jax.model.lora import adapter_paths, merged_kernel
from videmo_jax.model.videmo import abstract_model
from videmo_jax.training.checkpoint import CheckpointError, Meta, find_checkpoint, read_meta, read_tokenizer_files

POSITIONS = "trained_positions.py"  # of the package, copied as it is: nothing here imports it
DTYPES = {"keep": None, "bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}


def export_hf(
    checkpoint: epath.PathLike,
    out: epath.PathLike,
    *,
    dtype: str = "keep",
    shard_bytes: int = 5 * 10**9,
    report: Report | None = None,
) -> None:
    """Writes a Hugging Face directory: weights under hub names, configs, the tokenizer's files, a README and its code.

    Adapters are merged into the weights, in float32.

    It appears under its name only when it is complete.

    Args:
      checkpoint: a checkpoint or a work directory.
      out: a directory that does not exist yet, or is empty.
      dtype: `keep`, `bfloat16` or `float32`.
      shard_bytes: the most that one file of weights holds, in bytes.
      report: hears of every tensor.

    Raises:
      CheckpointError: there is no checkpoint, or it is not what its description says.
      ConversionError: `out` is in use.
      TokenizerError: the checkpoint's tokenizer cannot be used.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    checkpoint, out = find_checkpoint(checkpoint), absolute(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConversionError(f"{out}: exists already; give a new directory, nothing is overwritten")
    meta, tokenizer = read_meta(checkpoint), Tokenizer.from_files(read_tokenizer_files(checkpoint))
    arrays = _open_arrays(checkpoint / "params", meta.model)
    tensors = {tensor.name: tensor for tensor in hf_tensors(meta.model)}
    specs = [
        TensorSpec(tensor.name, tensor.shape, DTYPES[dtype] or arrays[tensor.path].dtype.numpy_dtype)
        for tensor in tensors.values()
    ]
    total, reader = sum(spec.nbytes for spec in specs), _Reader(arrays, meta.model.lora)

    def blocks(spec: TensorSpec) -> Iterator[np.ndarray]:
        if report:
            report(spec.name, spec.nbytes, total)
        return reader.blocks(tensors[spec.name])

    with whole_folder(out) as folder:
        write_shards(folder, specs, shard_bytes, blocks)
        for name, text in _texts(meta, tokenizer, specs).items():
            write_text(folder / name, text)


def _open_arrays(params: epath.Path, model: ModelConfig) -> dict[Path, ts.TensorStore]:
    arrays = {}
    for path, param in nnx.to_flat_state(nnx.state(abstract_model(model), nnx.Param)):
        name = ".".join(map(str, path))
        try:
            arrays[path] = open_array(params, path)
        except ValueError as error:
            raise CheckpointError(f"{params}: parameter {name} cannot be read: {error}") from error
        if tuple(arrays[path].shape) != param.shape:
            raise CheckpointError(
                f"{params}: parameter {name} has shape {tuple(arrays[path].shape)}, but the checkpoint's own "
                f"description says {param.shape}; it is damaged"
            )
    return arrays


class _Reader:
    """Reads tensors out of stacked arrays; layers that are stored as one piece are read once and kept until used."""

    def __init__(self, arrays: dict[Path, ts.TensorStore], lora: LoraConfig) -> None:
        self._arrays, self._lora, self._adapters = arrays, lora, adapter_paths(lora)
        self._held: tuple[Path, int] | None = None
        self._layers = np.zeros(0)

    def blocks(self, tensor: HfTensor) -> Iterator[np.ndarray]:
        """The tensor's values in the file's layout; large tables come by rows."""
        array = self._arrays[tensor.path]
        step = array.chunk_layout.read_chunk.shape[0]
        if tensor.plain:
            for start in range(0, array.shape[0], step):
                yield array[start : min(start + step, array.shape[0])].read().result()
        elif tensor.layer is None:
            yield tensor.to_hf(array.read().result())
        else:
            first = tensor.layer // step * step
            if self._held != (tensor.path, first):
                self._layers = np.zeros(0)  # first let go of the old ones
                self._layers = array[first : min(first + step, array.shape[0])].read().result()
                self._held = (tensor.path, first)
            yield tensor.to_hf(self._merged(tensor, self._layers[tensor.layer - first]))

    def _merged(self, tensor: HfTensor, kernel: np.ndarray) -> np.ndarray:
        """A layer's kernel, with its adapter where it has one: in float32, and cast when it is written."""
        if tensor.path not in self._adapters:
            return kernel
        a, b = (self._arrays[path][tensor.layer].read().result() for path in self._adapters[tensor.path])
        return np.asarray(merged_kernel(kernel, a, b, self._lora.scale))


def _texts(meta: Meta, tokenizer: Tokenizer, specs: list[TensorSpec]) -> dict[str, str]:
    """All files but the weights, by name."""
    held: Counter[str] = Counter()
    for spec in specs:
        held[spec.dtype.name] += spec.nbytes
    dtype = held.most_common(1)[0][0]
    ids = {
        "bos": tokenizer.endoftext,
        "eos": tokenizer.im_end,
        "vision_start": tokenizer.vision_start,
        "vision_end": tokenizer.vision_end,
        "image": tokenizer.image_pad,
        "video": tokenizer.video_pad,
    }
    inputs = fit_inputs(InputSpec.from_json(meta.inputs), meta.model.vision)
    objects: dict[str, Any] = {
        "config.json": model_config_to_hf(meta.model, ids, dtype),
        "generation_config.json": generation_config(tokenizer),
        "preprocessor_config.json": image_processor_config(inputs.frames),
        "video_preprocessor_config.json": video_processor_config(inputs.frames),
    }
    return {
        **{name: json.dumps(values, indent=2) + "\n" for name, values in objects.items()},
        **tokenizer_files(tokenizer),
        **chat_template_files(tokenizer),
        "README.md": readme(inputs, dtype, tokenizer, meta.model.text.max_positions),
        POSITIONS: resources.files(__package__).joinpath(POSITIONS).read_text("utf-8"),
    }
