"""From a checkpoint and a dataset to prediction files and scores."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from etils import epath

from videmo_jax.data.chat import DEFAULT_SYSTEM
from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.rows import Prepared
from videmo_jax.data.source import ClipFolder, SampleError
from videmo_jax.data.video import ClipCache
from videmo_jax.evaluation.answers.answerer import Answerer, identity
from videmo_jax.evaluation.answers.batches import ahead
from videmo_jax.evaluation.answers.items import Item, read_items
from videmo_jax.evaluation.answers.journal import Journal
from videmo_jax.evaluation.answers.predictions import Prediction, write_predictions
from videmo_jax.evaluation.answers.reasoned import reasoned
from videmo_jax.evaluation.answers.remote import RemoteModel, answer_remotely
from videmo_jax.evaluation.results import Scoring, score_run
from videmo_jax.evaluation.tables.scores import Results
from videmo_jax.files.errors import UserError
from videmo_jax.files.paths import open_path
from videmo_jax.files.writing import write_text
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sampling.reasoning import Settings as Search
from videmo_jax.training.checkpoint import read_meta

# Questions about a clip come together, so that a few clips in memory are enough.
CACHE_BYTES = 512 * 1024**2

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """What to ask and how; all but `batch` and `threads` decides the answers.

    Attributes:
      split: `train` or `test`.
      variant: `full` or `sampled`.
      tasks: names of annotation files, patterns too; None takes all.
      dtype: `float32` or `bfloat16`.
      max_new_tokens: of an answer, its end token included.
      max_prompt_tokens: prompts that are longer are skipped and listed: they bound the memory.
      batch: prompts on all devices together, rounded up to a multiple of their number. At most so many
        questions about a clip share its row.
      threads: that decode videos.
      reasoning: how to reason about an item's clips before it is answered; None: it is answered at once.
    """

    split: str = "test"
    variant: str = "full"
    tasks: tuple[str, ...] | None = None
    dtype: str = "float32"
    max_new_tokens: int = 2048
    max_prompt_tokens: int = 8192
    batch: int = 16
    threads: int = min(8, os.cpu_count() or 1)
    reasoning: Search | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "threads", "max_prompt_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def decoding(self) -> Decoding:
        """Greedy answers."""
        return Decoding(self.max_new_tokens)


def evaluate(
    checkpoint: epath.PathLike,
    data: Path,
    out: epath.PathLike,
    settings: Settings,
    on_progress: Progress | None = None,
    scoring: Scoring | None = None,
    remote: RemoteModel | None = None,
) -> Results:
    """Answers every item and scores the answers.

    Writes `predictions/NAME.json` for each annotation file, `skipped.jsonl` (items without an answer, and answers that
    had not ended, each with its reason), and what `results` writes. What was answered before by the same recipe stays.

    Args:
      checkpoint: a work directory or one checkpoint.
      data: the folder of Emo-CFG.
      out: a new folder, or that of an earlier run of the same recipe.
      settings: what to ask and how.
      on_progress: called with (items done, items in all).
      scoring: who judges, and by which rules; the default is the embedded judge with the official rules.
      remote: a server of the exported checkpoint, which answers in its place.

    Raises:
      ValueError: the checkpoint, the dataset or the output folder cannot be used; the message says why.
    """
    out = open_path(out)
    items = read_items(data, settings.split, settings.variant, settings.tasks)
    if remote and settings.reasoning:
        raise UserError("reasoning needs the model here; a server (--answers-url) answers without it")
    recipe = recipe_of(checkpoint, settings) | (remote.recipe() if remote else {})
    journal = Journal(out, recipe)
    faults = {item.id: item.fault for item in items if item.sample is None}
    todo = [item for item in items if item.sample and item.key not in journal.answers]
    report = on_progress or (lambda done, total: None)
    report(len(items) - len(todo), len(items))
    answerer = Answerer(checkpoint, settings.decoding, settings.dtype) if todo and not remote else None
    journal.begin()
    if remote:
        progress = answer_remotely(remote, todo, data, out, journal, faults, settings.threads) if todo else ()
    elif answerer:
        progress = (_reason if settings.reasoning else _answer)(answerer, todo, data, settings, journal, faults)
    else:
        progress = ()
    for done in progress:
        report(len(items) - len(todo) + done, len(items))
    predictions, cut = _write_predictions(out, items, journal, faults)
    about = {"recipe": recipe, "checkpoint": os.fspath(checkpoint)}
    return score_run(
        out,
        predictions,
        scoring or Scoring(),
        data=data,
        split=settings.split,
        variant=settings.variant,
        cut=cut,
        about=about,
    )


def recipe_of(checkpoint: epath.PathLike, settings: Settings) -> dict[str, Any]:
    """Everything that an answer depends on, but its question: it stands in every result (Qwen3-VL 1029)."""
    return {
        "model": identity(checkpoint),
        "inputs": InputSpec.from_json(read_meta(checkpoint).inputs).to_json(),
        "system": DEFAULT_SYSTEM.content,
        "decoding": asdict(settings.decoding),
        "dtype": settings.dtype,
        "split": settings.split,
        "variant": settings.variant,
        "max_prompt_tokens": settings.max_prompt_tokens,
        **({"reasoning": settings.reasoning.to_json()} if settings.reasoning else {}),
    }


def _answer(
    answerer: Answerer, items: Sequence[Item], data: Path, settings: Settings, journal: Journal, faults: dict[str, str]
) -> Iterator[int]:
    """Fills the journal, and `faults` with the items that have no answer; yields how many are done."""
    preparer = Preparer(answerer.tokenizer, answerer.inputs)
    videos = ClipFolder(data, answerer.inputs.frames, ClipCache(CACHE_BYTES))
    longest = min(settings.max_prompt_tokens, answerer.longest_prompt)

    def prepare(item: Item) -> Prepared | str:
        try:
            prompt = preparer(item.sample, videos.clips(item.sample), answer=False)
        except SampleError as error:
            return str(error)
        length = len(prompt.encoded.tokens)
        return prompt if length <= longest else f"the prompt has {length} tokens, more than the limit of {longest}"

    def usable(prepared: Iterable[tuple[Item, Prepared | str]]) -> Iterator[tuple[Item, Prepared]]:
        for item, prompt in prepared:
            if isinstance(prompt, str):
                faults[item.id] = prompt
            else:
                yield item, prompt

    by_clip = sorted(items, key=lambda item: item.blank.videos)
    prompts = usable(ahead(by_clip, prepare, settings.threads))
    batching, answered, before = answerer.batching(settings.batch), 0, len(faults)
    for shape, batch in batching(prompts):
        batch_items = [item for group in batch for item in group.items]
        answers = answerer(batch, shape, batching.rows(shape))
        journal.add({item.key: answer for item, answer in zip(batch_items, answers, strict=True)})
        answered += len(batch_items)
        yield answered + len(faults) - before


def _reason(
    answerer: Answerer, items: Sequence[Item], data: Path, settings: Settings, journal: Journal, faults: dict[str, str]
) -> Iterator[int]:
    """As `_answer`, after reasoning; what led to the answers goes to the journal's folder, a file for each batch."""
    done = 0
    how = {"batch": settings.batch, "threads": settings.threads, "cache_bytes": CACHE_BYTES}
    for part in reasoned(answerer, items, data, settings.reasoning, **how):
        answered = {item.key: outcome for item, outcome in part if not isinstance(outcome, str)}
        faults |= {item.id: outcome for item, outcome in part if isinstance(outcome, str)}
        journal.add_reasoning({key: outcome.to_json() for key, outcome in answered.items()})
        journal.add({key: outcome.answer for key, outcome in answered.items()})
        done += len(part)
        yield done


def _write_predictions(
    out: epath.Path, items: Sequence[Item], journal: Journal, faults: dict[str, str]
) -> tuple[dict[str, list[Prediction]], Counter[str]]:
    """Writes the official files and `skipped.jsonl`; gives the lines, and how many answers of a file had not ended."""
    predictions: dict[str, list[Prediction]] = {}
    listed, cut = [], Counter()
    for item in items:
        line, answer = item.blank, journal.answers.get(item.key)
        if answer:
            line = replace(line, response=answer.text, log_probs=answer.log_probs)
            cut[item.name] += answer.cut
        if answer and answer.cut:
            reason = f"the answer had not ended after {len(answer.log_probs)} tokens; raise --max-new-tokens"
            listed.append({"id": item.id, "kind": "cut", "reason": reason})
        elif not answer:
            listed.append({"id": item.id, "kind": "skipped", "reason": faults[item.id]})
        predictions.setdefault(item.name, []).append(line)
    for name, lines in predictions.items():
        write_predictions(out / "predictions" / f"{name}.json", lines)
    write_text(out / "skipped.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in listed))
    return predictions, cut
