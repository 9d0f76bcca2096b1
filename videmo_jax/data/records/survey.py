"""What is prepared: the samples of every split, read twice so that they are never held, and what was left out."""

from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from videmo_jax.data.emo_cfg import Rejected, Seen, VideoFolder, annotation_files, iterate_emo_cfg
from videmo_jax.data.instructions import iterate_instructions
from videmo_jax.data.sample import Sample
from videmo_jax.files.json_records import to_line

TRAIN = "train"  # the split that is trained on: instructions join it, and what comes twice is left out


@dataclass(frozen=True)
class Survey:
    """What the first reading finds of one split.

    Attributes:
      videos: distinct ones by number.
      uses: numbers of the videos of all samples, one sample after the other.
      counts: how many videos each sample has.
      rejected: samples that cannot be used.
    """

    videos: dict[str, int] = field(default_factory=dict)
    uses: array = field(default_factory=lambda: array("i"))
    counts: array = field(default_factory=lambda: array("i"))
    rejected: list[Rejected] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Takes the next sample."""
        self.uses.extend(self.videos.setdefault(video, len(self.videos)) for video in sample.videos)
        self.counts.append(len(sample.videos))

    def usable(self, bad: Collection[str]) -> int:
        """How many samples have no bad clip."""
        is_bad = np.array([video in bad for video in self.videos], bool)
        owners = np.repeat(np.arange(len(self.counts)), np.array(self.counts, np.int32))
        return len(self.counts) - len(np.unique(owners[is_bad[np.array(self.uses, np.int32)]]))


class Source:
    """Emo-CFG's splits; instructions follow the samples of `train`."""

    def __init__(self, root: Path, splits: Sequence[str], variant: str, instructions: Sequence[Path]) -> None:
        self.root, self.instructions = root, instructions
        self.files = {split: annotation_files(root, split, variant) for split in splits}
        # Kept for both readings: a video that vanishes between them must not change which samples there are.
        self._videos = VideoFolder(root)

    def survey(self) -> tuple[list[str], dict[str, Survey]]:
        """The videos of all splits, sorted, and what each split holds."""
        surveys = {split: Survey() for split in self.files}
        for split, survey in surveys.items():
            for each in self._read(split):
                if isinstance(each, Sample):
                    survey.add(each)
                else:
                    survey.rejected.append(each)
        return sorted(set().union(*(survey.videos for survey in surveys.values()))), surveys

    def samples(self, split: str) -> Iterator[Sample]:
        """The samples of a split once more."""
        return (each for each in self._read(split) if isinstance(each, Sample))

    def _read(self, split: str) -> Iterator[Sample | Rejected]:
        seen = Seen() if split == TRAIN else None  # evaluation counts the official lines
        yield from iterate_emo_cfg(self.root, self.files[split], self._videos, seen)
        if split == TRAIN:
            yield from iterate_instructions(self.instructions, seen)


class LeftOut:
    """The lines of the report: clips first, then the samples of each split.

    Attributes:
      faulty: samples of each split that cannot be used; not those that come twice.
    """

    def __init__(self, bad: Mapping[str, str], surveys: Mapping[str, Survey]) -> None:
        self._bad = bad
        self._clips = [_line("clip", path, reason) for path, reason in sorted(bad.items())]
        self._samples = {
            split: [_line("sample", each.id, each.reason) for each in survey.rejected]
            for split, survey in surveys.items()
        }
        self.faulty = {split: sum(not each.again for each in survey.rejected) for split, survey in surveys.items()}

    def of_good_clips(self, split: str, samples: Iterator[Sample]) -> Iterator[Sample]:
        """The samples without a bad clip; the others are listed."""
        for sample in samples:
            path = next((video for video in sample.videos if video in self._bad), None)
            if path is None:
                yield sample
            else:
                self._samples[split].append(_line("sample", sample.id, f"video {path!r} {self._bad[path]}"))
                self.faulty[split] += 1

    @property
    def counts(self) -> dict[str, int]:
        """How many clips and samples."""
        return dict(Counter(clips=len(self._clips), samples=sum(map(len, self._samples.values()))) - Counter())

    def lines(self) -> list[str]:
        """The report, a JSON object a line."""
        return self._clips + [line for of_split in self._samples.values() for line in of_split]


def _line(kind: str, id: str, reason: str) -> str:
    return to_line({"kind": kind, "id": id, "reason": reason})
