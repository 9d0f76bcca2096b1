"""Prefill and decode in one compiled loop: what several questions or several answers share is read once.

A prompt is a row, or a row with one of its Q questions: the row's clip passes the vision tower, and the row the
decoder, once for all of them. G answers go on from each prompt. What an answer is depends on its prompt, its seed and
its number alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from videmo_jax.model.strips import Int8, Strips, multiply
from videmo_jax.model.tables import look_up
from videmo_jax.model.videmo import Rows, VidEmo
from videmo_jax.sampling.draw import Decoding, draw_tokens
from videmo_jax.sampling.lanes import Texts, Work
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
        texts = _generate(
            model,
            rows,
            seeds.reshape(-1),
            questions,
            decoding,
            banned_ids,
            jnp.asarray(stop_ids, jnp.int32),
            dtype,
            Int8.of if decoding.int8 else Strips.of if platform == "cpu" else lambda matrix: matrix,
        )
    shape = (*seeds.shape, decoding.answers)
    return Answers(texts.tokens.reshape(*shape, -1), texts.log_probs.reshape(*shape, -1), texts.lengths.reshape(*shape))


def _generate(
    model: VidEmo,
    rows: Rows,
    seeds: UInt32[Array, "R"],
    questions: Questions | None,
    decoding: Decoding,
    banned_ids: tuple[int, ...],
    stops: Int32[Array, "E"],
    dtype: Any,
    lay_out: Callable[[Array], Array | Strips | Int8],
) -> Texts:
    """Prefill, then one pass of the loop for each further token, until all answers have ended."""
    decoder, count = model.language, decoding.max_new_tokens
    embedding, output = decoder.tables(dtype)
    prompts = read_rows(model, rows, embedding, dtype)
    if questions is not None:
        prompts = read_questions(decoder, prompts, questions, embedding)
    units, lanes, together = decoding.shape(len(prompts.end), whole=questions is None)
    parts = decoding.answers // together  # units of a prompt

    def draw(logits: Array, unit: Array, slot: Array) -> tuple[Array, Array]:
        """The tokens of a slot of some units, and their log-probabilities."""
        numbers = unit[:, None] % parts * together + jnp.arange(together)
        return draw_tokens(
            output.share.joined(logits), slot, numbers, seeds[unit // parts], decoding=decoding, banned_ids=banned_ids
        )

    layers = [FusedLayer(take_layer(decoder.layers, i), lay_out) for i in range(decoder.config.layers)]
    head = lay_out(output.rows.T)  # turned once, not in every step
    # The slots of an only answer follow its prompt in one cache, which saves a pair of products.
    joined = decoding.answers == 1 and lanes == units
    shared, own, before = _caches(prompts.blocks, lanes * together, count, joined)
    source = shared, prompts.end
    unit, first = jnp.arange(units), jnp.zeros(units, jnp.int32)
    logits = jnp.repeat(first_logits(prompts, output)[:, None], together, axis=1)
    texts = Texts.empty(jnp.repeat(prompts.present, parts), together, count, stops[0])
    texts = texts.with_tokens(first, *draw(jnp.repeat(logits, parts, axis=0), unit, first), stops)

    def step(carry: tuple[Array, list[Cache], Work]) -> tuple[Array, list[Cache], Work]:
        """Feeds the last token of every answer through the layers and draws the next one."""
        time, caches, work = carry
        work = work.refilled(source, parts)
        lanes = work.lanes
        shared, end = lanes.prompts or source
        angles = decoder.rotary_angles(jnp.broadcast_to((end + lanes.slot)[:, None, None], (len(end), 3, together)))
        # All lanes write to one place, which goes around; a lane sees as many places before it as it has tokens.
        place = time % count
        seen = (place - jnp.arange(count)) % count <= lanes.slot[:, None]
        held = jnp.broadcast_to(before, (len(seen), before.shape[1]))
        mask = jnp.repeat(jnp.concatenate([held, seen], axis=1), together, axis=0)[:, None]
        x, filled = look_up(embedding, lanes.texts.at(lanes.slot)), []
        for layer, blocks, cache in zip(layers, shared, caches, strict=True):
            x, cache = _decode_layer(layer, x, angles, blocks, cache, mask, before.shape[1] + place)
            filled.append(cache)
        hidden = rms_norm(x, decoder.norm, decoder.config.norm_eps)
        slot = lanes.slot + 1
        drawn = draw(multiply(hidden, head, jnp.float32), lanes.unit, slot)
        lanes = replace(lanes, slot=slot, texts=lanes.texts.with_tokens(slot, *drawn, stops))
        return time + 1, filled, replace(work, lanes=lanes)

    begun = jnp.zeros((), jnp.int32), own, Work.begun(texts, source, parts, lanes)
    *_, work = lax.while_loop(lambda carry: carry[2].unfinished, step, begun)
    return work.finished()


# One layer's caches that are only read, each with the places that hold a token.
_Blocks = list[tuple[Cache, Bool[Array, "E 1 C"]]]


def _caches(
    blocks: list[tuple[Cache, Bool[Array, "E C"]]], answers: int, slots: int, joined: bool
) -> tuple[list[_Blocks], list[Cache], Bool[Array, "#R C"]]:
    """For each layer what answers read, and the cache with their own `slots`; then the places before those.

    With `joined` the slots of an answer follow its prompt's last block in one cache.
    """
    last, held = blocks[-1]
    count, _, heads, _, width = last.values.shape
    layers = [[(jax.tree.map(itemgetter(i), cache), mask[:, None]) for cache, mask in blocks] for i in range(count)]
    if joined:
        return layers, [shared.pop()[0].with_room(slots) for shared in layers], held
    return layers, [Cache.empty(answers, slots, heads, width, last.values.dtype)] * count, held[:1, :0]


def _decode_layer(
    layer: DecoderLayer,
    x: Float[Array, "L W D"],
    angles: Float[Array, "L W H/2"],
    shared: _Blocks,
    own: Cache,
    mask: Bool[Array, "E 1 C"],
    place: Int[Array, ""],
) -> tuple[Float[Array, "L W D"], Cache]:
    """One layer for one new token of every answer; returns `own` with that token in `place`, which `mask` shows."""
    filled = own

    def attend(q: Array, k: Array, v: Array) -> Array:
        nonlocal filled
        filled = own.put(*(x.reshape(-1, *x.shape[2:]) for x in (k, v)), place)
        return cached_attention(q.reshape(-1, *q.shape[2:]), [*shared, (filled, mask)]).reshape(q.shape)

    x, _ = layer(x, angles, attend)
    return x, filled
