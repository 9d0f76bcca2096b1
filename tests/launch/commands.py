"""Runs the commands as a user does, in processes of their own, on a small model that compiles in seconds."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SMALL_MODEL = (
    "--config.model.text.layers=1",
    "--config.model.text.width=64",
    "--config.model.text.mlp_width=64",
    "--config.model.vision.out_width=64",
    "--config.model.vision.layers=2",
    "--config.model.vision.width=32",
    "--config.model.vision.mlp_width=32",
    "--config.model.vision.full_attention=(1,)",
)


def train_arguments(workdir, data, *more, config="configs/quickstart.py"):
    return [
        "launch/train.py",
        f"--config={config}",
        f"--workdir={workdir}",
        f"--config.data.root={data}",
        "--config.batch=4",
        "--config.held_out.samples=4",
        *SMALL_MODEL,
        *more,
    ]


def start(arguments, **environment):
    """A process that runs a command of launch/; its output is kept."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(arguments, **environment):
    """Runs a command to its end: (exit code, what it printed)."""
    process = start(arguments, **environment)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output
