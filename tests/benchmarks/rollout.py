"""Answers a second of a rollout with heavy-tailed lengths: all answers at once beside lanes that take what is next.

  python -m tests.benchmarks.rollout            # prints one JSON line

9 M parameters, float32, one CPU device, 16 prompts of 64 tokens of text, 8 answers to each. Lengths are log-normal with
a median of 24 and sigma 1, at most 512: the draw ends an answer there, nowhere else; all else is the rollout's own.
"""

import argparse
import json
import statistics
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.benchmarks.speed import config
from videmo_jax.model.videmo import Rows, VidEmo
from videmo_jax.sampling import decode
from videmo_jax.sampling.draw import Decoding, draw_tokens

PROMPTS, ANSWERS, TOKENS, LIMIT, STOP = 16, 8, 64, 512, 7
MEDIAN, SIGMA = 24, 1.0
WAYS = {
    "all at once": {},
    "32 slots, 8 of a prompt together": {"slots": 32},
    "32 slots, 2 together": {"slots": 32, "together": 2},
}


def ending(lengths, logits, slot, numbers, seeds, **how):
    """`draw_tokens`, with answers of these lengths; a prompt's seed is its number."""
    token, log_prob = draw_tokens(logits, slot, numbers, seeds, **how)
    ends = slot[:, None] + 1 >= lengths[seeds[:, None], numbers]
    return jnp.where(ends, STOP, jnp.where(token == STOP, STOP + 1, token)), log_prob


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rollouts of each way that are timed")
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    drawn = np.exp(rng.normal(np.log(MEDIAN), SIGMA, (PROMPTS, ANSWERS)))
    lengths = np.clip(np.rint(drawn), 1, LIMIT).astype(np.int32)
    decode.draw_tokens = partial(ending, jnp.asarray(lengths))
    held, merge = np.ones((PROMPTS, TOKENS), np.int32), config().vision.merge ** 2
    rows = Rows(
        rng.integers(8, 8000, held.shape).astype(np.int32),
        held,
        np.broadcast_to(np.arange(TOKENS, dtype=np.int32), (PROMPTS, 3, TOKENS)),
        np.full(held.shape, -1, np.int32),
        np.zeros((PROMPTS, 1, merge, config().vision.patch_values), np.uint8),
        np.full((PROMPTS, 1, merge, 2), -1, np.int32),
    )
    graph, params = nnx.split(VidEmo(config(), nnx.Rngs(0)))
    seeds = jnp.arange(PROMPTS, dtype=jnp.uint32)

    def answer(ways):
        decoding = Decoding(LIMIT, ANSWERS, temperature=0.9, **ways)
        found = decode.generate(graph, params, rows, seeds, decoding=decoding, stop_ids=(STOP,))
        return jax.block_until_ready(found)

    first = {name: answer(ways) for name, ways in WAYS.items()}
    for found in first.values():
        np.testing.assert_array_equal(found.lengths, lengths)
        np.testing.assert_array_equal(found.tokens, first["all at once"].tokens)
    seconds = {name: [] for name in WAYS}
    for _ in range(rounds):  # in turn, so that what else the machine does hits all alike
        for name, ways in WAYS.items():
            start = time.perf_counter()
            answer(ways)
            seconds[name].append(time.perf_counter() - start)
            print(name, seconds[name][-1], file=sys.stderr, flush=True)
    rate = {name: PROMPTS * ANSWERS / statistics.median(each) for name, each in seconds.items()}
    over = {name: value / rate["all at once"] for name, value in rate.items()}
    sizes = {"mean": float(lengths.mean()), "longest": int(lengths.max())}
    print(json.dumps({"lengths": sizes, "answers_a_second": rate, "over_all_at_once": over, "seconds": seconds}))


if __name__ == "__main__":
    main()
