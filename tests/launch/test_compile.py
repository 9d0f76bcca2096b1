"""launch/compile.py as a user meets it, on a small recipe; the real ones stand in docs/slices.md."""

import importlib.util
import json

import pytest

from tests.launch.commands import run

pytestmark = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install '.[tpu]'")
SMALL = ("--config=configs/quickstart.py", "--config.compute.dtype=bfloat16", "--config.data.row.patches=128")


@pytest.mark.slow
def test_a_small_recipe_fits_a_small_slice_and_moves_what_it_must():
    code, output = run(["launch/compile.py", *SMALL, "--topology", "v5e:2x2"])
    assert code == 0, output
    told = json.loads(output.splitlines()[-1])
    assert told["fits"]
    assert told["devices"] == 4
    assert told["mesh"] == {"fsdp_x": 2, "fsdp_y": 2}
    assert 0 < told["hbm_bytes"] < told["hbm_limit"] / 10
    assert 0.8 < told["collective_factor"] < 1.3
    assert set(told["collective_bytes_by_kind"]) >= {"all-gather", "reduce-scatter"}
    assert 0 < told["mfu_bound"] < 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--topology", "v9:4x4"), "libtpu does not describe it"),
        (("--topology", "v5e:2x2", "--config.batch=6"), "batch is 6; on v5e:2x2 it must be a multiple of 4"),
        (("--topology", "v5e:2x2", "--config.mesh.fsdp=3"), "mesh"),
        ((), "topology"),
    ],
    ids=["unknown slice", "batch", "mesh", "no slice"],
)
def test_what_cannot_be_compiled_is_said_in_one_line(more, message):
    code, output = run(["launch/compile.py", *SMALL, *more])
    assert code == 1
    assert message in output.splitlines()[-1]
    assert "Traceback" not in output
