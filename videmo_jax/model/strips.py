"""Weights as they are read best while answers are drawn, which waits for memory: in strips, or in 8 bits."""

from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import Int8 as Int8Array

WIDTH = 64  # columns of a strip: a few vectors of the CPU, which then reads memory in order
PAIR = 2  # strips are a batch of two dimensions: XLA gives products of one such dimension to a single thread


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Strips:
    """A matrix [D, F] cut into strips of WIDTH columns, for `multiply`.

    With few rows in the other factor each weight is used a few times only, and a product waits for memory. XLA's
    kernels work on some columns at a time, which in a matrix are short pieces, one on each row: 10 GB/s of a core's 25
    where the weights of a step are more than its caches hold. In strips they are one piece: 16 GB/s. TPUs have layouts
    of their own.
    """

    columns: Float[Array, "S 2 D 64"]

    @classmethod
    def of(cls, matrix: Float[Array, "D F"]) -> Self | Float[Array, "D F"]:
        """The matrix in strips, or as it is where its columns are no multiple of PAIR * WIDTH."""
        depth, columns = matrix.shape
        if columns % (PAIR * WIDTH):
            return matrix
        return cls(matrix.reshape(depth, -1, PAIR, WIDTH).transpose(1, 2, 0, 3))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Int8:
    """A matrix [D, F] rounded to 8 bits, symmetrically, with a scale for each column, for `multiply`.

    A weight is off by at most 1/254 of the largest of its column. (As weight-only quantisation of qwix and others has
    it; activations stay as they are.)
    """

    values: Int8Array[Array, "D F"]
    scale: Float[Array, "F"]

    @classmethod
    def of(cls, matrix: Float[Array, "D F"]) -> Self:
        """The matrix, rounded."""
        wide = matrix.astype(jnp.float32)
        scale = jnp.maximum(jnp.max(jnp.abs(wide), axis=0), jnp.finfo(jnp.float32).tiny) / 127
        return cls(jnp.round(wide / scale).astype(jnp.int8), scale)


def multiply(
    x: Float[Array, "*B D"], kernel: Float[Array, "D F"] | Strips | Int8, dtype: Any = None
) -> Float[Array, "*B F"]:
    """x @ kernel, in x's dtype unless another is given."""
    if isinstance(kernel, Int8):
        product = jnp.matmul(x, kernel.values.astype(x.dtype), preferred_element_type=jnp.float32)
        return (product * kernel.scale).astype(dtype or x.dtype)
    if not isinstance(kernel, Strips):
        return jnp.matmul(x, kernel, preferred_element_type=dtype)
    strips, pair, depth, width = kernel.columns.shape
    rows = jnp.broadcast_to(x.reshape(-1, depth), (strips, pair, x.size // depth, depth))
    y = jnp.einsum("spmd,spdw->spmw", rows, kernel.columns, preferred_element_type=dtype)
    return jnp.moveaxis(y, 2, 0).reshape(*x.shape[:-1], strips * pair * width)
