"""Converts a random checkpoint of full size there and back; prints peak memory and time as one JSON line.

    python tests/benchmarks/convert_memory.py [--size 3b] [--dir DIR]

Needs disk space for three copies of the weights (3B: 23 GB) and removes them. Bits are random, NaNs included, and the
result must equal the beginning, tensor by tensor. Memory is sampled from /proc, so this runs on Linux.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from etils import epath

from videmo_jax.data.tokenizer import Tokenizer
from videmo_jax.interop.hf_config import model_config_to_hf
from videmo_jax.interop.hf_names import hf_tensors
from videmo_jax.interop.safetensors_files import TensorSpec, stored_tensors, write_shards
from videmo_jax.model.config import PRESETS

ROOT = Path(__file__).parents[2]
BLOCK = 1 << 25  # values at a time
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def write_random(folder: Path, size: str) -> list[TensorSpec]:
    """A Hugging Face directory of random bfloat16 bits."""
    folder.mkdir()
    config, tokenizer = PRESETS[size], Tokenizer.embedded()
    specs = [TensorSpec(tensor.name, tensor.shape, BFLOAT16) for tensor in hf_tensors(config)]
    rng = np.random.default_rng(0)

    def blocks(spec: TensorSpec) -> Iterator[np.ndarray]:
        left = spec.nbytes // 2
        while left:
            count = min(left, BLOCK)
            yield rng.integers(0, 1 << 16, count, np.uint16).view(BFLOAT16)
            left -= count

    write_shards(epath.Path(folder), specs, 4 * 10**9, blocks)
    ids = {"bos": 0, "eos": 1, "vision_start": 2, "vision_end": 3, "image": 4, "video": 5}
    (folder / "config.json").write_text(json.dumps(model_config_to_hf(config, ids, "bfloat16")))
    for name, text in tokenizer.files.items():
        (folder / name).write_text(text)
    return specs


def hashes(folder: Path) -> dict[str, str]:
    """A hash of every tensor's shape, dtype and bytes."""
    found = {}
    for name, tensor in stored_tensors(epath.Path(folder)).items():
        digest = hashlib.blake2b(f"{tensor.shape} {tensor.dtype}".encode())
        rows = max(1, BLOCK * tensor.shape[0] * 2 // tensor.nbytes)
        for start in range(0, tensor.shape[0], rows):
            digest.update(tensor.read(start, min(start + rows, tensor.shape[0])).tobytes())
        found[name] = digest.hexdigest()
    return found


def measure(*arguments: str) -> dict[str, float]:
    """Runs launch/convert.py; peak memory in MB and seconds.

    `anonymous` is the process's own memory, sampled each 20 ms; `resident` also counts the pages of mapped files
    (shared libraries), the peak by the kernel's own account.
    """
    begin, peaks = time.perf_counter(), {"RssAnon": 0, "VmHWM": 0}
    with subprocess.Popen([sys.executable, "launch/convert.py", *arguments], cwd=ROOT, stdout=sys.stderr) as process:
        while process.poll() is None:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"convert.py {arguments[0]} failed")
    return {
        "seconds": round(time.perf_counter() - begin, 1),
        "anonymous_mb": round(peaks["RssAnon"] * 1024 / 1e6),
        "resident_mb": round(peaks["VmHWM"] * 1024 / 1e6),
    }


def main() -> None:
    """Builds, converts, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(PRESETS), default="3b")
    parser.add_argument("--dir", help="where the weights go; the system's temporary directory by default")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=flags.dir) as temporary:
        folder = Path(temporary)
        specs = write_random(folder / "hf", flags.size)
        largest, total = (f(spec.nbytes for spec in specs) for f in (max, sum))
        before = hashes(folder / "hf")
        results = {
            "size": flags.size,
            "weights_mb": round(total / 1e6),
            "largest_tensor_mb": round(largest / 1e6),
            "bound_mb": round((2 * largest + 1e9) / 1e6),
            "import": measure("import", "--hf", f"{folder}/hf", "--out", f"{folder}/ckpt"),
            "export": measure("export", "--checkpoint", f"{folder}/ckpt", "--out", f"{folder}/out"),
        }
        results["bit_identical"] = hashes(folder / "out") == before
    print(json.dumps(results))


if __name__ == "__main__":
    main()
