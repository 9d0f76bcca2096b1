"""Prefill and decode in one compiled loop: G answers to each prompt over one shared prefix cache."""

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
from videmo_jax.model.language import DecoderLayer, FusedLayer
from videmo_jax.model.layers import rms_norm, take_layer
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
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    model = nnx.merge(graph, params)
    decoder, text, layers = model.language, model.config.text, model.config.text.layers
    batch, group, slots = len(rows.tokens), decoding.answers, decoding.max_new_tokens

    prompt = rows.segment_ids > 0
    last = jnp.sum(prompt, axis=1) - 1
    first_position = jnp.max(jnp.where(prompt[:, None], rows.positions, -1), axis=(1, 2)) + 1
    hidden, (keys, values) = model(rows, dtype=dtype, keep_cache=True)
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)

    decode_layers = [FusedLayer(take_layer(decoder.layers, i)) for i in range(layers)]
    prefixes = [Cache.of_prefix(keys[i], values[i]) for i in range(layers)]
    if group == 1:
        # The slots of an only answer follow its prompt's in one cache: half as many products.
        own, prefixes = [prefix.with_room(slots) for prefix in prefixes], [None] * layers
    else:
        own = [Cache.empty(batch * group, slots, text.kv_heads, text.head_width, dtype) for _ in range(layers)]
    head = decoder.table.T  # turned once, not in every step
    draw = partial(_draw, seeds=seeds, decoding=decoding, banned_ids=banned_ids)

    def next_hidden(step: Array, token: Array, own: list) -> tuple[Array, list]:
        """Feeds the token of slot `step` of every answer through the layers, over prefix and own slots."""
        positions = jnp.broadcast_to((first_position + step)[:, None, None], (batch, 3, group))
        angles = decoder.rotary_angles(positions)
        x, filled = decoder.embed(token, dtype), []
        for layer, prefix, cache in zip(decode_layers, prefixes, own, strict=True):
            x, cache = _decode_layer(layer, x, angles, step, prefix, cache, prompt)
            filled.append(cache)
        return rms_norm(x, decoder.norm, decoder.config.norm_eps), filled

    def is_stop(token: Array) -> Array:
        return jnp.isin(token, jnp.asarray(stop_ids, jnp.int32))

    def record(state: dict, step: Array, hidden: Array) -> dict:
        """Draws the token of slot `step`."""
        token, log_prob = draw(jnp.einsum("bgd,dv->bgv", hidden, head, preferred_element_type=jnp.float32), step)
        token = jnp.where(state["done"], stop_ids[0], token)
        log_prob = jnp.where(state["done"], 0.0, log_prob)
        return state | {
            "tokens": state["tokens"].at[:, :, step].set(token),
            "log_probs": state["log_probs"].at[:, :, step].set(log_prob),
            "lengths": state["lengths"] + ~state["done"],
            "done": state["done"] | is_stop(token),
        }

    def body(carry: tuple[Array, list, dict]) -> tuple[Array, list, dict]:
        step, own, state = carry
        hidden, own = next_hidden(step, state["tokens"][:, :, step], own)
        return step + 1, own, record(state, step + 1, hidden)

    def unfinished(carry: tuple[Array, list, dict]) -> Bool[Array, ""]:
        step, _, state = carry
        return (step + 1 < slots) & ~jnp.all(state["done"])

    state = {
        "tokens": jnp.full((batch, group, slots), stop_ids[0], jnp.int32),
        "log_probs": jnp.zeros((batch, group, slots), jnp.float32),
        "lengths": jnp.zeros((batch, group), jnp.int32),
        "done": jnp.zeros((batch, group), bool),
    }
    start = jnp.zeros((), jnp.int32)
    state = record(state, start, jnp.broadcast_to(hidden, (batch, group, hidden.shape[-1])))
    *_, state = lax.while_loop(unfinished, body, (start, own, state))
    return Answers(state["tokens"], state["log_probs"], state["lengths"])


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
