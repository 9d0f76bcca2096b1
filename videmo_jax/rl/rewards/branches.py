"""The branches of the reward: each scores the answers of many groups at once (PAPER.md section 3).

A branch gives one entry per group: a number in [0, 1] for each answer, or a `Failed` with its reason, which leaves the
group out. What an answer says can never make a group fail: an empty, cut or garbled answer has a low reward.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from videmo_jax.affective.edit_distance import tree_edit_distances
from videmo_jax.affective.parser import Spans, parse_caption, parse_spans
from videmo_jax.affective.text import TreeTextError, from_text, read_tree, read_tree_spans
from videmo_jax.affective.tree import AffectiveTree
from videmo_jax.evaluation.judges.by_rules import RuleJudge
from videmo_jax.evaluation.judges.judging import Question
from videmo_jax.evaluation.judges.rules import named_labels, read_reply
from videmo_jax.rl.rewards.spec import Query, RewardSpec, load_own
from videmo_jax.tasks.answers import final_answer

Group = tuple[Query, Sequence[str]]
Reference = Callable[[Sequence[Question]], Sequence[float]]
Made = TypeVar("Made")
Read = tuple[AffectiveTree, Spans]  # a tree and where its nodes were read

MAX_REASON = 300  # characters of a reason
MAX_TRUTHS = 10_000  # trees that are kept
PERFECT = 100  # what judges and rules call the best


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a group has no reward."""

    reason: str


def failed(error: BaseException | str) -> Failed:
    """A failure in one short line."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return Failed(" ".join(text.split())[:MAX_REASON])


Scored = list[float] | Failed


def rule_rewards(groups: Sequence[Group]) -> list[Scored]:
    """Accuracy of choices, F1 of labels: as the judge `rule` reads them and the rules `strict` count them."""
    return [attempt(lambda group=group: _by_rules(group)) for group in groups]


def overlap_rewards(groups: Sequence[Group]) -> list[Scored]:
    """The embedded overlap score of `evaluation.caption_overlap`."""
    return [attempt(lambda group=group: _judged(group)) for group in groups]


def attempt(work: Callable[[], Made]) -> Made | Failed:
    """What the work gives, or its failure: rewards call code that is not ours, and training must go on."""
    try:
        return work()
    except Exception as error:
        return failed(error)


def _by_rules(group: Group) -> Scored:
    query, _ = group
    form = query.task.form
    if form != "choice" and not query.task.labels and form != "multi_label":
        return failed(f"the task {query.task.name!r} has no list of labels, which its form {form!r} is read by")
    question = query.judged("", 0)
    unknown = form != "choice" and query.truth.strip().lower() != "none"
    if unknown and not named_labels(query.truth, question.labels, "strict"):
        return failed(f"the truth {query.truth!r} names no label of the task")
    return _judged(group)


def _judged(group: Group) -> list[float]:
    query, answers = group
    questions = [query.judged(answer, number) for number, answer in enumerate(answers)]
    replies = RuleJudge().judge(questions)
    return [
        read_reply(question, reply, "strict").values[0] / PERFECT
        for question, reply in zip(questions, replies, strict=True)
    ]


def reference_rewards(groups: Sequence[Group], reference: Reference) -> list[Scored]:
    """The probability of «yes» that a function gives for each question, whether the response says what the truth says.

    It is asked about all answers of all groups at once; NaN for one answer fails its group.
    """
    questions = [query.judged(answer, number) for query, answers in groups for number, answer in enumerate(answers)]
    values = attempt(lambda: [float(value) for value in reference(questions)])
    if isinstance(values, Failed):
        return [values] * len(groups)
    if len(values) != len(questions):
        return [failed(f"the reference gave {len(values)} values for {len(questions)} questions")] * len(groups)
    given = iter(values)
    return [checked([next(given) for _ in answers], len(answers)) for _, answers in groups]


def own_rewards(groups: Sequence[Group], path: str) -> list[Scored]:
    """Rewards of a user's own function, `package.module:function`."""

    def score(group: Group) -> Scored:
        query, answers = group
        function = load_own(path, f"the reward of {query.stem}")
        return checked([float(value) for value in function(query, list(answers))], len(answers))

    return [attempt(lambda group=group: score(group)) for group in groups]


def checked(values: list[float], count: int) -> Scored:
    """The values, if there is one in [0, 1] for each answer."""
    if len(values) != count:
        return failed(f"{len(values)} rewards for {count} answers")
    wrong = next((value for value in values if not 0 <= value <= 1), None)
    return values if wrong is None else failed(f"a reward is {wrong}; it must be from 0 to 1")


@dataclass(frozen=True)
class TreeScore:
    """One answer's tree beside the truth's.

    Attributes:
      distance: Edit(T_gt, T_pred).
      size: what it is divided by: max(|T_gt|, |T_pred|), or 1 as printed.
      decay: lambda.
      read: the answer's tree; with the places of its nodes where the spec has node credit, else without.
    """

    distance: float
    size: int
    decay: float
    read: Read

    @property
    def reward(self) -> float:
        """exp(-lambda x distance / size)."""
        return math.exp(-self.decay * self.distance / self.size)


class TreeBranch:
    """The affective-tree reward; keeps the trees of truths.

    A truth in the written form of trees has answers read in that form or as captions; the answers to a caption are read
    as captions alone, as everywhere else, so that no node counts that the lexicon does not know.
    """

    def __init__(self, spec: RewardSpec, *, threads: int | None = None) -> None:
        """The branch; `threads` as in `tree_edit_distances`."""
        self._spec, self._threads = spec, threads
        self._truths: dict[str, tuple[AffectiveTree, bool] | Failed] = {}

    def score(self, groups: Sequence[Group]) -> list[list[TreeScore] | Failed]:
        """The scores of all answers; every distinct text is parsed once, all distances are one batch."""
        truths = [self.truth(query.truth) for query, _ in groups]
        texts = {
            (final_answer(answer), truth[1])
            for truth, (_, answers) in zip(truths, groups, strict=True)
            if not isinstance(truth, Failed)
            for answer in answers
        }
        trees = {key: attempt(lambda key=key: self.read(*key)) for key in sorted(texts)}
        pairs: list[list[tuple[AffectiveTree, Read]] | Failed] = []
        for truth, (_, answers) in zip(truths, groups, strict=True):
            if isinstance(truth, Failed):
                pairs.append(truth)
                continue
            read = [trees[final_answer(answer), truth[1]] for answer in answers]
            bad = next((tree for tree in read if isinstance(tree, Failed)), None)
            pairs.append(bad or [(truth[0], tree) for tree in read])
        return self._distances(pairs)

    def truth(self, text: str) -> tuple[AffectiveTree, bool] | Failed:
        """The tree of a truth and whether the truth is written as a tree."""
        if text not in self._truths:
            if len(self._truths) >= MAX_TRUTHS:
                self._truths.pop(next(iter(self._truths)))
            self._truths[text] = attempt(lambda: _truth(text))
        return self._truths[text]

    def read(self, answer: str, written: bool) -> Read:
        """The tree of an answer."""
        if self._spec.node_credit:
            return (read_tree_spans if written else parse_spans)(answer)
        return (read_tree if written else parse_caption)(answer), {}

    def _distances(self, pairs: list[list[tuple[AffectiveTree, Read]] | Failed]) -> list[list[TreeScore] | Failed]:
        """The scores of pairs of trees, those of a group together."""
        flat = [(truth, read[0]) for group in pairs if not isinstance(group, Failed) for truth, read in group]
        found = attempt(lambda: tree_edit_distances(flat, self._spec.costs, threads=self._threads).tolist())
        if isinstance(found, Failed) and len(pairs) > 1:
            # Two trees too large for a table must not take the others with them.
            return [self._distances([group])[0] for group in pairs]
        if isinstance(found, Failed):
            return [found]
        given = iter(found)
        return [
            group if isinstance(group, Failed) else [self._scored(*pair, next(given)) for pair in group]
            for group in pairs
        ]

    def _scored(self, truth: AffectiveTree, read: Read, distance: float) -> TreeScore:
        size = max(len(truth), len(read[0])) if self._spec.normalise == "size" else 1
        return TreeScore(distance, size, self._spec.decay, read)


def _truth(text: str) -> tuple[AffectiveTree, bool] | Failed:
    try:
        tree, written = from_text(text), True
    except TreeTextError:
        tree, written = parse_caption(text), False
    # Beside an empty tree, saying nothing would be the best answer.
    return (tree, written) if len(tree) else failed(f"the truth holds nothing for a tree: {text[:80]!r}")


def length_factor(spec: RewardSpec, truth: str, answer: str) -> float:
    """What the reward of a caption is multiplied by, in (0, 1]."""
    words = len(final_answer(answer).split())
    if spec.length_slack is None or not words:
        return 1.0
    return min(1.0, spec.length_slack * len(truth.split()) / words) ** spec.length_power
