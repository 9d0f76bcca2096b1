"""What a policy answered, for people to read: groups of answers with their rewards and affective trees.

samples.jsonl holds the groups, one a line; samples.txt shows the same in a terminal, samples.html in a browser
(`write_samples_page`). Trees are read again from the texts, as the reward reads them, and are not kept.
"""

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.text import Text

from videmo_jax.affective.difference import DiffLine, differences
from videmo_jax.affective.edit_distance import Costs
from videmo_jax.affective.tree import Person
from videmo_jax.files.errors import FileError
from videmo_jax.files.json_records import read_journal
from videmo_jax.files.writing import append_text, write_text
from videmo_jax.reports.rollouts import ShownAnswer, ShownGroup, write_rollouts_page
from videmo_jax.rl.rewards.branches import Failed, TreeBranch, attempt
from videmo_jax.rl.rewards.spec import RewardSpec
from videmo_jax.tasks.answers import final_answer


def log_files(host: int) -> tuple[str, str]:
    """Names of the files, lines of JSON and text, of a host; the first host's are those of the run."""
    name = f"samples.{host}" if host else "samples"
    return f"{name}.jsonl", f"{name}.txt"


LINES, TEXT = log_files(0)
COLUMNS = 100  # of samples.txt
END = "─" * COLUMNS  # ends a group; all other lines but the first are indented
SIGNS = {"same": " ", "other": "~", "added": "+", "missing": "-"}


class SampleLogError(FileError):
    """A log cannot be read; the message says which file and line, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """One answer.

    Attributes:
      text: without special tokens.
      reward: in [0, 1]; None where the group failed.
      advantage: of the answer.
      tokens: its length, the end token included.
      cut: whether the limit of tokens ended it.
    """

    text: str
    reward: float | None
    advantage: float
    tokens: int
    cut: bool

    def __post_init__(self) -> None:
        for name in ("reward", "advantage"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"an answer's {name} is {value}; a group without rewards has None and advantages of 0")


@dataclass(frozen=True, slots=True)
class LoggedGroup:
    """A prompt and the answers to it.

    Attributes:
      step: of the update that they are for.
      id: of the sample.
      file: its annotation file.
      task: its name.
      branch: of the reward; of a mixture its components, `0.7 tree + 0.3 caption`.
      videos: paths relative to the dataset's root.
      question, truth: texts.
      answers: in the order in which they were sampled.
      failure: why the group has no rewards; None where it has.
    """

    step: int
    id: str
    file: str
    task: str
    branch: str
    videos: tuple[str, ...]
    question: str
    truth: str
    answers: tuple[LoggedAnswer, ...]
    failure: str | None = None

    def to_json(self) -> str:
        """One line of JSON, without its end."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The group of a line; raises ValueError where it is no JSON."""
        return cls.from_record(json.loads(line))

    @classmethod
    def from_record(cls, record: Any) -> Self:
        """The group of an object.

        Raises:
          ValueError: a field is missing, unknown or of another kind.
        """
        values = _fields(record, _GROUP, "the group")
        if not all(isinstance(video, str) for video in values["videos"]):
            raise ValueError("videos: all must be texts")
        values["videos"] = tuple(values["videos"])
        values["answers"] = tuple(
            LoggedAnswer(**_fields(answer, _ANSWER, f"answer {number}"))
            for number, answer in enumerate(values["answers"], 1)
        )
        return cls(**values)

    def ranked(self) -> list[int]:
        """The places of the answers, best reward first; those without one stay in order."""
        rewards = [-math.inf if answer.reward is None else answer.reward for answer in self.answers]
        return sorted(range(len(rewards)), key=lambda place: -rewards[place])


_TEXT = (str,)
_GROUP = {
    **{"step": (int,), "id": _TEXT, "file": _TEXT, "task": _TEXT, "branch": _TEXT, "videos": (list,)},
    **{"question": _TEXT, "truth": _TEXT, "answers": (list,), "failure": (str, type(None))},
}
_ANSWER = {
    **{"text": _TEXT, "reward": (int, float, type(None)), "advantage": (int, float), "tokens": (int,), "cut": (bool,)},
}


def _fields(record: Any, kinds: dict[str, tuple[type, ...]], where: str) -> dict[str, Any]:
    """The record, if it has exactly these fields, of these kinds."""
    if not isinstance(record, dict) or record.keys() != kinds.keys():
        raise ValueError(f"{where} must have the fields {', '.join(kinds)}")
    for name, kind in kinds.items():
        if not isinstance(record[name], kind) or (isinstance(record[name], bool) and bool not in kind):
            names = " or ".join(each.__name__ for each in kind)
            raise ValueError(f"{where}: {name} is {str(record[name])[:80]!r}; it must be {names}")
    return dict(record)


class SampleLog:
    """Appends groups to samples.jsonl and samples.txt.

    A run that resumes from step n drops what an earlier start logged after n, so that its files become those of a run
    that was never stopped. What is written is with the operating system when `write` returns: a kill loses none of it.
    """

    def __init__(self, folder: Path, *, after_step: int, host: int = 0, spec: RewardSpec | None = None) -> None:
        """Makes the files what they were after a step; where nothing was logged there are none.

        Args:
          folder: of both files, which is there.
          after_step: the last step that stays; -1 begins anew.
          host: number of this process; each has files of its own.
          spec: of the run's rewards: how trees are read and what their differences cost; None: the default.

        Raises:
          SampleLogError: the log of the earlier start cannot be read.
        """
        self._lines, self._text = (folder / name for name in log_files(host))
        self._reader = _Trees(spec or RewardSpec())
        earlier = read_samples(folder, host) if after_step >= 0 else []
        kept = [group for group in earlier if group.step <= after_step]
        for path, text in (
            (self._text, self._kept_text(kept)),
            (self._lines, "".join(f"{group.to_json()}\n" for group in kept)),
        ):
            if text:
                write_text(path, text)
            else:
                path.unlink(missing_ok=True)

    def write(self, groups: Sequence[LoggedGroup]) -> None:
        """Adds the groups of a step; steps may not go back."""
        # The text first: so a group that has its line has its text as well, wherever a kill falls.
        append_text(self._text, "".join(map(self._block, groups)))
        append_text(self._lines, "".join(f"{group.to_json()}\n" for group in groups))

    def _block(self, group: LoggedGroup) -> str:
        return "\n".join((*_block(self._reader.shown(group)), END, ""))

    def _kept_text(self, kept: Sequence[LoggedGroup]) -> str:
        """The text of the groups that stay: as it stands there, or made again where that is not the text of them."""
        old = self._text.read_text("utf-8", errors="replace") if self._text.exists() else ""
        blocks = old.split(f"\n{END}\n")[: len(kept)]
        if [block.partition("\n")[0] for block in blocks] == [_heading(group) for group in kept]:
            whole = "".join(f"{block}\n{END}\n" for block in blocks)
            if old.startswith(whole):  # the last one has its end, too
                return whole
        return "".join(map(self._block, kept))


def read_samples(folder: Path, host: int = 0) -> list[LoggedGroup]:
    """All groups of a host's log, in order; [] where there is none. A last line that a kill cut short is left out.

    Raises:
      SampleLogError: another line is no group.
    """
    path, groups = folder / log_files(host)[0], []
    mend = "mend or remove the line, or move the file away to begin anew"
    for number, record in enumerate(read_journal(path, mend), start=1):
        try:
            groups.append(LoggedGroup.from_record(record))
        except ValueError as error:
            raise SampleLogError(f"{path}, line {number}: {error}; {mend}") from None
    return groups


def write_samples_page(folder: Path, *, title: str, spec: RewardSpec | None = None) -> Path:
    """Writes FOLDER/samples.html from FOLDER/samples.jsonl and gives its path.

    Args:
      folder: of both.
      title: of the page.
      spec: as of `SampleLog`.

    Raises:
      SampleLogError: as `read_samples`.
    """
    groups = _ShownGroups(read_samples(folder), _Trees(spec or RewardSpec()))
    return write_rollouts_page(folder, title=title, groups=groups)


class _ShownGroups(Sequence[ShownGroup]):
    """Groups whose trees are read when they are asked for: a page shows some of many."""

    def __init__(self, groups: Sequence[LoggedGroup], trees: "_Trees") -> None:
        self._groups, self._trees = groups, trees

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, place: int) -> ShownGroup:
        return self._trees.shown(self._groups[place])


class _Trees:
    """Reads the trees of a group as the reward does."""

    def __init__(self, spec: RewardSpec) -> None:
        self._spec, self._branch = spec, TreeBranch(spec)

    def shown(self, group: LoggedGroup) -> ShownGroup:
        """The group with its trees, where its branch compares trees."""
        truth = self._branch.truth(group.truth) if "tree" in group.branch.split() else Failed("no tree")
        answers = []
        for rank in group.ranked():
            answer, lines = group.answers[rank], None
            if not isinstance(truth, Failed):
                found = attempt(lambda answer=answer: self._compared(truth, answer.text))
                lines = None if isinstance(found, Failed) else tuple(found)
            answers.append(
                ShownAnswer(rank + 1, answer.text, answer.reward, answer.advantage, answer.tokens, answer.cut, lines)
            )
        return ShownGroup(
            **{name: getattr(group, name) for name in ("step", "id", "file", "task", "branch", "videos", "failure")},
            question=group.question,
            truth=group.truth,
            tree=None if isinstance(truth, Failed) else truth[0],
            answers=tuple(answers),
        )

    def _compared(self, truth: tuple[Any, bool], answer: str) -> list[DiffLine]:
        read, _ = self._branch.read(final_answer(answer), truth[1])
        return differences(truth[0], read, self._spec.costs)


def _heading(group: LoggedGroup | ShownGroup) -> str:
    """What opens a group, in one line."""
    line = Text(_plain(f"step {group.step} · {group.branch} · {group.task} · {group.id}"))
    line.truncate(COLUMNS, overflow="ellipsis")
    return line.plain


def _block(group: ShownGroup) -> Iterator[str]:
    """The lines of a group."""
    yield _heading(group)
    facts = [("sample", group.id), *(("video", video) for video in group.videos)]
    for name, value in facts if group.file in group.id else [*facts, ("file", group.file)]:
        yield from _wrapped(value, f"  {name:<7} ", " " * 10)
    if group.failure is not None:
        yield from _wrapped(f"left out, no rewards: {group.failure}", "  ! ", "    ")
    yield from ("", "  QUESTION", *_wrapped(group.question, "    "))
    yield from ("", "  TRUTH", *_wrapped(group.truth if group.truth.strip() else "(nothing)", "    "))
    if group.tree is not None:
        # Beside itself a tree costs nothing, whatever the costs.
        yield from ("", *_tree_lines(differences(group.tree, group.tree, Costs())))
    said: dict[str, int] = {}
    for rank, answer in enumerate(group.answers, 1):
        yield from ("", *_wrapped(_scores(answer, rank, len(group.answers)), "  ", "    "))
        if answer.text in said:
            yield f"    the same text as answer {said[answer.text]}"
            continue
        said[answer.text] = answer.number
        yield from _wrapped(answer.text if answer.text.strip() else "(nothing)", "    ")
        if answer.lines is not None:
            yield from ("", *_tree_lines(answer.lines), f"    = {_summary(answer.lines)}")


def _scores(answer: ShownAnswer, rank: int, count: int) -> str:
    reward = ", no reward"
    if answer.reward is not None:
        reward = f", rank {rank} of {count}: reward {answer.reward:.3f}"
    cut = ", cut off by the limit" if answer.cut else ""
    return f"ANSWER {answer.number}{reward}, advantage {answer.advantage:+.3f}, {answer.tokens} tokens{cut}"


def _tree_lines(lines: Sequence[DiffLine]) -> Iterator[str]:
    """The tree in its written form, each line with a sign and, where it costs something, what is wrong with it."""
    for line in lines:
        start = f"    {SIGNS[line.mark]} {'  ' * line.depth}"
        yield from _wrapped(f"{_name(line.node)}{_says(line)}", start, f"{' ' * len(start)}    ")


def _name(node: Any) -> str:
    return "person" if isinstance(node, Person) else f"{node.level} | {node.aspect}: {node.item}"


def _says(line: DiffLine) -> str:
    """What is wrong with a node, in words."""
    if line.mark == "same":
        return ""
    truth = line.truth and (_name(line.truth) if line.truth.level != line.node.level else _short(line.truth))
    words = {"other": f"the truth has {truth}", "added": "not in the truth", "missing": "missing here"}[line.mark]
    return f"   <- {words}: {line.cost:.2f}"


def _short(node: Any) -> str:
    return f"{node.aspect}: {node.item}"


def _summary(lines: Sequence[DiffLine]) -> str:
    counts = {mark: sum(line.mark == mark for line in lines) for mark in SIGNS}
    return (
        f"edit distance {sum(line.cost for line in lines):.2f}: {counts['same']} right, "
        f"{counts['other']} otherwise (~), {counts['added']} not in the truth (+), {counts['missing']} missing (-)"
    )


_WIDE = Console(file=io.StringIO(), width=COLUMNS)  # rich wraps by columns, of which a Chinese character takes two


def _wrapped(text: str, start: str, further: str | None = None) -> Iterator[str]:
    """The text in lines of at most COLUMNS, each behind spaces; `start` stands before the first."""
    further = " " * len(start) if further is None else further
    room = COLUMNS - max(len(start), len(further))
    for paragraph in text.splitlines() or [""]:
        for line in Text(_plain(paragraph.expandtabs(2))).wrap(_WIDE, max(room, 20)):
            yield f"{start}{line.plain}".rstrip()
            start = further


def _plain(text: str) -> str:
    """Control characters, which a terminal would obey, and what cannot be written, spelled out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
