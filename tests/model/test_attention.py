"""The splash kernel, run by Pallas' interpreter, and attention by blocks of queries against XLA's own attention: packed
rows, padding, rows without tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videmo_jax.model.attention import QUERIES, kernel_for, segment_attention
from videmo_jax.model.splash import splash_attention

PACKED = np.concatenate([np.full(70, 1), np.full(41, 2), np.full(60, 3), np.zeros(29)])  # padding at the end
EMPTY = np.zeros(200)
WINDOWS = np.where(np.arange(200) < 160, np.arange(200) // 16 % 5, -1)  # windows of a slab; padding is -1


@pytest.mark.parametrize(
    ("ids", "causal", "heads", "kv_heads", "width"),
    [
        (np.stack([PACKED, EMPTY]), True, 4, 2, 16),
        (np.stack([WINDOWS, EMPTY]), False, 2, 2, 80),
    ],
    ids=["packed rows, causal, grouped heads", "windows of slabs"],
)
def test_splash_agrees_with_xla(ids, causal, heads, kv_heads, width):
    rng = np.random.default_rng(0)
    shapes = [(2, 200, count, width) for count in (heads, kv_heads, kv_heads)]
    q, k, v = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    ids = jnp.asarray(ids, jnp.int32)
    weights = jnp.asarray(rng.standard_normal(q.shape), jnp.float32)  # of each output in a loss

    def value_and_gradient(attend):
        def weighed(*x):
            out = attend(*x)
            return jnp.sum(out * weights), out

        (_, out), slopes = jax.jit(jax.value_and_grad(weighed, argnums=(0, 1, 2), has_aux=True))(q, k, v)
        return out, *slopes

    def splash(q, k, v):
        return splash_attention(q, k, v, ids, causal=causal, interpret=True)

    def xla(q, k, v):
        return segment_attention(q, k, v, ids, causal=causal)

    for ours, theirs in zip(value_and_gradient(splash), value_and_gradient(xla), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_blocks_agree_with_xla(causal):
    """Two and a half blocks of queries, with segments across their borders."""
    rng, tokens = np.random.default_rng(0), 2 * QUERIES + QUERIES // 2
    shapes = [(2, tokens, count, 16) for count in (4, 2, 2)]
    q, k, v = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    packed = np.repeat([1, 2, 3, 0], [100, tokens - 200, 60, 40])
    ids = jnp.asarray(np.stack([packed, np.zeros(tokens)]), jnp.int32)
    blocks, whole = (segment_attention(q, k, v, ids, causal=causal, kernel=kernel) for kernel in ("blocks", "xla"))
    np.testing.assert_allclose(blocks, whole, atol=2e-6)


def test_the_kernel_follows_the_platform_unless_it_is_named():
    assert [kernel_for("auto", platform) for platform in ("tpu", "gpu", "cpu")] == ["splash", "xla", "xla"]
    assert kernel_for("xla", "tpu") == "xla"
