"""Train step and greedy generation beside transformers: same weights, same batch, one process each.

  python tests/benchmarks/speed.py            # all four, in turn, three rounds; prints a table and one JSON line
  python tests/benchmarks/speed.py --only ours-train

9 M parameters, float32, 4 rows of 128 tokens, each with a clip of 2 slabs of 8 x 8 patches; 128 new tokens.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
ROWS, TOKENS, NEW, REPEATS = 4, 128, 128, 8


def config():
    from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig

    return ModelConfig(
        TextConfig(256, 8, 8, 2, 32, 704, 8192, (4, 6, 6), tied=True),
        VisionConfig(128, 4, 4, 256, 256, full_attention=(1, 3)),
    )


def batch():
    """Rows as both sides take them, and the samples behind them."""
    from tests.reference import VIDEO
    from videmo_jax.data.chat import Encoded
    from videmo_jax.data.rows import Budget, Prepared, build_row, stack_rows
    from videmo_jax.data.video import FrameSpec, patchify
    from videmo_jax.model.positions import VisionGrid

    rng = np.random.default_rng(0)
    grid, before = VisionGrid(2, 8, 8, 1.0), 10
    count = grid.merged_tokens()
    after = TOKENS - before - count
    samples = []
    for _ in range(ROWS):
        patches, places = patchify(rng.integers(0, 256, (4, 112, 112, 3), np.uint8), FrameSpec())
        tokens = [*rng.integers(8, 8000, before), *[VIDEO] * count, *rng.integers(8, 8000, after)]
        vision = [*[-1] * before, *range(count), *[-1] * after]
        trained = np.array(vision) < 0
        encoded = Encoded(np.array(tokens, np.int32), trained, np.array(vision, np.int32), (before, grid, after))
        samples.append(Prepared("random", encoded, (patches,), (places,)))
    return stack_rows([build_row([s], Budget(TOKENS, 2, 64), config().vision) for s in samples]), samples


def timed(step):
    """Median seconds of a call, after two that warm up."""
    seconds = []
    for _ in range(REPEATS + 2):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def ours_train():
    import jax

    from videmo_jax.data.pipeline import to_devices
    from videmo_jax.sft.step import make_train_step, numbers
    from videmo_jax.sharding.rules import make_mesh
    from videmo_jax.training.guard import GuardSpec
    from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
    from videmo_jax.training.state import fresh_state, initial_params
    from videmo_jax.training.step import ComputeSpec

    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    optimizer = make_optimizer(OptimizerSpec())
    state = fresh_state(config(), initial_params(config(), mesh, seed=0), optimizer, mesh)
    step = make_train_step(config(), optimizer, mesh, ComputeSpec("float32", "full", 512), GuardSpec())
    rows = batch()[0]

    def once():
        nonlocal state
        state, metrics = step(state, to_devices(rows, mesh), 1e-5)
        numbers(metrics)

    return {"seconds_per_step": timed(once)}


def ours_generate():
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from videmo_jax.model.videmo import VidEmo
    from videmo_jax.sampling.decode import generate
    from videmo_jax.sampling.draw import Decoding

    graph, params = nnx.split(VidEmo(config(), nnx.Rngs(0)))
    rows = jax.tree.map(jnp.asarray, batch()[0].rows)
    seeds = jnp.arange(ROWS, dtype=jnp.uint32)

    def once():
        # A stop token that cannot be drawn: every answer has all its tokens.
        answers = generate(graph, params, rows, seeds, decoding=Decoding(NEW), stop_ids=(0,), banned_ids=(0,))
        assert int(answers.lengths.min()) == NEW

    return {"tokens_per_second": ROWS * NEW / timed(once)}


def transformers_model():
    from tests.reference import random_transformers, transformers_inputs

    rows, samples = batch()
    return random_transformers(config(), 0), transformers_inputs(rows, samples), rows


def transformers_train():
    import torch

    model, inputs, rows = transformers_model()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0)
    labels = torch.tensor(np.where(rows.weights > 0, rows.targets, -100), dtype=torch.long)

    def once():
        logits = model(**inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return {"seconds_per_step": timed(once)}


def transformers_generate():
    model, inputs, _ = transformers_model()
    # The processor's flag of which token is what; position ids are left to the model, as users have it.
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == 6).long() * 2
    del inputs["position_ids"]

    def once():
        output = model.generate(**inputs, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0)
        assert output.shape == (ROWS, TOKENS + NEW)

    return {"tokens_per_second": ROWS * NEW / timed(once)}


SIDES = {
    "ours-train": ours_train,
    "transformers-train": transformers_train,
    "ours-generate": ours_generate,
    "transformers-generate": transformers_generate,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(SIDES[arguments.only]()))
        return
    results = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side in SIDES:
            command = [sys.executable, __file__, "--only", side]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[side].append(next(iter(json.loads(output.splitlines()[-1]).values())))
    medians = {side: statistics.median(values) for side, values in results.items()}
    for side, values in results.items():
        print(f"{side:24s} median {medians[side]:10.4f}   all {[round(v, 4) for v in values]}")
    ratios = {
        "train": medians["transformers-train"] / medians["ours-train"],
        "generate": medians["ours-generate"] / medians["transformers-generate"],
    }
    print(json.dumps({"medians": medians, "times_faster": ratios}))


if __name__ == "__main__":
    main()
