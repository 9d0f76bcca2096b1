"""Which tokens stand in which slot of the update's rows: prompts with ragged answers, several of them a row.

A plan over lengths alone, made on the hosts when a rollout is done; all make the same one. A row holds groups one after
the other, each a segment: a prompt, then its answers. A group that no row has room for is split: its prompt then stands
in several rows, each with some of its answers, and loss and gradient are those of the whole.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Int, Int32

from videmo_jax.data.packing import pack_rows
from videmo_jax.data.rows import Budget


@dataclass(frozen=True)
class Drawn:
    """Sizes of what was drawn: prompts in rows of `prompt` (P tokens), each with G answers of up to C = `slots` tokens.

    `merged` is the number of vision tokens that a slab has room for.
    """

    prompt: Budget
    answers: int
    slots: int
    merged: int

    @property
    def length(self) -> int:
        """L = P + G x C, slots of a prompt with its answers laid side by side."""
        return self.prompt.tokens + self.answers * self.slots


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layout:
    """Where each of R rows takes what stands in it from; -1: from nowhere.

    Attributes:
      tokens: places among the B x L tokens of prompts and answers.
      segment_ids: numbers of the groups of a row, 0 at padding.
      vision_shift: by how many vision tokens those of a group follow the row's first.
      slabs: places among the B x S slabs of the prompts.
      drawn: of the row's A = T answer tokens, one after the other: places among the B x G x C drawn ones.
      slots: where in the row they stand.
      before: where what predicts them stands.
    """

    tokens: Int32[Array, "R T"]
    segment_ids: Int32[Array, "R T"]
    vision_shift: Int32[Array, "R T"]
    slabs: Int32[Array, "R S"]
    drawn: Int32[Array, "R A"]
    slots: Int32[Array, "R A"]
    before: Int32[Array, "R A"]


@dataclass(frozen=True)
class _Group:
    """A prompt and those of its answers that a row holds."""

    prompt: int
    answers: tuple[int, ...]


@dataclass(frozen=True)
class RowsPlan:
    """The groups of each row, in the order in which devices take them: the first on the first device, and so on."""

    rows: tuple[tuple[_Group, ...], ...]
    tokens: Int[np.ndarray, "B"]
    slabs: Int[np.ndarray, "B"]
    lengths: Int[np.ndarray, "B G"]

    def filled(self, row: Budget, shards: int) -> float:
        """The share of slots that hold a token, of the rows that `shards` groups of devices compute."""
        held = sum(
            int(self.tokens[group.prompt]) + int(self.lengths[group.prompt, list(group.answers)].sum())
            for groups in self.rows
            for group in groups
        )
        return held / max(math.ceil(len(self.rows) / shards) * shards * row.tokens, 1)

    def layout(self, row: Budget, drawn: Drawn, most: int, host: int = 0, hosts: int = 1, shards: int = 1) -> Layout:
        """This host's share of the rows; a device has `most` / `shards` of them, those in front filled.

        Args:
          row: shape of the rows.
          drawn: what they are taken from.
          most: rows of all devices together (`most_rows`).
          host, hosts: which part of the devices is this host's.
          shards: groups of devices that have rows of their own.
        """
        each, share = most // shards, shards // hosts
        found = empty_layout(each * share, row)
        for number, groups in enumerate(self.rows):
            place, device = divmod(number, shards)
            if device // share == host:
                self._fill(found, (device % share) * each + place, groups, drawn)
        return found

    def _fill(self, into: Layout, row: int, groups: tuple[_Group, ...], drawn: Drawn) -> None:
        slot = slab = answered = 0
        for number, group in enumerate(groups, start=1):
            begin, prompt = slot, group.prompt
            first, tokens, slabs = prompt * drawn.length, int(self.tokens[prompt]), int(self.slabs[prompt])
            into.tokens[row, slot : slot + tokens] = first + np.arange(tokens)
            into.slabs[row, slab : slab + slabs] = prompt * drawn.prompt.slabs + np.arange(slabs)
            slot += tokens
            for answer in group.answers:
                length, own = int(self.lengths[prompt, answer]), answer * drawn.slots
                here, there = slice(slot, slot + length), slice(answered, answered + length)
                into.tokens[row, here] = first + drawn.prompt.tokens + own + np.arange(length)
                into.drawn[row, there] = prompt * drawn.answers * drawn.slots + own + np.arange(length)
                into.slots[row, there] = np.arange(slot, slot + length)
                into.before[row, there] = np.arange(slot - 1, slot - 1 + length)
                into.before[row, answered] = begin + tokens - 1
                slot, answered = here.stop, there.stop
            into.segment_ids[row, begin:slot] = number
            into.vision_shift[row, begin:slot] = slab * drawn.merged
            slab += slabs


def plan_rows(
    tokens: Int[np.ndarray, "B"], slabs: Int[np.ndarray, "B"], lengths: Int[np.ndarray, "B G"], row: Budget
) -> RowsPlan:
    """Packs the groups of a rollout.

    Args:
      tokens, slabs: of the prompts; 0: there is none.
      lengths: of the answers.
      row: shape of the rows; a prompt with its longest answer must fit.
    """
    groups, sizes = [], []
    for prompt in np.flatnonzero(tokens).tolist():
        held, used = [], int(tokens[prompt])
        for answer in np.flatnonzero(lengths[prompt]).tolist():
            length = int(lengths[prompt, answer])
            if used + length > row.tokens:
                groups.append(_Group(prompt, tuple(held)))
                sizes.append((used, slabs[prompt]))
                held, used = [], int(tokens[prompt])
            held.append(answer)
            used += length
        groups.append(_Group(prompt, tuple(held)))
        sizes.append((used, slabs[prompt]))
    rows: tuple[tuple[_Group, ...], ...] = ()
    if groups:
        sizes = np.array(sizes, np.int32)
        packed = pack_rows(sizes[:, 0], sizes[:, 1], Budget(row.tokens, max(row.slabs, 1), row.patches))
        rows = tuple(tuple(groups[at] for at in packed[number].tolist()) for number in range(len(packed)))
    return RowsPlan(rows, tokens, slabs, lengths)


def cheapest_plan(
    tokens: Int[np.ndarray, "B"],
    slabs: Int[np.ndarray, "B"],
    lengths: Int[np.ndarray, "B G"],
    rows: Sequence[Budget],
    shards: int,
    slab_cost: float,
) -> tuple[Budget, RowsPlan]:
    """The shape of rows that costs least for what was drawn, and the rows: all devices wait for the one with most rows.

    Args:
      tokens, slabs, lengths: as in `plan_rows`.
      rows: shapes to choose from; a program is compiled for each that is ever taken.
      shards: groups of devices that have rows of their own.
      slab_cost: tokens that cost what a slab does (`model.flops.slab_cost`).
    """

    def cost(found: tuple[Budget, RowsPlan]) -> float:
        row, plan = found
        return math.ceil(len(plan.rows) / shards) * (row.tokens + slab_cost * row.slabs)

    return min(((row, plan_rows(tokens, slabs, lengths, row)) for row in rows), key=cost)


def most_rows(batch: int, row: Budget, drawn: Drawn, shards: int) -> int:
    """Rows that suffice whatever is drawn, as many for each of the shards."""
    together = (row.tokens - drawn.prompt.tokens) // drawn.slots  # answers of any length that fit beside any prompt
    return math.ceil(batch * math.ceil(drawn.answers / together) / shards) * shards


def empty_layout(rows: int, row: Budget) -> Layout:
    """Rows that take nothing."""

    def full(width: int, value: int) -> np.ndarray:
        return np.full((rows, width), value, np.int32)

    t, s = row.tokens, row.slabs
    return Layout(full(t, -1), full(t, 0), full(t, 0), full(s, -1), full(t, -1), full(t, 0), full(t, 0))
