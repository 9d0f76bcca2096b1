"""Prefill: what prompts are before their answers, in caches that all answers to them read."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32

from videmo_jax.model.attention import QUERIES, Cache, cached_attention
from videmo_jax.model.compute import Compute
from videmo_jax.model.language import Decoder, DecoderLayer
from videmo_jax.model.layers import products_in, rms_norm, scan_layers
from videmo_jax.model.tables import Table, look_up
from videmo_jax.model.videmo import Rows, VidEmo


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Questions:
    """Q texts that go on from each row, each a prompt of its own with what the row holds.

    Their M-RoPE ids count on from the row's largest on all three axes, as those of text after a clip do. `lengths` are
    at least 1: the last token of a question is what the first of its answer follows.
    """

    tokens: Int32[Array, "B Q U"]
    lengths: Int32[Array, "B Q"]


@dataclass(frozen=True)
class Prompts:
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


def read_rows(model: VidEmo, rows: Rows, embedding: Table, dtype: Any) -> Prompts:
    """Prefill of the rows, each as a prompt of its own."""
    held = rows.segment_ids > 0
    end = jnp.max(jnp.where(held[:, None], rows.positions, -1), axis=(1, 2)) + 1
    hidden, cached = model(rows, Compute(dtype, attention="blocks"), embedding=embedding, keep_cache=True)
    return Prompts(_last(hidden, jnp.sum(held, axis=1)), end, end > 0, [(jax.vmap(Cache.of_tokens)(*cached), held)])


def read_questions(decoder: Decoder, rows: Prompts, questions: Questions, embedding: Table) -> Prompts:
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
    return Prompts(hidden, begin + lengths, jnp.repeat(rows.present, count), [*rows.blocks, own])


def first_logits(prompts: Prompts, output: Table) -> Float[Array, "R V"]:
    """Of the token that follows each prompt: the same for all of its answers."""
    return jnp.einsum("rd,vd->rv", prompts.hidden, output.rows, preferred_element_type=jnp.float32)


def _last(x: Float[Array, "R T D"], lengths: Int32[Array, "R"]) -> Float[Array, "R D"]:
    """What stands at the last of so many tokens."""
    return jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]


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
        prompts = read_questions(model.language, read_rows(model, rows, embedding, dtype), questions, embedding)
        logits = first_logits(prompts, output)
    return jax.nn.log_softmax(logits, axis=-1)[:, tokens].reshape(*questions.lengths.shape, -1)
