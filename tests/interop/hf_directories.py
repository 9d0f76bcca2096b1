"""Hugging Face directories of random small models, written by transformers itself, for the tests to damage."""

import json
from pathlib import Path

from tests.pytorch import safetensors, torch
from tests.reference import random_transformers
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig

SINGLE = "model.safetensors"


def small(tied: bool) -> ModelConfig:
    """A model of some 100,000 parameters with every kind of tensor, and with room for the embedded tokenizer's ids."""
    return ModelConfig(
        TextConfig(32, 3, 4, 2, 8, 48, 2060, (1, 1, 2), tied=tied, max_positions=512),
        VisionConfig(24, 4, 2, 40, 32, full_attention=(1, 3)),
    )


def write_hf(
    folder: Path, *, tied: bool = True, dtype: torch.dtype = torch.float32, shard: str = "1GB", seed: int = 0
) -> dict[str, torch.Tensor]:
    """Saves a random model with transformers' `save_pretrained`; returns what the files hold, by name."""
    random_transformers(small(tied), seed).to(dtype).save_pretrained(folder, max_shard_size=shard)
    for name, text in Tokenizer.embedded().files.items():
        (folder / name).write_text(text)
    return hf_tensors_of(folder)


def hf_tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a directory's safetensors files, read by the safetensors library."""
    return {
        name: value
        for file in sorted(folder.glob("*.safetensors"))
        for name, value in safetensors.load_file(file).items()
    }


def edit_tensors(folder: Path, change) -> None:
    """Rewrites model.safetensors after `change` has had its way with the dict of tensors."""
    tensors = safetensors.load_file(folder / SINGLE)
    change(tensors)
    safetensors.save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def edit_json(path: Path, **changes) -> None:
    """Sets fields of a JSON file; None removes one."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def in_memory_name(name: str) -> str:
    """The name that transformers >= 4.52 gives a hub tensor in memory."""
    if name.startswith("visual."):
        return "model." + name
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def require_same(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> None:
    """The same names, and under each the same dtype and the same bits."""
    assert sorted(got) == sorted(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        assert got[name].shape == value.shape, name
        assert torch.equal(got[name].view(torch.uint8), value.view(torch.uint8)), name
