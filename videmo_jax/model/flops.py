"""Floating-point operations of a training step, counted from the architecture.

A compiler's count is of no use under a loop over layers. One multiplication and one addition are two operations.
"""

from dataclasses import dataclass

from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig

# Products of a block that a policy of `model.compute.REMAT` computes again; `down` and the vision tower's last product
# never are: nothing in the backward pass needs their result.
_AGAIN = {
    "none": (),
    "dots": (),
    "attention": ("mlp_in",),
    "context": ("qkv", "out", "mlp_in"),
    "full": ("qkv", "attention", "out", "mlp_in"),
}


@dataclass(frozen=True)
class StepFlops:
    """Operations of a step over all devices.

    Attributes:
      model: of the forward pass and, twice as many, of the backward pass: products with weights, and attention within
        a slab or a window. Attention among text is left out: with samples of some 700 tokens it is about 1 %.
      executed: what the kernels really do: also what is computed again, and attention over whole rows and slabs.
    """

    model: float
    executed: float


def step_flops(
    config: ModelConfig,
    rows: int,
    tokens: int,
    slabs: int,
    patches: int,
    *,
    remat: str = "full",
    vision_remat: str = "full",
) -> StepFlops:
    """Operations of one step.

    Args:
      config: of the model.
      rows: of the global batch.
      tokens, slabs, patches: of a row, of a row, of a slab: the shape that is computed, padding included.
      remat, vision_remat: what the backward pass computes again.
    """
    text, vision = config.text, config.vision
    by_token = _decoder_products(text)
    by_patch = _vision_products(vision)
    head = 2 * text.width * text.vocab
    patch_in = 2 * vision.patch_values * vision.width
    wide = vision.width * vision.merge**2
    merger = 2 * wide * (wide + vision.out_width) / vision.merge**2
    full = len(vision.full_attention)
    inside = full * patches + (vision.layers - full) * vision.window_patches**2
    needed_attention = 4 * vision.width * inside
    count_tokens, count_patches = rows * tokens, rows * slabs * patches
    model = count_tokens * (text.layers * sum(by_token.values()) + head)
    model += count_patches * (vision.layers * sum(by_patch.values()) + patch_in + merger + needed_attention)
    causal = 4 * text.heads * text.head_width * tokens / 2
    whole_slabs = 4 * vision.width * patches
    executed = 3 * model - 3 * count_patches * needed_attention
    for layers, count, products, attention, policy in (
        (text.layers, count_tokens, by_token, causal, remat),
        (vision.layers, count_patches, by_patch, whole_slabs, vision_remat),
    ):
        again = {**products, "attention": attention}
        # A fused kernel's backward pass computes the scores again: 5 products for the forward pass's 2.
        executed += layers * count * (3.5 * attention + sum(again[name] for name in _AGAIN[policy]))
    return StepFlops(3 * model, executed)


def _decoder_products(text: TextConfig) -> dict[str, float]:
    """Operations of one layer's products, a token."""
    heads = text.heads * text.head_width
    return {
        "qkv": 2 * text.width * (heads + 2 * text.kv_heads * text.head_width),
        "out": 2 * heads * text.width,
        "mlp_in": 4 * text.width * text.mlp_width,
        "mlp_out": 2 * text.width * text.mlp_width,
    }


def _vision_products(vision: VisionConfig) -> dict[str, float]:
    """Operations of one block's products, a patch."""
    return {
        "qkv": 6 * vision.width**2,
        "out": 2 * vision.width**2,
        "mlp_in": 4 * vision.width * vision.mlp_width,
        "mlp_out": 2 * vision.width * vision.mlp_width,
    }
