"""The whole way from disk to batches: tokens and samples a second, from records and from videos.

    python -m tests.benchmarks.pipeline --data ../shared/emo_cfg_mini
    python -m tests.benchmarks.pipeline

Without --data the synthetic set is rendered first. Clips have the paper's size, rows of 4,096 tokens are packed, and
nothing is kept in memory between samples. The last line of stdout is one JSON object.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags as absl_flags

from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.mixture import everything
from videmo_jax.data.packing import RowPlan, Sizes
from videmo_jax.data.pipeline import RowMaker, TrainingBatches
from videmo_jax.data.records import Settings, prepare
from videmo_jax.data.rows import Budget
from videmo_jax.data.skips import SkipLog
from videmo_jax.data.source import Source, fitting, open_source
from videmo_jax.data.synthetic import write_synthetic
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import FrameSpec
from videmo_jax.model.config import PRESETS

BUDGET, ROWS = Budget(4096, 32, 640), 4
FRAMES = FrameSpec()


def stream(source: Source, threads: int, workers: int) -> TrainingBatches:
    """Batches of all samples that fit."""
    wanted, skips = np.ones(len(source), bool), SkipLog(None, total=len(source), max_share=1)
    lengths = source.lengths(wanted)
    numbers = np.flatnonzero(fitting(source, lengths, wanted, BUDGET, skips)).astype(np.int32)
    plan = RowPlan(everything(numbers), Sizes(lengths.tokens, lengths.slabs), BUDGET, batch=ROWS, seed=0)
    make = RowMaker(source, Preparer(Tokenizer.embedded(), InputSpec(FRAMES)), PRESETS["3b"].vision, BUDGET)
    return TrainingBatches(plan, make, skips=skips, threads=threads, workers=workers)


def rate(batches: TrainingBatches, seconds: float) -> dict[str, float]:
    """What comes out in so many seconds, after the first batches have filled the buffers."""
    for _ in range(3):
        next(batches)
    start, tokens, samples, rows = time.perf_counter(), 0, 0, 0
    while (spent := time.perf_counter() - start) < seconds:
        segments = next(batches).rows.segment_ids
        tokens += int(np.count_nonzero(segments))
        samples += int(segments.max(axis=-1).sum())
        rows += len(segments)
    per_second = {"tokens": tokens, "samples": samples, "rows": rows}
    return {f"{name}_per_s": round(value / spent, 2) for name, value in per_second.items()}


def main() -> None:
    """Prepares, reads in every way, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="EMO_CFG", help="default: the synthetic set")
    parser.add_argument("--seconds", type=float, default=15, help="of each timing (default 15)")
    flags = parser.parse_args()
    absl_flags.FLAGS.mark_as_parsed()  # for Grain's worker processes
    cores = len(os.sched_getaffinity(0))
    result: dict[str, object] = {"cores": cores, "row": [BUDGET.tokens, BUDGET.slabs]}
    with tempfile.TemporaryDirectory() as folder:
        root = flags.data or Path(folder) / "synthetic"
        if not flags.data:
            write_synthetic(root, scenes=68, seed=0)
        prepare(root, Path(folder) / "records", Settings(), workers=cores)
        for name, place in {"videos": root, "records": Path(folder) / "records"}.items():
            for threads, workers in ((cores, 0), (1, cores)):
                source, _ = open_source(place, "train", FRAMES, Tokenizer.embedded(), cache_bytes=1)
                way = f"{name}, {f'{workers} processes' if workers else f'{threads} threads'}"
                result[way] = rate(stream(source, threads, workers), flags.seconds)
                print(f"{way}: {result[way]}", file=sys.stderr, flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
