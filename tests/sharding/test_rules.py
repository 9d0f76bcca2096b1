"""Meshes and where arrays lie on them."""

import math
import runpy
from pathlib import Path

import jax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from tests.conftest import golden
from videmo_jax.interop.hf_names import parameters
from videmo_jax.model.config import ModelConfig
from videmo_jax.sharding.rules import MESH_AXES, batch_sharding, make_mesh, mesh_axes, partition_spec, rings_of

CONFIGS = Path(__file__).parents[2] / "configs"


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


# Meshes of the recipes' slices, by the devices along replica, data, the rings of fsdp, and tensor.
MESHES = {
    "videmo_3b_sft.py:v5e-4x4": (1, 1, 4, 4, 1, 1),
    "videmo_7b_sft.py:v5p-4x4x4": (1, 1, 4, 4, 4, 1),
    "videmo_7b_sft.py:v6e-8x8": (1, 1, 8, 8, 1, 1),
    "videmo_7b_sft.py:v5e-16x16": (1, 1, 16, 8, 1, 2),
    "videmo_7b_sft.py:v5e-8x16-2": (2, 1, 16, 4, 1, 2),
    "videmo_72b_sft.py:v5p-8x8x16": (1, 1, 16, 8, 1, 8),
}


def recipe(name):
    """The config of `FILE:ARG`."""
    file, arg = name.split(":")
    return runpy.run_path(str(CONFIGS / file))["get_config"](arg)


@pytest.mark.parametrize("name", MESHES)
def test_the_sharding_of_every_parameter_is_that_of_the_snapshot(name):
    """Deliberate changes are taken over by writing `layout` of all recipes into tests/golden/sharding.json."""
    assert layout(name) == golden("sharding")[name]


def layout(name):
    """«shape: split dimensions» of every parameter, by its name."""
    mesh = AbstractMesh(MESHES[name], MESH_AXES)
    state = parameters(ModelConfig.from_json(recipe(name).model.to_dict()))
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state, is_leaf=lambda x: isinstance(x, nnx.Variable)):
        shape = leaf.get_value().shape
        spec = partition_spec(leaf.get_metadata("out_sharding"), shape, mesh)
        split = [f"{d} by {'+'.join(mesh_axes(spec, d))}" for d in range(len(shape)) if mesh_axes(spec, d)]
        names = ".".join(str(key.key) for key in path)
        found[names] = f"{'x'.join(map(str, shape))}: {', '.join(split) or 'everywhere'}"
    return found


@pytest.mark.parametrize("name", MESHES)
def test_recipes_name_a_slice_whose_mesh_they_fill(name):
    config, sizes = recipe(name), MESHES[name]
    torus = [int(size) for size in name.split("-")[1].split("x")]
    replica, data, *rings, tensor = sizes
    wanted = config.mesh.to_dict()
    assert (wanted["replica"], wanted["data"], wanted["fsdp"], wanted["tensor"]) == (
        replica,
        data,
        math.prod(rings),
        tensor,
    )
    inside = replica // 2 if name.endswith("-2") else replica
    assert rings_of(math.prod(rings), (tensor, data, inside), torus) == tuple(rings)
    assert config.batch % (replica * data * math.prod(rings) * config.compute.microbatches) == 0
    assert config.slice == name.split(":")[1]
    assert tuple(config.curriculum) == ("attribute", "expression", "emotion")


def test_a_recipe_takes_a_slice_a_stage_or_both():
    assert recipe("videmo_7b_sft.py:v6e-8x8,stage2").only == "expression"
    assert recipe("videmo_7b_sft.py:stage1").slice == "v5p-4x4x4"
    with pytest.raises(ValueError, match="no stage and no slice; there are stage1 to stage3, v5p-4x4x4"):
        recipe("videmo_7b_sft.py:v5p-4x4")
    with pytest.raises(ValueError, match="more than one"):
        recipe("videmo_7b_sft.py:v6e-8x8,v5e-16x16")
