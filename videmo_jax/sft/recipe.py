"""The fields of an SFT config, with their defaults; configs/*.py change what differs."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from videmo_jax.files.errors import UserError
from videmo_jax.model.config import PRESETS
from videmo_jax.tasks.taxonomy import STAGES
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.optimizer import OptimizerSpec


def stage_recipe(**fields: Any) -> dict[str, Any]:
    """The fields of one stage; what is 0 or empty takes the config's own value."""
    defaults = {
        "levels": (),  # attribute, expression, emotion: whose tasks it trains; empty: all
        "weights": (),  # (pattern of annotation files, passes over them an epoch); 1 where none matches
        "instructions": 0.1,  # share of text-only samples, where there are any; the paper gives no number
        "replay": 0.0,  # share of samples of earlier stages
        "epochs": 0.0,
        "steps": 0,
        "learning_rate": 0.0,
        "schedule": "",
    }
    if unknown := fields.keys() - defaults.keys():
        raise UserError(f"a stage has no field {', '.join(sorted(unknown))}; there are {', '.join(defaults)}")
    return defaults | fields


def in_stages(config: ConfigDict, arg: str | None) -> ConfigDict:
    """The config with the paper's curriculum: all three stages, or the one that the ARG of `NAME.py:ARG` names.

    Args:
      config: of `sft_recipe`, changed in place.
      arg: None; `stage1` to `stage3`, or a level's name: that stage alone, from the weights of `config.init`.
    """
    names = {f"stage{number}": level for number, level in enumerate(STAGES, start=1)}
    config.curriculum = STAGES
    config.only = names.get(arg, arg) if arg else ""  # a wrong name is refused with the others, at the start
    return config


def sft_recipe(model: str) -> ConfigDict:
    """All fields, locked: a name that is not here is refused with the nearest one that is.

    Args:
      model: a name of `model.config.PRESETS`.
    """
    optimizer, guard = OptimizerSpec(), GuardSpec()
    config = ConfigDict(
        {
            "seed": 0,  # of initial weights and of the order of samples
            "init": "",  # checkpoint to start from (launch/convert.py import, or a workdir); empty: random weights
            "tokenizer": "",  # directory with tokenizer.json; empty: that of `init`, else the embedded one
            # The sizes of model.config. Adapters: model.lora.rank (0: none), .alpha (they are scaled by alpha / rank)
            # and .targets, kernels of the decoder's layers; with a rank above 0 they alone are trained.
            "model": PRESETS[model].to_json(),
            "freeze": (),  # parts that stay as they are, by the names of parameters: 'vision', 'vision.merger'
            "train_also": (),  # parts that are trained beside adapters, such as 'vision.merger'
            "epochs": 3.0,  # passes of each stage over its own data (PAPER.md sections 1 and 2)
            "steps": 0,  # of each stage, in place of epochs, where it is not 0
            "curriculum": ("all",),  # stages in order, names of `stages`; see `in_stages`
            "only": "",  # of them, the one to train, from `init`; empty: all in one run
            "stages": {
                "all": stage_recipe(),
                "attribute": stage_recipe(levels=("attribute",)),
                "expression": stage_recipe(levels=("expression",), replay=0.05),  # shares of replay: ours
                "emotion": stage_recipe(levels=("emotion",), replay=0.05),
            },
            "held_out": {  # perplexity of each level before and after each stage
                "samples": 128,  # of each level; 0: none
                "split": "test",
            },
            "batch": 1024,  # rows a step, over all devices (PAPER.md section 1)
            "data": {
                # A folder of Emo-CFG, or of records (launch/prepare.py); empty: the synthetic set, below the workdir.
                "root": "",
                "split": "train",
                "variant": "full",  # or sampled: the folder below each group
                "include": (),  # patterns of file names, such as 'MEAD_*'; empty: all
                "instructions": (),  # JSON Lines files of text-only conversations, for a folder of Emo-CFG
                "leave_out": "",  # JSON file of ids of samples that no row takes, such as WORKDIR/stopped.json
                "tasks": (),  # 'PATTERN=STAGE/FORM' of annotation files that are not official
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
                "threads": 4,  # that decode at the same time, in each process
                "workers": 0,  # processes that decode in place of the trainer's own; 0: none
                "cache_mb": 1024,  # of decoded clips kept in memory
                "max_skipped_share": 0.05,  # of the samples that may be unusable before the run stops
            },
            "optimizer": {
                "learning_rate": optimizer.learning_rate,
                "schedule": optimizer.schedule,  # after the warm-up: cosine, linear or constant
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
                # What a block keeps for its backward pass, from all to nothing: none, dots, attention, context, full.
                "remat": "full",  # of the decoder
                "vision_remat": "full",  # of the vision tower
                "attention": "auto",  # splash (TPUs) or xla; auto: by the platform
                "loss_chunk": 512,  # tokens of a row whose logits exist at once
                "microbatches": 1,  # parts of a batch that a device computes one after the other
            },
            "compiled": "auto",  # folder or bucket of programs; auto: WORKDIR/compiled, and none on CPUs; off: none
            "slice": "",  # of TPUs, for which the recipe is made; told, not enforced
            "mesh": {"replica": 1, "data": 1, "fsdp": -1, "tensor": 1},  # devices along each axis; -1: what is left
            "guard": {  # stops the run before a bad step: one without a finite loss and gradient, or whose loss leaps
                "spike": guard.spike,  # nats a token above the mean of the last steps; 0: leaps are taken
                "warmup": guard.warmup,  # steps of a stage before a leap counts
            },
            "log": {"every": 10},  # steps
            "checkpoint": {
                "every": 500,  # steps
                "minutes": 10.0,  # since the last one, after which a logged step is saved, too; 0: steps alone count
                "keep": 3,  # newest that stay
                "keep_every": 0,  # steps at whose multiples they stay for good, a multiple of `every`; 0: none
            },
        }
    )
    return config.lock()


def on_slice(config: ConfigDict, slices: Mapping[str, Mapping[str, Any]], arg: str | None) -> ConfigDict:
    """The config as one of a recipe's slices takes it, with the whole curriculum or one stage of it.

    Args:
      config: of `sft_recipe`, changed in place.
      slices: by name, the fields (dotted) that differ there; the first is that of a recipe without an ARG.
      arg: the ARG of `NAME.py:ARG`: a slice, a stage (see `in_stages`), or both with a comma between; None: neither.
    """
    words = arg.split(",") if arg else []
    named = [word for word in words if word in slices]
    stages = [word for word in words if word not in slices]
    if len(named) > 1 or len(stages) > 1:
        raise UserError(f":{arg} names more than one slice or stage; slices are {', '.join(slices)}")
    stage = stages[0] if stages else None
    if stage is not None and stage not in (*STAGES, *(f"stage{number}" for number in range(1, len(STAGES) + 1))):
        raise UserError(f":{stage} is no stage and no slice; there are stage1 to stage3, {', '.join(slices)}")
    config.slice = named[0] if named else next(iter(slices))
    for field, value in slices[config.slice].items():
        config.update_from_flattened_dict({field: value})
    return in_stages(config, stage)
