"""VidEmo-T1-3B: affective-tree RL (PAPER.md sections 1 and 3) from the checkpoint that --config.init names.

128 prompts a step with 8 answers each, on 16 chips of v5e.
"""

from ml_collections import ConfigDict

from videmo_jax.rl.recipe import of_slice, rl_recipe

SLICES = {
    "v5e-4x4": {"mesh.fsdp": 16, "rollout.tensor": 2, "compute.loss_chunk": 256},
}


def get_config(arg: str | None = None) -> ConfigDict:
    config = rl_recipe("3b")
    config.data.row.tokens = 1536  # a clip of 16 frames has up to 1,224
    config.data.row.slabs = 8
    config.data.row.patches = 640
    return of_slice(config, SLICES, arg)
