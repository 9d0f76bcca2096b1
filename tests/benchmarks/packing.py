"""Packing: how full rows are on Emo-CFG's task mix, what planning costs, and what it gains a small model.

    python -m tests.benchmarks.packing

The mix is the table of PAPER.md section 2 (2.16 M samples). Closed tasks have the text lengths of the synthetic set,
captions and rationales the paper's 0 to 500 words; clips last 1 to 12 s, log-uniform, in the paper's frames. The last
line of stdout is one JSON object.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from tests.benchmarks.speed import config
from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.mixture import everything
from videmo_jax.data.packing import RowPlan, Sizes, pack_rows
from videmo_jax.data.pipeline import RowMaker, TrainingBatches, to_devices
from videmo_jax.data.rows import Budget
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.source import open_source
from videmo_jax.data.synthetic import write_synthetic
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec, sample_indices
from videmo_jax.sft.step import make_train_step, numbers
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import fresh_state, initial_params
from videmo_jax.training.step import ComputeSpec

SMALL = FrameSpec(min_pixels=112 * 112, max_pixels=112 * 112)
TEMPLATE, TOKENS_A_WORD = 60, 1.35  # tokens of template and question; of an English word

# Samples, and the file of the synthetic set whose text they have; None: 0 to 500 words (PAPER.md section 2).
MIX = (
    (32_010, "CelebV-HQ_Appearance-Recognition"),
    (59_879, "CelebV-Text_Appearance-Caption"),
    (32_010, "CelebV-HQ_Action-Recognition"),
    (59_797, "CelebV-Text_Action-Caption"),
    (19_998, "MEAD_ID"),
    (188_590, "MEAD_Head-Pose"),
    (1_215_882, "QA_train"),
    (19_710, "MOSEI_Single-Label-Sentiment-Recognition"),
    (1_824, "CHSIMIv1_Fine-grained-Sentiment-Recognition"),
    (20_060, "DFEW_Single-Label-Emotion-Recognition"),
    (7_178, "MAFW_Multiple-Label-Emotion-Recognition"),
    (198_957, "MEAD_Fine-grained-Emotion-Recognition"),
    (515, "CAS_Single-Label-Micro-Expression-Recognition"),
    (2_180, "AffWild2_Action_Unit_Detection"),
    (38_153, "MELD_Single-Label-Conversational-Emotion-Recognition_new"),
    (59_797, "CelebV-Text_Emotion-Caption"),
    (78_072, None),
    (121_618, None),
)


def say(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def mix_sizes(source, lengths) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and slabs of all samples of the mix, text and vision of the paper's size."""
    rng = np.random.default_rng(0)
    vision = lengths.slabs * (SMALL.min_pixels // SMALL.factor**2)
    files = source.files
    texts = []
    for count, name in MIX:
        if name is None:
            texts.append(TEMPLATE + rng.integers(0, 501, count) * TOKENS_A_WORD)
        else:
            held = files.chosen(lambda file, name=name: name in file)
            texts.append(rng.choice((lengths.tokens - vision)[held], count))
    text = np.concatenate(texts).astype(np.int64)
    frames = np.array([len(sample_indices(n, 25.0, FrameSpec())) for n in range(25, 301)])
    clips = np.exp(rng.uniform(np.log(25), np.log(300), len(text))).astype(int) - 25
    slabs = -(-frames[clips] // 2)
    return (text + slabs * rng.integers(120, 145, len(text))).astype(np.int32), slabs.astype(np.int32)


def fill(tokens: np.ndarray, slabs: np.ndarray, budget: Budget) -> dict[str, float]:
    """How full the rows of the whole mix are, and what the plan costs."""
    pack_rows(tokens[:64], slabs[:64], budget)  # compiles
    plan = RowPlan(everything(np.arange(len(tokens), dtype=np.int32)), Sizes(tokens, slabs), budget, batch=1024, seed=0)
    start = time.perf_counter()
    rows = plan.first(1)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    for row in range(0, 20_000):
        plan[row]
    return {
        "samples": len(tokens),
        "row": [budget.tokens, budget.slabs],
        "rows": rows,
        "samples_per_row": round(len(tokens) / rows, 2),
        "filled_tokens": round(float(tokens.sum(dtype=np.int64)) / budget.tokens / rows, 4),
        "filled_slabs": round(float(slabs.sum(dtype=np.int64)) / budget.slabs / rows, 4),
        "count_epoch_s": round(seconds, 2),
        "plan_us_per_row": round((time.perf_counter() - start) / 20_000 * 1e6, 1),
    }


def train(source, lengths, budget: Budget, rows: int, pack: bool, steps: int) -> dict[str, float]:
    """Samples a second of a small model's training, batches from the real stream but made beforehand."""
    known = everything(np.arange(len(source), dtype=np.int32))
    plan = RowPlan(known, Sizes(lengths.tokens, lengths.slabs), budget, batch=rows, seed=0, pack=pack)
    model = config()
    make = RowMaker(source, Preparer(Tokenizer.embedded(), InputSpec(SMALL)), model.vision, budget)
    stream = TrainingBatches(plan, make, skips=SkipLog(None, total=len(source), max_share=0))
    mesh = make_mesh({"data": 1}, jax.devices()[:1])
    optimizer = make_optimizer(OptimizerSpec())
    state = fresh_state(model, initial_params(model, mesh, seed=0), optimizer, mesh)
    step = make_train_step(model, optimizer, mesh, ComputeSpec("float32", "full", 512), GuardSpec())
    seconds, samples, tokens = [], 0, 0
    for number in range(steps + 1):
        batch = next(stream)
        placed = jax.block_until_ready(to_devices(batch, mesh))
        start = time.perf_counter()
        state, measured = step(state, placed, 1e-5)
        numbers(measured)
        if number:  # the first one compiles
            seconds.append(time.perf_counter() - start)
            samples += int(batch.rows.segment_ids.max(axis=1).sum())
            tokens += int((batch.rows.segment_ids > 0).sum())
    return {
        "row": [budget.tokens, budget.slabs],
        "rows": rows,
        "samples_per_step": round(samples / steps, 1),
        "filled_tokens": round(tokens / steps / rows / budget.tokens, 3),
        "seconds_per_step": round(statistics.median(seconds), 3),
        "seconds_per_row": round(statistics.median(seconds) / rows, 4),
        "samples_per_s": round(samples / steps / statistics.median(seconds), 2),
    }


def main() -> None:
    """Renders, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=170, help="of the synthetic set (default 170)")
    parser.add_argument("--steps", type=int, default=8, help="training steps that are timed (default 8)")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "synthetic"
        say("rendering the synthetic set")
        write_synthetic(root, scenes=flags.scenes, seed=0)
        source, _ = open_source(root, "train", SMALL, Tokenizer.embedded())
        lengths = source.lengths(np.ones(len(source), bool))
        tokens, slabs = mix_sizes(source, lengths)
        result = {"mix": [fill(tokens, slabs, budget) for budget in (Budget(4096, 20, 640), Budget(8192, 40, 640))]}
        for each in result["mix"]:
            say(f"mix: {each}")
        longest, most = int(lengths.tokens.max()), int(lengths.slabs.max())
        patches = int(lengths.patches.max())
        mean = float(lengths.tokens.mean() / lengths.slabs.mean())
        packed = Budget(round(mean * 8 * 1.03 / 16) * 16, 8, patches)
        result["padded"] = train(source, lengths, Budget(-(-longest // 16) * 16, most, patches), 16, False, flags.steps)
        say(f"padded: {result['padded']}")
        result["packed"] = train(source, lengths, packed, 8, True, flags.steps)
        say(f"packed: {result['packed']}")
    result["ratio"] = round(result["packed"]["samples_per_s"] / result["padded"]["samples_per_s"], 2)
    result["plan_share_of_step"] = result["mix"][0]["plan_us_per_row"] * 1e-6 / result["packed"]["seconds_per_row"]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
