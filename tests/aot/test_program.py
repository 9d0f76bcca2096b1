"""Memory of a compiled program, against what the compiler itself refuses; needs libtpu."""

import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from videmo_jax.aot.program import DUMP, CompileError, Work, assigned_bytes, compile_program
from videmo_jax.model.flops import StepFlops
from videmo_jax.sharding.chips import chip_of

REPORT = """Memory Space: default (color=0)
Total bytes: 1233261088 (1.15GiB)
  cumulative_size;       size;       offset; used_by_n_values; shapes_list

Memory Space: (color=1)
Total bytes: 50266112 (47.94MiB)
"""


def test_the_total_is_that_of_the_chip_memory():
    assert assigned_bytes(REPORT) == 1233261088
    with pytest.raises(CompileError, match="no total"):
        assigned_bytes(REPORT.replace("color=0", "color=3"))


def test_programs_are_compiled_with_no_option_that_training_has_not():
    """An option belongs at the `jax.jit` of a step, which launch/train.py runs and launch/compile.py compiles."""
    assert all(name.startswith("xla_dump_hlo") for name in DUMP)


@pytest.fixture(scope="module")
def compiled():
    """(layers) -> a program whose scan keeps 128 MiB and more of each layer for its backward pass, on one v5e."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu: pip install -e '.[tpu]'")
    os.environ.update(ALLOW_MULTIPLE_LIBTPU_LOAD="1", TPU_STDERR_LOG_LEVEL="3", TPU_SKIP_MDS_QUERY="1")
    device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
    mesh = Mesh(np.array([device]), ("x",))
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    tokens, width, inner = 8192, 512, 8192

    def loss(weights, x):
        def layer(x, weights):
            up, down = weights
            return x + jax.nn.silu(x @ up) @ down, None

        x, _ = lax.scan(jax.checkpoint(layer, policy=policy, prevent_cse=False), x, weights)
        return jnp.sum(jnp.square(x.astype(jnp.float32)))

    def shaped(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec()))

    def make(layers):
        given = (shaped(layers, width, inner), shaped(layers, inner, width)), shaped(tokens, width)
        return compile_program("scan", jax.jit(jax.grad(loss)), given, mesh, chip_of(device), Work(StepFlops(1, 1), 1))

    return make


@pytest.mark.slow
def test_memory_is_what_the_compiler_refuses_by(compiled):
    """What a layer costs is read off two small programs: it says which depth is the first that is refused."""
    few, more = compiled(8), compiled(16)
    assert few.fits and more.fits
    layer = (more.memory["total"] - few.memory["total"]) / 8
    assert layer > 2**27
    first = int((few.chip.hbm - few.memory["total"]) // layer) + 8
    below, above = compiled(first - 3), compiled(first + 3)
    assert below.moved is not None and above.moved is None
    assert below.memory["total"] == pytest.approx(few.memory["total"] + (first - 11) * layer, rel=0.01)
    assert below.memory["total"] < few.chip.hbm < above.memory["total"]
    assert above.memory["total"] == pytest.approx(few.memory["total"] + (first - 5) * layer, rel=0.02)
