"""What the host makes of a rollout: texts, their rewards, and the advantage of every token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Shaped

from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.rl.advantages import Advantages, AdvantageSpec, group_advantages, token_advantages
from videmo_jax.rl.prompts import Prompt
from videmo_jax.rl.rewards.credit import spread_advantage, token_credit
from videmo_jax.rl.rewards.reward import GroupRewards
from videmo_jax.rl.rewards.spec import Query


@dataclass(frozen=True)
class Answered:
    """The answers to this host's part of a batch.

    Attributes:
      prompts: of each row; None: an empty row, whose answers mean nothing.
      tokens, lengths: as in `sampling.decode.Answers`.
      tokenizer: of the model.
      stop_ids: tokens that end an answer.
    """

    prompts: tuple[Prompt | None, ...]
    tokens: Int[np.ndarray, "B G C"]
    lengths: Int[np.ndarray, "B G"]
    tokenizer: Tokenizer
    stop_ids: tuple[int, ...]

    @property
    def filled(self) -> list[int]:
        """The rows that hold a prompt."""
        return [row for row, prompt in enumerate(self.prompts) if prompt is not None]

    @property
    def queries(self) -> list[Query]:
        """What is asked in those rows."""
        return [prompt.query for prompt in self.prompts if prompt is not None]

    @property
    def sizes(self) -> dict[str, Shaped[np.ndarray, "B ..."]]:
        """Of each row the tokens of its prompt and of each of its answers, and the slabs and patches of its clips."""
        counts = [(p.tokens, p.slabs, p.patches) if p else (0, 0, 0) for p in self.prompts]
        tokens, slabs, patches = np.array(counts, np.float32).T
        return {"prompt_tokens": tokens, "lengths": self.lengths, "slabs": slabs, "patches": patches}

    @property
    def present(self) -> Bool[np.ndarray, "B G"]:
        """Which answers there are."""
        rows = np.array([prompt is not None for prompt in self.prompts])
        return np.broadcast_to(rows[:, None], self.lengths.shape)

    @cached_property
    def cut(self) -> Bool[np.ndarray, "B G"]:
        """Which answers the limit of tokens cut off."""
        last = np.take_along_axis(self.tokens, self.lengths[..., None] - 1, axis=-1)[..., 0]
        return ~np.isin(last, self.stop_ids)

    @cached_property
    def texts(self) -> list[list[str]]:
        """The texts of all answers, without special tokens."""
        return [[self.tokenizer.decode(ids) for ids in row] for row in self._ids()]

    def _ids(self) -> list[list[list[int]]]:
        return [
            [ids[:length].tolist() for ids, length in zip(row, lengths, strict=True)]
            for row, lengths in zip(self.tokens, self.lengths, strict=True)
        ]

    def all_rewards(self, found: GroupRewards) -> Float64[np.ndarray, "B G"]:
        """The rewards of all rows, from those of the rows that hold a prompt; NaN where there are none."""
        rewards = np.full(self.lengths.shape, np.nan)
        if self.filled:  # groups that there are not have no size
            rewards[self.filled] = found.rewards
        return rewards

    def all_parts(self, found: GroupRewards) -> dict[str, Float32[np.ndarray, "B"]]:
        """`GroupRewards.parts` of all rows, NaN where there are none."""
        parts = {name: np.full(len(self.prompts), np.nan, np.float32) for name in found.parts}
        for name, means in found.parts.items():
            parts[name][self.filled] = means
        return parts

    def advantages(self, found: GroupRewards, spec: AdvantageSpec, *, mask_cut: bool = False) -> Advantages:
        """How much better each answer is than the others of its group.

        With `mask_cut` an answer that the limit cut is one of those others, and is not trained on.
        """
        advantages = group_advantages(self.all_rewards(found), self.present, spec)
        return replace(advantages, valid=advantages.valid & ~self.cut) if mask_cut else advantages

    def by_token(self, advantages: Advantages, found: GroupRewards, weight: float) -> Float32[np.ndarray, "B G C"]:
        """The advantage of every token.

        Args:
          advantages: of the answers.
          found: rewards, with node credit where `weight` is above 0.
          weight: of the costs that single tokens bear.
        """
        slots = self.tokens.shape[-1]
        if not weight:
            return token_advantages(advantages.values, slots)
        own, ids = np.full(self.tokens.shape, np.nan), self._ids()
        for row, credits in zip(self.filled, found.credit, strict=True):
            for number, spans in enumerate(credits):
                if spans is not None and advantages.valid[row, number]:
                    places = self.tokenizer.places(ids[row][number])
                    credit = token_credit(self.texts[row][number], places, spans)
                    value = float(advantages.values[row, number])
                    own[row, number, : len(places)] = spread_advantage(value, credit, weight)
        return token_advantages(advantages.values, slots, own)


def branch_names(prompts: Sequence[Prompt | None], found: GroupRewards) -> list[str]:
    """The branch of each row; "" where it is empty."""
    given = iter(found.branches)
    return [next(given) if prompt is not None else "" for prompt in prompts]
