"""Rewards of answers to prompts that are not trained on: how far the policy is."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from flax import nnx

from videmo_jax.data.skips import SkipLog
from videmo_jax.files.json_records import to_line
from videmo_jax.files.writing import write_text
from videmo_jax.rl.answered import Answered, branch_names
from videmo_jax.rl.plan import HELD_OUT_SEED, HeldOutPrompts
from videmo_jax.rl.programs import Programs
from videmo_jax.rl.prompts import PromptBatch, chosen
from videmo_jax.rl.rewards.reward import GroupRewards
from videmo_jax.rl.rewards.spec import BRANCHES, Query
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sharding.rules import batch_part

FOLDER = "held_out"
Line = dict[str, object]


class HeldOutRewards:
    """Measures the policy; each time the same prompts, drawn with the same random numbers or greedily."""

    def __init__(
        self,
        prompts: HeldOutPrompts,
        programs: Programs,
        rewards: Callable[[Sequence[Query], Sequence[Sequence[str]]], GroupRewards],
        batch: int,
        say: Callable[[str], object],
    ) -> None:
        """Describes the measurement.

        Args:
          prompts: which.
          programs: of the devices.
          rewards: computes them.
          batch: prompts that are answered at once, over all devices.
          say: hears of prompts that cannot be used.
        """
        self._prompts, self._programs, self._rewards, self._batch = prompts, programs, rewards, batch
        self._say = say
        decoding = programs.settings.decoding
        drawn = decoding.of(prompts.answers) if prompts.answers else Decoding(decoding.max_new_tokens)
        self._sample = programs.sampler(drawn)

    def __call__(self, params: nnx.State, step: int, folder: Path | None) -> dict[str, float]:
        """The mean reward of each branch, `held_out/BRANCH`, and the mean length, `held_out/length`.

        Also of each component of mixtures, `held_out/mixed/COMPONENT`; and, where prompts cannot be used, how many,
        `held_out/left_out`.

        Args:
          params: of the policy.
          step: that is done.
          folder: takes this host's answers with their rewards, as held_out/STEP.jsonl; None: nobody needs them.
        """
        host, hosts = batch_part(self._programs.mesh)
        skips = SkipLog(None, total=len(self._prompts.numbers), max_share=1)
        weights, lines = self._programs.gather(params), []
        found: dict[str, list[np.ndarray]] = defaultdict(list)
        for number, (batch, left_out) in enumerate(
            chosen(self._prompts.make, self._prompts.numbers, self._batch, host, hosts)
        ):
            for id, reason in left_out:
                skips.add(id, reason)
            drawn = self._programs.draw(self._programs.placed(batch), weights, HELD_OUT_SEED, number, self._sample)
            answered = self._programs.answered(drawn)
            means, more = self._rewarded(batch, answered)
            lines += more
            for name, values in self._programs.on_every_host(means).items():
                found[name].append(values)
        if folder is not None:
            write_text(folder / FOLDER / f"{step:06}.jsonl", map(to_line, lines))
        whole = {name: np.concatenate(values) for name, values in found.items()}
        means = {name: whole["reward"][whole["branch"] == number] for number, name in enumerate(BRANCHES)}
        means |= {name: rewards for name, rewards in whole.items() if name.startswith("mixed/")}
        values = {}
        for name, rewards in means.items():
            if (given := rewards[~np.isnan(rewards)]).size:
                values[f"held_out/{name}"] = float(given.mean(dtype=np.float64))
        filled = whole["branch"] >= 0
        if filled.any():
            values["held_out/length"] = float(whole["length"][filled].mean())
        if left_out := len(self._prompts.numbers) - int(filled.sum()):
            values["held_out/left_out"] = left_out
            for id, reason in list(skips.reasons.items())[:1]:
                self._say(f"{left_out} held-out prompts were left out; the first: {id}: {reason}")
        return values

    def _rewarded(self, batch: PromptBatch, answered: Answered) -> tuple[dict[str, np.ndarray], list[Line]]:
        """Of each row the reward (NaN: there is none), the branch and the length; and what to write of them."""
        found = self._rewards(answered.queries, [answered.texts[row] for row in answered.filled])
        rewards = answered.all_rewards(found)
        names = branch_names(batch.prompts, found)
        lines = [
            {
                "id": batch.prompts[row].query.id,
                "branch": names[row],
                "rewards": [None if np.isnan(value) else float(value) for value in rewards[row]],
                "answers": answered.texts[row],
                "truth": batch.prompts[row].query.truth,
            }
            for row in answered.filled
        ]
        means = {
            "reward": rewards.mean(axis=1, dtype=np.float64).astype(np.float32),
            "branch": np.array([BRANCHES.index(name) if name else -1 for name in names], np.int32),
            "length": answered.lengths.mean(axis=1, dtype=np.float32),
            **answered.all_parts(found),
        }
        return means, lines
