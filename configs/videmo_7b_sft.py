"""VidEmo-Base-7B: the paper's SFT (PAPER.md sections 1 and 2), three stages, on 64 chips of v5p.

videmo_7b_sft.py:v5e-16x16 takes another slice, :stage2 one stage, from the weights that --config.init names;
:v6e-8x8,stage2 both.
"""

from ml_collections import ConfigDict

from videmo_jax.sft.recipe import on_slice, sft_recipe

KEPT = {"compute.remat": "attention", "compute.vision_remat": "attention"}
SLICES = {
    "v5p-4x4x4": {"mesh.fsdp": 64, "compute.remat": "dots", "compute.vision_remat": "dots"},
    "v6e-8x8": {"mesh.fsdp": 64, **KEPT, "compute.vision_remat": "context"},
    "v5e-16x16": {"mesh.fsdp": 128, "mesh.tensor": 2, **KEPT},
    "v5e-8x16-2": {"mesh.replica": 2, "mesh.fsdp": 64, "mesh.tensor": 2, **KEPT},  # two slices of 128 chips
}


def get_config(arg: str | None = None) -> ConfigDict:
    config = sft_recipe("7b")
    config.batch = 128  # rows of some eight samples: the paper's 1,024 samples a step
    config.data.row.tokens = 5632
    config.data.row.slabs = 32
    config.data.row.patches = 640
    return on_slice(config, SLICES, arg)
