"""Seconds of one GRPO update: rows of a prompt and its answers beside separate rows and a dense mask.

  python -m tests.benchmarks.grpo            # prints one JSON line

9 M parameters, float32, a prompt of 1,024 tokens, 8 answers of 128; the same weights, tokens and loss in all three.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from tests.benchmarks.speed import config
from tests.rl.groups import GroupBudget, Rollout, build_group
from videmo_jax.data.chat import Encoded
from videmo_jax.data.pipeline import to_devices
from videmo_jax.data.rows import Budget, Prepared, stack_rows
from videmo_jax.model.flops import group_step_flops
from videmo_jax.rl import loss
from videmo_jax.rl.advantages import group_advantages, token_advantages
from videmo_jax.rl.loss import GrpoSpec
from videmo_jax.rl.step import make_policy_step, numbers
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import fresh_state, initial_params
from videmo_jax.training.step import ComputeSpec

PREFIX, ANSWERS, SLOTS = 1024, 8, 128


def rollout():
    """A prompt of text and its answers, all as long as there is room for."""
    rng = np.random.default_rng(0)
    prompt = rng.integers(8, 8000, PREFIX).astype(np.int32)
    encoded = Encoded(prompt, np.zeros(PREFIX, bool), np.full(PREFIX, -1, np.int32), (PREFIX,))
    answers = rng.integers(8, 8000, (ANSWERS, SLOTS)).astype(np.int32)
    log_probs = np.full(answers.shape, -9.0, np.float32)
    return Rollout(Prepared("random", encoded), answers, np.full(ANSWERS, SLOTS), log_probs)


def shared_rows():
    """One row for all answers."""
    budget = GroupBudget(Budget(PREFIX, 0, 0), ANSWERS, SLOTS)
    advantages = group_advantages(np.arange(ANSWERS)[None] / ANSWERS)
    rows = stack_rows([build_group(rollout(), budget, config().vision)])
    return rows.credited(token_advantages(advantages.values, SLOTS), advantages.valid)


def separate_rows():
    """A row for each answer: groups of one, with the advantages of the whole group."""
    whole, budget = rollout(), GroupBudget(Budget(PREFIX, 0, 0), 1, SLOTS)
    rows = []
    for g in range(ANSWERS):
        parts = (x[g : g + 1] for x in (whole.tokens, whole.lengths, whole.log_probs))
        rows.append(build_group(Rollout(whole.prompt, *parts), budget, config().vision))
    return dataclasses.replace(stack_rows(rows), advantages=np.moveaxis(shared_rows().advantages, 1, 0))


def dense_attention(q, k, v, held, *, layout, kernel):
    """What a mask of T x T would do: the peer."""
    del kernel
    part = jnp.maximum(jnp.arange(layout.length) - layout.prefix, -1) // layout.slots + 1
    sees = jnp.tril((part[None] == 0) | (part[:, None] == part[None]))
    mask = sees & (held[:, :, None] == held[:, None])
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])


def prepare(batch):
    """A function that takes one update of a batch; it is compiled already."""
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    optimizer = make_optimizer(OptimizerSpec())
    state = fresh_state(config(), initial_params(config(), mesh, seed=0), optimizer, mesh)
    compute = ComputeSpec("float32", "full")
    step = make_policy_step(config(), optimizer, mesh, compute, GuardSpec(), GrpoSpec(beta=0.0))
    batch = to_devices(batch, mesh)

    def once():
        nonlocal state
        start = time.perf_counter()
        state, metrics = step(state, batch, 1e-6)
        found = numbers(metrics)
        return time.perf_counter() - start, found

    return once, once()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="updates of each that are timed")
    rounds = parser.parse_args().rounds
    runs = {"shared": prepare(shared_rows()), "separate": prepare(separate_rows())}
    with mock.patch.object(loss, "shared_prefix_attention", dense_attention):
        runs["dense"] = prepare(shared_rows())
    first = {name: (found["loss"], found["gradient_norm"]) for name, (_, found) in runs.items()}
    for name, found in first.items():
        np.testing.assert_allclose(found, first["shared"], rtol=1e-3, atol=1e-4, err_msg=name)
    seconds = {name: [] for name in runs}
    for _ in range(rounds):  # in turn, so that what else the machine does hits all alike
        for name, (once, _) in runs.items():
            seconds[name].append(once()[0])
            print(name, seconds[name][-1], file=sys.stderr, flush=True)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    flops = [group_step_flops(config(), *shape, 0, 0).model for shape in ((8, PREFIX, 1, SLOTS), (1, PREFIX, 8, SLOTS))]
    ratios = {f"{name}_over_shared": median[name] / median["shared"] for name in ("separate", "dense")}
    print(json.dumps({"seconds": median, "all": seconds, **ratios, "flops_over_shared": flops[0] / flops[1]}))


if __name__ == "__main__":
    main()
