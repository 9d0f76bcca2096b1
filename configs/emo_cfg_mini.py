"""A tiny model memorises the miniature Emo-CFG: real clips, 20 minutes on two cores.

The folder is named on the command line: --config.data.root=EMO_CFG_MINI
"""

from ml_collections import ConfigDict

from videmo_jax.sft.recipe import sft_recipe


def get_config(arg: str | None = None) -> ConfigDict:
    config = sft_recipe("tiny")
    config.batch = 4
    config.epochs = 40.0
    # Clips are told apart at a twelfth of the size that the paper's models see.
    config.data.frames.max_frames = 4
    config.data.frames.min_pixels = 84 * 84
    config.data.frames.max_pixels = 112 * 112
    config.data.row.tokens = 456
    config.data.row.slabs = 8
    config.data.row.patches = 60
    config.optimizer.learning_rate = 1e-3
    config.compute.dtype = "float32"
    config.checkpoint.every = 200
    return config
