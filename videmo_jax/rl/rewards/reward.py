"""Rewards of groups of answers: the branch of each task, failures apart, node-level credit (PAPER.md section 3).

    spec -> Rewards -> a Piece of each component -> GroupRewards -> the group advantage of the loss

A group is one prompt and its G sampled answers. It has a piece of each component that scores it: one, or in a mixture
several. Pieces do not influence each other, so that worker processes may share a batch (`rewarder`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64

from videmo_jax.files.errors import UserError
from videmo_jax.rl.rewards.branches import (
    Failed,
    Group,
    Reference,
    Scored,
    TreeBranch,
    attempt,
    failed,
    length_factor,
    overlap_rewards,
    own_rewards,
    reference_rewards,
    rule_rewards,
)
from videmo_jax.rl.rewards.credit import Span, answer_credit
from videmo_jax.rl.rewards.spec import Asked, Branch, Query, RewardError, RewardSpec

Credit = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one component says of the answers of a group.

    Attributes:
      scored: their rewards, or why there are none.
      credit: with node credit, as in `GroupRewards`; () where no answer has any.
    """

    scored: Scored
    credit: tuple[Credit | None, ...] = ()


@dataclass(frozen=True, slots=True)
class RewardFailure:
    """A group that is left out.

    Attributes:
      group: its number in the batch.
      id: of its sample.
      branch: that it would have taken.
      reason: in one line.
    """

    group: int
    id: str
    branch: Branch
    reason: str


@dataclass(frozen=True)
class GroupRewards:
    """The rewards of N groups of G answers.

    Attributes:
      rewards: in [0, 1]; NaN in groups that are left out, so that none can be taken for a score.
      valid: the groups that have rewards.
      branches: of each group.
      failures: one for each group that is left out, in order.
      credit: with node credit, of each answer of the tree branch what its nodes cost over saying nothing (below 0: what
        they save) and where they are said, as (start, end, cost), start and end in characters; None for all other
        answers. In a mixture costs are multiplied by the share of the tree. See `credit`.
      parts: by `mixed/COMPONENT` the mean that a component of mixtures gave to each group's answers, before it is
        weighed; NaN where it is none of the group's, and in groups that are left out.
    """

    rewards: Float64[np.ndarray, "N G"]
    valid: Bool[np.ndarray, "N"]
    branches: tuple[Branch, ...]
    failures: tuple[RewardFailure, ...] = ()
    credit: tuple[tuple[Credit | None, ...], ...] = field(default=())
    parts: Mapping[str, Float64[np.ndarray, "N"]] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Means for the log, see `reward_metrics`."""
        return reward_metrics(self.rewards, self.branches, self.parts)


def reward_metrics(
    rewards: Float64[np.ndarray, "N G"], branches: Sequence[str], parts: Mapping[str, Float64[np.ndarray, "N"]]
) -> dict[str, float]:
    """Means for the log, over groups that count; a branch that has none is absent.

    `reward`, `reward/BRANCH`, `reward/mixed/COMPONENT`, `reward_std/BRANCH` (population standard deviation within a
    group, mean over groups), `flat_groups` (share of groups without any spread), `failed_groups` (a count),
    `failed_groups/BRANCH`.

    Args:
      rewards: of N groups; NaN in those that are left out.
      branches: of each group.
      parts: as in `GroupRewards`.
    """
    valid, names = ~np.isnan(rewards).any(axis=1), np.array(branches)
    values: dict[str, float] = {"failed_groups": float((~valid).sum())}
    for branch, count in sorted(Counter(names[~valid].tolist()).items()):
        values[f"failed_groups/{branch}"] = float(count)
    kept = rewards[valid]
    if kept.size:
        values["reward"] = float(kept.mean())
        values["flat_groups"] = float((np.ptp(kept, axis=1) == 0).mean())
    for branch in sorted(set(branches)):
        of_branch = rewards[valid & (names == branch)]
        if of_branch.size:
            values[f"reward/{branch}"] = float(of_branch.mean())
            values[f"reward_std/{branch}"] = float(of_branch.std(axis=1).mean())
    for name, means in parts.items():
        if (given := means[~np.isnan(means)]).size:
            values[f"reward/{name}"] = float(given.mean())
    return values


class Rewards:
    """Computes rewards; gives the same for the same texts, whatever else is in the batch."""

    def __init__(self, spec: RewardSpec, *, reference: Reference | None = None, threads: int | None = None) -> None:
        """Prepares the branches.

        Args:
          spec: of the rewards.
          reference: with `caption = "reference"`, gives the probability of «yes» for each question; what to ask the
            model is `reward_judge.check_text`.
          threads: of edit distances; None takes one for each core.

        Raises:
          RewardError: `reference` is missing or not asked for, or the endpoint cannot be used.
        """
        if (spec.caption == "reference") != (reference is not None):
            raise RewardError('rewards: caption = "reference" and a function for it belong together')
        self.spec, self._reference = spec, reference
        self._trees = TreeBranch(spec, threads=threads)
        self._caption_scorer: Callable[[Sequence[Group]], list[Scored]] = overlap_rewards
        if reference is not None:
            self._caption_scorer = lambda groups: reference_rewards(groups, reference)
        elif spec.endpoint is not None:
            from videmo_jax.rl.rewards.judge import EndpointScorer  # brings JAX along

            self._caption_scorer = EndpointScorer(spec.endpoint).score

    def __call__(self, prompts: Sequence[Query], answers: Sequence[Sequence[str]]) -> GroupRewards:
        """The rewards of a batch.

        Args:
          prompts: N of them.
          answers: G to each prompt; the policy's texts without special tokens. Empty and cut ones are answers, too.

        Raises:
          ValueError: there are not as many groups as prompts, or they are not of one size.
        """
        size = checked_size(prompts, answers)
        asked, groups = asked_of(self.spec, prompts, answers)
        return gathered(self.spec, prompts, self.pieces(asked, groups), size)

    def pieces(self, asked: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[Piece]:
        """What each component says of its group of answers."""
        found = [Piece(failed("the annotation has no answer"))] * len(asked)
        components = {each.component for each in asked}
        if self._reference:  # also where there is nothing to ask: of several hosts all must
            components.add("caption")
        for component in sorted(components):
            # One's own reward may do without a truth.
            places = [
                at
                for at, each in enumerate(asked)
                if each.component == component and (each.query.truth.strip() or each.own)
            ]
            groups = [(asked[at].query, answers[at]) for at in places]
            for at, piece in zip(places, self._pieces(component, groups), strict=True):
                found[at] = piece
        return found

    def _pieces(self, component: str, groups: Sequence[Group]) -> Iterable[Piece]:
        if component == "tree":
            return self._tree(groups)
        return map(Piece, self._scores(component, groups))

    def _scores(self, component: str, groups: Sequence[Group]) -> list[Scored]:
        if component == "rule":
            return rule_rewards(groups)
        if component != "caption":
            return own_rewards(groups, component)
        found = attempt(lambda: self._caption_scorer(groups) if groups or self._reference else [])
        if isinstance(found, Failed):  # a full disk under the kept replies, say
            return [found] * len(groups)
        return [self._shortened(group, values) for group, values in zip(groups, found, strict=True)]

    def _tree(self, groups: Sequence[Group]) -> Iterable[Piece]:
        """Rewards of the tree branch, and the credit where it is asked for."""
        for group, scores in zip(groups, self._trees.score(groups), strict=True):
            if isinstance(scores, Failed):
                yield Piece(scores)
                continue
            spans: tuple[Credit | None, ...] = ()
            if self.spec.node_credit:
                truth = self._trees.truth(group[0].truth)[0]
                spans = tuple(
                    answer_credit(answer, score.read, truth, self.spec.costs, score.decay / score.size)
                    for answer, score in zip(group[1], scores, strict=True)
                )
            yield Piece(self._shortened(group, [score.reward for score in scores]), spans)

    def _shortened(self, group: Group, values: Scored) -> Scored:
        """The rewards with the penalty for length."""
        query, answers = group
        if isinstance(values, Failed):
            return values
        return [
            value * length_factor(self.spec, query.truth, answer) for value, answer in zip(values, answers, strict=True)
        ]


def checked_size(prompts: Sequence[Query], answers: Sequence[Sequence[str]]) -> int:
    """G, the answers to each prompt.

    Raises:
      ValueError: there are not as many groups as prompts, or they are not of one size.
    """
    sizes = {len(group) for group in answers}
    if len(prompts) != len(answers) or len(sizes) > 1:
        raise UserError(
            f"{len(answers)} groups of {sorted(sizes)} answers to {len(prompts)} prompts: each prompt needs one group, "
            "all of one size"
        )
    return sizes.pop() if sizes else 0


def asked_of(
    spec: RewardSpec, prompts: Sequence[Query], answers: Sequence[Sequence[str]]
) -> tuple[list[Asked], list[Sequence[str]]]:
    """What is asked of which component, prompt by prompt, and about which answers."""
    pairs = [
        (Asked(query, component), group)
        for query, group in zip(prompts, answers, strict=True)
        for component in spec.components(query.stem, query.task)
    ]
    return [asked for asked, _ in pairs], [group for _, group in pairs]


def gathered(spec: RewardSpec, prompts: Sequence[Query], pieces: Iterable[Piece], size: int) -> GroupRewards:
    """The rewards of a batch.

    Args:
      spec: of the rewards.
      prompts: N of them.
      pieces: in the order of `asked_of`; where one of a group's has failed the group has.
      size: G, the answers to each prompt.
    """
    rewards = np.full((len(prompts), size), np.nan)
    parts = {f"mixed/{name}": np.full(len(prompts), np.nan) for name in spec.mixed_components}
    credit: list[tuple[Credit | None, ...]] = [(None,) * size] * len(prompts)
    branches, failures, given = tuple(map(spec.branch, prompts)), [], iter(pieces)
    for at, (query, branch) in enumerate(zip(prompts, branches, strict=True)):
        weights = spec.components(query.stem, query.task)
        found = {name: next(given) for name in weights}
        bad = next(((name, each.scored) for name, each in found.items() if isinstance(each.scored, Failed)), None)
        if bad:
            reason = f"{bad[0]}: {bad[1].reason}" if branch == "mixed" else bad[1].reason
            failures.append(RewardFailure(at, query.id, branch, reason))
            continue
        total, weighed = 0.0, np.zeros(size)
        for name, each in found.items():
            total, weighed = total + weights[name], weighed + weights[name] * np.array(each.scored)
        rewards[at] = weighed / total  # 1 at most, as both sums are rounded alike
        for name, each in found.items():
            if branch == "mixed":
                parts[f"mixed/{name}"][at] = np.mean(each.scored)
            if each.credit:
                credit[at] = tuple(_scaled(spans, weights[name] / total) for spans in each.credit)
    valid = ~np.isnan(rewards).any(axis=1)
    return GroupRewards(rewards, valid, branches, tuple(failures), tuple(credit if spec.node_credit else ()), parts)


def _scaled(spans: Credit, share: float) -> Credit:
    return tuple((start, end, share * cost) for start, end, cost in spans)
