"""What several test modules need: the golden values and, where it is at hand, the miniature Emo-CFG."""

import atexit
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from absl import flags

# Programs are compiled once for all processes of a test run: workers of xdist and commands that tests start read what
# others compiled. Set before JAX is imported.
COMPILED = "JAX_COMPILATION_CACHE_DIR"
if COMPILED not in os.environ:
    os.environ[COMPILED] = tempfile.mkdtemp(prefix="videmo-compiled-")
    atexit.register(shutil.rmtree, os.environ[COMPILED], ignore_errors=True)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
# And fast rather than well: they are small, and most run once or twice. It halves the time of many tests.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax  # noqa: E402

TESTS = Path(__file__).parent

# Meshes of several devices are tested on the CPU, split into four.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)

# Grain's worker processes read flags, which nobody parses here.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope="session")
def emo_cfg_mini() -> Path:
    """The folder of the miniature Emo-CFG; it lies beside the checkout on development machines only."""
    root = TESTS.parent.parent / "shared" / "emo_cfg_mini"
    if not root.is_dir():
        pytest.skip("emo_cfg_mini is not beside this checkout (../shared/emo_cfg_mini)")
    return root


def golden(name: str) -> dict[str, Any]:
    """Values computed outside this project, kept in tests/golden."""
    return json.loads((TESTS / "golden" / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic Emo-CFG, rendered once for all tests."""
    from videmo_jax.data.synthetic import write_synthetic

    root = tmp_path_factory.mktemp("data") / "synthetic"
    write_synthetic(root, scenes=34, seed=0)
    return root


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an emulator in this process, which epath and ArrayRecord are pointed at."""
    server_of = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
    gcsfs = pytest.importorskip("gcsfs", reason="gcsfs is not installed (extra gcs)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", endpoint)
    server = server_of.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield "gs://bucket"
    server.stop()
    gcsfs.GCSFileSystem.clear_instance_cache()
