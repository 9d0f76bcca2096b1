"""Prefill and decode in one compiled loop: G answers to each prompt over one shared prefix cache."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32, UInt32

from videmo_jax.model.attention import Cache, cached_attention
from videmo_jax.model.compute import Compute
from videmo_jax.model.language import DecoderLayer, FusedLayer
from videmo_jax.model.layers import products_in, rms_norm, take_layer
from videmo_jax.model.tables import look_up
from videmo_jax.model.videmo import Rows, VidEmo


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn. The defaults are greedy; top-k and top-p act only where a temperature is set."""

    max_new_tokens: int = 2048  # tokens of an answer, its end token included (PAPER.md section 1)
    answers: int = 1  # G, answers to each prompt
    temperature: float = 0.0  # 0 is greedy
    top_k: int = 0  # keep the k likeliest tokens; 0 keeps all
    top_p: float = 1.0  # keep the likeliest tokens that together reach p

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.answers < 1:
            raise ValueError("decoding: max_new_tokens and answers must be at least 1")
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError("decoding: temperature and top_k must not be negative, top_p must be in (0, 1]")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Answers:
    """Answers of C slots: `lengths` tokens each, the end token included; the rest repeats the first stop id.

    `log_probs` are those of logits / temperature before top-k and top-p (of the plain logits where greedy): what a
    trainer computes for the same tokens.
    """

    tokens: Int32[Array, "B G C"]
    log_probs: Float[Array, "B G C"]
    lengths: Int32[Array, "B G"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _State:
    """What the loop knows of the answers: as in `Answers`, and which have ended."""

    tokens: Int32[Array, "B G C"]
    log_probs: Float[Array, "B G C"]
    lengths: Int32[Array, "B G"]
    done: Bool[Array, "B G"]


# (logits [B, G, V], slot) -> token and log-probability [B, G] each
Draw = Callable[[Array, Array], tuple[Array, Array]]


@partial(jax.jit, static_argnames=("graph", "decoding", "stop_ids", "banned_ids", "dtype"))
def generate(
    graph: nnx.GraphDef[VidEmo],
    params: nnx.State,
    rows: Rows,
    seeds: UInt32[Array, "B"],
    *,
    decoding: Decoding,
    stop_ids: tuple[int, ...],
    banned_ids: tuple[int, ...] = (),
    dtype: Any = jnp.float32,
) -> Answers:
    """Answers prompts.

    Args:
      graph: the model's structure, from `nnx.split`.
      params: its parameters; cast to `dtype` once.
      rows: one prompt a row, at its beginning; padding (segment 0) follows.
      seeds: of each row's random numbers, so that an answer does not depend on what else is in the batch.
      decoding: how to draw.
      stop_ids: tokens that end an answer.
      banned_ids: tokens that are never drawn, such as those that stand for pixels (trl 3847).
      dtype: of the computation.
    """
    with products_in(dtype):
        model = nnx.merge(graph, jax.tree.map(lambda p: p.astype(dtype), params))
        return _generate(
            model,
            rows,
            partial(_draw, seeds=seeds, decoding=decoding, banned_ids=banned_ids),
            decoding.answers,
            decoding.max_new_tokens,
            jnp.asarray(stop_ids, jnp.int32),
            dtype,
        )


def _generate(
    model: VidEmo,
    rows: Rows,
    draw: Draw,
    group: int,
    slots: int,
    stop_ids: Int32[Array, "E"],
    dtype: Any,
) -> Answers:
    """Prefill, then one pass of the loop for each further token, until all answers have ended."""
    decoder = model.language
    prompt = rows.segment_ids > 0
    last = jnp.sum(prompt, axis=1) - 1
    first_position = jnp.max(jnp.where(prompt[:, None], rows.positions, -1), axis=(1, 2)) + 1
    embedding, output = decoder.tables(dtype)
    hidden, cached = model(rows, Compute(dtype), embedding=embedding, keep_cache=True)
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
    layers = [FusedLayer(take_layer(decoder.layers, i)) for i in range(decoder.config.layers)]
    prefixes, caches = _caches(cached, group, slots)
    head = output.rows.T  # turned once, not in every step

    def record(state: _State, slot: Array, hidden: Array) -> _State:
        """Draws the token of `slot` for every answer."""
        token, log_prob = draw(jnp.einsum("bgd,dv->bgv", hidden, head, preferred_element_type=jnp.float32), slot)
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
        positions = jnp.broadcast_to((first_position + slot)[:, None, None], (len(prompt), 3, group))
        angles = decoder.rotary_angles(positions)
        x, filled = look_up(embedding, state.tokens[:, :, slot]), []
        for layer, prefix, cache in zip(layers, prefixes, caches, strict=True):
            x, cache = _decode_layer(layer, x, angles, slot, prefix, cache, prompt)
            filled.append(cache)
        hidden = rms_norm(x, decoder.norm, decoder.config.norm_eps)
        return slot + 1, filled, record(state, slot + 1, hidden)

    def unfinished(carry: tuple[Array, list[Cache], _State]) -> Bool[Array, ""]:
        slot, _, state = carry
        return (slot + 1 < slots) & ~jnp.all(state.done)

    shape = (len(prompt), group)
    state = _State(
        jnp.full((*shape, slots), stop_ids[0], jnp.int32),
        jnp.zeros((*shape, slots), jnp.float32),
        jnp.zeros(shape, jnp.int32),
        jnp.zeros(shape, bool),
    )
    first = jnp.zeros((), jnp.int32)
    state = record(state, first, jnp.broadcast_to(hidden, (*shape, hidden.shape[-1])))
    *_, state = lax.while_loop(unfinished, step, (first, caches, state))
    return Answers(state.tokens, state.log_probs, state.lengths)


def _caches(
    cached: tuple[Float[Array, "L B T K H"], Float[Array, "L B T K H"]], group: int, slots: int
) -> tuple[list[Cache | None], list[Cache]]:
    """For each layer the prompt's cache, and the one with the answers' `slots`.

    The slots of an only answer follow its prompt's in one cache, which saves half of the products; then there is no
    cache of the prompt's own.
    """
    prefixes = [Cache.of_prefix(keys, values) for keys, values in zip(*cached, strict=True)]
    if group == 1:
        return [None] * len(prefixes), [prefix.with_room(slots) for prefix in prefixes]
    (count, heads, _, width), dtype = prefixes[0].values.shape, prefixes[0].values.dtype
    return list(prefixes), [Cache.empty(count * group, slots, heads, width, dtype) for _ in prefixes]


def _decode_layer(
    layer: DecoderLayer,
    x: Float[Array, "B G D"],
    angles: Float[Array, "B G H/2"],
    step: Int[Array, ""],
    prefix: Cache | None,
    own: Cache,
    prompt: Bool[Array, "B T"],
) -> tuple[Float[Array, "B G D"], Cache]:
    """One layer for one new token of every answer; returns `own` with that token in slot `step`.

    Without a prefix, `own` begins with the prompt, and the answer's slots follow.
    """
    before = prompt.shape[1] if prefix is None else 0
    mask = jnp.arange(own.values.shape[2])[None] <= before + step
    if prefix is None:
        mask &= jnp.pad(prompt, [(0, 0), (0, mask.shape[1] - before)], constant_values=True)
    filled = own

    def attend(q: Array, k: Array, v: Array) -> Array:
        nonlocal filled
        filled = own.put(k, v, before + step)
        return cached_attention(q, [(filled, mask)] if prefix is None else [(prefix, prompt), (filled, mask)])

    x, _ = layer(x, angles, attend)
    return x, filled


def _draw(
    logits: Float[Array, "B G V"],
    step: Int[Array, ""],
    *,
    seeds: UInt32[Array, "B"],
    decoding: Decoding,
    banned_ids: tuple[int, ...],
) -> tuple[Int32[Array, "B G"], Float[Array, "B G"]]:
    """The next token of every answer and its log-probability."""
    if decoding.temperature:
        logits = logits / decoding.temperature
    offered = logits.at[..., np.asarray(banned_ids, np.int32)].set(-jnp.inf)
    if decoding.temperature:
        offered = _likeliest(offered, decoding.top_k, decoding.top_p)
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), step))(seeds)
        token = jax.vmap(jax.random.categorical)(keys, offered)
    else:
        token = _first_largest(offered)
    chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    return token.astype(jnp.int32), chosen - jax.nn.logsumexp(logits, axis=-1)


def _first_largest(logits: Float[Array, "B G V"]) -> Int32[Array, "B G"]:
    """argmax by two plain reductions: XLA's own, over pairs, is scalar on the CPU and takes twice as long."""
    place = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    largest = jnp.max(logits, axis=-1, keepdims=True)
    return jnp.min(jnp.where(logits == largest, place, logits.shape[-1] - 1), axis=-1)


def _likeliest(logits: Float[Array, "B G V"], top_k: int, top_p: float) -> Float[Array, "B G V"]:
    """Logits with all but the top-k, then all but the top-p tokens at -inf; the likeliest always stays."""
    if top_k:
        lowest = lax.top_k(logits, min(top_k, logits.shape[-1]))[0][..., -1:]
        logits = jnp.where(logits >= lowest, logits, -jnp.inf)
    if top_p < 1:
        ranked = -jnp.sort(-logits, axis=-1)
        probs = jax.nn.softmax(ranked, axis=-1)
        # A token stays where those before it have not reached p yet.
        kept = jnp.sum(jnp.cumsum(probs, axis=-1) - probs < top_p, axis=-1, keepdims=True)
        logits = jnp.where(logits >= jnp.take_along_axis(ranked, kept - 1, axis=-1), logits, -jnp.inf)
    return logits
