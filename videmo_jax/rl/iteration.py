"""One step of RL on the mesh: a rollout, its rewards, the update of the policy (PAPER.md section 3)."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from videmo_jax.data.pipeline import from_devices, to_devices
from videmo_jax.rl.advantages import Advantages
from videmo_jax.rl.answered import Answered, branch_names
from videmo_jax.rl.plan import RlSettings
from videmo_jax.rl.prompts import PromptBatch
from videmo_jax.rl.rewards.reward import GroupRewards, reward_metrics
from videmo_jax.rl.rewards.spec import BRANCHES, Query
from videmo_jax.rl.rollout import make_gather, make_sampler, prompt_seeds
from videmo_jax.rl.rows import GroupBatch, with_answers
from videmo_jax.rl.step import make_log_prob_step, make_policy_step, numbers
from videmo_jax.sampling.decode import Answers, Decoding
from videmo_jax.sampling.policy import banned_ids, stop_ids
from videmo_jax.sharding.rules import batch_part
from videmo_jax.training.feed import Lookahead
from videmo_jax.training.state import TrainState
from videmo_jax.training.step import StepMetrics


class Pending(Protocol):
    """Rewards that are under way."""

    def result(self) -> GroupRewards:
        """Waits for them."""


# (what is asked, the answers to each) -> rewards under way
Reward = Callable[[Sequence[Query], Sequence[Sequence[str]]], Pending]
# (step, this host's answers, rewards and advantages, metrics of all hosts): takes note of what was answered
OnStep = Callable[[int, Answered, GroupRewards, Advantages, Mapping[str, float]], None]


class Programs:
    """What runs on the devices, compiled when it is first called."""

    def __init__(self, settings: RlSettings, mesh: Mesh, optimizer: optax.GradientTransformation) -> None:
        shared = settings.shared
        self.mesh, self.settings = mesh, settings
        self.gather = make_gather(shared.model, mesh, shared.compute.dtype)
        self.sample = self.sampler(settings.decoding)
        # The reference's forward pass is the policy's: frozen, and stored in the dtype of the computation.
        self.log_probs = make_log_prob_step(shared.model, mesh, shared.compute, settings.grpo.temperature)
        self.update = make_policy_step(
            shared.model, optimizer, mesh, shared.compute, shared.guard, settings.grpo, shared.trained
        )
        self.join = jax.jit(with_answers)
        self.credit = jax.jit(GroupBatch.credited)
        self._everywhere = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def sampler(self, decoding: Decoding) -> Callable[..., Answers]:
        """The program that draws answers."""
        shared = self.settings.shared
        stops, banned = stop_ids(shared.tokenizer), banned_ids(shared.tokenizer, shared.model)
        return make_sampler(shared.model, self.mesh, shared.compute.dtype, decoding, stops, banned)

    def on_every_host(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays with this host's rows in front, as those of all hosts."""
        if jax.process_count() == 1:
            return rows
        return jax.tree.map(np.asarray, self._everywhere(to_devices(rows, self.mesh)))

    def answered(self, batch: PromptBatch, drawn: Answers) -> Answered:
        """This host's answers; waits for them."""
        tokens, lengths = from_devices(drawn.tokens), from_devices(drawn.lengths)
        tokenizer = self.settings.shared.tokenizer
        return Answered(batch.prompts, tokens, lengths, tokenizer, stop_ids(tokenizer))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Measured:
    """What a step measured: on the devices, at the first and at the last update, and on the host."""

    first: StepMetrics
    last: StepMetrics
    host: dict[str, float] = field(metadata={"static": True})


def measured_numbers(measured: Measured) -> dict[str, Any]:
    """Plain numbers for metrics.jsonl; waits for the step.

    The gap between sampler and trainer is that of the first update, before which the policy was the sampler's; all else
    of the loss is of the last one.
    """
    values = numbers(measured.last)
    values["log_prob_gap"] = numbers(measured.first)["log_prob_gap"]
    return {**values, **measured.host}


@dataclass(frozen=True)
class _Rollout:
    """Answers on the devices, what the host made of them, and their rewards, which are under way."""

    batch: PromptBatch
    drawn: Answers
    answered: Answered
    rewards: Pending
    seconds: float


class Iteration:
    """The step that `training.loop` calls: (state, prompts on the devices, learning rate) -> (state, what it measured).

    With `staleness` 1 the next batch is answered by the policy as it is before the update, while this one's rewards are
    computed; a run that comes back answers its first batch with the newest policy.
    """

    def __init__(
        self,
        programs: Programs,
        rewards: Reward,
        feed: Lookahead,
        *,
        seed: int,
        first: int,
        last: int,
        reference: nnx.State | None,
        on_step: OnStep,
    ) -> None:
        """Goes on after step `first`.

        Args:
          programs: of the devices.
          rewards: computes them.
          feed: of prompts: with staleness those of the next step are asked of it.
          seed: of the run.
          first, last: steps that are done, and the last one.
          reference: frozen parameters, as they are trained but for the dtype; None where there is no KL term.
          on_step: takes note of answers and rewards.
        """
        self._programs, self._rewards, self._feed = programs, rewards, feed
        self._seed, self._step, self._last, self._reference, self._on_step = seed, first, last, reference, on_step
        self._ahead: _Rollout | None = None

    def __call__(self, state: TrainState, batch: PromptBatch, rate: float) -> tuple[TrainState, Measured]:
        """A rollout of the prompts, unless there is one already, and the updates from it."""
        self._step += 1
        rollout, self._ahead = self._ahead, None
        if rollout is None:
            began = time.perf_counter()
            rollout = self._collected(batch, self._launched(batch, state.params, self._step), began)
        coming = None
        if self._programs.settings.staleness and self._step < self._last:
            began_next, following = time.perf_counter(), self._feed.peek()
            coming = self._launched(following, state.params, self._step + 1)
        began = time.perf_counter()
        joined = self._joined(rollout)
        found = rollout.rewards.result()
        waited = time.perf_counter() - began
        began = time.perf_counter()
        state, measured, advantages = self._updated(state, joined, rollout.answered, found, rate)
        if coming is not None:
            self._ahead = self._collected(following, coming, began_next)
        jax.block_until_ready(measured)
        seconds = {"rollout": rollout.seconds, "reward": waited, "update": time.perf_counter() - began}
        host = self._host_metrics(rollout.answered, found)
        self._on_step(self._step, rollout.answered, found, advantages, host)
        host |= {f"seconds_{name}": value for name, value in seconds.items()}
        return state, dataclasses.replace(measured, host=host)

    def _launched(self, batch: PromptBatch, params: nnx.State, step: int) -> Answers:
        """Answers that the devices are at."""
        host, hosts = batch_part(self._programs.mesh)
        share = len(batch.prompts)
        seeds = prompt_seeds(self._seed, step, share * hosts)[host * share : (host + 1) * share]
        weights = self._programs.gather(params)
        return self._programs.sample(weights, batch.rows, to_devices(seeds, self._programs.mesh))

    def _collected(self, batch: PromptBatch, drawn: Answers, began: float) -> _Rollout:
        """Waits for the answers and sends them to be rewarded."""
        answered = self._programs.answered(batch, drawn)
        queries = [batch.prompts[row].query for row in answered.filled]
        rewards = self._rewards(queries, [answered.texts[row] for row in answered.filled])
        return _Rollout(batch, drawn, answered, rewards, time.perf_counter() - began)

    def _joined(self, rollout: _Rollout) -> GroupBatch:
        """The rows of the update, with the reference's log-probabilities: the devices make them during the rewards."""
        programs, drawn = self._programs, rollout.drawn
        with jax.set_mesh(programs.mesh):
            batch = programs.join(rollout.batch.rows, drawn.tokens, drawn.lengths, drawn.log_probs)
        if self._reference is None:
            return batch
        return dataclasses.replace(batch, reference=programs.log_probs(self._reference, batch))

    def _updated(
        self, state: TrainState, batch: GroupBatch, answered: Answered, found: GroupRewards, rate: float
    ) -> tuple[TrainState, Measured, Advantages]:
        """The state after all updates from a rollout."""
        programs, settings = self._programs, self._programs.settings
        advantages = answered.advantages(found, settings.advantages)
        by_token = answered.by_token(advantages, found, settings.node_credit)
        with jax.set_mesh(programs.mesh):
            batch = programs.credit(batch, *to_devices((by_token, advantages.valid), programs.mesh))
        taken = []
        for _ in range(settings.updates):
            state, metrics = programs.update(state, batch, rate)
            taken.append(metrics)
        return state, Measured(taken[0], taken[-1], {}), advantages

    def _host_metrics(self, answered: Answered, found: GroupRewards) -> dict[str, float]:
        """Rewards of all hosts, and the share of answers that the limit cut off."""
        names = branch_names(answered.prompts, found)
        rows = self._programs.on_every_host(
            {
                "rewards": answered.all_rewards(found).astype(np.float32),
                "branch": np.array([BRANCHES.index(name) if name else -1 for name in names], np.int32),
                "cut": answered.cut.mean(axis=1, dtype=np.float32),
            }
        )
        filled = rows["branch"] >= 0
        branches = [BRANCHES[number] for number in rows["branch"][filled]]
        values = reward_metrics(rows["rewards"][filled].astype(np.float64), branches)
        return values | ({"cut": float(rows["cut"][filled].mean())} if filled.any() else {})
