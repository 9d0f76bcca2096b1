"""Prefill and decode in one compiled loop: what several questions or several answers share is read once.

A prompt is a row, or a row with one of its Q questions: the row's clip passes the vision tower, and the row the
decoder, once for all of them. G answers go on from each prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32, UInt32

from videmo_jax.model.attention import Cache, cached_attention
from videmo_jax.model.language import DecoderLayer, FusedLayer
from videmo_jax.model.layers import products_in, rms_norm, take_layer
from videmo_jax.model.strips import Strips, multiply
from videmo_jax.model.tables import look_up
from videmo_jax.model.videmo import Rows, VidEmo
from videmo_jax.sampling.draw import Decoding, draw_tokens
from videmo_jax.sampling.prefill import Questions, first_logits, read_questions, read_rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Answers:
    """Answers of C slots: `lengths` tokens each, the end token included, 0 where there is no prompt; the rest repeats
    the first stop id.

    `log_probs` are those of logits / temperature before top-k and top-p (of the plain logits where greedy): what a
    trainer computes for the same tokens. The prompts' axes are B, or B and Q where rows have questions.
    """

    tokens: Int32[Array, "*R G C"]
    log_probs: Float[Array, "*R G C"]
    lengths: Int32[Array, "*R G"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _State:
    """What the loop knows of the answers to R prompts: as in `Answers`, and which have ended."""

    tokens: Int32[Array, "R G C"]
    log_probs: Float[Array, "R G C"]
    lengths: Int32[Array, "R G"]
    done: Bool[Array, "R G"]


# (logits [R, G, V], slot) -> token and log-probability [R, G] each
Draw = Callable[[Array, Array], tuple[Array, Array]]


@partial(jax.jit, static_argnames=("graph", "decoding", "stop_ids", "banned_ids", "dtype", "platform"))
def generate(
    graph: nnx.GraphDef[VidEmo],
    params: nnx.State,
    rows: Rows,
    seeds: UInt32[Array, "*R"],
    questions: Questions | None = None,
    *,
    decoding: Decoding,
    stop_ids: tuple[int, ...],
    banned_ids: tuple[int, ...] = (),
    dtype: Any = jnp.float32,
    platform: str | None = None,
) -> Answers:
    """Answers prompts.

    Args:
      graph: the model's structure, from `nnx.split`.
      params: its parameters; cast to `dtype` once.
      rows: one prompt a row, or the beginning that its questions share; padding (segment 0) follows. A row of padding
        alone has answers without a token, and no other answer waits for them.
      seeds: of each prompt's random numbers ([B], with questions [B, Q]), so that an answer does not depend on what
        else is in the batch.
      questions: how the prompts of a row go on; None: the rows are whole prompts.
      decoding: how to draw.
      stop_ids: tokens that end an answer.
      banned_ids: tokens that are never drawn, such as those that stand for pixels (trl 3847).
      dtype: of the computation.
      platform: whose memory the loop's weights are laid out for («tpu», «gpu», «cpu»); None: that of JAX.
    """
    model = nnx.merge(graph, jax.tree.map(lambda p: p.astype(dtype), params))
    return draw_answers(
        model,
        rows,
        seeds,
        questions,
        decoding=decoding,
        stop_ids=stop_ids,
        banned_ids=banned_ids,
        dtype=dtype,
        platform=platform or jax.default_backend(),
    )


def draw_answers(
    model: VidEmo,
    rows: Rows,
    seeds: UInt32[Array, "*R"],
    questions: Questions | None = None,
    *,
    decoding: Decoding,
    stop_ids: tuple[int, ...],
    banned_ids: tuple[int, ...],
    dtype: Any,
    platform: str,
) -> Answers:
    """`generate` within a program of the caller's; parameters are in `dtype`."""
    with products_in(dtype):
        state = _generate(
            model,
            rows,
            questions,
            partial(draw_tokens, seeds=seeds.reshape(-1), decoding=decoding, banned_ids=banned_ids),
            decoding.answers,
            decoding.max_new_tokens,
            jnp.asarray(stop_ids, jnp.int32),
            dtype,
            Strips.of if platform == "cpu" else lambda matrix: matrix,
        )
    answers = Answers(state.tokens, state.log_probs, state.lengths)
    return jax.tree.map(lambda x: x.reshape(*seeds.shape, *x.shape[1:]), answers)


def _generate(
    model: VidEmo,
    rows: Rows,
    questions: Questions | None,
    draw: Draw,
    group: int,
    slots: int,
    stop_ids: Int32[Array, "E"],
    dtype: Any,
    lay_out: Callable[[Array], Array | Strips],
) -> _State:
    """Prefill, then one pass of the loop for each further token, until all answers have ended."""
    decoder = model.language
    embedding, output = decoder.tables(dtype)
    prompts = read_rows(model, rows, embedding, dtype)
    if questions is not None:
        prompts = read_questions(decoder, prompts, questions, embedding)
    layers = [FusedLayer(take_layer(decoder.layers, i), lay_out) for i in range(decoder.config.layers)]
    shared, own, before = _caches(prompts.blocks, group, slots)
    head = lay_out(output.rows.T)  # turned once, not in every step

    def record(state: _State, slot: Array, logits: Array) -> _State:
        """Draws the token of `slot` for every answer."""
        token, log_prob = draw(output.share.joined(logits), slot)
        token = jnp.where(state.done, stop_ids[0], token)
        return _State(
            state.tokens.at[:, :, slot].set(token),
            state.log_probs.at[:, :, slot].set(jnp.where(state.done, 0.0, log_prob)),
            state.lengths + ~state.done,
            state.done | jnp.isin(token, stop_ids),
        )

    def step(carry: tuple[Array, list[Cache], _State]) -> tuple[Array, list[Cache], _State]:
        """Feeds the token of `slot` through the layers and draws the next one."""
        slot, caches, state = carry
        positions = jnp.broadcast_to((prompts.end + slot)[:, None, None], (len(prompts.end), 3, group))
        angles = decoder.rotary_angles(positions)
        place = before.shape[1] + slot
        mask = jnp.arange(caches[0].values.shape[2])[None, None] <= place
        mask &= jnp.pad(before, [(0, 0), (0, slots)], constant_values=True)[:, None]
        x, filled = look_up(embedding, state.tokens[:, :, slot]), []
        for layer, blocks, cache in zip(layers, shared, caches, strict=True):
            x, cache = _decode_layer(layer, x, angles, blocks, cache, mask, place)
            filled.append(cache)
        hidden = rms_norm(x, decoder.norm, decoder.config.norm_eps)
        return slot + 1, filled, record(state, slot + 1, multiply(hidden, head, jnp.float32))

    def unfinished(carry: tuple[Array, list[Cache], _State]) -> Bool[Array, ""]:
        slot, _, state = carry
        return (slot + 1 < slots) & ~jnp.all(state.done)

    shape = (len(prompts.end), group)
    state = _State(
        jnp.full((*shape, slots), stop_ids[0], jnp.int32),
        jnp.zeros((*shape, slots), jnp.float32),
        jnp.zeros(shape, jnp.int32),
        jnp.broadcast_to(~prompts.present[:, None], shape),
    )
    first = jnp.zeros((), jnp.int32)
    logits = first_logits(prompts, output)
    state = record(state, first, jnp.broadcast_to(logits[:, None], (*shape, logits.shape[-1])))
    *_, state = lax.while_loop(unfinished, step, (first, own, state))
    return state


# One layer's caches that are only read, each with the places that hold a token.
_Blocks = list[tuple[Cache, Bool[Array, "E 1 C"]]]


def _caches(
    blocks: list[tuple[Cache, Bool[Array, "E C"]]], group: int, slots: int
) -> tuple[list[_Blocks], list[Cache], Bool[Array, "#R C"]]:
    """For each layer what answers read, and the cache with their own `slots`; then the places before those.

    The slots of an only answer follow its prompt's last block in one cache, which saves a pair of products.
    """
    last, held = blocks[-1]
    count, prompts, heads, _, width = last.values.shape
    layers = [[(jax.tree.map(itemgetter(i), cache), mask[:, None]) for cache, mask in blocks] for i in range(count)]
    if group == 1:
        return layers, [shared.pop()[0].with_room(slots) for shared in layers], held
    empty = Cache.empty(prompts * group, slots, heads, width, last.values.dtype)
    return layers, [empty] * count, held[:1, :0]


def _decode_layer(
    layer: DecoderLayer,
    x: Float[Array, "R G D"],
    angles: Float[Array, "R G H/2"],
    shared: _Blocks,
    own: Cache,
    mask: Bool[Array, "#E 1 C"],
    place: Int[Array, ""],
) -> tuple[Float[Array, "R G D"], Cache]:
    """One layer for one new token of every answer; returns `own` with that token in `place`, which `mask` ends with."""
    filled = own

    def attend(q: Array, k: Array, v: Array) -> Array:
        nonlocal filled
        filled = own.put(*(x.reshape(-1, *x.shape[2:]) for x in (k, v)), place)
        return cached_attention(q.reshape(-1, *q.shape[2:]), [*shared, (filled, mask)]).reshape(q.shape)

    x, _ = layer(x, angles, attend)
    return x, filled
