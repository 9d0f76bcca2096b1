"""Meshes and where arrays lie on them."""

import math

import jax
import pytest
from jax.sharding import PartitionSpec

from videmo_jax.interop.hf_names import parameters
from videmo_jax.model.config import PRESETS
from videmo_jax.sharding.rules import MESH_AXES, batch_sharding, make_mesh, partition_spec, shard_state


def test_one_axis_takes_what_is_left():
    mesh = make_mesh({"fsdp": -1, "tensor": 2})
    assert dict(mesh.shape) == {"replica": 1, "data": 1, "fsdp_x": 2, "fsdp_y": 1, "fsdp_z": 1, "tensor": 2}
    assert mesh.axis_names == MESH_AXES


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"fsdp": 3}, "does not fit 4 devices"),
        ({"fsdp": 2}, "uses 2 of 4 devices"),
        ({"fsdp": -1, "data": -1}, "one axis may be -1"),
        ({"model": 4}, "no axis"),
    ],
    ids=str,
)
def test_a_shape_that_does_not_fit_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(shape)


def test_axes_that_do_not_divide_are_left_out():
    mesh = make_mesh({"fsdp": 2, "tensor": 2})
    assert partition_spec(("embed", "kv_heads", None), (64, 2, 16), mesh) == PartitionSpec("fsdp_x", "tensor", None)
    assert partition_spec(("embed", "kv_heads", None), (63, 1, 16), mesh) == PartitionSpec(None, None, None)
    assert batch_sharding(make_mesh({"data": 2, "fsdp": 2}), (8, 3)).spec == PartitionSpec(("data", "fsdp_x"), None)


def test_every_large_weight_of_the_7b_model_is_split_over_all_devices():
    mesh = make_mesh({"fsdp": 2, "tensor": 2})
    state = parameters(PRESETS["7b"])
    for variable, layout in zip(jax.tree.leaves(state), jax.tree.leaves(shard_state(state, mesh)), strict=True):
        if variable.size > 10_000_000:
            share = layout.shard_shape(variable.shape)
            assert variable.size == 4 * math.prod(share)
