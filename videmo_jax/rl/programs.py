"""What a step of RL runs on the devices, and the rollout that it begins with (PAPER.md section 3)."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float32

from videmo_jax.data.pipeline import from_devices, to_devices
from videmo_jax.model.flops import slab_cost
from videmo_jax.model.videmo import Rows
from videmo_jax.rl.answered import Answered
from videmo_jax.rl.layout import Layout, cheapest_plan, most_rows
from videmo_jax.rl.plan import RlSettings
from videmo_jax.rl.prompts import PromptBatch
from videmo_jax.rl.rollout import make_gather, make_sampler, prompt_seeds
from videmo_jax.rl.rows import GroupBatch, side_by_side, with_answers
from videmo_jax.rl.step import make_log_prob_step, make_policy_step, numbers
from videmo_jax.sampling.decode import Answers
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sampling.policy import banned_ids, stop_ids
from videmo_jax.sharding.rules import batch_part, batch_shards
from videmo_jax.training.state import TrainState
from videmo_jax.training.step import BATCH_SPLIT, StepMetrics
from videmo_jax.training.trained import joined


@dataclass(frozen=True)
class Drawn:
    """Answers that the devices may still be at.

    Attributes:
      batch: the prompts.
      answers: on the devices.
      began: when they were asked for, by `time.perf_counter`.
    """

    batch: PromptBatch
    answers: Answers
    began: float

    def seconds(self) -> float:
        """Since they were asked for."""
        return time.perf_counter() - self.began


class Programs:
    """What runs on the devices, compiled when it is first called."""

    def __init__(self, settings: RlSettings, mesh: Mesh, optimizer: optax.GradientTransformation) -> None:
        shared = settings.shared
        self.mesh, self.settings = mesh, settings
        self.gather = make_gather(shared.model, mesh, shared.compute.dtype, tensor=settings.rollout_tensor)
        self.sample = self.sampler(settings.decoding)
        # The reference's forward pass is the policy's, with other parameters where they are trained.
        self.log_probs = make_log_prob_step(shared.model, mesh, shared.compute, settings.grpo.temperature)
        self.update = make_policy_step(
            shared.model, optimizer, mesh, shared.compute, shared.guard, settings.grpo, shared.trained
        )
        split = NamedSharding(mesh, BATCH_SPLIT)
        self.pack = jax.jit(_packed, out_shardings=split)  # compiled for each number of rollouts that a step takes
        self.credit = jax.jit(GroupBatch.credited, out_shardings=split)
        self._everywhere = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def placed(self, batch: PromptBatch) -> PromptBatch:
        """The batch with its rows on the devices."""
        return PromptBatch(to_devices(batch.rows, self.mesh), batch.prompts)

    def sampler(self, decoding: Decoding) -> Callable[..., Answers]:
        """The program that draws answers."""
        shared = self.settings.shared
        stops, banned = stop_ids(shared.tokenizer), banned_ids(shared.tokenizer, shared.model)
        how = {"tensor": self.settings.rollout_tensor}
        return make_sampler(shared.model, self.mesh, shared.compute.dtype, decoding, stops, banned, **how)

    def draw(
        self,
        batch: PromptBatch,
        weights: nnx.State,
        seed: int,
        step: int,
        sample: Callable[..., Answers] | None = None,
        draw: int = 0,
    ) -> Drawn:
        """Answers to the prompts of a step; returns at once.

        Args:
          batch: the prompts, on the devices.
          weights: of `gather`.
          seed, step: of the random numbers.
          sample: of `sampler`; None: that of the rollout.
          draw: rollouts of the step before this one; of the random numbers, too.
        """
        began = time.perf_counter()
        host, hosts = batch_part(self.mesh)
        share = len(batch.prompts)
        seeds = prompt_seeds(seed, step, share * hosts, draw)[host * share : (host + 1) * share]
        answers = self.begun((sample or self.sample)(weights, batch.rows, to_devices(seeds, self.mesh)))
        return Drawn(batch, answers, began)

    def answered(self, drawn: Drawn) -> Answered:
        """This host's answers; waits for them."""
        tokens, lengths = from_devices(drawn.answers.tokens), from_devices(drawn.answers.lengths)
        tokenizer = self.settings.shared.tokenizer
        return Answered(drawn.batch.prompts, tokens, lengths, tokenizer, stop_ids(tokenizer))

    def rows(
        self,
        drawn: Sequence[Drawn],
        answered: Sequence[Answered],
        reference: nnx.State | None,
        taken: Bool[np.ndarray, "B*K G"] | None = None,
    ) -> tuple[GroupBatch, float]:
        """The rows of the update, with the reference's log-probabilities, and which share of their slots holds a token.

        Returns at once; of several hosts each waits until the others have the lengths, and the devices are free.

        Args:
          drawn, answered: K rollouts, whose groups stand side by side (`rl.rows.side_by_side`).
          reference: the frozen parameters; None: nothing asks for them.
          taken: the answers that get a place, on all hosts, of B groups at most; None: those of a single rollout.
        """
        settings = self.settings
        sizes = self.on_every_host(side_by_side([each.sizes for each in answered]))
        tokens, slabs, lengths = (sizes[name].astype(np.int64) for name in ("prompt_tokens", "slabs", "lengths"))
        if taken is not None:
            tokens, lengths = np.where(taken.any(axis=1), tokens, 0), np.where(taken, lengths, 0)
        shards, (host, hosts) = batch_shards(self.mesh), batch_part(self.mesh)
        cost = slab_cost(settings.shared.model, settings.shared.budget.patches)
        row, plan = cheapest_plan(tokens, slabs, lengths, settings.packed, shards, cost)
        most = most_rows(len(tokens) // len(drawn), row, settings.drawn, shards)
        layout = plan.layout(row, settings.drawn, most, host, hosts, shards)
        with jax.set_mesh(self.mesh):
            found = tuple((each.batch.rows, each.answers) for each in drawn)
            batch = self.pack(found, to_devices(layout, self.mesh))
        batch = self.begun(batch)
        if reference is not None:
            batch = dataclasses.replace(batch, reference=self.begun(self.log_probs(reference, batch)))
        return batch, plan.filled(row, shards)

    def updated(
        self,
        state: TrainState,
        batch: GroupBatch,
        by_token: Float32[np.ndarray, "B G C"],
        valid: Bool[np.ndarray, "B G"],
        rate: float,
    ) -> tuple[TrainState, "Updates"]:
        """The state after all updates from the rows, or as it was where the guard found one of them bad.

        Args:
          state: before them; it is given up.
          batch: of `rows`.
          by_token, valid: this host's part of the advantages, and of the answers that count.
          rate: of the learning.
        """
        with jax.set_mesh(self.mesh):
            batch = self.begun(self.credit(batch, *to_devices((by_token, valid), self.mesh)))
        count, taken = self.settings.updates, []
        part, frozen = state.split(self.settings.shared.trained)
        before = jax.tree.map(jax.numpy.copy, (part.params, part.optimizer)) if count > 1 else None
        for _ in range(count):
            state, metrics = self.update(state, batch, rate)
            taken.append(metrics)
        # Each update gives its state back where it is bad; those before it were taken.
        if before and bool(taken[-1].halted):
            state = dataclasses.replace(state, params=joined(before[0], frozen), optimizer=before[1])
        return state, Updates(taken[0], taken[-1])

    def begun(self, found: Any) -> Any:
        """What a program returns at once; waited for on CPUs, where programs with collectives block each other."""
        return jax.block_until_ready(found) if self.mesh.devices.flat[0].platform == "cpu" else found

    def on_every_host(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays with this host's rows in front, as those of all hosts."""
        if jax.process_count() == 1:
            return rows
        return jax.tree.map(np.asarray, self._everywhere(to_devices(rows, self.mesh)))


def _packed(drawn: tuple[tuple[Rows, Answers], ...], layout: Layout) -> GroupBatch:
    """`with_answers` of several rollouts, side by side."""
    prompts, answers = side_by_side(drawn)
    return with_answers(prompts, answers.tokens, answers.lengths, answers.log_probs, layout)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Updates:
    """What was measured at the first and at the last update from a rollout, on the devices."""

    first: StepMetrics
    last: StepMetrics

    def numbers(self) -> dict[str, Any]:
        """Plain numbers for metrics.jsonl; waits for the devices.

        The gap between sampler and trainer is that of the first update, before which the policy was the sampler's; all
        else of the loss is of the last one.
        """
        return numbers(self.last) | {"log_prob_gap": numbers(self.first)["log_prob_gap"]}
