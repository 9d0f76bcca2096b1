"""Many answers to one prompt and many questions about one clip beside transformers: same weights, one process a side.

  python -m tests.benchmarks.answers            # all sides in turn, three rounds; prints a table and one JSON line
  python -m tests.benchmarks.answers --only ours-candidates

9 M parameters, float32, on the CPU; both sides take a thread for each core. The clip is one of 4 seconds as Emo-CFG's
recipe samples it: 4 slabs of 16 x 32 patches, 512 tokens. Candidates: 8 sampled answers of 64 tokens to one prompt of
556. Questions: 6 of 15 to 40 tokens about the clip, greedy answers of 32 tokens; transformers is asked six times, and
once with all six in a batch. Ours goes through the batches of an evaluation, padding included. Times are medians of a
process after two calls that warm up (compilation is not in them), then of the rounds; where other work shares the
machine, `--cores 1` and the rate per second of CPU time tell more than the wall clock.
`equal` counts questions whose greedy answer has the same tokens on both sides.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tests.benchmarks.speed import config

REPEATS = 5
CANDIDATES, NEW = 8, 64
QUESTIONS, NEW_EACH = (15, 18, 22, 27, 33, 40), 32


def samples(lengths):
    """Prompts about one clip; `lengths` are those of the texts after it."""
    from tests.reference import VIDEO
    from videmo_jax.data.chat import Encoded
    from videmo_jax.data.rows import Prepared
    from videmo_jax.data.video import FrameSpec, patchify
    from videmo_jax.model.positions import VisionGrid

    rng = np.random.default_rng(0)
    grid, before = VisionGrid(4, 16, 32, 1.0), rng.integers(8, 8000, 14)
    count = grid.merged_tokens()
    patches, places = patchify(rng.integers(0, 256, (8, 224, 448, 3), np.uint8), FrameSpec())
    prompts = []
    for after in lengths:
        tokens = np.array([*before, *[VIDEO] * count, *rng.integers(8, 8000, after)], np.int32)
        vision = np.array([*[-1] * len(before), *range(count), *[-1] * after], np.int32)
        encoded = Encoded(tokens, vision < 0, vision, (len(before), grid, after))
        prompts.append(Prepared("random", encoded, (patches,), (places,)))
    return prompts


def random_model():
    """transformers' model with random weights so large that every token depends on all before it."""
    import torch

    from tests.reference import random_transformers

    model = random_transformers(config(), 0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "embed_tokens" in name or ("language_model.layers" in name and value.ndim > 1):
                value.mul_(4)
    return model


def transformers_side(prompts):
    """The model and what it reads, all prompts in one batch padded on the left, as its users do it."""
    import torch

    from tests.reference import VIDEO, transformers_inputs
    from videmo_jax.data.rows import Budget, build_row, stack_rows

    longest = max(len(prompt.encoded.tokens) for prompt in prompts)
    rows = stack_rows([build_row([prompt], Budget(longest, 4, 512), config().vision) for prompt in prompts])
    inputs = transformers_inputs(rows, prompts)
    del inputs["position_ids"]  # the model's own, as users have it
    for name in ("input_ids", "attention_mask"):
        turned = [
            torch.roll(row, longest - len(prompt.encoded.tokens))
            for row, prompt in zip(inputs[name], prompts, strict=True)
        ]
        inputs[name] = torch.stack(turned)
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == VIDEO).long() * 2
    return random_model(), inputs, longest


def ours(prompts, decoding, *, together):
    """A call that answers, through the batches of an evaluation; its result are the tokens."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from tests.reference import our_parameters
    from videmo_jax.evaluation.answers.batches import Batching, stack
    from videmo_jax.model.videmo import abstract_model
    from videmo_jax.sampling.decode import generate

    tensors = {name: value for name, value in random_model().state_dict().items() if name != "lm_head.weight"}
    params, graph = our_parameters(config(), tensors), nnx.graphdef(abstract_model(config()))
    item = SimpleNamespace(blank=SimpleNamespace(videos=("clip",)))
    batching = Batching(len(prompts) if together else 1, 1, 2)
    ((shape, batch),) = batching((item, prompt) for prompt in prompts)
    rows, questions = jax.tree.map(jnp.asarray, stack(batch, shape, 1, config().vision))
    seeds = jnp.zeros((1, len(prompts)) if questions else 1, jnp.uint32)

    def once():
        # A stop token that cannot be drawn: every answer has all its tokens.
        answers = generate(graph, params, rows, seeds, questions, decoding=decoding, stop_ids=(1,), banned_ids=(1,))
        assert int(answers.lengths.min()) == decoding.max_new_tokens
        return np.asarray(answers.tokens).reshape(-1, decoding.max_new_tokens)

    return once


def timed(step, work):
    """`work` a second of wall clock, and a second of CPU time over all threads: medians, after two calls to warm up."""
    wall, cpu = [], []
    for _ in range(REPEATS + 2):
        started = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    return {"per_second": work / statistics.median(wall[2:]), "per_cpu_second": work / statistics.median(cpu[2:])}


def digests(answers):
    return [hashlib.sha256(np.ascontiguousarray(answer, np.int64).tobytes()).hexdigest()[:12] for answer in answers]


def ours_candidates():
    from videmo_jax.sampling.draw import Decoding

    once = ours(samples([30]), Decoding(NEW, answers=CANDIDATES, temperature=1.0), together=False)
    return timed(once, CANDIDATES * NEW)


def transformers_candidates():
    model, inputs, longest = transformers_side(samples([30]))

    def once():
        output = model.generate(
            **inputs, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, num_return_sequences=CANDIDATES,
            max_new_tokens=NEW, min_new_tokens=NEW, pad_token_id=0,
        )  # fmt: skip
        assert output.shape == (CANDIDATES, longest + NEW)

    return timed(once, CANDIDATES * NEW)


def ours_questions():
    from videmo_jax.sampling.draw import Decoding

    once = ours(samples(QUESTIONS), Decoding(NEW_EACH), together=True)
    return timed(once, 1) | {"answers": digests(once())}


def asked(sides):
    """Greedy answers of transformers, one call for each of `sides`."""
    answers = []
    for model, inputs, longest in sides:
        output = model.generate(
            **inputs, do_sample=False, max_new_tokens=NEW_EACH, min_new_tokens=NEW_EACH, pad_token_id=0
        )
        answers += list(output[:, longest:].numpy())
    return answers


def transformers_questions():
    sides = [transformers_side([prompt]) for prompt in samples(QUESTIONS)]
    return timed(lambda: asked(sides), 1) | {"answers": digests(asked(sides))}


def transformers_questions_batch():
    sides = [transformers_side(samples(QUESTIONS))]
    return timed(lambda: asked(sides), 1) | {"answers": digests(asked(sides))}


SIDES = {
    "ours-candidates": ours_candidates,
    "transformers-candidates": transformers_candidates,
    "ours-questions": ours_questions,
    "transformers-questions": transformers_questions,
    "transformers-questions-batch": transformers_questions_batch,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="that each side may use")
    arguments = parser.parse_args()
    if arguments.only:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
        print(json.dumps(SIDES[arguments.only]()))
        return
    results = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side in SIDES:
            command = [
                sys.executable,
                "-m",
                "tests.benchmarks.answers",
                "--only",
                side,
                "--cores",
                f"{arguments.cores}",
            ]
            output = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
            ).stdout
            results[side].append(json.loads(output.splitlines()[-1]))
    own = results["ours-questions"][0]["answers"]
    summary = {
        "cores": arguments.cores,
        "equal": {
            side: sum(a == b for a, b in zip(own, results[side][0]["answers"], strict=True))
            for side in ("transformers-questions", "transformers-questions-batch")
        },
    }
    for unit in ("per_second", "per_cpu_second"):
        median = {side: statistics.median(r[unit] for r in values) for side, values in results.items()}
        for side, values in results.items():
            print(f"{side:30s} median {median[side]:9.3f} {unit}   all {[round(r[unit], 3) for r in values]}")
        summary[unit] = median
        summary[f"times_faster_{unit}"] = {
            "candidates": median["ours-candidates"] / median["transformers-candidates"],
            "questions": median["ours-questions"] / median["transformers-questions"],
            "questions_batch": median["ours-questions"] / median["transformers-questions-batch"],
        }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
