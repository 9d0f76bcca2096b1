"""Encoded samples to rows of fixed shape: tokens, segments, positions, where vision goes, what is learnt."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float32, Int32, UInt8

from videmo_jax.data.chat import Encoded
from videmo_jax.model.config import VisionConfig
from videmo_jax.model.positions import mrope_ids
from videmo_jax.model.videmo import Rows


@dataclass(frozen=True)
class Budget:
    """The shape of a row: text and vision tokens, slabs of two frames, patches of a slab."""

    tokens: int
    slabs: int
    patches: int


@dataclass(frozen=True)
class Prepared:
    """A sample ready for a row: its tokens, and for each of its videos patches [S, P, X] and their places [S, P, 2]."""

    id: str
    encoded: Encoded
    patches: tuple[UInt8[np.ndarray, "S P X"], ...] = ()
    patch_hw: tuple[Int32[np.ndarray, "S P 2"], ...] = ()

    @property
    def slabs(self) -> int:
        """Slabs of all its videos."""
        return sum(len(slabs) for slabs in self.patches)

    @property
    def needs(self) -> Budget:
        """The smallest row that holds it."""
        return Budget(len(self.encoded.tokens), self.slabs, max((slabs.shape[1] for slabs in self.patches), default=0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Rows with what is to be learnt from them: the token after each token, and whether it counts (0 or 1)."""

    rows: Rows
    targets: Int32[Array, "B T"]
    weights: Float32[Array, "B T"]


def misfit(needs: Budget, budget: Budget) -> str | None:
    """Why a sample that needs so much does not fit into a row of `budget`, or None where it does.

    Nothing is ever cut off: a cut inside a vision span breaks positions (verl 856), and a cut answer teaches to stop.
    """
    if needs.tokens > budget.tokens:
        return f"{needs.tokens} tokens, a row has {budget.tokens} (data.row.tokens)"
    if needs.slabs > budget.slabs:
        return f"{needs.slabs} slabs, a row has {budget.slabs} (data.row.slabs)"
    if needs.patches > budget.patches:
        return f"{needs.patches} patches in a slab, a row has room for {budget.patches} (data.row.patches)"
    return None


def build_row(samples: Sequence[Prepared], budget: Budget, vision: VisionConfig) -> Batch:
    """One row (without the batch axis) that holds `samples` one after the other, each a segment of its own.

    Args:
      samples: they must fit together.
      budget: the row's shape.
      vision: of the model, for the shape of patches and the time that tokens take.
    """
    t, s, p = budget.tokens, budget.slabs, budget.patches
    tokens, segment_ids, targets = (np.zeros(t, np.int32) for _ in range(3))
    weights, vision_index = np.zeros(t, np.float32), np.full(t, -1, np.int32)
    positions = np.zeros((3, t), np.int32)
    patches, patch_hw = np.zeros((s, p, vision.patch_values), np.uint8), np.full((s, p, 2), -1, np.int32)
    token, slab = 0, 0
    for number, sample in enumerate(samples, start=1):
        encoded, places = sample.encoded, []
        for clip, clip_hw in zip(sample.patches, sample.patch_hw, strict=True):
            count, width = clip.shape[:2]
            patches[slab : slab + count, :width] = clip
            patch_hw[slab : slab + count, :width] = clip_hw
            first = (np.arange(slab, slab + count) * (p // vision.merge**2))[:, None]
            places.append((first + np.arange(width // vision.merge**2)).reshape(-1))
            slab += count
        span = slice(token, token + len(encoded.tokens))
        tokens[span] = encoded.tokens
        segment_ids[span] = number
        positions[:, span] = mrope_ids(encoded.segments, tokens_per_second=vision.tokens_per_second, merge=vision.merge)
        if places:
            seen = encoded.vision >= 0
            vision_index[span][seen] = np.concatenate(places)[encoded.vision[seen]]
        # The token at i predicts the one at i + 1 of the same sample.
        targets[span][:-1] = encoded.tokens[1:]
        weights[span][:-1] = encoded.trained[1:]
        token = span.stop
    return Batch(Rows(tokens, segment_ids, positions, vision_index, patches, patch_hw), targets, weights)


def stack_rows(rows: Sequence[Batch]) -> Batch:
    """Rows to a batch: every array gets the batch axis in front."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
