"""Minutes on a laptop: a tiny model memorises rendered faces. No data, no accelerator."""

from ml_collections import ConfigDict

from videmo_jax.sft.recipe import sft_recipe


def get_config(arg: str | None = None) -> ConfigDict:
    config = sft_recipe("tiny")
    config.batch = 4
    config.epochs = 30.0
    config.held_out.samples = 32
    config.data.include = ("*Emotion-Recognition*", "*Head-Pose*", "*MEAD_ID*")
    config.data.frames.min_pixels = 112 * 112
    config.data.frames.max_pixels = 112 * 112
    config.data.row.tokens = 240
    config.data.row.slabs = 4
    config.data.row.patches = 64
    config.optimizer.learning_rate = 1e-3
    config.compute.dtype = "float32"
    config.checkpoint.every = 100
    return config
