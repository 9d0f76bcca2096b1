"""Opening the records of all of Emo-CFG: seconds, memory, and samples read at random.

    python -m tests.benchmarks.opening --samples 2156230 --workers 2

Writes a record set whose samples follow the task mix of the paper and share a few thousand clip records of one small
frame, then opens it in a fresh process. The last line of stdout is one JSON object.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from etils import epath

from videmo_jax.data.records import Settings
from videmo_jax.data.records.jobs import Finished
from videmo_jax.data.records.schema import encode_clip
from videmo_jax.data.records.shards import shard_name, write_shard
from videmo_jax.data.records.writing import finish, write_samples
from videmo_jax.data.sample import Message, Sample
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import Clip

# Annotation file (group and name), samples (PAPER.md section 2) and about how many words an answer has.
MIX = (
    ("attribute", "CelebV-HQ_Appearance-Recognition", 32_010, 8),
    ("attribute", "CelebV-Text_Appearance-Caption", 59_879, 40),
    ("attribute", "CelebV-HQ_Action-Recognition", 32_010, 5),
    ("attribute", "CelebV-Text_Action-Caption", 59_797, 40),
    ("attribute", "MEAD_ID", 19_998, 2),
    ("attribute", "MEAD_Head-Pose", 188_590, 2),
    ("qa", "QA_train", 1_215_882, 30),
    ("emotion", "MOSEI_Single-Label-Sentiment-Recognition", 19_710, 2),
    ("emotion", "CHSIMIv1_Fine-grained-Sentiment-Recognition", 1_824, 2),
    ("emotion", "DFEW_Single-Label-Emotion-Recognition", 20_060, 2),
    ("emotion", "MAFW_Multiple-Label-Emotion-Recognition", 7_178, 2),
    ("emotion", "MEAD_Fine-grained-Emotion-Recognition", 198_957, 2),
    ("emotion", "CAS_Single-Label-Micro-Expression-Recognition", 515, 2),
    ("emotion", "AffWild2_Action_Unit_Detection", 2_180, 3),
    ("emotion", "MELD_Single-Label-Conversational-Emotion-Recognition_new", 38_153, 2),
    ("caption", "CelebV-Text_Emotion-Caption", 59_797, 40),
    ("caption", "caption_train", 78_072, 250),
    ("rationale", "rationale_train", 121_618, 120),
)
WORDS = ("the", "woman", "smiles", "slowly", "while", "her", "eyebrows", "rise", "as", "if", "she", "felt", "joy")

# What the fresh process runs: imports are measured apart, because every trainer pays them anyway.
OPEN = """
import json, random, sys, time
from pathlib import Path

def mb():  # ru_maxrss would count the parent's
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

start = time.perf_counter()
import numpy as np
from videmo_jax.data.mixture import everything
from videmo_jax.data.packing import RowPlan, Sizes
from videmo_jax.data.records import read_records
from videmo_jax.data.rows import Budget
from videmo_jax.data.tokenizer import Tokenizer
tokenizer = Tokenizer.embedded()
imported, before = time.perf_counter(), mb()
records = read_records(sys.argv[1])
lengths = records.lengths(tokenizer)
opened, peak = time.perf_counter(), mb()
sizes = Sizes(lengths.text + lengths.vision, lengths.slabs)
plan = RowPlan(everything(np.flatnonzero(sizes.tokens <= 4096).astype(np.int32)), sizes, Budget(4096, 32, 640),
               batch=1024, seed=0)
rows = plan.first(1)
planned, planned_mb = time.perf_counter(), mb()
numbers = random.Random(0).sample(range(len(records.samples)), min(20_000, len(records.samples)))
reading = time.perf_counter()
for number in numbers:
    records.samples[number]
seconds = time.perf_counter() - reading
again = time.perf_counter()
for number in reversed(numbers):
    records.samples[number]
print(json.dumps({
    "samples": len(lengths),
    "import_s": round(imported - start, 2),
    "open_s": round(opened - imported, 2),
    "rss_growth_mb": round(peak - before),
    "rss_mb": round(peak),
    "plan_epoch_s": round(planned - opened, 2),
    "rows_an_epoch": rows,
    "rss_planned_mb": round(planned_mb),
    "samples_per_s": round(len(numbers) / seconds),
    "samples_per_s_files_open": round(len(numbers) / (time.perf_counter() - again)),
    "rss_after_reading_mb": round(mb()),
    "text_tokens": int(lengths.text.sum()),
}))
"""


def samples(count: int, clips: int) -> Iterator[tuple[Sample, tuple[int]]]:
    """So many samples in the mix of the paper, file by file."""
    rng, total = random.Random(0), sum(size for _, _, size, _ in MIX)
    for group, name, size, words in MIX:
        file = f"train/{group}/full/{name}.json"
        for number in range(max(1, round(size * count / total))):
            clip = rng.randrange(clips)
            question = f"<video>{' '.join(rng.choices(WORDS, k=25))}?"
            answer = " ".join(rng.choices(WORDS, k=rng.randint(1, 2 * words)))
            turns = (Message("user", question), Message("assistant", answer))
            yield Sample(f"{file}#{number}", file, turns, (f"videos/MEAD/{clip:07d}.mp4",), None), (clip,)


def write_clips(out: epath.Path, count: int) -> list[Finished]:
    """Shards of one clip over and over; their grids, which the index takes, are those of real ones."""
    frames = np.zeros((2, 28, 28, 3), np.uint8)
    record = encode_clip("videos/MEAD/0.mp4", Clip(frames, np.arange(2), 2, 25.0, 1.0), 90)
    finished, shards = [], -(-count // 256)
    for number in range(shards):
        size = min(256, count - number * 256)
        name = shard_name("clips", "every", number, shards)
        finished.append(Finished(write_shard(out / "clips" / name, [record] * size), [(8, 20, 26)] * size, {}))
    return finished


def write(out: epath.Path, count: int, clips: int, workers: int) -> dict[str, float]:
    """A record set as `prepare` leaves it; seconds by step."""
    for folder in ("clips", "samples"):
        (out / folder).mkdir(parents=True)
    steps = [time.perf_counter()]
    written = write_clips(out, clips)
    total = sum(max(1, round(size * count / sum(size for _, _, size, _ in MIX))) for _, _, size, _ in MIX)
    steps.append(time.perf_counter())
    train = write_samples(out, "train", samples(count, clips), total, 16 * 256, lambda *_: None)
    steps.append(time.perf_counter())
    recipe = asdict(Settings())
    finish(out, recipe, written, {"train": train}, {}, [Tokenizer.embedded()], workers, lambda *_: None)
    steps.append(time.perf_counter())
    seconds = dict(zip(("clips_s", "samples_s", "texts_s"), np.diff(steps).round(1).tolist(), strict=True))
    return seconds | {"texts_per_s": round(total / seconds["texts_s"])}


def main() -> None:
    """Writes, opens in a fresh process, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2_156_230)
    parser.add_argument("--clips", type=int, default=4096, help="clip records (default 4096)")
    parser.add_argument("--workers", type=int, default=1, help="that measure texts (default 1)")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = epath.Path(folder) / "records"
        written = write(out, flags.samples, flags.clips, flags.workers)
        patterns = {"samples": "samples/*", "index": "index/*", "manifest": "manifest.json"}
        sizes = {name: sum(path.stat().st_size for path in Path(out).glob(each)) for name, each in patterns.items()}
        done = subprocess.run([sys.executable, "-c", OPEN, str(out)], capture_output=True, text=True, check=True)
    opened = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(opened | {"written": written, "bytes": sizes}))


if __name__ == "__main__":
    main()
