#!/usr/bin/env bash
# Renews constraints.txt: the newest packages that pyproject.toml takes, for the Python of Dockerfile and worker.sh.
#   pip install uv && bash launch/tpu/lock.sh
# What it writes is to be tried before it lands: `bash .ci/newest` builds the image's environment of it and trains there.
set -euo pipefail
cd "$(dirname "$0")/../.."

# libtpu's wheels ask for glibc 2.31 and are for x86-64 alone.
uv pip compile pyproject.toml --extra tpu --extra gcs --upgrade --quiet --no-annotate \
  --python-version 3.13 --python-platform x86_64-manylinux_2_31 --no-python-downloads \
  --custom-compile-command 'bash launch/tpu/lock.sh' --output-file launch/tpu/constraints.txt
