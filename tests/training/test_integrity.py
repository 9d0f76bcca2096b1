"""Fingerprints: the same for any layout, equal to plain arithmetic, and different after any small change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.integrity import fingerprints, is_sound, record

RANDOM = np.random.default_rng(0).standard_normal((4, 6, 8), dtype=np.float32)


def sums(array):
    (found,) = fingerprints({"x": jnp.asarray(array)}).values()
    return found["sums"]


def by_hand(array):
    """The two sums in Python's integers."""
    weighed = mixed = 0
    for place, bits in enumerate(array.reshape(-1).view(f"u{array.dtype.itemsize}").tolist()):
        weighed += bits * (2 * place + 1)
        word = bits ^ (place * 0x9E3779B1 % 2**32)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            word = (word ^ (word >> shift)) * factor % 2**32
        mixed += word ^ (word >> 16)
    return [weighed % 2**32, mixed % 2**32]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "uint8", "bool"])
def test_sums_are_those_of_the_bits(dtype):
    array = np.asarray(jnp.asarray(RANDOM).astype(dtype))
    assert sums(array) == by_hand(array)
    assert sums(array[0, 0, 0]) == by_hand(array[0, 0, :1])


def test_the_layout_does_not_matter():
    mesh = make_mesh({"replica": 1, "fsdp": 2, "tensor": 2})
    whole = fingerprints({"x": jnp.asarray(RANDOM)})
    for spec in (jax.P(), jax.P("fsdp_x"), jax.P(None, "tensor", "fsdp_x"), jax.P(("fsdp_x", "tensor"))):
        assert fingerprints({"x": jax.device_put(RANDOM, jax.NamedSharding(mesh, spec))}) == whole


def test_small_changes_show():
    found = sums(RANDOM)
    words = RANDOM.view(np.uint32)
    for place in np.ndindex(2, 2, 8):
        for bit in (0, 7, 16, 31):
            changed = words.copy()
            changed[place] ^= np.uint32(1 << bit)
            assert sums(changed.view(np.float32)) != found
    swapped = RANDOM.copy()
    swapped[0], swapped[1] = RANDOM[1], RANDOM[0]
    assert sums(swapped) != found
    assert sums(-RANDOM) != found  # an even number of highest bits: the weighed sum alone would not tell
    assert sums(RANDOM.reshape(8, 24)) == found  # the shape is kept beside the sums


def test_a_record_tells_whether_it_is_whole():
    kept = record({"params": {"a": jnp.ones(3)}}, {"meta": {"b": 1}})
    assert is_sound(kept)
    kept["held"]["arrays"]["params"]["a"]["sums"][0] += 1
    assert not is_sound(kept) and not is_sound([]) and not is_sound({"held": {}})
