"""From a sample to what the model reads: frames, patches, tokens. Training and evaluation share it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videmo_jax.data.chat import encode
from videmo_jax.data.rows import Prepared
from videmo_jax.data.sample import Sample
from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.data.video import Clip, FrameSpec, patchify
from videmo_jax.files.errors import UserError
from videmo_jax.model.positions import VisionGrid

TIMINGS = ("sampled", "nominal")


@dataclass(frozen=True)
class InputSpec:
    """How clips become tokens; it is stored with a checkpoint, and evaluation follows it.

    `seconds_per_grid` gives the temporal M-RoPE ids: `sampled`, the time between slabs at the rate really sampled, or
    `nominal`, always 1.0, as the authors' inference has it (PAPER.md section 7).
    """

    frames: FrameSpec = dataclasses.field(default_factory=FrameSpec)
    seconds_per_grid: str = "sampled"

    def __post_init__(self) -> None:
        if self.seconds_per_grid not in TIMINGS:
            raise UserError(f"seconds_per_grid is {self.seconds_per_grid!r}; it must be one of {', '.join(TIMINGS)}")

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "InputSpec":
        """Reads what `to_json` wrote; what is missing (in imported weights) takes the defaults."""
        return cls(FrameSpec(**values.get("frames", {})), values.get("seconds_per_grid", "sampled"))


@dataclass(frozen=True)
class Preparer:
    """Turns samples into tokens and patches; many threads and processes may use it."""

    tokenizer: Tokenizer
    spec: InputSpec

    def __call__(self, sample: Sample, clips: Sequence[Clip], *, answer: bool = True) -> Prepared:
        """Writes the sample's conversation, with its last answer or without, around its clips.

        Args:
          sample: the conversation.
          clips: one for each of its videos, sampled and resized by `spec.frames`.
          answer: False for the prompt alone.
        """
        frames, grids, patches, places = self.spec.frames, [], [], []
        for clip in clips:
            slabs, patch_hw = patchify(clip.frames, frames)
            height, width = (side // frames.patch for side in clip.frames.shape[1:3])
            seconds = clip.seconds_per_grid if self.spec.seconds_per_grid == "sampled" else 1.0
            grids.append(VisionGrid(len(slabs), height, width, seconds))
            patches.append(slabs)
            places.append(patch_hw)
        encoded = encode(sample.messages, grids, self.tokenizer, answer=answer, merge=frames.merge)
        return Prepared(sample.id, encoded, tuple(patches), tuple(places))
