"""Matrices in strips: the same products as numpy's, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from videmo_jax.model.strips import Strips, multiply


@pytest.mark.parametrize("columns", [128, 384, 100, 192])
@pytest.mark.parametrize("rows", [(8,), (2, 1), (3, 5)])
def test_product_is_that_of_the_matrix(rows: tuple[int, ...], columns: int) -> None:
    rng = np.random.default_rng(columns)
    x, matrix = rng.normal(size=(*rows, 96)), rng.normal(size=(96, columns))
    kernel = Strips.of(jnp.asarray(matrix, jnp.float32))
    assert isinstance(kernel, Strips) == (columns % 128 == 0)
    found = multiply(jnp.asarray(x, jnp.float32), kernel)
    np.testing.assert_allclose(found, x @ matrix, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("columns", [128, 100])
def test_sums_are_kept_in_the_type_that_is_asked_for(columns: int) -> None:
    kernel = Strips.of(jnp.ones((257, columns), jnp.bfloat16))
    x = jnp.ones((2, 257), jnp.bfloat16)
    assert multiply(x, kernel).dtype == jnp.bfloat16
    assert np.all(np.asarray(multiply(x, kernel, jnp.float32)) == 257)  # bfloat16 has no 257
