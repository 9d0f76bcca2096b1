"""M-RoPE position ids of Qwen2.5-VL: three ids (temporal, height, width) for every token.

The rules are those of PAPER.md section 7. Two faults of other implementations are not copied: seconds per grid
cut to an integer (transformers 4.57), and text after a video starting at max(height, width) (transformers 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32


@dataclass(frozen=True)
class VisionGrid:
    """The patches of one image or video: `time` slabs of `height` x `width` patches.

    `seconds_per_grid` is the time from one slab to the next; None marks an image, whose ids do not move in time.
    """

    time: int
    height: int
    width: int
    seconds_per_grid: float | None = None

    def merged_tokens(self, merge: int = 2) -> int:
        """Tokens that the decoder sees: `merge` x `merge` patches become one."""
        return self.time * (self.height // merge) * (self.width // merge)


def vision_ids(grid: VisionGrid, *, tokens_per_second: float, merge: int = 2) -> Int32[np.ndarray, "3 T"]:
    """Ids of one image's or video's tokens, counted from 0."""
    # Product in float32, floor last: float64 lands on another id at some frame rates.
    step = np.float32(grid.seconds_per_grid or 0.0)
    seconds = np.arange(grid.time, dtype=np.float32) * step
    temporal = np.floor(seconds * np.float32(tokens_per_second)).astype(np.int32)
    rows = np.arange(grid.height // merge, dtype=np.int32)
    columns = np.arange(grid.width // merge, dtype=np.int32)
    return np.stack(np.meshgrid(temporal, rows, columns, indexing="ij")).reshape(3, -1)


def mrope_ids(
    segments: Sequence[int | VisionGrid], *, tokens_per_second: float, merge: int = 2
) -> Int32[np.ndarray, "3 T"]:
    """Position ids of one sample.

    Args:
      segments: the sample in order; an integer is a stretch of that many text tokens.
      tokens_per_second: temporal ids that one second takes (2 in Qwen2.5-VL).
      merge: patches a merged token has along height and along width.

    Text counts on from the largest id so far on all three axes.
    """
    parts, start = [np.zeros((3, 0), np.int32)], 0
    for segment in segments:
        if isinstance(segment, VisionGrid):
            ids = vision_ids(segment, tokens_per_second=tokens_per_second, merge=merge)
        else:
            ids = np.tile(np.arange(segment, dtype=np.int32), (3, 1))
        parts.append(start + ids)
        start += int(ids.max(initial=-1)) + 1
    return np.concatenate(parts, axis=1)
