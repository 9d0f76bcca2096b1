"""Does here what a Dockerfile says, where there is no docker: WORKDIR, COPY of the checkout, RUN; the rest is left.

python .ci/dockerfile.py launch/tpu/Dockerfile    (from the root of the checkout, on a machine that may be changed)
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path


def copy(sources: list[str], target: Path) -> None:
    """As COPY: what a folder holds goes into the target, a file under its name."""
    for source in map(Path, sources):
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def main(file: str) -> None:
    """Follows the steps."""
    workdir = Path("/")
    for line in Path(file).read_text().splitlines():
        step, _, rest = line.partition(" ")
        if step == "WORKDIR":
            workdir = workdir / rest
            workdir.mkdir(parents=True, exist_ok=True)
        elif step == "COPY":
            *sources, target = shlex.split(rest)
            copy(sources, workdir / target)
        elif step == "RUN":
            print(f"RUN {rest}", flush=True)
            subprocess.run(["/bin/sh", "-c", rest], cwd=workdir, check=True, env=os.environ)
        elif step not in ("FROM", "CMD", "", "#"):
            sys.exit(f"{file}: {step} is not known here")


if __name__ == "__main__":
    main(sys.argv[1])
