"""Hugging Face / PyTorch weights in and out of this project's checkpoints."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from videmo_jax.commands import one_line

EXAMPLES = """examples:
  python launch/convert.py import --hf Qwen2.5-VL-3B-Instruct --out checkpoints/qwen-3b
  python launch/convert.py import --hf gs://bucket/VidEmo-7B --out gs://bucket/videmo-7b --seconds-per-grid nominal
  python launch/convert.py export --checkpoint runs/videmo --out VidEmo-3B-hf
  python launch/convert.py export --checkpoint runs/videmo --out VidEmo-3B-hf --dtype bfloat16 --shard-gb 2
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    style = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}

    into = commands.add_parser("import", help="a Hugging Face directory into a checkpoint", **style)
    into.add_argument("--hf", required=True, metavar="HF_DIR", help="config.json, safetensors and tokenizer")
    into.add_argument("--out", required=True, metavar="CKPT", help="a new directory")
    into.add_argument("--tokenizer", metavar="DIR", help="a directory with tokenizer.json, where HF_DIR has none")
    into.add_argument(
        "--seconds-per-grid",
        choices=("sampled", "nominal"),
        default="sampled",
        help="the time between pairs of frames that the model is told: what was really sampled (default), or always "
        "the nominal second, which the released VidEmo weights need",
    )

    out = commands.add_parser("export", help="a checkpoint into a directory for transformers and vLLM", **style)
    out.add_argument("--checkpoint", required=True, metavar="CKPT", help="a work directory or one checkpoint")
    out.add_argument("--out", required=True, metavar="HF_DIR", help="a new directory")
    out.add_argument("--dtype", choices=("keep", "bfloat16", "float32"), default="keep", help="of the weights")
    out.add_argument("--shard-gb", type=float, default=5.0, help="largest file of weights in GB (default 5)")
    return parser.parse_args(arguments)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Shows tensors and bytes done and the time left; gives the function that hears of every tensor."""
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TextColumn("{task.fields[tensors]} tensors"))
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task(title, visible=False, tensors=0)

        def report(_: str, size: int, total: int) -> None:
            tensors = progress.tasks[task].fields["tensors"] + 1
            progress.update(task, visible=True, advance=size, total=total, tensors=tensors)

        yield report


def convert(flags: argparse.Namespace) -> None:
    """Runs one command."""
    from videmo_jax.data.tokenizer import Tokenizer
    from videmo_jax.interop.export_hf import export_hf
    from videmo_jax.interop.import_hf import import_hf
    from videmo_jax.sampling.policy import never_sampled
    from videmo_jax.training.checkpoint import read_meta, read_tokenizer_files

    with progress_bar(flags.command) as report:
        if flags.command == "import":
            checkpoint = import_hf(
                flags.hf, flags.out, tokenizer=flags.tokenizer, seconds_per_grid=flags.seconds_per_grid, report=report
            )
        else:
            shard_bytes = int(flags.shard_gb * 1e9)
            export_hf(flags.checkpoint, flags.out, dtype=flags.dtype, shard_bytes=shard_bytes, report=report)
    if flags.command == "import":
        print(never_sampled(Tokenizer.from_files(read_tokenizer_files(checkpoint)), read_meta(checkpoint).model))
    print(f"wrote {flags.out}")


def main() -> None:
    """Entry point: an error that the user can mend is one line, without a traceback."""
    flags = parse()
    os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is loaded: conversion needs no accelerator and must not hold one
    with one_line():
        convert(flags)


if __name__ == "__main__":
    main()
