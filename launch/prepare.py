"""Emo-CFG into record shards that TensorFlow Datasets and Grain read: every clip decoded, sampled and resized once."""

import argparse
import dataclasses
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from videmo_jax.commands import one_line
from videmo_jax.files.errors import UserError
from videmo_jax.files.paths import is_remote

EXAMPLES = """examples:
  python launch/prepare.py --emo-cfg Emo-CFG --out records/emo-cfg --workers 32
  python launch/prepare.py --emo-cfg Emo-CFG --out records/train --split train --instructions magpie.jsonl
  python launch/prepare.py --emo-cfg Emo-CFG --out records/emo-cfg --tokenizer Qwen2.5-VL-7B-Instruct
  python launch/prepare.py --emo-cfg Emo-CFG --out gs://bucket/emo-cfg --beam-runner DirectRunner \\
      --beam-options="--direct_num_workers=32 --direct_running_mode=multi_processing"
  python launch/prepare.py --synthetic 1000 --out records/synthetic --frames min_pixels=784 max_pixels=12544

A run that was killed goes on where it was: give the same command again. With another --tokenizer, finished records
get the lengths of their texts by it; with changed annotations their samples are written again, and only new clips are
decoded.
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--emo-cfg", metavar="DIR", help="the folder of Emo-CFG: jsons/ and videos/")
    parser.add_argument(
        "--synthetic",
        type=int,
        metavar="N",
        help="render the synthetic set of N clips first, into --emo-cfg, by default a folder beside --out",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic set (default 0)")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder, or one to go on with; gs:// too")
    parser.add_argument("--split", nargs="+", choices=("train", "test"), default=["train", "test"], help="default both")
    parser.add_argument("--variant", choices=("full", "sampled"), default="full", help="of the files; default full")
    parser.add_argument(
        "--instructions",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text-only instructions for the split train: JSON Lines of `messages`, or MAGPIE's `conversations`",
    )
    parser.add_argument(
        "--tokenizer",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="folders of tokenizer.json that measure the texts (default: the embedded one); may be added later",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument(
        "--beam-runner", metavar="NAME", help="decode in a pipeline of Apache Beam, such as DataflowRunner (extra beam)"
    )
    parser.add_argument(
        "--beam-options", default="", metavar="'--A=B ...'", help="of the pipeline; all in one word that follows `=`"
    )
    parser.add_argument("--quality", type=int, default=90, help="of the JPEG frames, 1 to 100 (default 90)")
    parser.add_argument("--shard-size", type=int, default=256, help="clips a shard (default 256)")
    parser.add_argument("--clip-seconds", type=float, default=60, help="a slower clip is left out (default 60)")
    parser.add_argument(
        "--max-skipped-share",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="of a split's samples that may have a fault (default 0.05); more end in an error",
    )
    parser.add_argument(
        "--frames",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="fields of FrameSpec, such as max_frames=8; the default is VidEmo's evaluation setting",
    )
    flags = parser.parse_args(arguments)
    if flags.emo_cfg is None and flags.synthetic is None:
        parser.error("give --emo-cfg or --synthetic")
    for name, value in (("--emo-cfg", flags.emo_cfg), *(("--instructions", file) for file in flags.instructions)):
        if value and is_remote(value):
            parser.error(f"{name} {value}: is read from a local path; mount or copy it. --out may be gs://")
    if is_remote(flags.out) and flags.emo_cfg is None:
        parser.error("the synthetic set is rendered into a local folder: name it by --emo-cfg")
    if flags.workers < 1 or flags.clip_seconds <= 0:
        parser.error("--workers and --clip-seconds are above 0")
    return flags


def frame_fields(pairs: list[str]) -> dict[str, Any]:
    """Arguments of FrameSpec from NAME=VALUE.

    Raises:
      ValueError: there is no such field, or its value is no number.
    """
    from videmo_jax.data.video import FrameSpec

    types = {item.name: float if item.name == "rate" else int for item in dataclasses.fields(FrameSpec)}
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in types:
            raise UserError(f"--frames {pair}: no such field; there are {', '.join(types)}")
        try:
            found[name] = types[name](value)
        except ValueError:
            raise UserError(f"--frames {pair}: {value!r} is not a number of type {types[name].__name__}") from None
    return found


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Shows what is done of every kind and the time left; gives the function that hears of it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def report(kind: str, done: int, total: int) -> None:
            if kind not in tasks:
                tasks[kind] = progress.add_task(kind, total=total)
            progress.update(tasks[kind], completed=done)

        yield report


def run(flags: argparse.Namespace) -> None:
    """Renders if asked, prepares, says what came of it."""
    from videmo_jax.data.instructions import FOLDER as INSTRUCTIONS
    from videmo_jax.data.records import Settings, prepare
    from videmo_jax.data.records.beam import BeamRunner
    from videmo_jax.data.synthetic import write_synthetic
    from videmo_jax.data.tokenizer import Tokenizer
    from videmo_jax.data.video import FrameSpec
    from videmo_jax.tasks.taxonomy import task_of

    frames = FrameSpec(**frame_fields(flags.frames))
    settings = Settings(tuple(dict.fromkeys(flags.split)), flags.variant, frames, flags.quality, flags.shard_size)
    root = Path(flags.emo_cfg or f"{flags.out.rstrip('/')}-emo-cfg")
    with progress_bar() as report:
        if flags.synthetic is not None:
            write_synthetic(
                root,
                scenes=flags.synthetic,
                seed=flags.seed,
                workers=flags.workers,
                on_clip=lambda done, total: report("rendered clips", done, total),
            )
        manifest = prepare(
            root,
            flags.out,
            settings,
            instructions=flags.instructions,
            tokenizers=[Tokenizer.from_dir(folder) for folder in flags.tokenizer],
            workers=flags.workers,
            runner=flags.beam_runner and BeamRunner(flags.beam_runner, shlex.split(flags.beam_options)),
            clip_seconds=flags.clip_seconds,
            max_skipped_share=flags.max_skipped_share,
            on_shard=lambda kind, done, total: report(f"shards of {kind}", done, total),
        )
    counts = manifest["counts"]
    samples = ", ".join(f"{count:,} {split}" for split, count in counts["samples"].items())
    left_out = ", ".join(f"{count:,} {kind}" for kind, count in counts["left_out"].items()) or "nothing"
    unknown = [file for file in counts["files"] if task_of(file) is None and not file.startswith(INSTRUCTIONS)]
    if unknown:
        many = sum(counts["files"][file] for file in unknown)
        print(f"of unknown tasks: {many:,} samples, of {', '.join(unknown)}")
    print(f"wrote {flags.out}: {counts['clips']:,} clips, {samples} samples; left out: {left_out} (report.jsonl)")


def main() -> None:
    """Entry point: an error that the user can mend is one line, without a traceback."""
    flags = parse()
    os.environ["JAX_PLATFORMS"] = "cpu"  # before any process starts: none of them needs an accelerator
    with one_line(stopped="stopped; the same command goes on where it was"):
        run(flags)


if __name__ == "__main__":
    main()
