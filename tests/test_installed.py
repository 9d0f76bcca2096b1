"""Bounds of pyproject.toml, held against what is installed."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import videmo_jax
from videmo_jax.installed import InstallError, check_installed

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def test_this_environment_is_what_the_project_asks_for():
    check_installed()
    check_installed(PROJECT["dependencies"])


@pytest.mark.parametrize(
    ("need", "said"),
    [
        ("jax>=99", f"jax {version('jax')} is installed; videmo-jax needs jax>=99: run pip install -e ."),
        ("numpy<1", f"numpy {version('numpy')} is installed; videmo-jax needs numpy<1"),
        ("no-such-package>=1", "no-such-package is not installed; videmo-jax needs no-such-package>=1"),
    ],
)
def test_what_does_not_suit_is_named(need, said):
    with pytest.raises(InstallError) as caught:
        check_installed(["absl-py>=2", need])
    assert str(caught.value).startswith(said)


def test_what_is_for_others_does_not_count():
    check_installed(['no-such-package; extra == "tpu"', 'no-such-package; python_version < "3"'])


def test_a_python_that_is_too_old_is_one_line():
    """The file is read by any Python 3; here one that says that it is older."""
    code = f"import sys; sys.version_info = (3, 10); exec(open({videmo_jax.__file__!r}).read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("videmo_jax needs Python 3.11 or newer")
    assert len(done.stderr.splitlines()) == 1
    assert PROJECT["requires-python"].startswith(">=3.11")
