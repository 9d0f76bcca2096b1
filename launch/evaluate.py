"""Answers to Emo-CFG's questions: from a checkpoint, or scores of predictions that are already there."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn

EXAMPLES = """examples:
  python launch/evaluate.py --checkpoint runs/videmo --data Emo-CFG --out results/videmo
  python launch/evaluate.py --checkpoint runs/videmo --data Emo-CFG --out results/part --tasks MEAD_ID 'MAFW_*'
  python launch/evaluate.py --checkpoint runs/mini --data emo_cfg_mini --out results/train --split train
  python launch/evaluate.py --predictions results/videmo/predictions --data Emo-CFG --out results/scored
  python launch/evaluate.py --predictions their_results --data Emo-CFG --rules strict --out results/strict

--data beside --predictions tells the aspects of the open questions, and which lines are missing or extra.
A run that was killed goes on where it was: give the same command again.
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", metavar="CKPT", help="a work directory or one checkpoint")
    parser.add_argument("--data", type=Path, metavar="EMO_CFG", help="the folder of Emo-CFG: jsons/ and videos/")
    parser.add_argument("--out", metavar="DIR", help="predictions/, tables/, scores.json and the rest go here")
    parser.add_argument("--predictions", metavar="DIR", help="score these prediction files; no model is loaded")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="default test")
    parser.add_argument("--variant", choices=("full", "sampled"), default="full", help="of the files; default full")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="annotation files, patterns too; default all")
    parser.add_argument("--batch", type=int, default=16, help="rows on all devices together (default 16)")
    parser.add_argument("--max-new-tokens", type=int, default=2048, help="of an answer (default 2048)")
    parser.add_argument("--max-prompt-tokens", type=int, default=8192, help="longer ones are skipped (default 8192)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="auto: bfloat16, on the CPU float32",
    )
    parser.add_argument(
        "--rules",
        choices=("official", "strict"),
        default="official",
        help="official: the authors' to the letter; strict: all items in every denominator (default official)",
    )
    parser.add_argument("--judge", choices=("rule",), default="rule", help="rule: embedded, free (default)")
    parser.add_argument("--name", help="of this run's row in the tables; default the folder's name")
    flags = parser.parse_args(arguments)
    if flags.predictions:
        if flags.checkpoint:
            parser.error("--predictions needs no --checkpoint")
    elif not (flags.checkpoint and flags.data and flags.out):
        parser.error("give --checkpoint, --data and --out, or --predictions")
    return flags


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> str:
        speed = task.finished_speed or task.speed
        return f"{speed:.1f} {task.fields['unit']}/s" if speed else "-"


@contextmanager
def progress_bars() -> Iterator[Callable[[str, str], Callable[[int, int], None]]]:
    """Shows items done, items per second and the time left; gives what makes a bar, and so what hears of its items."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=300) as progress:

        def bar(doing: str, unit: str) -> Callable[[int, int], None]:
            task = progress.add_task(doing, visible=False, unit=unit)
            return lambda done, total: progress.update(task, completed=done, total=total, visible=True)

        yield bar


def evaluate(flags: argparse.Namespace) -> None:
    """Answers or reads, scores, prints."""
    from videmo_jax.evaluation import results, runner, tables
    from videmo_jax.evaluation.answerer import default_dtype
    from videmo_jax.evaluation.rule_judge import RuleJudge

    name = flags.name or _name(flags.predictions or flags.checkpoint)
    with progress_bars() as bar:
        scoring = results.Scoring(RuleJudge(), flags.rules, name, bar("judging", "items"))
        if flags.predictions:
            scored = results.score_folder(
                flags.predictions,
                flags.out,
                scoring,
                data=flags.data,
                split=flags.split,
                variant=flags.variant,
                tasks=flags.tasks,
            )
        else:
            settings = runner.Settings(
                split=flags.split,
                variant=flags.variant,
                tasks=flags.tasks and tuple(flags.tasks),
                dtype=default_dtype() if flags.dtype == "auto" else flags.dtype,
                max_new_tokens=flags.max_new_tokens,
                max_prompt_tokens=flags.max_prompt_tokens,
                batch=flags.batch,
            )
            scored = runner.evaluate(
                flags.checkpoint, flags.data, flags.out, settings, bar("answering", "answers"), scoring
            )
    Console().print(tables.files_table(scored.files))
    Console().print(tables.columns_table(scored, name))
    print(tables.summary_lines(scored))
    if flags.out:
        print(f"wrote {flags.out}")


def _name(path: str) -> str:
    """What a row is called after its folder."""
    *others, last = [part for part in path.rstrip("/").split("/") if part] or [path]
    return others[-1] if last == "predictions" and others else last


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
