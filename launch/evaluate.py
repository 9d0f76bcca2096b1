"""Answers to Emo-CFG's questions: from a checkpoint, or scores of predictions that are already there."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn

from videmo_jax.commands import one_line, positive
from videmo_jax.files.errors import UserError

if TYPE_CHECKING:
    from videmo_jax.evaluation.answers.remote import RemoteModel
    from videmo_jax.evaluation.judges.judging import Judge
    from videmo_jax.evaluation.tables.scores import Results
    from videmo_jax.sampling.reasoning import Settings

EXAMPLES = """examples:
  python launch/evaluate.py --checkpoint runs/videmo --data Emo-CFG --out results/videmo
  python launch/evaluate.py --checkpoint runs/videmo --data Emo-CFG --out results/part --tasks MEAD_ID 'MAFW_*'
  python launch/evaluate.py --checkpoint runs/videmo --data Emo-CFG --out results/reasoned --reasoning 8
  python launch/evaluate.py --checkpoint runs/mini --data emo_cfg_mini --out results/train --split train
  python launch/evaluate.py --predictions results/videmo/predictions --data Emo-CFG --out results/scored
  python launch/evaluate.py --predictions their_results --data Emo-CFG --rules strict --out results/strict
  python launch/evaluate.py --predictions their_results --data Emo-CFG --out results/judged --judge openai \\
    --judge-url https://api.openai.com/v1 --judge-model gpt-4o-2024-08-06 --judge-prompts VidEmo/eval/config.py
  python launch/evaluate.py --checkpoint runs/videmo --data Emo-CFG --out results/served \\
    --answers-url http://localhost:8000/v1 --answers-model videmo

--data beside --predictions tells the aspects of the open questions, and which lines are missing or extra.
A run that was killed goes on where it was: give the same command again.
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", metavar="CKPT", help="a work directory or one checkpoint")
    parser.add_argument("--data", metavar="EMO_CFG", help="the folder of Emo-CFG: jsons/ and videos/")
    parser.add_argument("--out", metavar="DIR", help="predictions/, tables/, scores.json and the rest go here")
    parser.add_argument("--predictions", metavar="DIR", help="score these prediction files; no model is loaded")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="default test")
    parser.add_argument("--variant", choices=("full", "sampled"), default="full", help="of the files; default full")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="annotation files, patterns too; default all")
    parser.add_argument("--batch", type=int, default=16, help="rows on all devices together (default 16)")
    parser.add_argument("--max-new-tokens", type=positive, default=2048, help="of an answer (default 2048)")
    parser.add_argument("--max-prompt-tokens", type=int, default=8192, help="longer ones are skipped (default 8192)")
    parser.add_argument(
        "--reasoning", type=positive, metavar="N", help="reason first, N candidates a level (see reason.py)"
    )
    parser.add_argument("--scorer", help="which candidate is kept, with --reasoning (default mbr)")
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
    parser.add_argument("--name", help="of this run's row in the tables; default the folder's name")
    _add_judge(parser)
    _add_server(parser)
    flags = parser.parse_args(arguments)
    if flags.predictions:
        if flags.checkpoint:
            parser.error("--predictions needs no --checkpoint")
    elif not (flags.checkpoint and flags.data and flags.out):
        parser.error("give --checkpoint, --data and --out, or --predictions")
    if flags.judge == "openai" and not (flags.judge_url and flags.judge_model and flags.out):
        parser.error("--judge openai needs --judge-url, --judge-model and --out, where replies are kept")
    if bool(flags.answers_url) != bool(flags.answers_model):
        parser.error("give --answers-url and --answers-model together")
    if idle := _without_effect(flags):
        parser.error(idle)
    return flags


def _without_effect(flags: argparse.Namespace) -> str:
    """Says which flag changes nothing beside the others, and so means something else; empty where all do."""
    if flags.judge == "rule":
        for name, value in vars(flags).items():
            if name.startswith("judge_") and name != "judge_concurrency" and value not in (None, ()):
                return f"--{name.replace('_', '-')} goes with --judge openai"
    if flags.predictions and (flags.answers_url or flags.reasoning is not None):
        return "--predictions are answers already: --reasoning and --answers-url go with --checkpoint"
    if flags.scorer is not None and flags.reasoning is None:
        return "--scorer goes with --reasoning"
    return ""


def _add_judge(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("judge", "of openai the key is read from OPENAI_API_KEY; replies are kept in OUT")
    group.add_argument("--judge", choices=("rule", "openai"), default="rule", help="rule: embedded, free (default)")
    group.add_argument("--judge-url", metavar="URL", help="OpenAI-style endpoint, ends in /v1")
    group.add_argument("--judge-model", metavar="NAME", help="as the endpoint calls it; the paper's: gpt-4o-2024-08-06")
    group.add_argument("--judge-prompts", type=Path, metavar="FILE", help="the authors' eval/config.py; never executed")
    group.add_argument(
        "--judge-prompt-names", nargs="+", default=(), metavar="KIND=NAME", help="constants of that file, by kind"
    )
    group.add_argument("--judge-settings", metavar="JSON", help='fields of each request: {"temperature": 0}')
    group.add_argument("--judge-concurrency", type=int, default=64, help="requests in flight (default 64)")
    group.add_argument("--judge-price", metavar="PROMPT,REPLY", help="US dollars for a million tokens")
    group.add_argument("--judge-max-price", type=float, metavar="USD", help="an estimate above it is refused")


def _add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "answers from a server",
        "that serves the exported CKPT, such as vLLM (since 0.31 started with --trust-request-mm-kwargs; its README.md "
        "has the command); its key is read from VLLM_API_KEY",
    )
    group.add_argument("--answers-url", metavar="URL", help="OpenAI-style endpoint, ends in /v1")
    group.add_argument("--answers-model", metavar="NAME", help="as the endpoint calls it")
    group.add_argument("--answers-form", choices=("video", "images"), default="video", help="default video")
    group.add_argument("--answers-encoding", choices=("png", "jpeg"), default="png", help="of frames (default png)")
    group.add_argument("--answers-concurrency", type=int, default=32, help="requests in flight (default 32)")
    group.add_argument("--answers-timeout", type=float, default=1800, metavar="S", help="seconds (default 1800)")


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
    from videmo_jax.evaluation import results
    from videmo_jax.evaluation.answers import runner
    from videmo_jax.evaluation.answers.answerer import default_dtype
    from videmo_jax.evaluation.tables import layout as tables
    from videmo_jax.files.paths import local_folder, writable_folder

    if flags.out:
        writable_folder(flags.out)
    flags.data = flags.data and local_folder(flags.data, "its videos are decoded here; copy it, or mount the bucket")
    name = flags.name or _name(flags.predictions or flags.checkpoint)
    with progress_bars() as bar:
        scoring = results.Scoring(judge_of(flags), flags.rules, name, bar("judging", "items"))
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
                reasoning=reasoning_of(flags),
            )
            answering = bar("answering", "answers")
            scored = runner.evaluate(
                flags.checkpoint, flags.data, flags.out, settings, answering, scoring, remote_of(flags)
            )
    Console().print(tables.files_table(scored.files))
    Console().print(tables.columns_table(scored, name))
    print(tables.summary_lines(scored))
    if flags.out:
        print(f"wrote {flags.out}")
    require_some(scored, flags)


def require_some(scored: "Results", flags: argparse.Namespace) -> None:
    """Refuses to call a run done in which nothing was answered, or nothing judged of all or of a file.

    Raises:
      ValueError: so it is; the message says where the reasons stand.
    """
    files = scored.files
    items = sum(file.items for file in files)
    if items and items == sum(file.skipped for file in files):
        where = f"; {flags.out}/skipped.jsonl says why" if flags.checkpoint else ""
        raise UserError(f"none of {items} items has an answer{where}")
    failed = sum(file.judged.failed for file in files if file.judged)
    if failed and failed == len(scored.items):
        raise UserError(f"the judge gave no reply at all; {flags.out}/judge/failed.jsonl says why")
    if unread := scored.unread_files:
        first = next(item.reply for item in scored.items if item.file == unread[0] and item.reply)
        strict = ", or give --rules strict" if any(f.judged.strict_reads for f in files if f.name in unread) else ""
        raise UserError(
            f"no reply of the judge about {', '.join(unread)} can be read by the rules {scored.rules}, so there is no "
            f"score; the first is {first[:80]!r}. Take a judge that replies as it is asked{strict}"
        )


def judge_of(flags: argparse.Namespace) -> "Judge":
    """The judge that the flags name."""
    from videmo_jax.endpoints.client import Endpoint
    from videmo_jax.endpoints.price import read_price
    from videmo_jax.evaluation.judges.by_rules import RuleJudge
    from videmo_jax.evaluation.judges.openai import OpenAIJudge, read_settings
    from videmo_jax.evaluation.judges.prompts import embedded_prompts
    from videmo_jax.evaluation.judges.prompts_file import parse_names, read_prompts

    if flags.judge == "rule":
        return RuleJudge()
    names = parse_names(flags.judge_prompt_names)
    return OpenAIJudge(
        Endpoint(flags.judge_url, flags.judge_model, flags.judge_concurrency),
        read_prompts(flags.judge_prompts, names) if flags.judge_prompts else embedded_prompts(),
        flags.out,
        settings=flags.judge_settings and read_settings(flags.judge_settings),
        price=flags.judge_price and read_price(flags.judge_price),
        max_price=flags.judge_max_price,
        say=Console(stderr=True).print,
    )


def remote_of(flags: argparse.Namespace) -> "RemoteModel | None":
    """The server that answers, where one is named; it is given frames as the checkpoint says."""
    if not flags.answers_url:
        return None
    from videmo_jax.data.inputs import InputSpec
    from videmo_jax.evaluation.answers.remote import RemoteModel, serving
    from videmo_jax.training.checkpoint import read_meta

    return RemoteModel(
        serving(flags.answers_url, flags.answers_model, flags.answers_concurrency, flags.answers_timeout),
        InputSpec.from_json(read_meta(flags.checkpoint).inputs),
        flags.max_new_tokens,
        flags.answers_form,
        flags.answers_encoding,
    )


def _name(path: str) -> str:
    """What a row is called after its folder."""
    *others, last = [part for part in path.rstrip("/").split("/") if part] or [path]
    return others[-1] if last == "predictions" and others else last


def reasoning_of(flags: argparse.Namespace) -> "Settings | None":
    """How to reason before an answer, where that is asked for."""
    if flags.reasoning is None:
        return None
    from videmo_jax.sampling.reasoning import Settings
    from videmo_jax.sampling.reasoning_scores import Scorer

    return Settings.of(
        flags.reasoning,
        scorer=Scorer.parse("mbr" if flags.scorer is None else flags.scorer),
        max_new_tokens=min(flags.max_new_tokens, Settings.max_new_tokens),
        answer_tokens=flags.max_new_tokens,
        max_prompt_tokens=flags.max_prompt_tokens,
    )


def main() -> None:
    """Entry point: an error that the user can mend is one line, without a traceback."""
    flags = parse()
    with one_line(
        stopped="stopped; the same command goes on where it was",
        too_large=f"give the command with less than --batch {flags.batch}",
    ):
        evaluate(flags)


if __name__ == "__main__":
    main()
