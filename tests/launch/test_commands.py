"""What the commands share."""

import subprocess
import sys

import pytest

from tests.launch.commands import ROOT


@pytest.mark.parametrize("name", ["train", "compile"])
def test_help_is_no_failure_and_a_wrong_flag_is_one_line(name):
    command = [sys.executable, ROOT / "launch" / f"{name}.py"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert f"python launch/{name}.py --config " in helped.stdout + helped.stderr
    failed = subprocess.run([*command, "--no-such-flag=1"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert failed.returncode == 1 and "no-such-flag" in failed.stderr.splitlines()[-1]
