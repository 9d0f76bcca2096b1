"""VidEmo in JAX: the Qwen2.5-VL architecture, curriculum SFT, affective-tree RL and evaluation for TPUs."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (pip refuses an older one, a plain PYTHONPATH does not)
    sys.exit(f"videmo_jax needs Python 3.11 or newer, and this is {sys.version.split()[0]}")
