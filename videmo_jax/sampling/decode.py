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
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32, UInt32

from videmo_jax.files.errors import UserError
from videmo_jax.model.attention import QUERIES, Cache, cached_attention
from videmo_jax.model.compute import Compute
from videmo_jax.model.language import Decoder, DecoderLayer, FusedLayer
from videmo_jax.model.layers import products_in, rms_norm, scan_layers, take_layer
from videmo_jax.model.strips import Strips, multiply
from videmo_jax.model.tables import Table, look_up
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
            raise UserError("decoding: max_new_tokens and answers must be at least 1")
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError("decoding: temperature and top_k must not be negative, top_p must be in (0, 1]")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Questions:
    """Q texts that go on from each row, each a prompt of its own with what the row holds.

    Their M-RoPE ids count on from the row's largest on all three axes, as those of text after a clip do. `lengths` are
    at least 1: the last token of a question is what the first of its answer follows.
    """

    tokens: Int32[Array, "B Q U"]
    lengths: Int32[Array, "B Q"]


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


@dataclass(frozen=True)
class _Prompts:
    """R prompts that were read.

    Attributes:
      hidden: the state after the last token of each.
      end: the M-RoPE id that follows it.
      present: whether there is one; a row of padding alone holds none.
      blocks: caches of all layers, stacked, each with the places that hold a token: what prompts share comes first, and
        the last has an entry for each prompt.
    """

    hidden: Float[Array, "R D"]
    end: Int32[Array, "R"]
    present: Bool[Array, "R"]
    blocks: list[tuple[Cache, Bool[Array, "E C"]]]


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
            partial(_draw, seeds=seeds.reshape(-1), decoding=decoding, banned_ids=banned_ids),
            decoding.answers,
            decoding.max_new_tokens,
            jnp.asarray(stop_ids, jnp.int32),
            dtype,
            Strips.of if platform == "cpu" else lambda matrix: matrix,
        )
    answers = Answers(state.tokens, state.log_probs, state.lengths)
    return jax.tree.map(lambda x: x.reshape(*seeds.shape, *x.shape[1:]), answers)


@partial(jax.jit, static_argnames=("graph", "dtype"))
def next_log_probs(
    graph: nnx.GraphDef[VidEmo],
    params: nnx.State,
    rows: Rows,
    questions: Questions,
    tokens: Int32[Array, "E"],
    *,
    dtype: Any = jnp.float32,
) -> Float[Array, "B Q E"]:
    """Log-probability of each of `tokens` as the first one of the answer to each question; else as `generate`."""
    with products_in(dtype):
        model = nnx.merge(graph, jax.tree.map(lambda p: p.astype(dtype), params))
        embedding, output = model.language.tables(dtype)
        prompts = _read_questions(model.language, _read_rows(model, rows, embedding, dtype), questions, embedding)
        logits = _first_logits(prompts, output)
    return jax.nn.log_softmax(logits, axis=-1)[:, tokens].reshape(*questions.lengths.shape, -1)


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
    prompts = _read_rows(model, rows, embedding, dtype)
    if questions is not None:
        prompts = _read_questions(decoder, prompts, questions, embedding)
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
    logits = _first_logits(prompts, output)
    state = record(state, first, jnp.broadcast_to(logits[:, None], (*shape, logits.shape[-1])))
    *_, state = lax.while_loop(unfinished, step, (first, own, state))
    return state


def _read_rows(model: VidEmo, rows: Rows, embedding: Table, dtype: Any) -> _Prompts:
    """Prefill of the rows, each as a prompt of its own."""
    held = rows.segment_ids > 0
    end = jnp.max(jnp.where(held[:, None], rows.positions, -1), axis=(1, 2)) + 1
    hidden, cached = model(rows, Compute(dtype, attention="blocks"), embedding=embedding, keep_cache=True)
    return _Prompts(_last(hidden, jnp.sum(held, axis=1)), end, end > 0, [(jax.vmap(Cache.of_tokens)(*cached), held)])


def _read_questions(decoder: Decoder, rows: _Prompts, questions: Questions, embedding: Table) -> _Prompts:
    """Prefill of the questions over the rows' caches."""
    batch, count, places = questions.tokens.shape
    tokens, lengths = questions.tokens.reshape(-1, places), questions.lengths.reshape(-1)
    ((prefix, held),) = rows.blocks
    begin, order = jnp.repeat(rows.end, count), jnp.arange(places)
    positions = jnp.broadcast_to((begin[:, None] + order)[:, None], (batch * count, 3, places))
    angles, earlier = decoder.rotary_angles(positions), (order[:, None] >= order)[None]

    together = max(QUERIES // places, 1)  # questions whose scores are in memory

    def step(layer: DecoderLayer, x: Array, prefix: Cache) -> tuple[Array, tuple[Array, Array]]:
        def attend(*qkv: Array) -> Array:
            mixed, queries = [], [x.reshape(batch, count, *x.shape[1:]) for x in qkv]
            for begin in range(0, count, together):
                q, k, v = (x[:, begin : begin + together].reshape(-1, *x.shape[2:]) for x in queries)
                blocks = [(prefix, held[:, None]), (Cache.of_tokens(k, v), earlier)]
                context = cached_attention(q.reshape(-1, *q.shape[2:]), blocks)
                mixed.append(context.reshape(batch, -1, *q.shape[1:]))
            return jnp.concatenate(mixed, axis=1).reshape(qkv[0].shape)

        return layer(x, angles, attend)

    x, cached = scan_layers(decoder.layers, step, look_up(embedding, tokens), prefix, remat="none")
    hidden = rms_norm(_last(x, lengths), decoder.norm, decoder.config.norm_eps)
    own = (jax.vmap(Cache.of_tokens)(*cached), order < lengths[:, None])
    return _Prompts(hidden, begin + lengths, jnp.repeat(rows.present, count), [*rows.blocks, own])


def _first_logits(prompts: _Prompts, output: Table) -> Float[Array, "R V"]:
    """Of the token that follows each prompt: the same for all of its answers."""
    return jnp.einsum("rd,vd->rv", prompts.hidden, output.rows, preferred_element_type=jnp.float32)


def _last(x: Float[Array, "R T D"], lengths: Int32[Array, "R"]) -> Float[Array, "R D"]:
    """What stands at the last of so many tokens."""
    return jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]


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


def _draw(
    logits: Float[Array, "R G V"],
    step: Int[Array, ""],
    *,
    seeds: UInt32[Array, "R"],
    decoding: Decoding,
    banned_ids: tuple[int, ...],
) -> tuple[Int32[Array, "R G"], Float[Array, "R G"]]:
    """The next token of every answer and its log-probability."""
    if decoding.temperature:
        logits = logits / decoding.temperature
    # A mask: a scatter of so few ids makes XLA lay the logits out in tiles of which 8 of 128 lanes are used.
    banned = np.isin(np.arange(logits.shape[-1]), banned_ids)
    offered = jnp.where(banned, -jnp.inf, logits)
    if decoding.temperature:
        offered = _likeliest(offered, decoding.top_k, decoding.top_p)
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), step))(seeds)
        token = jax.vmap(_at_random)(keys, offered)
    else:
        token = _first_largest(offered)
    chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    return token.astype(jnp.int32), chosen - jax.nn.logsumexp(logits, axis=-1)


# Tokens that `_at_random` takes together.
_BLOCK = 128


def _at_random(key: Array, logits: Float[Array, "G V"]) -> Int32[Array, "G"]:
    """Tokens drawn by their probability: a block of neighbours first, then one of them.

    Two random numbers for an answer, where Gumbel noise takes one and two logarithms for each token of the vocabulary:
    on the CPU that was a third of a step.
    """
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.pad(weights, [(0, 0), (0, -weights.shape[-1] % _BLOCK)])
    weights = weights.reshape(len(weights), -1, _BLOCK)
    pick = jax.random.uniform(key, (2, len(weights)))
    block = _by_weight(weights.sum(-1), pick[0])
    inside = _by_weight(jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0], pick[1])
    return block * _BLOCK + inside


def _by_weight(weights: Float[Array, "G C"], pick: Float[Array, "G"]) -> Int[Array, "G"]:
    """The first place with a weight up to which more than `pick`, in [0, 1), of all weight lies.

    Sums of float32 that are made in parallel need not rise from place to place: that a place has a weight is asked of
    the weight. Where rounding lifts `pick` to all of it, the last place with a weight is taken.
    """
    reached, places = jnp.cumsum(weights, axis=-1), jnp.arange(weights.shape[-1])
    last = jnp.max(jnp.where(weights > 0, places, 0), axis=-1, keepdims=True)
    beyond = (weights > 0) & (reached > pick[:, None] * reached[:, -1:])
    return jnp.min(jnp.where(beyond, places, last), axis=-1)


def _first_largest(logits: Float[Array, "R G V"]) -> Int32[Array, "R G"]:
    """argmax by two plain reductions: XLA's own, over pairs, is scalar on the CPU and takes twice as long."""
    place = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    largest = jnp.max(logits, axis=-1, keepdims=True)
    return jnp.min(jnp.where(logits == largest, place, logits.shape[-1] - 1), axis=-1)


def _likeliest(logits: Float[Array, "R G V"], top_k: int, top_p: float) -> Float[Array, "R G V"]:
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
