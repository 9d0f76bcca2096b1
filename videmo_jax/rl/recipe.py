"""The fields of an RL config, with their defaults; configs/*.py change what differs."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from videmo_jax.files.errors import UserError
from videmo_jax.rl.advantages import AdvantageSpec
from videmo_jax.rl.loss import GrpoSpec
from videmo_jax.rl.rewards.spec import RewardSpec
from videmo_jax.sft.recipe import sft_recipe, stage_recipe


def rl_recipe(model: str) -> ConfigDict:
    """All fields, locked: those of `sft.recipe`, where rows are of prompts, and those of the rollout and the rewards.

    Args:
      model: a name of `model.config.PRESETS`.
    """
    config = sft_recipe(model).unlock()
    grpo, advantages, rewards = GrpoSpec(), AdvantageSpec(), RewardSpec()
    config.epochs = 1.0  # (PAPER.md section 1)
    config.batch = 128  # prompts a step, over all devices (PAPER.md section 3)
    config.optimizer.learning_rate = 1e-5  # (PAPER.md section 1)
    config.guard.spike = 0.0  # the objective is no likelihood, whose leaps mean harm
    config.curriculum = ("rl",)
    config.stages = {"rl": stage_recipe(instructions=0.0)}
    config.data.row.tokens = 1536  # of a prompt, its clip included
    del config.data["pack"], config.data["instructions"], config.compute["microbatches"]
    config.update(
        {
            "held_out": {  # rewards of answers to prompts of another split
                "samples": 32,  # of each reward branch; 0: none
                "answers": 0,  # to each, drawn as in the rollout; 0: one, greedily
                "split": "test",
                "every": 50,  # steps; also before the first and after the last one
            },
            "rollout": {
                "answers": 8,  # G, to each prompt (PAPER.md section 1)
                "max_new_tokens": 512,
                "temperature": grpo.temperature,  # by which the loss divides logits, too
                "top_k": 0,  # 0: all tokens may be drawn, as the loss supposes
                "top_p": 1.0,
                "tensor": 0,  # devices that have one copy of the weights between them; 0: as mesh.tensor
                "slots": 0,  # answers under way at once on a group of devices; one that ends gives its place; 0: all
                "together": 0,  # answers to a prompt that read its cache, and take their slots, together; 0: all
                "int8": False,  # weights of the decoder's products in 8 bits while answers are drawn
                # Rollouts that a step may take, each of the next prompts, until `batch` groups teach something. With 2
                # or more the others are left out (grpo.leave_out_flat), and staleness must be 0.
                "draws": 1,
                "staleness": 0,  # 1: the next batch is answered by the policy before the update, while rewards are made
            },
            # Rows (tokens, slabs) of the update and of the reference: prompts with all their answers, several a row.
            # The shape that suits a step best is taken, and compiled when it is taken first.
            "packed": ((2048, 8), (3072, 16), (4096, 24)),
            "grpo": {
                "updates": 1,  # steps of the optimizer on each rollout
                "clip_low": grpo.clip_low,
                "clip_high": grpo.clip_high,
                "beta": grpo.beta,  # of the KL term; 0: there is no reference
                # After so many steps, again and again, the reference becomes the policy as it is then (TRL's
                # sync_ref_model); checkpoints then hold it. 0: it stays what init is.
                "reference_every": 0,
                "reduction": grpo.reduction,  # sequence (the paper's: a mean of means), token, constant (Dr. GRPO)
                "ratio": grpo.ratio,  # token (the paper's); sequence (GSPO)
                "objective": grpo.objective,  # clip (the paper's); cispo
                "dual_clip": grpo.dual_clip,  # such as 3: bound of the ratio where an answer is worse; 0: none
                "entropy": grpo.entropy,  # weight of the entropy bonus
                "scale": advantages.scale,  # whether advantages are divided by the group's standard deviation
                "epsilon": advantages.epsilon,  # added to it
                "mask_cut": False,  # answers that the limit cut teach nothing, but count for the others' advantages
                # Groups that teach nothing (rewards all alike or failed, all answers masked) are in no row of reference
                # and update: no work, no KL term. Rows are then packed when the rewards are known.
                "leave_out_flat": False,
                "node_credit": 0.0,  # weight of what the tokens of each node cost or save; 0: only whole answers count
            },
            "rewards": {
                "decay": rewards.decay,  # lambda of exp(-lambda x distance / size)
                "normalise": rewards.normalise,  # size: by the nodes of the larger tree; or printed: not at all
                "tree": rewards.tree,  # False: fine-grained captions take the caption branch
                "caption": rewards.caption,  # overlap (embedded), openai (below), reference (init's model judges)
                "length_slack": config_dict.placeholder(float),  # captions may have so many times their truth's words
                "length_power": rewards.length_power,
                "own": (),  # ('PATTERN of annotation files', 'package.module:function') of rewards of one's own
                # ('PATTERN', ('tree', 0.7), ('caption', 0.3)): means by weight instead of the branch. Components: rule,
                # caption, tree, task (whichever of them the task takes by itself), package.module:function.
                "mixed": (),
                "costs": rewards.to_config()["costs"],  # of the edit distance: weights of levels, factors of operations
                "endpoint": {  # of caption = openai; the key comes from OPENAI_API_KEY
                    "url": "",  # ends in /v1
                    "model": "",
                    "replies": "",  # folder where replies are kept; empty: WORKDIR/replies
                    "concurrency": 64,
                    "timeout": 60.0,  # seconds
                    "attempts": 3,
                    "longest_wait": 10.0,  # seconds between attempts
                    "longest_asked_wait": 60.0,  # where the server says how long to wait
                    "max_failures_in_a_row": 20,
                },
                "timeout": rewards.timeout,  # seconds that a step waits for its rewards
                "own_timeout": rewards.own_timeout,  # seconds that one's own function may take for a group
                "max_failed_share": rewards.max_failed_share,  # of a branch's groups, above which the run ends
                "workers": 0,  # processes on each host; 0: threads of the trainer
            },
        }
    )
    config.log.samples = 2  # groups written to samples.txt at every logged step
    return config.lock()


def of_slice(config: ConfigDict, slices: Mapping[str, Mapping[str, Any]], arg: str | None) -> ConfigDict:
    """The config as the slice that the ARG of `NAME.py:ARG` names takes it; the first one without an ARG.

    Raises:
      ValueError: there is no such slice.
    """
    if arg and arg not in slices:
        raise UserError(f":{arg} is no slice of this recipe; there are {', '.join(slices)}")
    config.slice = arg or next(iter(slices))
    for field, value in slices[config.slice].items():
        config.update_from_flattened_dict({field: value})
    return config
