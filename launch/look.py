"""A look at a dataset: one HTML page with frames, questions and answers of random samples, counts and lengths."""

import argparse
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videmo_jax.data.sample import Sample
    from videmo_jax.data.video import ClipCache, FrameSpec
    from videmo_jax.reports.dataset import ShownClip

EXAMPLES = """examples:
  python launch/look.py --data Emo-CFG --out look.html
  python launch/look.py --data Emo-CFG --out look.html --split train --samples 60 --seed 1
  python launch/look.py --data emo_cfg_mini --out look.html --tasks MEAD_ID 'MAFW_*'
"""
MOST_SAMPLES = 1000  # some 50 KB each: more makes a page that browsers do not open


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="EMO_CFG", help="the folder of Emo-CFG: jsons/ and videos/"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PAGE.html", help="one file; an old one is replaced")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="default test")
    parser.add_argument("--variant", choices=("full", "sampled"), default="full", help="of the files; default full")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="annotation files, patterns too; default all")
    parser.add_argument("--samples", type=int, default=24, help="shown, spread evenly over the files (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of samples (default 0)")
    flags = parser.parse_args(arguments)
    if not 0 <= flags.samples <= MOST_SAMPLES:
        parser.error(f"--samples {flags.samples}: give a number from 0 to {MOST_SAMPLES}")
    return flags


def choose(samples: Sequence["Sample"], count: int, seed: int) -> list["Sample"]:
    """`count` random samples, from each annotation file as many as from any other as long as it has them."""
    by_file: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_file[sample.file].append(sample)
    rng = random.Random(seed)
    queues = [rng.sample(group, min(count, len(group))) for group in by_file.values()]
    rounds = [[queue[turn] for queue in queues if turn < len(queue)] for turn in range(count)]
    taken = [sample for each in rounds for sample in each][:count]
    order = list(by_file)
    return sorted(taken, key=lambda sample: order.index(sample.file))


def show(root: Path, path: str, clips: "ClipCache", spec: "FrameSpec") -> "ShownClip":
    """The clip's frames, small, at the times at which the model sees it; or why it has none."""
    from videmo_jax.data.video import VideoError
    from videmo_jax.reports.dataset import ShownClip

    try:
        clip = clips.read(root / path, spec)
    except VideoError as error:
        return ShownClip(path, fault=str(error))
    slabs = -(-len(clip.frames) // spec.temporal_patch)
    note = f"{clip.decoded_frames} frames at {clip.average_rate:.4g} a second, {slabs} slabs"
    return ShownClip(path, clip.frames, tuple((clip.indices / clip.average_rate).tolist()), note)


def look(flags: argparse.Namespace) -> None:
    """Reads, chooses, writes the page, prints what was found."""
    from videmo_jax.data.emo_cfg import read_emo_cfg
    from videmo_jax.data.video import ClipCache, FrameSpec
    from videmo_jax.reports.dataset import DatasetView, ShownSample, dataset_page

    if flags.out.is_dir():
        raise ValueError(f"--out {flags.out}: is a folder; name a file, such as {flags.out / 'look.html'}")
    include = flags.tasks and [f"{name.removesuffix('.json')}.json" for name in flags.tasks]
    data = read_emo_cfg(flags.data, flags.split, variant=flags.variant, include=include)
    spec = FrameSpec(min_pixels=30_000, max_pixels=50_000)
    clips = ClipCache(max_bytes=64 * 2**20)
    shown = [
        ShownSample(
            sample.id,
            sample.file,
            tuple((message.role, message.content) for message in sample.messages),
            tuple(show(flags.data, path, clips, spec) for path in sample.videos),
        )
        for sample in choose(data.samples, flags.samples, flags.seed)
    ]
    view = DatasetView(
        title=f"{flags.data.resolve().name}, {flags.split}",
        counts=Counter(sample.file for sample in data.samples),
        answer_words=[len(sample.answer.split()) for sample in data.samples],
        question_words=[len(sample.question.split()) for sample in data.samples],
        shown=shown,
        rejected=[(each.id, each.reason) for each in data.rejected],
    )
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    partial = flags.out.with_name(f".{flags.out.name}.partial-{os.getpid()}")
    partial.write_text(dataset_page(view), encoding="utf-8")
    partial.replace(flags.out)
    unread = sum(bool(clip.fault) for sample in shown for clip in sample.clips)
    print(
        f"wrote {flags.out}: {len(shown)} of {len(data.samples):,} samples shown, {len(data.rejected):,} left out"
        + (f", {unread} clips could not be read" if unread else "")
    )


def main() -> None:
    """Entry point: an error that the user can mend is one line, without a traceback."""
    flags = parse()
    try:
        look(flags)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
