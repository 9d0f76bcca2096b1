"""Compiles what a recipe computes in a step for a TPU slice, without a TPU: does it fit, and what can it reach?

examples:
  python launch/compile.py --config configs/videmo_7b_sft.py --topology v5p:4x4x4
  python launch/compile.py --config configs/videmo_7b_sft.py:v5e-16x16 --topology v5e:16x16
  python launch/compile.py --config configs/videmo_7b_sft.py:v5e-8x16-2 --topology v5e:8x16 --num-slices 2
  python launch/compile.py --config configs/videmo_3b_sft.py --topology v5e:4x4 --config.compute.remat=dots
  python launch/compile.py --config configs/videmo_7b_rl.py --topology v5p:4x4x4
  python launch/compile.py --config configs/videmo_7b_rl.py:v6e-16x16 --topology v6e:16x16

A recipe of RL has several programs (weights gathered, rollout, reference, update), each with what the others leave on
the chip; figures of the rollout are those of answers as long as they may get. init may be empty: no weights are read.

The last line of stdout is one JSON object; a summary for people goes to stderr. Needs libtpu: pip install -e '.[tpu]'.
The exit code is 0 whether the step fits or not; 1 where it cannot be compiled at all.
"""

import json
import os
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from videmo_jax.commands import absl_parser, fail

CONFIG = config_flags.DEFINE_config_file("config", None, "recipe, a file of configs/", lock_config=True)
TOPOLOGY = flags.DEFINE_string("topology", None, "of one slice, such as v5p:4x4x4, v5e:16x16 or v6e:8x8")
SLICES = flags.DEFINE_integer("num-slices", 1, "slices, joined by the data-centre network", lower_bound=1)
flags.mark_flags_as_required(["config", "topology"])


def main(argv: Sequence[str]) -> None:
    """Compiles and prints; what users can mend ends in one line."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.ERROR)
    # The slice is only described: this process computes nothing, and shares libtpu with others that do not either.
    os.environ.update(JAX_PLATFORMS="cpu", ALLOW_MULTIPLE_LIBTPU_LOAD="1", TPU_STDERR_LOG_LEVEL="3")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from rich.console import Console

    from videmo_jax.aot.compiled import compile_step
    from videmo_jax.aot.summary import summary
    from videmo_jax.files.errors import UserError

    console = Console(stderr=True)
    try:
        with console.status(f"compiling for {SLICES.value} x {TOPOLOGY.value}: a program takes one to four minutes"):
            compiled = compile_step(CONFIG.value, TOPOLOGY.value, SLICES.value)
    except (UserError, OSError) as error:
        fail(str(error), "compile")
    console.print(summary(compiled))
    known = {"config": flags.FLAGS["config"].config_filename, "topology": TOPOLOGY.value}
    print(json.dumps(known | compiled.to_json()))


if __name__ == "__main__":
    app.run(main, flags_parser=absl_parser("compile"))
