"""Starts commands of launch/ from a process that has imported what they import: what takes seconds is done once.

python -m tests.launch.forked    reads a line of JSON for each: [[command, arguments ...], file for its output]

It answers each with the exit code, and ends with its input.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path

import videmo_jax.rl.run
import videmo_jax.sft.run  # noqa: F401


def become(arguments, output):
    """Makes this process that command: what it raises ends it, as it would have ended the command."""
    signal.alarm(600)
    null, file = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY)
    for number, own in enumerate((null, file, file)):
        os.dup2(own, number)
    sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
    runpy.run_path(arguments[0], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    for line in sys.stdin:
        command = os.fork()
        if not command:
            become(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(command, 0)[1]), flush=True)
