"""Runs the commands as a user does, in processes of their own, on a small model that compiles in seconds."""

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
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


def start(arguments, output=subprocess.PIPE, **environment):
    """A process that runs a command of launch/; its output is kept, or goes to a file."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )


class Pair:
    """Two processes that train as one, each with four CPU devices; a context manager ends them."""

    def __init__(self, arguments, folder, **environment):
        """Starts them; what they print goes to files in `folder`."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self._outputs = [tempfile.TemporaryFile("w+", dir=folder) for _ in range(2)]  # noqa: SIM115
        environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_NUM_CPU_DEVICES": "4"}
        # JAX writes its cache of programs in the first process alone, and the second, which compiles, may order its
        # collectives otherwise on CPUs.
        environment |= {"JAX_ENABLE_COMPILATION_CACHE": "0"}
        self.processes = [
            start(arguments, output, **environment, JAX_PROCESS_ID=str(number))
            for number, output in enumerate(self._outputs)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process, output in zip(self.processes, self._outputs, strict=True):
            process.kill()
            process.wait()
            output.close()

    def output(self, number):
        """What a process has printed so far."""
        self._outputs[number].seek(0)
        return self._outputs[number].read()

    def wait(self, number):
        """Waits for the end of a process: (exit code, what it printed)."""
        return self.processes[number].wait(timeout=600), self.output(number)


def run_pair(arguments, folder, **environment):
    """Runs two processes to their end, which must be a good one: what each printed."""
    with Pair(arguments, folder, **environment) as pair:
        results = [pair.wait(number) for number in (0, 1)]
    assert [code for code, _ in results] == [0, 0], results
    return [output for _, output in results]


def run(arguments, **environment):
    """Runs a command to its end: (exit code, what it printed)."""
    process = start(arguments, **environment)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def run_forked(arguments):
    """As `run`, seconds sooner: for starts of which another part is tested than what they import (launch/forked.py)."""
    with tempfile.NamedTemporaryFile("r") as output:
        _forks().stdin.write(json.dumps([[*map(str, arguments)], output.name]) + "\n")
        _forks().stdin.flush()
        return int(_forks().stdout.readline()), output.read()


@functools.cache
def _forks():
    """The process that forks; it ends with this one."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.launch.forked"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
