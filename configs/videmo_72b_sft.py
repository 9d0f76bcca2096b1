"""The same recipe for a model of Qwen2.5-VL-72B's size, on 1,024 chips of v5p; the paper has no such model.

videmo_72b_sft.py:stage2 trains one stage, from the weights that --config.init names.
"""

from ml_collections import ConfigDict

from videmo_jax.sft.recipe import on_slice, sft_recipe

SLICES = {
    "v5p-8x8x16": {"mesh.fsdp": 128, "mesh.tensor": 8, "compute.remat": "dots", "compute.vision_remat": "none"},
}


def get_config(arg: str | None = None) -> ConfigDict:
    config = sft_recipe("72b")
    config.batch = 128  # rows of some eight samples: the paper's 1,024 samples a step
    config.data.row.tokens = 5632
    config.data.row.slabs = 32
    config.data.row.patches = 640
    return on_slice(config, SLICES, arg)
