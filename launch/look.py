"""A look at a dataset: one HTML page with frames, questions and answers of random samples, counts and lengths."""

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from videmo_jax.commands import one_line
from videmo_jax.files.errors import UserError
from videmo_jax.files.json_records import read_journal
from videmo_jax.files.paths import open_path
from videmo_jax.files.writing import write_text
from videmo_jax.tasks.taxonomy import is_named

if TYPE_CHECKING:
    from videmo_jax.data.sample import Sample
    from videmo_jax.reports.clips import ShownClip

EXAMPLES = """examples:
  python launch/look.py --data Emo-CFG --out look.html
  python launch/look.py --data Emo-CFG --out look.html --split train --samples 60 --seed 1
  python launch/look.py --data emo_cfg_mini --out look.html --tasks MEAD_ID 'MAFW_*'
  python launch/look.py --data gs://bucket/records --out look.html --split train
"""
MOST_MEASURED = 20_000  # records whose words are counted: half a second, and the shape of millions
MOST_SAMPLES = 1000  # some 50 KB each: more makes a page that browsers do not open


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="Emo-CFG (jsons/ and videos/), or records of launch/prepare.py"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PAGE.html", help="one file; an old one is replaced")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="default test")
    parser.add_argument("--variant", choices=("full", "sampled"), help="of Emo-CFG's files; default full")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="annotation files, patterns too; default all")
    parser.add_argument("--samples", type=int, default=24, help="shown, spread evenly over the files (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of samples (default 0)")
    flags = parser.parse_args(arguments)
    if not 0 <= flags.samples <= MOST_SAMPLES:
        parser.error(f"--samples {flags.samples}: give a number from 0 to {MOST_SAMPLES}")
    return flags


def choose(files: Sequence[str], count: int, seed: int) -> list[int]:
    """`count` random samples, from each annotation file as many as from any other as long as it has them.

    Args:
      files: the annotation file of each sample; the numbers that come back are places in it, file by file.
      count: how many; fewer where there are not so many.
      seed: of the choice.
    """
    by_file: dict[str, list[int]] = defaultdict(list)
    for number, file in enumerate(files):
        by_file[file].append(number)
    rng = random.Random(seed)
    queues = [rng.sample(group, min(count, len(group))) for group in by_file.values()]
    rounds = [[queue[turn] for queue in queues if turn < len(queue)] for turn in range(count)]
    taken = [number for each in rounds for number in each][:count]
    order = {file: place for place, file in enumerate(by_file)}
    return sorted(taken, key=lambda number: order[files[number]])


@dataclass(frozen=True)
class Data:
    """What the page needs of a dataset, wherever it lies; samples go by number.

    Attributes:
      files: the annotation file of each sample.
      sample: reads one.
      clips: reads those of a sample, to show.
      measured: numbers of the samples whose words are counted.
      rejected: id and reason of what was left out.
    """

    files: Sequence[str]
    sample: Callable[[int], "Sample"]
    clips: Callable[[int], tuple["ShownClip", ...]]
    measured: Sequence[int]
    rejected: list[tuple[str, str]]


def from_videos(flags: argparse.Namespace, include: list[str] | None) -> Data:
    """A folder of Emo-CFG: small frames, or why there are none."""
    from videmo_jax.data.emo_cfg import read_emo_cfg
    from videmo_jax.data.video import ClipCache, FrameSpec, VideoError
    from videmo_jax.reports.clips import ShownClip, shown_clip

    root = Path(flags.data)
    data = read_emo_cfg(root, flags.split, variant=flags.variant or "full", include=include)
    spec = FrameSpec(min_pixels=30_000, max_pixels=50_000)
    cache = ClipCache(max_bytes=64 * 2**20)

    def show(path: str) -> ShownClip:
        try:
            return shown_clip(path, cache.read(root / path, spec), spec.temporal_patch)
        except VideoError as error:
            return ShownClip(path, fault=str(error))

    rejected = [(each.id, each.reason) for each in data.rejected]
    return Data(
        [sample.file for sample in data.samples],
        data.samples.__getitem__,
        lambda number: tuple(map(show, data.samples[number].videos)),
        range(len(data.samples)),
        rejected,
    )


def from_records(flags: argparse.Namespace, include: list[str] | None) -> Data:
    """Records of prepare: the frames that the model is trained on."""
    import numpy as np

    from videmo_jax.data.records import RecordError, read_records
    from videmo_jax.data.records.prepare import REPORT
    from videmo_jax.reports.clips import shown_clip

    if flags.variant is not None:
        raise UserError(f"--variant {flags.variant}: records hold one alone; leave it out")
    records = read_records(flags.data, flags.split)
    file_of, names = records.sample_files()
    if include is None:
        places = np.arange(len(file_of))
    else:
        wanted = [any(is_named(name, pattern) for pattern in include) for name in names]
        if not any(wanted):
            raise RecordError(f"{flags.data}: no file is named {' or '.join(include)}; there are: {', '.join(names)}.")
        places = np.flatnonzero(np.array(wanted)[file_of])

    def clips(number: int) -> tuple["ShownClip", ...]:
        sample, read = records.example(int(places[number]))
        pairs = zip(sample.videos, read, strict=True)
        return tuple(shown_clip(path, clip, records.frames.temporal_patch) for path, clip in pairs)

    lines = read_journal(records.root / REPORT, "prepare the records again")
    return Data(
        [names[number] for number in file_of[places].tolist()],
        lambda number: records.samples[int(places[number])].sample,
        clips,
        sorted(random.Random(flags.seed).sample(range(len(places)), min(len(places), MOST_MEASURED))),
        [(line["id"], line["reason"]) for line in lines if line["kind"] == "sample"],
    )


def look(flags: argparse.Namespace) -> None:
    """Reads, chooses, writes the page, prints what was found."""
    from videmo_jax.data.records.reader import MANIFEST
    from videmo_jax.reports.dataset import DatasetView, ShownSample, dataset_page, why

    if flags.out.is_dir():
        raise UserError(f"--out {flags.out}: is a folder; name a file, such as {flags.out / 'look.html'}")
    include = flags.tasks
    prepared = (open_path(flags.data) / MANIFEST).exists()
    data = (from_records if prepared else from_videos)(flags, include)
    chosen = [(number, data.sample(number)) for number in choose(data.files, flags.samples, flags.seed)]
    shown = [
        ShownSample(
            sample.id,
            sample.file,
            tuple((message.role, message.content) for message in sample.messages),
            data.clips(number),
        )
        for number, sample in chosen
    ]
    measured = [
        (len(sample.answer.split()), len(sample.question.split())) for sample in map(data.sample, data.measured)
    ]
    view = DatasetView(
        title=f"{Path(flags.data).resolve().name}, {flags.split}",
        counts=Counter(data.files),
        answer_words=[answer for answer, _ in measured],
        question_words=[question for _, question in measured],
        shown=shown,
        rejected=data.rejected,
        split=flags.split,
    )
    write_text(flags.out, dataset_page(view))
    reasons, faults = [reason for _, reason in data.rejected], [c.fault for s in shown for c in s.clips if c.fault]
    print(
        f"wrote {flags.out}: {len(shown)} of {len(data.files):,} samples of split {flags.split} shown, "
        f"{len(reasons):,} left out"
        + (f" ({why(reasons)})" if reasons else "")
        + (f", {len(faults)} clips could not be read ({why(faults)})" if faults else "")
    )


def main() -> None:
    """Entry point: an error that the user can mend is one line, without a traceback."""
    flags = parse()
    with one_line():
        look(flags)


if __name__ == "__main__":
    main()
