"""The fields of an SFT config, with their defaults; configs/*.py change what differs."""

from ml_collections import ConfigDict

from videmo_jax.model.config import PRESETS
from videmo_jax.training.optimizer import OptimizerSpec


def sft_recipe(model: str) -> ConfigDict:
    """All fields, locked: a name that is not here is refused with the nearest one that is.

    Args:
      model: a name of `model.config.PRESETS`.
    """
    optimizer = OptimizerSpec()
    config = ConfigDict(
        {
            "seed": 0,  # of initial weights and of the order of samples
            "init": "",  # checkpoint to start from (launch/convert.py import, or a workdir); empty: random weights
            "tokenizer": "",  # directory with tokenizer.json; empty: that of `init`, else the embedded one
            "model": PRESETS[model].to_json(),
            "epochs": 3.0,  # passes over the data (PAPER.md section 1)
            "steps": 0,  # in place of epochs, where it is not 0
            "batch": 1024,  # rows a step, over all devices (PAPER.md section 1)
            "data": {
                "root": "",  # folder of Emo-CFG; empty: the synthetic set, written into the workdir
                "split": "train",
                "variant": "full",  # or sampled: the folder below each group
                "include": (),  # patterns of file names, such as 'MEAD_*'; empty: all
                "synthetic_scenes": 170,  # of the synthetic set
                "frames": {  # PAPER.md section 7
                    "rate": 2.0,  # frames sampled a second
                    "min_frames": 4,
                    "max_frames": 16,
                    "min_pixels": 100_352,  # of a resized frame
                    "max_pixels": 105_369,
                },
                "seconds_per_grid": "sampled",  # or nominal: what the authors' inference uses for every clip
                "row": {  # the fixed shape of a row
                    "tokens": 2048,  # text and vision
                    "slabs": 8,  # of two frames
                    "patches": 640,  # of a slab
                },
                "pack": True,  # several samples a row; False: one
                "threads": 4,  # that decode at the same time
                "cache_mb": 1024,  # of decoded clips kept in memory
                "max_skipped_share": 0.05,  # of the samples that may be unusable before the run stops
            },
            "optimizer": {
                "learning_rate": optimizer.learning_rate,
                "warmup_share": optimizer.warmup_share,  # of all steps
                "final_share": optimizer.final_share,  # of the peak that is left at the end
                "weight_decay": optimizer.weight_decay,
                "beta1": optimizer.beta1,
                "beta2": optimizer.beta2,
                "epsilon": optimizer.epsilon,
                "clip_norm": optimizer.clip_norm,
            },
            "compute": {
                "dtype": "bfloat16",  # of activations; or float32. Parameters are float32
                "remat": "full",  # none, dots or full: what the backward pass computes again
                "loss_chunk": 512,  # tokens of a row whose logits exist at once
            },
            "mesh": {"replica": 1, "data": 1, "fsdp": -1, "tensor": 1},  # devices along each axis; -1: what is left
            "log": {"every": 10},  # steps
            "checkpoint": {"every": 500, "keep": 3},  # steps; checkpoints that stay
        }
    )
    return config.lock()
