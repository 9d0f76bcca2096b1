#!/usr/bin/env bash
# Runs on every worker of a TPU slice, from ~/videmo/source; launch/tpu/queued.py sends it there and calls it.
#   worker.sh install      the package, into ~/videmo/env
#   worker.sh start FLAGS  launch/train.py with FLAGS, as a service
set -euo pipefail

cd "$HOME/videmo"

install_package() {
  # Python and packages are those that were tried together (lock.sh); uv brings that Python where the image has another.
  # Into a folder: the system stays as it is.
  python3 -m pip install --quiet --upgrade --target tools uv
  tools/bin/uv venv --quiet --clear --python 3.13 env
  tools/bin/uv pip install --quiet --compile-bytecode --python env/bin/python \
    --constraints source/launch/tpu/constraints.txt --editable './source[tpu,gcs]'
}

start_training() {
  {
    echo 'cd ~/videmo/source'
    printf 'exec ../env/bin/python launch/train.py'
    printf ' %q' "$@"
    echo
  } >train.sh
  sudo install --mode=644 source/launch/tpu/videmo@.service /etc/systemd/system/
  sudo systemctl daemon-reload
  sudo systemctl reset-failed 'videmo@*.service'
  sudo systemctl enable --quiet --now "videmo@$(id --user --name).service"
}

case "${1:-}" in
install) install_package ;;
start)
  shift
  start_training "$@"
  ;;
*)
  echo 'worker.sh: give install, or start and the flags of launch/train.py' >&2
  exit 1
  ;;
esac
