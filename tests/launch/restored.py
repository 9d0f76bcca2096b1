"""Restores the newest checkpoint of a run onto a mesh, on all processes there are, and prints a hash of all its bits.

python -m tests.launch.restored WORKDIR [AXIS=DEVICES ...]
"""

import hashlib
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training import cluster
from videmo_jax.training.checkpoint import Checkpoints, read_meta
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import state_layout


def restored_hash(workdir, mesh):
    """Of parameters, optimizer and guard, bit for bit."""
    layout = state_layout(read_meta(workdir).model, make_optimizer(OptimizerSpec()), mesh)
    with Checkpoints(workdir, keep=9) as checkpoints:
        restored = checkpoints.restore(layout.params, (layout.optimizer, layout.guard), print)
    whole = hashlib.sha256()
    for leaf in jax.tree.leaves((restored.params, restored.optimizer)):
        value = multihost_utils.process_allgather(leaf, tiled=True) if cluster.several() else leaf
        whole.update(np.asarray(value).tobytes())
    return whole.hexdigest()


if __name__ == "__main__":
    cluster.start()
    workdir, *axes = sys.argv[1:]
    print(restored_hash(workdir, make_mesh({axis: int(size) for axis, size in (each.split("=") for each in axes)})))
    cluster.finish()
