"""Answers to Emo-CFG's questions: from a checkpoint, or scores of predictions that are already there."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from videmo_jax.sampling.reasoning import Settings

EXAMPLES = """examples:
  python launch/evaluate.py --checkpoint runs/videmo --data Emo-CFG --out results/videmo
  python launch/evaluate.py --checkpoint runs/videmo --data Emo-CFG --out results/part --tasks MEAD_ID 'MAFW_*'
  python launch/evaluate.py --checkpoint runs/videmo --data Emo-CFG --out results/reasoned --reasoning 8
  python launch/evaluate.py --checkpoint runs/mini --data emo_cfg_mini --out results/train --split train
  python launch/evaluate.py --predictions results/videmo/predictions --out results/scored

A run that was killed goes on where it was: give the same command again.
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", metavar="CKPT", help="a work directory or one checkpoint")
    parser.add_argument("--data", type=Path, metavar="EMO_CFG", help="the folder of Emo-CFG: jsons/ and videos/")
    parser.add_argument("--out", metavar="DIR", help="predictions/, skipped.jsonl and scores.json go here")
    parser.add_argument("--predictions", metavar="DIR", help="score these prediction files; no model is loaded")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="default test")
    parser.add_argument("--variant", choices=("full", "sampled"), default="full", help="of the files; default full")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="annotation files, patterns too; default all")
    parser.add_argument("--batch", type=int, default=16, help="rows on all devices together (default 16)")
    parser.add_argument("--max-new-tokens", type=int, default=2048, help="of an answer (default 2048)")
    parser.add_argument("--max-prompt-tokens", type=int, default=8192, help="longer ones are skipped (default 8192)")
    parser.add_argument("--reasoning", type=int, metavar="N", help="reason first, N candidates a level (see reason.py)")
    parser.add_argument("--scorer", default="mbr", help="which candidate is kept, with --reasoning (default mbr)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="auto: bfloat16, on the CPU float32",
    )
    flags = parser.parse_args(arguments)
    if flags.predictions:
        if flags.checkpoint or flags.data:
            parser.error("--predictions needs neither --checkpoint nor --data")
    elif not (flags.checkpoint and flags.data and flags.out):
        parser.error("give --checkpoint, --data and --out, or --predictions")
    return flags


class _Rate(ProgressColumn):
    """Answers per second."""

    def render(self, task: Task) -> str:
        speed = task.finished_speed or task.speed
        return f"{speed:.1f} answers/s" if speed else "-"


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Shows items done, answers per second and the time left; gives the function that hears of them."""
    columns = (TextColumn("answering"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=300) as progress:
        task = progress.add_task("answering", visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)


def evaluate(flags: argparse.Namespace) -> None:
    """Answers or reads, scores, prints."""
    from videmo_jax.evaluation import runner, scores
    from videmo_jax.evaluation.answerer import default_dtype
    from videmo_jax.evaluation.predictions import read_folder

    if flags.predictions:
        results = scores.score_all(read_folder(flags.predictions))
        if flags.out:
            runner.write_scores(flags.out, results, predictions=flags.predictions)
    else:
        settings = runner.Settings(
            split=flags.split,
            variant=flags.variant,
            tasks=flags.tasks and tuple(flags.tasks),
            dtype=default_dtype() if flags.dtype == "auto" else flags.dtype,
            max_new_tokens=flags.max_new_tokens,
            max_prompt_tokens=flags.max_prompt_tokens,
            batch=flags.batch,
            reasoning=reasoning_of(flags),
        )
        with progress_bar() as report:
            results = runner.evaluate(flags.checkpoint, flags.data, flags.out, settings, report)
    Console().print(scores.table(results))
    print(scores.summary(results))
    if flags.out:
        print(f"wrote {flags.out}")


def reasoning_of(flags: argparse.Namespace) -> "Settings | None":
    """How to reason before an answer, where that is asked for."""
    if flags.reasoning is None:
        return None
    from videmo_jax.sampling.reasoning import Settings
    from videmo_jax.sampling.reasoning_scores import Scorer

    return Settings.of(
        flags.reasoning,
        scorer=Scorer.parse(flags.scorer),
        max_new_tokens=min(flags.max_new_tokens, Settings.max_new_tokens),
        answer_tokens=flags.max_new_tokens,
        max_prompt_tokens=flags.max_prompt_tokens,
    )


def main() -> None:
    """Entry point: an error that the user can mend is one line, without a traceback."""
    flags = parse()
    try:
        evaluate(flags)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except RuntimeError as error:  # the one that a flag can mend
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sys.exit(
            f"error: the device has too little memory for --batch {flags.batch}; give the command with a smaller one"
        )
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on where it was")


if __name__ == "__main__":
    main()
