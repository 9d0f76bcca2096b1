"""Weights as a CPU reads them best while it decodes: strips that lie in memory in one piece each."""

from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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


def multiply(x: Float[Array, "*B D"], kernel: Float[Array, "D F"] | Strips, dtype: Any = None) -> Float[Array, "*B F"]:
    """x @ kernel, in x's dtype unless another is given."""
    if not isinstance(kernel, Strips):
        return jnp.matmul(x, kernel, preferred_element_type=dtype)
    strips, pair, depth, width = kernel.columns.shape
    rows = jnp.broadcast_to(x.reshape(-1, depth), (strips, pair, x.size // depth, depth))
    y = jnp.einsum("spmd,spdw->spmw", rows, kernel.columns, preferred_element_type=dtype)
    return jnp.moveaxis(y, 2, 0).reshape(*x.shape[:-1], strips * pair * width)
