"""Rewards of groups of answers: the branch of each task, failures apart, node-level credit (PAPER.md section 3).

    spec -> Rewards -> GroupRewards -> the group advantage of the loss

A group is one prompt and its G sampled answers. Groups do not influence each other, so that worker processes may share
a batch (`reward_workers`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
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
from videmo_jax.rl.rewards.spec import Branch, Query, RewardError, RewardSpec

Credit = tuple[Span, ...]


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
        answers. See `reward_credit`.
    """

    rewards: Float64[np.ndarray, "N G"]
    valid: Bool[np.ndarray, "N"]
    branches: tuple[Branch, ...]
    failures: tuple[RewardFailure, ...] = ()
    credit: tuple[tuple[Credit | None, ...], ...] = field(default=())

    def metrics(self) -> dict[str, float]:
        """Means for the log, see `reward_metrics`."""
        return reward_metrics(self.rewards, self.branches)


def reward_metrics(rewards: Float64[np.ndarray, "N G"], branches: Sequence[str]) -> dict[str, float]:
    """Means for the log, over groups that count; a branch that has none is absent.

    `reward`, `reward/BRANCH`, `reward_std/BRANCH` (population standard deviation within a group, mean over groups),
    `flat_groups` (share of groups without any spread), `failed_groups` (a count), `failed_groups/BRANCH`.

    Args:
      rewards: of N groups; NaN in those that are left out.
      branches: of each group.
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
        branches = tuple(self.spec.branch(query) for query in prompts)
        scored: list[Scored] = [failed("the annotation has no answer")] * len(prompts)
        credit: list[tuple[Credit | None, ...]] = [(None,) * size] * len(prompts)
        for branch in sorted(set(branches)):
            # One's own reward may do without a truth.
            places = [
                at
                for at, query in enumerate(prompts)
                if branches[at] == branch and (query.truth.strip() or branch == "own")
            ]
            groups = [(prompts[at], answers[at]) for at in places]
            if branch == "tree":
                found, credits = self._tree(groups)
                for at, spans in zip(places, credits, strict=True):
                    credit[at] = spans
            else:
                found = self._scores(branch, groups)
            for at, values in zip(places, found, strict=True):
                scored[at] = values
        return _gathered(prompts, branches, scored, credit if self.spec.node_credit else [], size)

    def _scores(self, branch: Branch, groups: Sequence[Group]) -> list[Scored]:
        if branch == "rule":
            return rule_rewards(groups)
        if branch == "own":
            return own_rewards(groups, self.spec)
        found = attempt(lambda: self._caption_scorer(groups) if groups else [])
        if isinstance(found, Failed):  # a full disk under the kept replies, say
            return [found] * len(groups)
        return [self._shortened(group, values) for group, values in zip(groups, found, strict=True)]

    def _tree(self, groups: Sequence[Group]) -> tuple[list[Scored], list[tuple[Credit | None, ...]]]:
        """Rewards of the tree branch, and the credit where it is asked for."""
        scored: list[Scored] = []
        credit: list[tuple[Credit | None, ...]] = []
        for group, scores in zip(groups, self._trees.score(groups), strict=True):
            values: Scored = scores
            spans: tuple[Credit | None, ...] = (None,) * len(group[1])
            if not isinstance(scores, Failed):
                values = self._shortened(group, [score.reward for score in scores])
                if self.spec.node_credit:
                    truth = self._trees.truth(group[0].truth)[0]
                    spans = tuple(
                        answer_credit(answer, score.read, truth, self.spec.costs, score.decay / score.size)
                        for answer, score in zip(group[1], scores, strict=True)
                    )
            scored.append(values)
            credit.append(spans)
        return scored, credit

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


def failed_groups(spec: RewardSpec, prompts: Sequence[Query], size: int, reason: str) -> GroupRewards:
    """The rewards of prompts that all failed for one reason."""
    branches = tuple(spec.branch(query) for query in prompts)
    scored: list[Scored] = [failed(reason)] * len(prompts)
    credit = [(None,) * size] * len(prompts) if spec.node_credit else []
    return _gathered(prompts, branches, scored, credit, size)


def joined(parts: Sequence[GroupRewards], places: Sequence[Sequence[int]]) -> GroupRewards:
    """The rewards of a batch from those of its parts; `places[i]` are the groups of part i in the batch."""
    order = [at for part in places for at in part]
    back = np.argsort(np.array(order, int))
    branches = [branch for part in parts for branch in part.branches]
    credit = [spans for part in parts for spans in part.credit]
    failures = [
        RewardFailure(own[failure.group], failure.id, failure.branch, failure.reason)
        for part, own in zip(parts, places, strict=True)
        for failure in part.failures
    ]
    return GroupRewards(
        np.concatenate([part.rewards for part in parts])[back],
        np.concatenate([part.valid for part in parts])[back],
        tuple(branches[at] for at in back),
        tuple(sorted(failures, key=lambda failure: failure.group)),
        tuple(credit[at] for at in back) if credit else (),
    )


def _gathered(
    prompts: Sequence[Query],
    branches: tuple[Branch, ...],
    scored: Sequence[Scored],
    credit: Sequence[tuple[Credit | None, ...]],
    size: int,
) -> GroupRewards:
    rewards = np.full((len(prompts), size), np.nan)
    valid = np.zeros(len(prompts), bool)
    failures = []
    for at, values in enumerate(scored):
        if isinstance(values, Failed):
            failures.append(RewardFailure(at, prompts[at].id, branches[at], values.reason))
        else:
            rewards[at], valid[at] = values, True
    return GroupRewards(rewards, valid, branches, tuple(failures), tuple(credit))
