"""What the commands share."""

import subprocess
import sys

import pytest

from tests.launch.commands import ROOT, run


@pytest.mark.parametrize("name", ["train", "compile"])
def test_help_is_no_failure_and_a_wrong_flag_is_one_line(name):
    command = [sys.executable, ROOT / "launch" / f"{name}.py"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert f"python launch/{name}.py --config " in helped.stdout + helped.stderr
    failed = subprocess.run([*command, "--no-such-flag=1"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert failed.returncode == 1 and "no-such-flag" in failed.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_platform_that_cannot_start_is_one_line_that_names_the_extra(platform, tmp_path):
    """Neither has its support installed here, or has no device."""
    arguments = ["launch/train.py", "--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}"]
    code, output = run(arguments, JAX_PLATFORMS=platform)
    last = output.splitlines()[-1]
    assert code == 1 and "Traceback" not in output
    assert last.startswith("train: jax ") and f"cannot start on {platform}" in last and f"'.[{platform}]'" in last
