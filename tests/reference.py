"""The independent implementation that parity is held against: transformers, in float32 on the CPU."""

import jax
import numpy as np
from flax import nnx
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from tests.pytorch import torch
from videmo_jax.data.rows import Batch
from videmo_jax.interop.hf_config import model_config_to_hf
from videmo_jax.interop.hf_names import hf_tensors, hub_name, parameters
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.positions import VisionGrid
from videmo_jax.model.vision import PIXEL_MEAN, PIXEL_STD

IMAGE, VIDEO = 5, 6
TOKEN_IDS = {"bos": 0, "eos": 1, "vision_start": 2, "vision_end": 3, "vision": 4, "image": IMAGE, "video": VIDEO}


def random_transformers(config: ModelConfig, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """transformers' model with random weights, norms and biases included, large enough to show every mistake."""
    hf = Qwen2_5_VLConfig.from_dict(model_config_to_hf(config, TOKEN_IDS, "float32"))
    model = Qwen2_5_VLForConditionalGeneration(hf).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name or "ln_q" in name:
                value.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                value.copy_(0.2 * noise)
            else:
                value.copy_(noise * (value[0].numel() ** -0.5))
    return model


def our_parameters(config: ModelConfig, tensors: dict[str, torch.Tensor]) -> nnx.State:
    """Tensors by their name in transformers, in our tree."""
    by_name = {hub_name(name): value.detach().float().numpy() for name, value in tensors.items()}
    leaves: dict = {}
    for tensor in hf_tensors(config):
        leaves.setdefault(tensor.path, []).append(tensor.to_ours(by_name[tensor.name]))
    state = parameters(config)
    for path, variable in nnx.to_flat_state(state):
        stacked = variable.get_metadata("hf").count("{layer}")
        value = np.stack(leaves[path]) if stacked else leaves[path][0]
        variable.set_value(jax.numpy.asarray(value))
    return state


def pixel_values(patches: np.ndarray) -> torch.Tensor:
    """Normalised patch values [patches, 1176], in float64 first."""
    values = patches.astype(np.float64).reshape(len(patches), 3, -1) / 255
    values = (values - np.array(PIXEL_MEAN)[:, None]) / np.array(PIXEL_STD)[:, None]
    return torch.tensor(values.reshape(len(patches), -1), dtype=torch.float32)


def transformers_inputs(batch: Batch, samples: list) -> dict[str, torch.Tensor]:
    """The same rows as transformers takes them: one sample a row, position ids given explicitly."""
    rows = batch.rows
    inputs = {
        "input_ids": torch.tensor(rows.tokens, dtype=torch.long),
        "attention_mask": torch.tensor(rows.segment_ids > 0, dtype=torch.long),
        "position_ids": torch.tensor(np.moveaxis(rows.positions, 1, 0), dtype=torch.long),
    }
    for kind, suffix in (("image", ""), ("video", "_videos")):
        grids, values = [], []
        for sample in samples:
            vision = [s for s in sample.encoded.segments if isinstance(s, VisionGrid)]
            for grid, patches in zip(vision, sample.patches, strict=True):
                if (grid.seconds_per_grid is None) == (kind == "image"):
                    grids.append([grid.time, grid.height, grid.width])
                    values.append(patches.reshape(-1, patches.shape[-1]))
        if grids:
            inputs[f"{kind}_grid_thw"] = torch.tensor(grids)
            inputs[f"pixel_values{suffix}"] = pixel_values(np.concatenate(values))
    return inputs
