"""Prompts of nearly one shape together: few shapes are compiled, and the device waits for no decoder."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from videmo_jax.data.rows import Budget, Prepared
from videmo_jax.evaluation.items import Item

# Attention kernels take whole blocks of 128 tokens.
FEWEST_TOKENS = 256


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


def shape_of(prompt: Prepared, merge: int) -> Budget:
    """The row that a prompt goes into: a little larger, so that prompts share it.

    Tokens are rounded up to 2 significant bits (256, 384, 512, 768, ...), slabs to a power of two, the merged tokens of
    a slab to 3 bits (Qwen's 120 to 153 become 128 or 160).
    """
    merged = max((slabs.shape[1] // merge**2 for slabs in prompt.patches), default=0)
    tokens = max(len(prompt.encoded.tokens), FEWEST_TOKENS)
    return Budget(_round_up(tokens, 2), _round_up(prompt.slabs, 1), _round_up(merged, 3) * merge**2)


def _round_up(number: int, bits: int) -> int:
    """The smallest number from `number` on with at most so many significant bits."""
    step = 1 << max(number.bit_length() - bits, 0)
    return -(-number // step) * step


def batches(
    prompts: Iterable[tuple[Item, Prepared]], size: int, merge: int
) -> Iterator[tuple[Budget, Sequence[tuple[Item, Prepared]]]]:
    """Batches of `size` prompts of one shape; what is left over at the end comes in smaller ones."""
    waiting: dict[Budget, list[tuple[Item, Prepared]]] = {}
    for item, prompt in prompts:
        shape = shape_of(prompt, merge)
        group = waiting.setdefault(shape, [])
        group.append((item, prompt))
        if len(group) == size:
            yield shape, waiting.pop(shape)
    yield from waiting.items()
