"""VidEmo-T1-7B: affective-tree RL (PAPER.md sections 1 and 3) from the checkpoint that --config.init names.

128 prompts a step with 8 answers each, on 64 chips of v5p; videmo_7b_rl.py:v6e-16x16 takes 256 chips of v6e.
"""

from ml_collections import ConfigDict

from videmo_jax.rl.recipe import of_slice, rl_recipe

KEPT = {"compute.remat": "dots", "compute.vision_remat": "dots"}
SLICES = {
    "v5p-4x4x4": {"mesh.fsdp": 64, "rollout.tensor": 4, **KEPT},
    "v6e-16x16": {"mesh.fsdp": 128, "mesh.tensor": 2, **KEPT},
}


def get_config(arg: str | None = None) -> ConfigDict:
    config = rl_recipe("7b")
    config.data.row.tokens = 1536  # a clip of 16 frames has up to 1,224
    config.data.row.slabs = 8
    config.data.row.patches = 640
    return of_slice(config, SLICES, arg)
