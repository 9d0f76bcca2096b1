"""Clips as pages show them."""

from videmo_jax.data.video import Clip
from videmo_jax.reports.clips import ShownClip


def shown_clip(path: str, clip: Clip, temporal_patch: int) -> ShownClip:
    """The clip's frames at the times at which the model sees them; `temporal_patch` of them make a slab."""
    slabs = -(-len(clip.frames) // temporal_patch)
    note = f"{clip.decoded_frames} frames at {clip.average_rate:.4g} a second, {slabs} slabs"
    return ShownClip(path, clip.frames, tuple((clip.indices / clip.average_rate).tolist()), note)
