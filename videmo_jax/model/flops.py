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
    how = {"remat": remat, "vision_remat": vision_remat}
    found = packed_step_flops(config, rows, tokens, tokens, slabs, patches, **how)
    attention = _attention_products(config.text) * rows * tokens * tokens / 2
    return StepFlops(found.model - 3 * attention, found.executed)


def group_step_flops(
    config: ModelConfig,
    groups: int,
    prefix: int,
    answers: int,
    slots: int,
    slabs: int,
    patches: int,
    *,
    remat: str = "full",
    vision_remat: str = "full",
) -> StepFlops:
    """Operations of one update on rows of a prompt and its answers (`rl.rows`), attention among text included.

    Separate rows are groups of one answer: answers x groups of them.

    Args:
      config: of the model.
      groups: of the global batch, a row each.
      prefix, answers, slots: of a row: the shape that is computed, padding included.
      slabs, patches: of a row, of a slab.
      remat, vision_remat: what the backward pass computes again.
    """
    own = answers * slots
    pairs = prefix * prefix / 2 + own * (prefix + slots / 2)
    text = _Text(groups * (prefix + own), groups * own, groups * pairs)
    return _step(config, text, groups * slabs, patches, remat, vision_remat)


def packed_step_flops(
    config: ModelConfig,
    rows: int,
    tokens: int,
    answered: int,
    slabs: int,
    patches: int,
    *,
    remat: str = "full",
    vision_remat: str = "full",
) -> StepFlops:
    """Operations of one update on packed rows (`rl.rows`), attention over whole rows included.

    Args:
      config: of the model.
      rows: that are computed, over all devices.
      tokens, slabs, patches: of a row, of a row, of a slab, padding included.
      answered: tokens of a row that are of answers.
      remat, vision_remat: what the backward pass computes again.
    """
    text = _Text(rows * tokens, rows * answered, rows * tokens * tokens / 2)
    return _step(config, text, rows * slabs, patches, remat, vision_remat)


def slab_cost(config: ModelConfig, patches: int) -> float:
    """Tokens of text that cost as many operations as a slab of so many patches."""
    token, slab = _Text(1.0, 0.0, 0.0), _Text(0.0, 0.0, 0.0)
    return _step(config, slab, 1, patches, "none", "none").model / _step(config, token, 0, 0, "none", "none").model


def answers_flops(
    config: ModelConfig,
    *,
    prompts: int,
    answers: int,
    prompt_tokens: float,
    answer_tokens: float,
    slabs: float,
    patches: float,
) -> float:
    """Operations of the forward pass over prompts and the answers to them, each prompt once; nothing is padding.

    Lengths are summed; attention is that of prompts and of answers of mean length.

    Args:
      config: of the model.
      prompts: how many.
      answers: to each.
      prompt_tokens, answer_tokens, slabs, patches: of all of them.
    """
    prompt, answer = prompt_tokens / prompts, answer_tokens / (prompts * answers)
    pairs = prompt_tokens * prompt / 2 + answer_tokens * (prompt + answer / 2)
    text = _Text(prompt_tokens + answer_tokens, answer_tokens, pairs)
    return _step(config, text, slabs, patches / slabs if slabs else 0, "none", "none").model / 3


@dataclass(frozen=True)
class _Text:
    """What the decoder computes: tokens, how many of them meet the vocabulary, pairs that attention looks at."""

    tokens: float
    predicted: float
    pairs: float


def _step(config: ModelConfig, text: _Text, slabs: float, patches: float, remat: str, vision_remat: str) -> StepFlops:
    """Operations of a step over so much text and so many slabs."""
    decoder, vision = config.text, config.vision
    by_token, by_patch = _decoder_products(decoder), _vision_products(vision)
    head = 2 * decoder.width * decoder.vocab
    patch_in = 2 * vision.patch_values * vision.width
    wide = vision.width * vision.merge**2
    merger = 2 * wide * (wide + vision.out_width) / vision.merge**2
    full = len(vision.full_attention)
    inside = full * patches + (vision.layers - full) * vision.window_patches**2
    needed_attention = 4 * vision.width * inside
    count_patches = slabs * patches
    attention = _attention_products(decoder) * text.pairs
    products = decoder.layers * text.tokens * sum(by_token.values()) + text.predicted * head
    products += count_patches * (vision.layers * sum(by_patch.values()) + patch_in + merger)
    executed = 3 * products
    whole_slabs = 4 * vision.width * patches * count_patches * vision.layers
    for layers, count, again, attended, policy in (
        (decoder.layers, text.tokens, by_token, attention, remat),
        (vision.layers, count_patches, by_patch, whole_slabs, vision_remat),
    ):
        # A fused kernel's backward pass computes the scores again: 5 products for the forward pass's 2.
        executed += 3.5 * attended
        for name in _AGAIN[policy]:
            executed += attended if name == "attention" else layers * count * again[name]
    return StepFlops(3 * (products + count_patches * needed_attention + attention), executed)


def _attention_products(text: TextConfig) -> float:
    """Operations of attention in all layers, a pair of tokens."""
    return 4 * text.heads * text.head_width * text.layers


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
