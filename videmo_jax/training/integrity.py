"""Fingerprints of what a checkpoint holds: TensorStore and Orbax do not notice a flipped byte.

The fingerprint of an array is a pair of 32-bit sums over its elements, each with its place in the whole array, computed
on the devices: it does not depend on how the array is laid out, and takes no memory. JSON has a SHA-256.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from videmo_jax.files.json_records import json_digest

WIDTHS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # bytes of an element -> what its bits are read as


def names(tree: Any) -> list[str]:
    """The names of a tree's leaves, in their order, such as `language.layers.gate`."""
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree.leaves_with_path(tree)]


def fingerprints(tree: Any) -> dict[str, dict[str, Any]]:
    """Shape, dtype and sums of every array of a tree, by name; of several processes all must call it.

    Args:
      tree: arrays on the devices, of elements of at most four bytes.
    """
    leaves = jax.block_until_ready(jax.tree.leaves(tree))  # on CPUs, two programs with collectives may block each other
    sums = np.asarray(_all_sums(leaves[0].sharding)(leaves)).tolist()
    return {
        name: {"shape": list(leaf.shape), "dtype": leaf.dtype.name, "sums": pair}
        for name, leaf, pair in zip(names(tree), leaves, sums, strict=True)
    }


@lru_cache(maxsize=8)
def _all_sums(sharding: jax.sharding.Sharding) -> Callable[[Sequence[jax.Array]], UInt32[Array, "n 2"]]:
    """The program that sums arrays on the devices of `sharding`; its result lies on all of them."""
    if isinstance(sharding, jax.sharding.NamedSharding):
        sharding = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.jit(lambda arrays: jnp.stack([element_sums(array) for array in arrays]), out_shardings=sharding)


@jax.jit  # traced once for arrays of one shape
def element_sums(array: jax.Array) -> UInt32[Array, "2"]:
    """Two sums modulo 2^32 over all elements.

    The first weighs the bits of an element with an odd number of its own, so that no single changed element escapes;
    the second scrambles bits and place together, so that changes of several do not cancel out. Any other damage
    escapes with a chance of 2^-64.
    """
    bits = lax.bitcast_convert_type(_plain(array), WIDTHS[array.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis in range(array.ndim):
        stride = math.prod(array.shape[axis + 1 :]) % 2**32
        place += lax.broadcasted_iota(jnp.uint32, array.shape, axis) * np.uint32(stride)
    weighed = bits * (2 * place + 1)
    return jnp.stack([jnp.sum(weighed, dtype=jnp.uint32), jnp.sum(_scramble(bits, place), dtype=jnp.uint32)])


def _plain(array: jax.Array) -> jax.Array:
    """Booleans have no bits to read."""
    return array.astype(jnp.uint8) if array.dtype == bool else array


def _scramble(bits: jax.Array, place: jax.Array) -> jax.Array:
    """A one-to-one function of `bits` for every place: multiplications and shifts of MurmurHash3's last step."""
    mixed = bits ^ (place * np.uint32(0x9E3779B1))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(16))


def record(arrays: Mapping[str, Any], objects: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept beside the items of a checkpoint: fingerprints of its trees of arrays and its JSON objects."""
    held = {
        "arrays": {item: fingerprints(tree) for item, tree in arrays.items()},
        "objects": {item: json_digest(value) for item, value in objects.items()},
    }
    return {"held": held, "sha256": json_digest(held)}


def is_sound(kept: Any) -> bool:
    """Whether a record is itself what was written."""
    return isinstance(kept, dict) and kept.keys() == {"held", "sha256"} and json_digest(kept["held"]) == kept["sha256"]


def differing(kept: Mapping[str, Any], item: str, arrays: Mapping[str, jax.Array]) -> list[str]:
    """The names of those of an item's arrays that are not what the record says."""
    expected, found = kept["held"]["arrays"][item], fingerprints(dict(arrays))
    return [name for name in arrays if found[name] != expected.get(name)]


def misshapen(kept: Mapping[str, Any], item: str, layout: Any) -> list[str]:
    """Names at which the item's arrays have not the shape and dtype of `layout`, or are there in only one of them."""
    expected = {name: (each["shape"], each["dtype"]) for name, each in kept["held"]["arrays"][item].items()}
    wanted = {
        name: (list(leaf.shape), leaf.dtype.name)
        for name, leaf in zip(names(layout), jax.tree.leaves(layout), strict=True)
    }
    return sorted(name for name in expected.keys() | wanted.keys() if expected.get(name) != wanted.get(name))
