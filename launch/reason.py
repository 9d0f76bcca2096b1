"""How a model reads a face: attributes, expressions, emotions, the best of several candidates kept at each level."""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videmo_jax.commands import one_line, positive
from videmo_jax.files.errors import UserError
from videmo_jax.files.json_records import read_json
from videmo_jax.files.paths import is_remote, open_path, writable_folder

if TYPE_CHECKING:
    from videmo_jax.data.video import Clip, FrameSpec
    from videmo_jax.sampling.reasoning import Reasoning, Settings

EXAMPLES = """examples:
  python launch/reason.py --checkpoint runs/videmo --video clip.mp4 --out results/clip
  python launch/reason.py --checkpoint runs/videmo --video clip.mp4 --question 'Why does she smile?' --out results/clip
  python launch/reason.py --checkpoint runs/videmo --video clip.mp4 --candidates 1 --out results/greedy
  python launch/reason.py --checkpoint runs/videmo --video a.mp4 b.mp4 --scorer mbr+0.5*logprob --out results/ab

Scorers, or a weighted sum of them: mbr (agreement: least tree edit distance to the other candidates), logprob (mean
log-probability of a token), yes (the model's own probability that its answer is right). The same seed gives the same
tree. --prompts takes a JSON object with some of the texts attribute, expression, emotion and check.
"""
MOST_PROMPT_BYTES = 2**20


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, metavar="CKPT", help="a work directory or one checkpoint")
    parser.add_argument(
        "--video", required=True, nargs="+", metavar="FILE", help="one video, or several as one subject"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="tree.json and report.html go here")
    parser.add_argument("--question", default="", help="asked in the end, with all of the reasoning in view")
    parser.add_argument("--candidates", type=positive, default=8, metavar="N", help="of each level (default 8)")
    parser.add_argument("--scorer", default="mbr", help="which candidate is kept, see below (default mbr)")
    parser.add_argument("--temperature", type=float, help="of the candidates (default 0.9; 0 where N is 1: greedy)")
    parser.add_argument("--seed", type=int, default=0, help="of the candidates (default 0)")
    parser.add_argument("--max-new-tokens", type=positive, default=512, help="of a candidate (default 512)")
    parser.add_argument("--prompts", metavar="FILE", help="other questions for the levels, JSON")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="auto: bfloat16, on the CPU float32",
    )
    flags = parser.parse_args(arguments)
    if flags.seed < 0:
        parser.error(f"--seed {flags.seed}: give a number from 0 on")
    if flags.temperature is not None and not 0 <= flags.temperature < math.inf:
        parser.error(f"--temperature {flags.temperature}: give a number from 0 on")
    return flags


def settings_of(flags: argparse.Namespace) -> "Settings":
    """How to search."""
    from videmo_jax.sampling.reasoning import Prompts, Settings
    from videmo_jax.sampling.reasoning_scores import Scorer

    texts = flags.prompts and read_json(flags.prompts, "prompts are short texts", MOST_PROMPT_BYTES)
    return Settings.of(
        flags.candidates,
        flags.temperature,
        max_new_tokens=flags.max_new_tokens,
        scorer=Scorer.parse(flags.scorer),
        prompts=Prompts.from_json(texts) if texts else Prompts(),
    )


def read_video(path: str, frames: "FrameSpec") -> "Clip":
    """The clip of a file, which is copied to this machine first where it lies in a bucket."""
    from videmo_jax.data.video import read_clip

    if not is_remote(path):
        return read_clip(path, frames)
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / open_path(path).name
        open_path(path).copy(copied)
        return read_clip(copied, frames)


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Shows which turn it is; gives the function that hears of them."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("reasoning"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("reasoning", visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)


def reason(flags: argparse.Namespace) -> None:
    """Reads, reasons, writes, prints."""

    from videmo_jax.affective.text import read_tree
    from videmo_jax.data.inputs import InputSpec
    from videmo_jax.data.sample import Message
    from videmo_jax.evaluation.answers.answerer import Answerer, default_dtype, identity
    from videmo_jax.sampling import reasoning
    from videmo_jax.training.checkpoint import read_meta

    out = writable_folder(flags.out)
    settings = settings_of(flags)
    # Before the model is loaded, which may take minutes.
    inputs = InputSpec.from_json(read_meta(flags.checkpoint).inputs)
    clips = tuple(read_video(path, inputs.frames) for path in flags.video)
    dtype = default_dtype() if flags.dtype == "auto" else flags.dtype
    turns = (Message("user", flags.question),) if flags.question else ()
    subject = reasoning.Subject(", ".join(flags.video), clips, turns, flags.seed)
    with progress_bar() as report:
        policy = Answerer(flags.checkpoint, settings.decoding, dtype).policy
        (result,) = reasoning.reason(policy, [subject], settings, read_tree, report)
    if isinstance(result, str):
        raise UserError(f"{subject.id}: {result}; lower --max-new-tokens")
    about = {
        "videos": flags.video,
        "question": flags.question,
        "seed": flags.seed,
        "checkpoint": str(flags.checkpoint),
        "model": identity(flags.checkpoint),
        "inputs": inputs.to_json(),
        "dtype": dtype,
        "settings": settings.to_json(),
    }
    write(out, result, settings, about, clips)
    for step in result.steps:
        print(f"{step.level} (candidate {step.chosen + 1} of {len(step.candidates)}): {step.kept.answer.text.strip()}")
    if result.answer:
        print(f"answer: {result.answer.text.strip()}")
    cut = sum(step.kept.answer.cut for step in result.steps)
    if cut:
        print(f"{cut} of the kept candidates had not ended; raise --max-new-tokens", file=sys.stderr)
    print(f"wrote {out / 'tree.json'} and {out / 'report.html'}")


def write(
    out: Any, result: "Reasoning", settings: "Settings", about: dict[str, Any], clips: tuple["Clip", ...]
) -> None:
    """Writes both files."""
    from videmo_jax.files.writing import write_json, write_text
    from videmo_jax.reports.clips import shown_clip
    from videmo_jax.reports.reasoning import reasoning_page
    from videmo_jax.sampling.reasoning_view import reasoning_view

    patch = about["inputs"]["frames"]["temporal_patch"]
    names = [path.rstrip("/").rpartition("/")[2] for path in about["videos"]]
    model = about["model"]
    view = reasoning_view(
        result,
        settings,
        title=f"How {', '.join(names)} is read",
        clips=[shown_clip(path, clip, patch) for path, clip in zip(about["videos"], clips, strict=True)],
        question=about["question"],
        about={
            "checkpoint": f"{about['checkpoint']}, step {model['step']}, {model['hash']}",
            "seed": str(about["seed"]),
            "computed in": about["dtype"],
        },
    )
    write_json(out / "tree.json", {**about, **result.to_json()})
    write_text(out / "report.html", reasoning_page(view))


def main() -> None:
    """Entry point: an error that the user can mend is one line, without a traceback."""
    flags = parse()
    with one_line(
        stopped="stopped; nothing was written",
        too_large=f"give the command with less than --candidates {flags.candidates}",
    ):
        reason(flags)


if __name__ == "__main__":
    main()
