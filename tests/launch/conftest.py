"""What the tests of several commands begin with."""

import pytest

from tests.launch.commands import run
from tests.launch.rl_runs import sft_arguments


@pytest.fixture(scope="session")
def after_sft(tmp_path_factory, synthetic):
    """A short supervised run, from which RL goes on."""
    workdir = tmp_path_factory.mktemp("sft") / "sft"
    code, output = run(sft_arguments(workdir, synthetic), JAX_NUM_CPU_DEVICES="1")
    assert code == 0, output
    return workdir
