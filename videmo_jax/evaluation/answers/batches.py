"""Prompts of nearly one shape together, and those about one clip as its questions: few shapes are compiled, the device
waits for no decoder, and no clip is read once for each question."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int32

from videmo_jax.data.chat import Encoded
from videmo_jax.data.rows import Budget, Prepared, build_row, stack_rows
from videmo_jax.evaluation.answers.items import Item
from videmo_jax.model.config import VisionConfig
from videmo_jax.model.videmo import Rows
from videmo_jax.sampling.prefill import Questions

BLOCK = 128  # tokens that attention kernels take at once
FEWEST_TOKENS = 256
# Most questions about a clip, with the end of the user's turn and the head of the answer's, have fewer.
FEWEST_PLACES = 64


@dataclass(frozen=True)
class Shape:
    """Of a compiled program: a row, and how many questions of how many tokens go on from it (0: rows are prompts)."""

    row: Budget
    questions: int = 0
    places: int = 0


@dataclass(frozen=True)
class Group:
    """Items that are answered over one row: an item and its prompt, or several with the beginning that they share.

    Attributes:
      items: what is asked.
      row: the whole prompt of an only item; of several, all up to the last token of the last clip.
      questions: how the prompt of each item goes on; none where there is only one.
    """

    items: tuple[Item, ...]
    row: Prepared
    questions: tuple[Int32[np.ndarray, "U"], ...] = ()


def ahead(
    items: Iterable[Item], prepare: Callable[[Item], Prepared | str], threads: int
) -> Iterator[tuple[Item, Prepared | str]]:
    """Items with what `prepare` makes of them, in order; threads work on the next ones meanwhile."""
    waiting: deque[tuple[Item, Future[Prepared | str]]] = deque()
    with ThreadPoolExecutor(threads, "prepare") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(prepare, item)))
                if len(waiting) > 4 * threads:
                    first, prompt = waiting.popleft()
                    yield first, prompt.result()
            while waiting:
                first, prompt = waiting.popleft()
                yield first, prompt.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def groups(prompts: Iterable[tuple[Item, Prepared]], most: int) -> Iterator[Group]:
    """Groups of at most `most` items whose prompts begin alike: the same videos, the same tokens up to their last one.

    Only items whose videos follow each other come together. Prompts without a clip share nothing worth the trouble. All
    groups but the last of a beginning are full, so what is left of a run that was killed makes the same groups again.
    """
    videos: tuple[str, ...] = ()
    waiting: dict[bytes, list[tuple[Item, Prepared]]] = {}
    for item, prompt in prompts:
        if item.blank.videos != videos or sum(map(len, waiting.values())) >= 4 * most:
            yield from map(_group, waiting.values())
            videos, waiting = item.blank.videos, {}
        key = prompt.encoded.tokens[: _shared(prompt)].tobytes()
        if not key:
            yield _group([(item, prompt)])
            continue
        alike = waiting.setdefault(key, [])
        alike.append((item, prompt))
        if len(alike) == most:
            yield _group(waiting.pop(key))
    yield from map(_group, waiting.values())


def _shared(prompt: Prepared) -> int:
    """Tokens up to the last of the last clip: what follows is text, which no clip's position depends on."""
    return int(np.max(np.flatnonzero(prompt.encoded.vision >= 0), initial=-1)) + 1


def _group(alike: Sequence[tuple[Item, Prepared]]) -> Group:
    items, (first, *_) = tuple(item for item, _ in alike), (prompt for _, prompt in alike)
    if len(items) == 1:
        return Group(items, first)
    cut, encoded = _shared(first), first.encoded
    begun = Encoded(encoded.tokens[:cut], encoded.trained[:cut], encoded.vision[:cut], encoded.segments[:-1])
    return Group(items, replace(first, encoded=begun), tuple(prompt.encoded.tokens[cut:] for _, prompt in alike))


def shape_of(group: Group, merge: int, most: int) -> Shape:
    """The shape that a group goes into: a little larger, so that groups share it.

    Tokens of a row are rounded up to 3 significant bits (512, 640, 768, 896, ...) and whole blocks, slabs to a power of
    two, the merged tokens of a slab to 3 bits (Qwen's 120 to 153 become 128 or 160), questions to 2 bits (2, 3, 4, 6,
    8, 12, ...) but not above `most`, their tokens to a power of two.
    """
    row = row_shape(group.row, merge)
    if not group.questions:
        return Shape(row)
    places = max(FEWEST_PLACES, *map(len, group.questions))
    return Shape(row, min(_round_up(len(group.questions), 2), most), _round_up(places, 1))


def row_shape(prompt: Prepared, merge: int) -> Budget:
    """The row of `shape_of` for a prompt, or for the beginning of several."""
    merged = max((slabs.shape[1] // merge**2 for slabs in prompt.patches), default=0)
    tokens = _round_up(max(len(prompt.encoded.tokens), FEWEST_TOKENS), 3)
    return Budget(-(-tokens // BLOCK) * BLOCK, _round_up(prompt.slabs, 1), _round_up(merged, 3) * merge**2)


def _round_up(number: int, bits: int) -> int:
    """The smallest number from `number` on with at most so many significant bits."""
    step = 1 << max(number.bit_length() - bits, 0)
    return -(-number // step) * step


@dataclass(frozen=True)
class Batching:
    """How many prompts are answered at once.

    Attributes:
      size: prompts on all devices together, rounded up to a multiple of their number.
      devices: that share the rows evenly.
      merge: patches a merged token has along height and along width.
    """

    size: int
    devices: int
    merge: int

    @property
    def most(self) -> int:
        """Prompts of a device, so also questions of a row, at most."""
        return -(-self.size // self.devices)

    def rows(self, shape: Shape) -> int:
        """Rows of a batch of this shape, as many for each device."""
        return max(self.most // max(shape.questions, 1), 1) * self.devices

    def __call__(self, prompts: Iterable[tuple[Item, Prepared]]) -> Iterator[tuple[Shape, Sequence[Group]]]:
        """Full batches of groups of one shape; what is left over at the end comes in smaller ones."""
        waiting: dict[Shape, list[Group]] = {}
        for group in groups(prompts, self.most):
            shape = shape_of(group, self.merge, self.most)
            alike = waiting.setdefault(shape, [])
            alike.append(group)
            if len(alike) == self.rows(shape):
                yield shape, waiting.pop(shape)
        yield from waiting.items()


def stack(batch: Sequence[Group], shape: Shape, count: int, vision: VisionConfig) -> tuple[Rows, Questions | None]:
    """What the model reads for at most `count` groups of one shape.

    What is missing, rows or questions of a row, repeats the first one: an empty prompt would not know when to stop.
    """
    filled = [*batch, *[batch[0]] * (count - len(batch))]
    built = {id(group): build_row([group.row], shape.row, vision) for group in batch}
    rows = stack_rows([built[id(group)] for group in filled]).rows
    if not shape.questions:
        return rows, None
    tokens = np.zeros((count, shape.questions, shape.places), np.int32)
    lengths = np.zeros((count, shape.questions), np.int32)
    for number, group in enumerate(filled):
        missing = shape.questions - len(group.questions)
        for place, question in enumerate([*group.questions, *[group.questions[0]] * missing]):
            tokens[number, place, : len(question)] = question
            lengths[number, place] = len(question)
    return rows, Questions(tokens, lengths)
