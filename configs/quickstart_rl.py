"""Affective-tree RL on rendered faces with a small model, on a laptop: no data, no accelerator.

quickstart_rl.py:sft is the supervised run that it begins with. Then, with the same data:
--config.init=SFT_WORKDIR --config.data.root=SFT_WORKDIR/emo_cfg_synthetic
"""

from ml_collections import ConfigDict

from videmo_jax.files.errors import UserError
from videmo_jax.rl.recipe import rl_recipe
from videmo_jax.sft.recipe import sft_recipe, stage_recipe

CHOICES = ("MEAD_Head-Pose*", "MEAD_ID*", "DFEW_*", "MER2023_*", "MAFW_Single*")
LABELS = ("CelebV-HQ_*", "AffWild2_*")


def get_config(arg: str | None = None) -> ConfigDict:
    if arg not in (None, "sft"):
        raise UserError(f":{arg} is nothing that this recipe has; there is :sft, the run that it begins with")
    config = sft_recipe("tiny") if arg else rl_recipe("tiny")
    text, vision = config.model.text, config.model.vision
    text.width = vision.out_width = 128
    text.heads, text.mlp_width, text.vocab = 4, 384, 2048
    config.data.include = ("caption_*", "CelebV-Text_*", *CHOICES, *LABELS)
    config.data.synthetic_scenes = 1190
    config.data.frames.min_pixels = config.data.frames.max_pixels = 112 * 112
    config.data.row.patches = 64
    config.compute.dtype = "float32"
    config.compute.remat = config.compute.vision_remat = "none"
    config.checkpoint.every = 100
    config.optimizer.learning_rate = 1e-3
    if arg:
        _supervised(config)
    else:
        config.batch, config.data.row.tokens, config.data.row.slabs = 8, 224, 4
        config.steps = 160
        config.stages.rl.weights = (("caption_*", 2.0),)
        config.optimizer.learning_rate = 2e-4
        config.rollout.max_new_tokens = 160
        config.packed = ((768, 12),)
        config.log.every = 2
        config.held_out.samples, config.held_out.answers = 64, 4
        config.held_out.every = 40
    return config


def _supervised(config: ConfigDict) -> None:
    """Captions first, then labels: few samples of few tokens, which weigh more."""
    config.batch, config.data.row.tokens, config.data.row.slabs = 8, 480, 8
    config.curriculum = ("captions", "labels")
    heavy = tuple((pattern, 5.0) for pattern in CHOICES)
    config.stages = {
        "captions": stage_recipe(weights=heavy + tuple((pattern, 0.0) for pattern in LABELS), epochs=6.0),
        "labels": stage_recipe(weights=tuple((pattern, 8.0) for pattern in LABELS), epochs=2.0),
    }
