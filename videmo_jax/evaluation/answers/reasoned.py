"""Answers after reasoning: three levels about an item's clips, then its own question with all of them in view."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from videmo_jax.affective.text import read_tree
from videmo_jax.data.source import ClipFolder, SampleError
from videmo_jax.data.video import ClipCache
from videmo_jax.evaluation.answers.answerer import Answerer
from videmo_jax.evaluation.answers.batches import ahead
from videmo_jax.evaluation.answers.items import Item
from videmo_jax.sampling.reasoning import Reasoning, Settings, Subject, reason


def reasoned(
    answerer: Answerer,
    items: Sequence[Item],
    data: Path,
    settings: Settings,
    *,
    batch: int,
    threads: int,
    cache_bytes: int,
    seed: int = 0,
) -> Iterator[list[tuple[Item, Reasoning | str]]]:
    """Reasons about items and answers them; the outcome of one does not depend on the others.

    Args:
      answerer: the model; it must have been loaded with room for `settings.max_new_tokens`.
      items: each with a sample.
      data: the folder of Emo-CFG.
      settings: how to search.
      batch: items side by side, each with `settings.candidates` answers at a time.
      threads: that decode videos.
      cache_bytes: of decoded clips kept in memory.
      seed: of all draws.

    Yields:
      For each batch its items, each with the outcome, whose `answer` is the item's, or why there is none.
    """
    videos = ClipFolder(data, answerer.inputs.frames, ClipCache(cache_bytes))

    def prepare(item: Item) -> Subject | str:
        try:
            return Subject(item.id, videos.clips(item.sample), item.sample.prompt, item_seed(item, seed))
        except SampleError as error:
            return str(error)

    by_clip = sorted(items, key=lambda item: item.blank.videos)
    prepared = ahead(by_clip, prepare, threads)
    while part := list(islice(prepared, batch)):
        subjects = [subject for _, subject in part if isinstance(subject, Subject)]
        outcomes = iter(reason(answerer.policy, subjects, settings, read_tree) if subjects else ())
        yield [(item, next(outcomes) if isinstance(subject, Subject) else subject) for item, subject in part]


def item_seed(item: Item, seed: int) -> int:
    """A seed of the item's own, whatever else is asked."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{item.id}".encode()).digest()[:4], "little")
