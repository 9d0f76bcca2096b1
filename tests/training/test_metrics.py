"""The writer of metrics."""

import subprocess
import sys

from tests.launch.commands import ROOT


def test_it_imports_no_pytorch_where_there_is_one():
    code = "import sys, videmo_jax.training.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
