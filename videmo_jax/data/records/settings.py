"""What is prepared and how."""

from dataclasses import dataclass, field

from videmo_jax.data.records.schema import RecordError
from videmo_jax.data.video import FrameSpec

SAMPLES_PER_CLIP = 16  # a shard of samples is much smaller than one of clips even so


@dataclass(frozen=True)
class Settings:
    """What is prepared and how; all of it decides the bytes.

    Attributes:
      splits: of Emo-CFG.
      variant: of its files, `full` or `sampled`.
      frames: how clips are sampled and resized.
      quality: of JPEG, from 1 to 100.
      shard_size: clips that one shard holds at most; some 80 MB at 256.
    """

    splits: tuple[str, ...] = ("train", "test")
    variant: str = "full"
    frames: FrameSpec = field(default_factory=FrameSpec)
    quality: int = 90
    shard_size: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise RecordError(f"quality is {self.quality}; JPEG's goes from 1 to 100.")
        if self.shard_size < 1:
            raise RecordError(f"shard_size is {self.shard_size}; a shard holds at least one clip.")
        if not self.splits:
            raise RecordError("no split is named.")
