"""Attention over a shared prefix: the blocks against a dense mask, the kernel (by Pallas' interpreter) against both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videmo_jax.model.shared_prefix import QUERIES, SharedPrefix, shared_prefix_attention


def random(layout, heads, kv_heads, width, prefix, lengths):
    """Queries, keys, values, weights of the result, and which slots are held: two rows, the second has nothing."""
    rng = np.random.default_rng(0)
    shapes = [(2, layout.length, count, width) for count in (heads, kv_heads, kv_heads, heads)]
    held = np.zeros((2, layout.length), bool)
    held[0, :prefix] = True
    for g, length in enumerate(lengths):
        held[0, layout.prefix + g * layout.slots :][:length] = True
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes], jnp.asarray(held)


def dense(q, k, v, held, layout):
    """By a mask of T x T, from the number of the part that each slot is in: 0 is the prefix."""
    part = np.array([0] * layout.prefix + [g + 1 for g in range(layout.answers) for _ in range(layout.slots)])
    sees = np.tril((part[None] == 0) | (part[:, None] == part[None]))
    held = np.asarray(held)
    mask = (sees & held[:, None] & held[..., None]) | np.eye(layout.length, dtype=bool)
    return jax.nn.dot_product_attention(q, k, v, mask=jnp.asarray(mask)[:, None])


def agree(kernel, layout, heads, kv_heads, width, prefix, lengths, atol):
    (q, k, v, weights), held = random(layout, heads, kv_heads, width, prefix, lengths)
    weights *= held[..., None, None]

    def ours(q, k, v):
        out = shared_prefix_attention(q, k, v, held, layout=layout, kernel=kernel, interpret=True)
        assert out.shape == q.shape
        return jnp.sum(jnp.where(held[..., None, None], out, 0) * weights), out

    def theirs(q, k, v):
        out = dense(q, k, v, held, layout)
        return jnp.sum(out * weights), out

    (_, found), slopes = jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True)(q, k, v)
    (_, expected), expected_slopes = jax.value_and_grad(theirs, argnums=(0, 1, 2), has_aux=True)(q, k, v)
    np.testing.assert_allclose(found[held], expected[held], atol=atol)
    assert bool(jnp.isfinite(found).all())
    for a, b in zip(slopes, expected_slopes, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


@pytest.mark.parametrize(
    ("layout", "prefix", "lengths"),
    [
        (SharedPrefix(20, 5, 6), 17, (6, 1, 0, 3, 5)),
        (SharedPrefix(QUERIES + 9, 3, QUERIES // 2 - 1), QUERIES + 2, (50, QUERIES // 2 - 1, 0)),
        (SharedPrefix(1, 1, 1), 1, (1,)),
    ],
    ids=["one block", "several blocks of prefix and of answers", "the smallest"],
)
def test_blocks_agree_with_a_dense_mask(layout, prefix, lengths):
    agree("xla", layout, 4, 2, 8, prefix, lengths, 1e-5)


def test_splash_agrees_with_a_dense_mask():
    # 140 + 3 x 50 = 290 slots, padded to 384: neither parts nor tiles end where the other does.
    agree("splash", SharedPrefix(140, 3, 50), 4, 2, 16, 131, (50, 7, 0), 1e-4)


def test_a_layout_that_is_not_the_rows_is_refused():
    x = jnp.zeros((1, 10, 2, 8))
    with pytest.raises(ValueError, match="rows of 10 slots are not those"):
        shared_prefix_attention(x, x, x, jnp.ones((1, 10), bool), layout=SharedPrefix(4, 2, 4))
    with pytest.raises(ValueError, match="at least 1"):
        SharedPrefix(0, 1, 1)
