"""The next token of every answer, from its logits."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32, UInt32

from videmo_jax.files.errors import UserError


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn. The defaults are greedy; top-k and top-p act only where a temperature is set."""

    max_new_tokens: int = 2048  # tokens of an answer, its end token included (PAPER.md section 1)
    answers: int = 1  # G, answers to each prompt
    temperature: float = 0.0  # 0 is greedy
    top_k: int = 0  # keep the k likeliest tokens; 0 keeps all
    top_p: float = 1.0  # keep the likeliest tokens that together reach p
    slots: int = 0  # answers that are under way at once on a device; 0: all
    together: int = 0  # of a prompt's answers, that read its cache together and take slots together; 0: all
    int8: bool = False  # the decoder's products with weights of 8 bits, but for those that read the prompt

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.answers < 1:
            raise UserError("decoding: max_new_tokens and answers must be at least 1")
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError("decoding: temperature and top_k must not be negative, top_p must be in (0, 1]")
        if min(self.slots, self.together) < 0 or self.answers % (self.together or self.answers):
            raise UserError(
                f"decoding: slots is {self.slots}, together {self.together}; neither may be negative, and together "
                f"must divide the {self.answers} answers to a prompt"
            )
        if self.slots % (self.together or self.answers):
            raise UserError(
                f"decoding: slots is {self.slots}; it must be 0 or a multiple of the {self.together or self.answers} "
                "answers that take slots together"
            )

    def of(self, answers: int) -> "Decoding":
        """The same with so many answers to a prompt, in no more slots unless one prompt takes them."""
        return replace(self, answers=answers, together=0, slots=self.slots and max(self.slots // answers, 1) * answers)

    def shape(self, prompts: int, *, whole: bool = True) -> tuple[int, int, int]:
        """(units, lanes, W): so many lanes take one after the other units of W answers (`lanes`).

        Args:
          prompts: to which answers are drawn.
          whole: whether prompts are rows of their own; else all their answers are under way at once.
        """
        together = self.together if self.slots and self.together and whole else self.answers
        units = prompts * self.answers // together
        return units, min(units, self.slots // together) if self.slots and whole else units, together


def draw_tokens(
    logits: Float[Array, "L W V"],
    slot: Int[Array, "L"],
    numbers: Int[Array, "L W"],
    seeds: UInt32[Array, "L"],
    *,
    decoding: Decoding,
    banned_ids: tuple[int, ...],
) -> tuple[Int32[Array, "L W"], Float[Array, "L W"]]:
    """The next token of every answer and its log-probability.

    Args:
      logits: of the token.
      slot: its place in the answers.
      numbers: of the answers among those to their prompt.
      seeds: of the prompts.
      decoding: how it is drawn.
      banned_ids: tokens that are never drawn.
    """
    if decoding.temperature:
        logits = logits / decoding.temperature
    # A mask: a scatter of so few ids makes XLA lay the logits out in tiles of which 8 of 128 lanes are used.
    banned = np.isin(np.arange(logits.shape[-1]), banned_ids)
    offered = jnp.where(banned, -jnp.inf, logits)
    if decoding.temperature:
        offered = _likeliest(offered, decoding.top_k, decoding.top_p)
        token = _at_random(_picks(seeds, slot, numbers), offered)
    else:
        token = _first_largest(offered)
    chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    return token.astype(jnp.int32), chosen - jax.nn.logsumexp(logits, axis=-1)


def _picks(seeds: UInt32[Array, "L"], slot: Int[Array, "L"], numbers: Int[Array, "L W"]) -> Float[Array, "2 L W"]:
    """Two random numbers in [0, 1) for a token, by the prompt's seed, the token's place and the answer's number."""

    def of_answer(seed: Array, slot: Array, number: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), slot), number), 2)

    of_prompt = jax.vmap(of_answer, in_axes=(None, None, 0))
    return jnp.moveaxis(jax.vmap(of_prompt)(seeds, slot, numbers), -1, 0)


# Tokens that `_at_random` takes together.
_BLOCK = 128


def _at_random(picks: Float[Array, "2 L W"], logits: Float[Array, "L W V"]) -> Int32[Array, "L W"]:
    """Tokens drawn by their probability: a block of neighbours first, then one of them.

    Two random numbers for an answer, where Gumbel noise takes one and two logarithms for each token of the vocabulary:
    on the CPU that was a third of a step.
    """
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.pad(weights, [(0, 0), (0, 0), (0, -weights.shape[-1] % _BLOCK)])
    weights = weights.reshape(*weights.shape[:2], -1, _BLOCK)
    block = _by_weight(weights.sum(-1), picks[0])
    inside = _by_weight(jnp.take_along_axis(weights, block[..., None, None], axis=2)[..., 0, :], picks[1])
    return block * _BLOCK + inside


def _by_weight(weights: Float[Array, "*G C"], pick: Float[Array, "*G"]) -> Int[Array, "*G"]:
    """The first place with a weight up to which more than `pick`, in [0, 1), of all weight lies.

    Sums of float32 that are made in parallel need not rise from place to place: that a place has a weight is asked of
    the weight. Where rounding lifts `pick` to all of it, the last place with a weight is taken.
    """
    reached, places = jnp.cumsum(weights, axis=-1), jnp.arange(weights.shape[-1])
    last = jnp.max(jnp.where(weights > 0, places, 0), axis=-1, keepdims=True)
    beyond = (weights > 0) & (reached > pick[..., None] * reached[..., -1:])
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
