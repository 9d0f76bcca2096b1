"""VidEmo-Base-3B: the paper's SFT (PAPER.md sections 1 and 2), three stages, on 16 chips of v5e.

videmo_3b_sft.py:stage2 trains one stage, from the weights that --config.init names.
"""

from ml_collections import ConfigDict

from videmo_jax.sft.recipe import on_slice, sft_recipe

SLICES = {
    "v5e-4x4": {"mesh.fsdp": 16, "compute.microbatches": 4, "compute.loss_chunk": 256},
}


def get_config(arg: str | None = None) -> ConfigDict:
    config = sft_recipe("3b")
    config.batch = 128  # rows of some eight samples: the paper's 1,024 samples a step
    config.data.row.tokens = 5632
    config.data.row.slabs = 32
    config.data.row.patches = 640
    return on_slice(config, SLICES, arg)
