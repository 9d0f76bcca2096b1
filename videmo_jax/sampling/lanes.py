"""Lanes of the loop that decodes: which answers are under way, and what takes their place when they have ended.

A lane holds W answers to one prompt, a unit of work. Where there are fewer lanes than units, a lane whose answers have
all ended takes the next unit of the queue, so that nobody waits for the longest answer of a batch.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32

T = TypeVar("T")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Texts:
    """U units of W answers of up to C tokens, as far as they are: as in `decode.Answers`, and which have ended."""

    tokens: Int32[Array, "U W C"]
    log_probs: Float[Array, "U W C"]
    lengths: Int32[Array, "U W"]
    done: Bool[Array, "U W"]

    @classmethod
    def empty(cls, wanted: Bool[Array, "U"], together: int, slots: int, stop: Int[Array, ""]) -> "Texts":
        """No token yet; what is not wanted has ended."""
        shape = (len(wanted), together)
        return cls(
            jnp.full((*shape, slots), stop, jnp.int32),
            jnp.zeros((*shape, slots), jnp.float32),
            jnp.zeros(shape, jnp.int32),
            jnp.broadcast_to(~wanted[:, None], shape),
        )

    @property
    def ended(self) -> Bool[Array, "U"]:
        """Which units have."""
        return jnp.all(self.done, axis=1)

    def at(self, slot: Int[Array, "U"]) -> Int32[Array, "U W"]:
        """The tokens in a slot of each unit."""
        return jnp.sum(jnp.where(self._here(slot), self.tokens, 0), axis=-1)

    def with_tokens(
        self, slot: Int[Array, "U"], token: Int[Array, "U W"], log_prob: Float[Array, "U W"], stops: Int32[Array, "E"]
    ) -> "Texts":
        """One token more in a slot of each unit; an answer ends with a stop token, or with the last slot."""
        token, here = jnp.where(self.done, stops[0], token), self._here(slot)
        return Texts(
            jnp.where(here, token[..., None], self.tokens),
            jnp.where(here, jnp.where(self.done, 0.0, log_prob)[..., None], self.log_probs),
            self.lengths + ~self.done,
            self.done | jnp.isin(token, stops) | (slot == self.tokens.shape[-1] - 1)[:, None],
        )

    def _here(self, slot: Int[Array, "U"]) -> Bool[Array, "U 1 C"]:
        """Compared with all slots: a TPU reads and writes single places one after the other."""
        return (jnp.arange(self.tokens.shape[-1]) == slot[:, None])[:, None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lanes:
    """L lanes.

    Attributes:
      unit: that a lane holds.
      slot: of the last token that its answers have.
      texts: its answers.
      prompts: what they go on from, a tree of arrays with a leading axis of lanes; None where no lane changes its unit.
    """

    unit: Int32[Array, "L"]
    slot: Int32[Array, "L"]
    texts: Texts
    prompts: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Work:
    """Lanes, the unit that is taken next, and all units, of which those in lanes are behind."""

    lanes: Lanes
    queue: Int32[Array, ""]
    units: Texts

    @classmethod
    def begun(cls, units: Texts, prompts: Any, parts: int, lanes: int) -> "Work":
        """The first units in their lanes.

        Args:
          units: with their first token.
          prompts: a tree of arrays with a leading axis of prompts, each of which has `parts` units.
          lanes: L, at most as many as units.
        """
        unit = jnp.arange(lanes, dtype=jnp.int32)
        change = lanes < len(units.tokens)
        prompts = jax.tree.map(lambda x: x[unit // parts], prompts) if change else None
        texts = jax.tree.map(lambda x: x[:lanes], units)
        return cls(Lanes(unit, jnp.zeros(lanes, jnp.int32), texts, prompts), jnp.int32(lanes), units)

    @property
    def unfinished(self) -> Bool[Array, ""]:
        """Whether a token is missing somewhere."""
        return (self.queue < len(self.units.tokens)) | ~jnp.all(self.lanes.texts.ended)

    def refilled(self, prompts: Any, parts: int) -> "Work":
        """The same with no lane waiting, unless the queue is empty; arguments as of `begun`."""

        def waits(work: Work) -> Bool[Array, ""]:
            return (work.queue < len(work.units.tokens)) & jnp.any(work.lanes.texts.ended)

        def take(work: Work) -> Work:
            lane = jnp.argmax(work.lanes.texts.ended)
            units = _put(work.units, work.lanes.unit[lane], _row(work.lanes.texts, lane))
            taken = Lanes(work.queue, jnp.int32(0), _row(units, work.queue), _row(prompts, work.queue // parts))
            return Work(_put(work.lanes, lane, taken), work.queue + 1, units)

        return lax.while_loop(waits, take, self) if len(self.lanes.unit) < len(self.units.tokens) else self

    def finished(self) -> Texts:
        """All units, those in lanes among them."""
        return jax.tree.map(lambda all, x: all.at[self.lanes.unit].set(x), self.units, self.lanes.texts)


def _row(tree: T, row: Array) -> T:
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, row, keepdims=False), tree)


def _put(tree: T, row: Array, value: T) -> T:
    return jax.tree.map(lambda x, new: lax.dynamic_update_index_in_dim(x, new, row, 0), tree, value)
