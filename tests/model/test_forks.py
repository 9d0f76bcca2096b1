"""Attention where a segment goes on in several ways: blocks of queries and the kernel (by Pallas' interpreter) against
a dense mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videmo_jax.model.attention import QUERIES, Forks, segment_attention

# Each segment: tokens before the fork, then those of each way.
ROWS = {
    "several segments": [[17, 6, 1, 3, 5], [9], [2, 30, 1]],
    "longer than blocks": [[QUERIES + 2, 50, QUERIES + 7, 3], [60, 20, 20]],
    "the smallest": [[1, 1]],
}


def laid_out(segments, padding):
    """Segment and way of each slot, and who sees whom, of a row and of one without tokens."""
    ids = [number for number, parts in enumerate(segments, start=1) for _ in range(sum(parts))]
    of = [way for parts in segments for way, count in enumerate(parts) for _ in range(count)]
    ids, of = (np.array([x + [0] * padding, [0] * (len(x) + padding)], np.int32) for x in (ids, of))
    sees = (ids[:, :, None] == ids[:, None]) & ((of[:, None] == 0) | (of[:, :, None] == of[:, None]))
    return ids, of, np.tril(sees)


def agree(kernel, segments, padding, dtype=jnp.float32, atol=1e-5, width=16):
    ids, of, sees = laid_out(segments, padding)
    rng, shape = np.random.default_rng(0), ids.shape
    q, k, v, weights = (jnp.asarray(rng.standard_normal((*shape, n, width)), dtype) for n in (4, 2, 2, 4))
    weights *= (ids > 0)[..., None, None]
    forks = Forks(jnp.asarray(of), max(1, of.max()))

    def ours(q, k, v):
        out = segment_attention(q, k, v, jnp.asarray(ids), causal=True, kernel=kernel, forks=forks, interpret=True)
        assert out.shape == q.shape and out.dtype == dtype
        return jnp.sum(out * weights), out

    def theirs(q, k, v):
        q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
        out = jax.nn.dot_product_attention(q, k, v, mask=jnp.asarray(sees)[:, None])
        return jnp.sum(out * weights), out

    (_, found), slopes = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    (_, expected), expected_slopes = jax.jit(jax.value_and_grad(theirs, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    np.testing.assert_allclose(*(np.asarray(x, np.float32)[ids > 0] for x in (found, expected)), atol=atol)
    assert bool(jnp.isfinite(found).all())
    for a, b in zip(slopes, expected_slopes, strict=True):
        np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (a, b)), atol=3 * atol)


@pytest.mark.parametrize("segments", ROWS.values(), ids=ROWS)
def test_blocks_agree_with_a_dense_mask(segments):
    agree("xla", segments, 5)


def test_splash_agrees_with_a_dense_mask():
    # 74 + 221 slots, filled up to 384: neither parts nor tiles end where the other does; heads as wide as registers.
    agree("splash", [*ROWS["several segments"], [140, 50, 30, 1]], 0, atol=1e-4, width=128)


def test_a_bar_of_bfloat16_hides_all_that_it_must():
    agree("splash", ROWS["several segments"], 6, dtype=jnp.bfloat16, atol=0.05)
