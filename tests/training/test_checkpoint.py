"""Checkpoints: what is saved comes back, from any path, in any dtype and layout; what is not there is said."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from videmo_jax.model.config import ModelConfig, TextConfig, VisionConfig
from videmo_jax.model.videmo import VidEmo
from videmo_jax.sharding.rules import make_mesh, shard_state
from videmo_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    Meta,
    find_checkpoint,
    read_meta,
    read_tokenizer_files,
    require_fit,
    restore_params,
    steps,
)
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer

# What Orbax had begun to read when something failed.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning"
)

CONFIG = ModelConfig(
    TextConfig(32, 2, 4, 2, 8, 48, 64, (1, 1, 2), tied=False), VisionConfig(16, 2, 2, 24, 32, full_attention=(1,))
)
META = Meta(CONFIG, 3, {"seconds_per_grid": "nominal"}, {"init": "somewhere"}, "expression")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("original") / "run"
    params = nnx.state(VidEmo(CONFIG, nnx.Rngs(0)), nnx.Param)
    optimizer = make_optimizer(OptimizerSpec()).init(params)
    with Checkpoints(workdir, keep=2) as checkpoints:
        for step in (1, 2, 3):
            meta = dataclasses.replace(META, step=step)
            checkpoints.save(meta, {"tokenizer.json": "{}"}, params, optimizer, {"row": 8 * step})
    return workdir, params, optimizer


@pytest.fixture
def saved(original, tmp_path):
    """Steps 2 and 3 of a run in a folder of the test's own, with what was saved."""
    workdir, *state = original
    return shutil.copytree(workdir, tmp_path / "run"), *state


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_what_is_saved_comes_back(saved, monkeypatch):
    workdir, params, _ = saved
    assert steps(workdir) == [2, 3]
    monkeypatch.chdir(workdir.parent)
    for path in (workdir, "run", "run/checkpoints/3", workdir / "checkpoints" / "3"):
        assert find_checkpoint(path).name == "3"
        assert read_meta(path) == META
        assert read_tokenizer_files(path) == {"tokenizer.json": "{}"}
        assert equal(restore_params(path), params)


def test_parameters_come_back_in_another_dtype_and_layout(saved):
    workdir, params, _ = saved
    half = restore_params(workdir, dtype=jnp.bfloat16)
    assert equal(half, jax.tree.map(lambda p: p.astype(jnp.bfloat16), params))
    mesh = make_mesh({"fsdp": 2, "tensor": 2})
    split = restore_params(workdir, mesh=mesh)
    assert equal(split, params)
    gate = split["language"]["layers"]["gate"].get_value()
    assert gate.sharding.shard_shape(gate.shape) == (2, 16, 24)


def layout(tree, mesh=None):
    """Shapes, dtypes and places of a state, on one device or by the rules of a mesh."""
    if mesh is None:
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)
    return jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), tree, shard_state(tree, mesh)
    )


def resume(workdir, params, optimizer, mesh=None):
    """What a run that starts again finds, and what it is told."""
    said = []
    with Checkpoints(workdir, keep=2) as checkpoints:
        restored = checkpoints.restore(layout(params, mesh), layout(optimizer, mesh), said.append)
    return restored, said


def test_a_run_resumes_with_optimizer_and_data(saved):
    workdir, params, optimizer = saved
    for mesh in (None, make_mesh({"fsdp": 2, "tensor": 2}), make_mesh({"replica": 2, "fsdp": 2})):
        restored, said = resume(workdir, params, optimizer, mesh)
        assert (restored.step, restored.data, said) == (3, {"row": 24}, [])
        assert equal(restored.params, params)
        assert equal(restored.optimizer, optimizer)
        assert jax.tree.structure(restored.optimizer) == jax.tree.structure(optimizer)
        if mesh:
            down = restored.params["language"]["layers"]["down"].get_value()
            assert down.sharding.mesh == mesh and len(down.addressable_shards) == 4
    assert resume(workdir.parent / "new", params, optimizer) == (None, [])


def test_the_newest_stay_and_those_that_are_kept_for_good(saved, tmp_path):
    _, params, optimizer = saved
    with Checkpoints(tmp_path / "kept", keep=1, keep_every=3) as checkpoints:
        for step in range(1, 9):
            checkpoints.save(dataclasses.replace(META, step=step), {}, params, optimizer, {})
    assert steps(tmp_path / "kept") == [3, 6, 8]
    for wrong in ({"keep": 0}, {"keep": 1, "keep_every": -1}):
        with pytest.raises(ValueError, match="keep_every"):
            Checkpoints(tmp_path / "wrong", **wrong)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """Turns one bit of a byte, the same at every run: of a file's middle, where most of its content is."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGE = {"cut": cut, "gone": lambda path: path.unlink(), "flipped": flip}
# In every item. Beside them Orbax keeps notes that nobody reads: damage to those is none to the run.
ALWAYS_READ = {f"{item}/metadata" for item in ("meta", "data", "tokenizer", "integrity")} | {
    f"{item}/{file}" for item in ("params", "optimizer") for file in ("manifest.ocdbt", "d")
}


def files_of(checkpoint):
    """Files of a checkpoint that differ in kind: of a store's pieces the largest. By their names, or the folder's."""
    kinds = {}
    for path in sorted(
        (path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    ):
        name = path.parent if path.parent.name == "d" else path
        if path.name != "commit_success.txt":
            kinds[str(name.relative_to(checkpoint))] = path
    return kinds


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_any_file_is_noticed_or_does_not_matter(saved, tmp_path, damage):
    """What is restored is the newest step, bit for bit, or the one before, with a word about it."""
    workdir, params, optimizer = saved
    noticed = set()
    for number, (kind, path) in enumerate(files_of(workdir / "checkpoints/3").items()):
        copy = tmp_path / str(number)
        shutil.copytree(workdir, copy)
        DAMAGE[damage](copy / path.relative_to(workdir))
        restored, said = resume(copy, params, optimizer)
        assert restored.data == {"row": 8 * restored.step}, kind
        assert equal(restored.params, params) and equal(restored.optimizer, optimizer), kind
        assert (restored.step, len(said)) in ((3, 0), (2, 1)), kind
        assert (copy / "damaged/3").exists() == (restored.step == 2), kind
        noticed |= {kind} if said else set()
    assert noticed >= ALWAYS_READ


def largest(checkpoint, item):
    """The file that holds most of an item."""
    return max((checkpoint / item).rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)


def test_a_flipped_byte_makes_a_run_fall_back_and_go_on(saved):
    workdir, params, optimizer = saved
    flip(largest(workdir / "checkpoints/3", "optimizer"))
    restored, said = resume(workdir, params, optimizer)
    assert restored.step == 2
    assert "checkpoints/3: optimizer" in said[0] and "damaged/3; going on from step 2" in said[0]
    with Checkpoints(workdir, keep=2) as checkpoints:
        checkpoints.save(META, {}, params, optimizer, {"row": 24})
    assert steps(workdir) == [2, 3] and resume(workdir, params, optimizer)[0].step == 3
    for step in (2, 3):
        flip(workdir / f"checkpoints/{step}/data/metadata")
    with pytest.raises(CheckpointError, match=r"no checkpoint is sound: .*3: data .*2: data"):
        resume(workdir, params, optimizer)
    assert steps(workdir) == [2, 3]


def test_whoever_reads_weights_is_told_of_damage(saved):
    workdir = saved[0]
    checkpoint = workdir / "checkpoints/3"
    zeros = jax.tree.map(jnp.zeros_like, nnx.to_pure_dict(saved[1]))
    with ocp.StandardCheckpointer() as saver:
        saver.save(checkpoint / "other", zeros)
    shutil.rmtree(checkpoint / "params")
    (checkpoint / "other").rename(checkpoint / "params")  # whole and readable, but not what was saved
    with pytest.raises(
        CheckpointError, match=r"checkpoints/3: params language\.\S+, .* not what was saved; name another"
    ):
        restore_params(workdir)
    for item, read in (("tokenizer", read_tokenizer_files), ("meta", read_meta)):
        flip(checkpoint / item / "metadata")
        with pytest.raises(CheckpointError, match=rf"checkpoints/3: {item} .*name another checkpoint"):
            read(workdir)
    shutil.rmtree(checkpoint / "integrity")
    (checkpoint / "meta/metadata").write_text(json.dumps(META.to_json()))
    with pytest.raises(CheckpointError, match="integrity is gone"):
        restore_params(workdir)
    (checkpoint / "meta/metadata").write_text(json.dumps(META.to_json() | {"format": 1}))
    with pytest.raises(CheckpointError, match="has format 1, this version reads 2"):
        restore_params(workdir)


def test_a_run_with_another_optimizer_is_no_damage(saved):
    workdir, params, _ = saved
    other = make_optimizer(OptimizerSpec(clip_norm=0)).init(params)
    with pytest.raises(CheckpointError, match="of another shape or dtype than this run's"):
        resume(workdir, params, other)
    assert steps(workdir) == [2, 3]


def test_what_is_missing_or_another_is_named(saved, tmp_path):
    workdir = saved[0]
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        find_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"text\.layers: 2 there, 36 in the config"):
        require_fit(workdir, ModelConfig())
    require_fit(workdir, CONFIG)


def test_a_disk_without_room_is_told_in_one_line(original, tmp_path, monkeypatch):
    """Before anything is written, and before the first step of a run."""
    _, params, optimizer = original
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    told = rf"^{tmp_path}: a checkpoint takes 0\.\d+ GB, and 0\.000 GB are free; make room"
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        with pytest.raises(CheckpointError, match=told):
            checkpoints.restore(layout(params), layout(optimizer), print)
        with pytest.raises(CheckpointError, match=told):
            checkpoints.save(META, {}, params, optimizer, {})
    assert not any((tmp_path / "checkpoints").iterdir())
