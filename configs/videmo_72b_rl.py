"""The same recipe for a model of Qwen2.5-VL-72B's size, on 32 chips of v5p; the paper has no such model."""

from ml_collections import ConfigDict

from videmo_jax.rl.recipe import of_slice, rl_recipe

SLICES = {
    "v5p-2x4x4": {"mesh.fsdp": 32, "rollout.tensor": 8},
}


def get_config(arg: str | None = None) -> ConfigDict:
    config = rl_recipe("72b")
    config.data.row.tokens = 1536  # a clip of 16 frames has up to 1,224
    config.data.row.slabs = 8
    config.data.row.patches = 640
    return of_slice(config, SLICES, arg)
