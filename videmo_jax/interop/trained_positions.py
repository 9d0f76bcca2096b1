"""Position ids as VidEmo-JAX trains with, for transformers 4.57 and 5; needs NumPy and the model's own PyTorch.

A copy of this file lies in every exported directory; it imports nothing of VidEmo-JAX:

    sys.path.append("MODEL")
    from trained_positions import use_trained_positions
    use_trained_positions(model)  # once; then model(**inputs) and model.generate(**inputs) as ever

The temporal id of a pair of frames is floor(its number x seconds between pairs x tokens per second), the product in
float32 and the floor last; what follows an image or a video goes on at the largest id so far + 1. transformers 4.57
cuts the seconds to a whole number first; transformers 5 lets text go on at max(height, width).
"""

import inspect
from typing import Any

import numpy as np

Tensor = Any  # torch.Tensor: this file needs no import of PyTorch


def use_trained_positions(model: Any) -> None:
    """Makes a Qwen2_5_VLForConditionalGeneration compute the ids that it was trained with, in `generate`, too.

    Both lines of transformers ask `model.model.get_rope_index`; what it gives is corrected where there is an image or
    a video. `generate(position_ids=...)` would do in 5, and fails in 4.57.

    Raises:
      AttributeError: the model is of another kind, or of a transformers that asks elsewhere (before 4.52).
    """
    original = model.model.get_rope_index
    signature = inspect.signature(original)

    def get_rope_index(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        theirs, deltas = original(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments  # the lines order their arguments differently
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "attention_mask")
        ids, (images, videos, seconds, mask) = given["input_ids"], map(given.get, names)
        if images is None and videos is None:
            return theirs, deltas
        ours = trained_positions(model.config, ids, images, videos, seconds, mask).to(theirs.device)
        # A delta leads on from the largest id, and each line counts it from another length: only the id is exchanged.
        real = 1 if mask is None else (mask == 1).to(theirs.device)
        largest, before = ((each * real).amax((0, 2))[:, None] for each in (ours, theirs))
        return ours, deltas + (largest - before).to(deltas.device)

    model.model.get_rope_index = get_rope_index


def trained_positions(
    config: Any,
    input_ids: Tensor,
    image_grid_thw: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    second_per_grid_ts: Tensor | None = None,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Ids along time, height and width: 3 x B x T, as `model(position_ids=...)` takes them; 0 where padding is.

    Args:
      config: the model's.
      input_ids: B x T, from the processor, as all that follows.
      image_grid_thw: slabs, rows and columns of patches of each image.
      video_grid_thw: the same of each video.
      second_per_grid_ts: seconds from one slab (pair of frames) to the next, of each video.
      attention_mask: B x T, 1 at real tokens; without it all are.

    Raises:
      ValueError: a video has no seconds, or the tokens and the grids do not belong together.
    """
    images, videos, seconds = map(_list, (image_grid_thw, video_grid_thw, second_per_grid_ts))
    if len(seconds) != len(videos):
        raise ValueError(f"second_per_grid_ts is of {len(seconds)} videos, but there are {len(videos)}: pass it all")
    grids = {
        config.image_token_id: [(*grid, 0.0) for grid in images],
        config.video_token_id: [(*grid, step) for grid, step in zip(videos, seconds, strict=True)],
    }
    ids = np.array(input_ids.tolist())
    real = np.ones_like(ids, bool) if attention_mask is None else np.array(attention_mask.tolist()) == 1
    positions = np.zeros((3, *ids.shape), np.int64)
    for row in range(len(ids)):
        positions[:, row, real[row]] = _row(ids[row, real[row]], grids, config.vision_config)
    if left := sum(map(len, grids.values())):
        raise ValueError(f"{left} images or videos have no tokens in the text: render it with the chat template")
    return input_ids.new_tensor(positions.tolist())


def _list(values: Tensor | None) -> list:
    return [] if values is None else values.tolist() if hasattr(values, "tolist") else list(values)


def _row(ids: np.ndarray, grids: dict[int, list], vision: Any) -> np.ndarray:
    """Of one row of real tokens, 3 x T; takes its grids off the lists."""
    merge, parts, start, place = vision.spatial_merge_size, [np.zeros((3, 0), np.int64)], 0, 0
    while place < len(ids):
        if (token := int(ids[place])) in grids:
            if not grids[token]:
                raise ValueError(f"more images or videos in the text than grids: token {token} at {place} has none")
            slabs, height, width, seconds = grids[token].pop(0)
            shape = (slabs, height // merge, width // merge)
            part = np.indices(shape).reshape(3, -1)
            times = part[0].astype(np.float32) * np.float32(seconds)  # as float64 some rates land on another id
            part[0] = np.floor(times * np.float32(vision.tokens_per_second))
            if (ids[place:] == token)[: part.shape[1]].sum() != part.shape[1]:
                raise ValueError(f"a grid of {shape} merged patches does not fit the tokens from {place} on")
        else:
            length = next((n for n, id in enumerate(ids[place:].tolist()) if id in grids), len(ids) - place)
            part = np.tile(np.arange(length), (3, 1))
        parts.append(start + part)
        start, place = int(parts[-1].max()) + 1, place + part.shape[1]
    return np.concatenate(parts, axis=1)
