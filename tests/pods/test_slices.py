"""Chips and hosts of slices, by values worked by hand and by what libtpu itself says."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from videmo_jax.pods.arguments import PodError
from videmo_jax.pods.slices import GENERATIONS, SHAPES, Slice, slice_of

# Topology, chips, hosts, accelerator type, machine of GKE: from Google's tables.
TABLE = [
    ("v4:2x2x1", 4, 1, "v4-8", "ct4p-hightpu-4t"),
    ("v4:4x4x4", 64, 16, "v4-128", "ct4p-hightpu-4t"),
    ("v5p:2x2x1", 4, 1, "v5p-8", "ct5p-hightpu-4t"),
    ("v5p:2x4x4", 32, 8, "v5p-64", "ct5p-hightpu-4t"),
    ("v5p:4x4x4", 64, 16, "v5p-128", "ct5p-hightpu-4t"),
    ("v5p:8x8x16", 1024, 256, "v5p-2048", "ct5p-hightpu-4t"),
    ("v5e:1x1", 1, 1, "v5litepod-1", "ct5lp-hightpu-1t"),
    ("v5e:2x4", 8, 1, "v5litepod-8", "ct5lp-hightpu-8t"),
    ("v5e:4x4", 16, 4, "v5litepod-16", "ct5lp-hightpu-4t"),
    ("v5e:8x16", 128, 32, "v5litepod-128", "ct5lp-hightpu-4t"),
    ("v5e:16x16", 256, 64, "v5litepod-256", "ct5lp-hightpu-4t"),
    ("v6e:2x4", 8, 1, "v6e-8", "ct6e-standard-8t"),
    ("v6e:8x8", 64, 16, "v6e-64", "ct6e-standard-4t"),
]


@pytest.mark.parametrize(("name", "chips", "hosts", "booked", "machine"), TABLE)
def test_slices_are_as_google_tables_them(name, chips, hosts, booked, machine):
    found = slice_of(name)
    assert (str(found), found.chips, found.hosts) == (name, chips, hosts)
    assert (found.accelerator_type, found.machine_type) == (booked, machine)
    assert found.chips_a_host * found.hosts == found.chips


def test_libtpu_knows_the_same_chips_and_hosts():
    """All shapes but 2x4, which libtpu lays on two hosts of four chips, and Google books as one of eight."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed")
    slices = [
        Slice(name, shape) for name, spec in GENERATIONS.items() for shape in SHAPES[spec.dims] if shape != (2, 4)
    ]
    program = (
        "import json, sys\n"
        "from jax.experimental import topologies\n"
        "for name in json.load(sys.stdin):\n"
        "    devices = topologies.get_topology_desc(platform='tpu', topology_name=name).devices\n"
        "    chips = {tuple(device.coords) for device in devices}\n"
        "    print(json.dumps([len(chips), len({device.process_index for device in devices})]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(list(map(str, slices))),
        env=os.environ | {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert found == [(one.chips, one.hosts) for one in slices]


def test_gke_joins_whole_cubes_for_which_there_is_no_accelerator_type():
    odd = slice_of("v5p:4x4x12")
    assert (odd.chips, odd.hosts) == (192, 48)
    with pytest.raises(PodError, match="no accelerator type stands for this shape"):
        _ = odd.accelerator_type


WRONG = {
    "v5p": "write GENERATION:SHAPE",
    "v5p:4x4x4;rm": "write GENERATION:SHAPE",
    "v5p:٤x4x4": "write GENERATION:SHAPE",
    "v7:4x4x4": "no generation 'v7'; there are v4, v5e, v5p, v6e",
    "v5p:4x4": "v5p has 3 axes",
    "v5e:4x4x4": "v5e has 2 axes",
    "v5e:4x2": "v5e has 1x1, 2x2, 2x4",
    "v5e:16x32": "v5e has 1x1",
    "v5p:0x4x4": "v5p has 2x2x1",
    "v5p:0x0x0": "v5p has 2x2x1",
    "v5p:8x4x4": "in ascending order",
    "v5p:4x4x6": "multiples of 4",
    "v5p:16x24x24": "up to 6,144 chips",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_slice_is_refused(name):
    with pytest.raises(PodError, match=WRONG[name]) as caught:
        slice_of(name)
    assert "\n" not in str(caught.value)
