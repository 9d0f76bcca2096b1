"""Seconds of one GRPO update with Emo-CFG's mix of answers: packed rows beside rows of one prompt each.

  python -m tests.benchmarks.grpo            # prints one JSON line

9 M parameters, float32, 4 prompts of text with 1,264 to 1,344 tokens, 8 answers of up to 512 tokens each; the same
weights, tokens and loss in both.
"""

import argparse
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from tests.benchmarks.filled import ANSWERS, LIMIT, lengths
from tests.benchmarks.speed import config
from videmo_jax.data.pipeline import to_devices
from videmo_jax.data.rows import Budget
from videmo_jax.model.videmo import Rows
from videmo_jax.rl.advantages import group_advantages, token_advantages
from videmo_jax.rl.layout import Drawn, cheapest_plan, most_rows
from videmo_jax.rl.loss import GrpoSpec
from videmo_jax.rl.rows import with_answers
from videmo_jax.rl.step import make_policy_step, numbers
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import fresh_state, initial_params
from videmo_jax.training.step import ComputeSpec

PROMPTS, PREFIX, SLABS, PATCHES = 4, 1536, 1, 4
PACKED = ((2048, 1), (3072, 2), (4096, 3))


def batch(shapes):
    """Random prompts and answers in the cheapest of the shapes; its tokens, and the share of slots that hold one."""
    rng = np.random.default_rng(0)
    drawn, sizes = lengths(rng, PROMPTS), Drawn(Budget(PREFIX, SLABS, PATCHES), ANSWERS, LIMIT, PATCHES // 4)
    tokens = rng.integers(1264, 1345, PROMPTS)
    held = (np.arange(PREFIX) < tokens[:, None]).astype(np.int32)
    prompts = Rows(
        rng.integers(8, 8000, held.shape).astype(np.int32) * held,
        held,
        np.broadcast_to((np.arange(PREFIX, dtype=np.int32) * held)[:, None], (PROMPTS, 3, PREFIX)),
        np.full(held.shape, -1, np.int32),
        np.zeros((PROMPTS, SLABS, PATCHES, config().vision.patch_values), np.uint8),
        np.full((PROMPTS, SLABS, PATCHES, 2), -1, np.int32),
    )
    answers = jnp.asarray(rng.integers(8, 8000, (PROMPTS, ANSWERS, LIMIT)), jnp.int32)
    rows = [Budget(*shape, PATCHES) for shape in shapes]
    row, plan = cheapest_plan(tokens, np.zeros(PROMPTS, int), drawn, rows, 1, 0.0)
    layout = plan.layout(row, sizes, most_rows(PROMPTS, row, sizes, 1))
    made = with_answers(prompts, answers, jnp.asarray(drawn), jnp.full(answers.shape, -9.0), layout)
    advantages = group_advantages(rng.random((PROMPTS, ANSWERS)))
    by_token = token_advantages(advantages.values, LIMIT)
    made = made.credited(jnp.asarray(by_token), jnp.asarray(advantages.valid))
    return jax.tree.map(np.asarray, made), plan.filled(row, 1)


def prepare(made):
    """A function that takes one update of a batch; it is compiled already."""
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    optimizer = make_optimizer(OptimizerSpec())
    state = fresh_state(config(), initial_params(config(), mesh, seed=0), optimizer, mesh)
    step = make_policy_step(config(), optimizer, mesh, ComputeSpec("float32", "full"), GuardSpec(), GrpoSpec(beta=0.0))
    made = to_devices(made, mesh)

    def once():
        nonlocal state
        start = time.perf_counter()
        state, metrics = step(state, made, 1e-6)
        found = numbers(metrics)
        return time.perf_counter() - start, found

    return once, once()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="updates of each that are timed")
    rounds = parser.parse_args().rounds
    shapes = {"packed": PACKED, "one_prompt_a_row": ((PREFIX + ANSWERS * LIMIT, 1),)}
    made = {name: batch(each) for name, each in shapes.items()}
    runs = {name: prepare(rows) for name, (rows, _) in made.items()}
    first = {name: (found["loss"], found["gradient_norm"]) for name, (_, found) in runs.items()}
    np.testing.assert_allclose(first["packed"], first["one_prompt_a_row"], rtol=1e-3, atol=1e-4)
    seconds = {name: [] for name in runs}
    for _ in range(rounds):  # in turn, so that what else the machine does hits all alike
        for name, (once, _) in runs.items():
            seconds[name].append(once()[0])
            print(name, seconds[name][-1], file=sys.stderr, flush=True)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    filled = {name: share for name, (_, share) in made.items()}
    ratio = median["one_prompt_a_row"] / median["packed"]
    print(json.dumps({"seconds": median, "all": seconds, "filled": filled, "one_prompt_a_row_over_packed": ratio}))


if __name__ == "__main__":
    main()
