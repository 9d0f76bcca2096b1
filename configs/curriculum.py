"""The paper's three stages on the synthetic set, with a tiny model: attribute, expression, emotion.

`curriculum.py:stage2` trains one stage alone, from the weights that --config.init names.
"""

from ml_collections import ConfigDict

from videmo_jax.sft.recipe import in_stages, sft_recipe


def get_config(arg: str | None = None) -> ConfigDict:
    config = in_stages(sft_recipe("tiny"), arg)
    config.batch = 8
    config.epochs = 3.0
    config.data.frames.min_pixels = 112 * 112
    config.data.frames.max_pixels = 112 * 112
    config.data.row.tokens = 448
    config.data.row.slabs = 8
    config.data.row.patches = 64
    config.optimizer.learning_rate = 1e-3
    config.compute.dtype = "float32"
    config.checkpoint.every = 100
    return config
