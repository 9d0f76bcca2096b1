"""Records against decoding on the fly, on one core, to uint8 frames of equal size.

    python -m tests.benchmarks.records --data ../shared/emo_cfg_mini

Every sample of both ways is one clip of the dataset, met in turn. The last line of stdout is one JSON object.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from videmo_jax.data.records import Settings, prepare, read_records
from videmo_jax.data.video import Clip, read_clip


def seconds(read: Callable[[], Clip], rounds: int) -> float:
    """The middle of `rounds` timings."""
    timings = []
    for _ in range(rounds):
        start = time.perf_counter()
        read()
        timings.append(time.perf_counter() - start)
    return statistics.median(timings)


def main() -> None:
    """Prepares the records, times both ways clip by clip and in turn, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="EMO_CFG")
    parser.add_argument("--rounds", type=int, default=9, help="timings a clip (default 9)")
    parser.add_argument("--quality", type=int, default=90)
    flags = parser.parse_args()
    settings = Settings(quality=flags.quality)
    clips: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        manifest = prepare(flags.data, folder, settings, workers=1)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        for split in manifest["samples"]:
            records = read_records(folder, split)
            for recorded in (records.samples[index] for index in range(len(records.samples))):
                for video, id in zip(recorded.sample.videos, recorded.clips, strict=True):
                    if video in clips:
                        continue
                    path = flags.data / video
                    if records.clip(id).frames.shape != read_clip(path, settings.frames).frames.shape:
                        raise SystemExit(f"{video}: the two ways give frames of other shapes")
                    decoding = seconds(lambda path=path: read_clip(path, settings.frames), flags.rounds)
                    reading = seconds(lambda id=id, records=records: records.clip(id), flags.rounds)
                    clips[video] = {"pyav_ms": round(decoding * 1e3, 2), "records_ms": round(reading * 1e3, 2),
                                    "ratio": round(decoding / reading, 1)}  # fmt: skip
    totals = {way: sum(clip[f"{way}_ms"] for clip in clips.values()) / 1e3 for way in ("pyav", "records")}
    result = {
        "pyav_samples_per_s": round(len(clips) / totals["pyav"], 1),
        "records_samples_per_s": round(len(clips) / totals["records"], 1),
        "ratio": round(totals["pyav"] / totals["records"], 1),
        "quality": flags.quality,
        "bytes_per_clip": round(sum(shard["bytes"] for shard in manifest["clips"]) / len(clips)),
        "clips": clips,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
