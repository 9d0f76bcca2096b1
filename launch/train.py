"""Trains a model on Emo-CFG (a folder or records) or on the synthetic set: supervised, or by rewards of its answers.

Examples:
  python launch/train.py --config configs/quickstart.py --workdir runs/quickstart
  python launch/train.py --config configs/emo_cfg_mini.py --config.data.root=EMO_CFG --workdir runs/mini
  python launch/train.py --config configs/quickstart.py --workdir runs/longer --config.epochs=20
  python launch/train.py --config configs/curriculum.py --config.data.root=RECORDS --workdir runs/curriculum
  python launch/train.py --config configs/curriculum.py:stage2 --config.init=CKPT --workdir runs/expression
  python launch/train.py --config configs/quickstart.py --workdir runs/quickstart --profile=20:5
  python launch/train.py --config configs/quickstart_rl.py:sft --workdir runs/faces
  python launch/train.py --config configs/quickstart_rl.py --config.init=runs/faces --workdir runs/faces_rl

Run the same command again, and it goes on from the last checkpoint in the work directory. On several hosts run it on
each of them, with one work directory that all see: they find each other on TPU pods, GKE, SLURM and Kubernetes Jobs;
elsewhere set JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID. SIGTERM to any of
them saves, and ends all with exit code 143.
"""

import sys
import traceback
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console

from videmo_jax.commands import absl_parser, fail

CONFIG = config_flags.DEFINE_config_file("config", None, "recipe, a file of configs/", lock_config=True)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "directory of this run: config, checkpoints, metrics, report; local or gs://"
)
PROFILE = flags.DEFINE_string(
    "profile", None, "STEP:COUNT, steps to record into WORKDIR/profile (TensorBoard, Perfetto)"
)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> None:
    """Composes the run; what users can mend ends in one line."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    # Imported here, so that --help answers at once.
    import jax

    from videmo_jax.files.errors import UserError
    from videmo_jax.sharding.devices import all_devices
    from videmo_jax.training import cluster
    from videmo_jax.training.profile import Steps
    from videmo_jax.training.stopped import TrainingStopped

    sys.stdout.reconfigure(line_buffering=True)  # a log shows each step as it comes
    try:
        profile = Steps.parse(PROFILE.value) if PROFILE.present else None
        cluster.start()
        all_devices()
        if "rollout" in CONFIG.value:
            from videmo_jax.rl.run import run
        else:
            from videmo_jax.sft.run import run
        run(CONFIG.value, WORKDIR.value, Console(quiet=jax.process_index() != 0), profile=profile)
        cluster.finish()
    except cluster.Preempted as notice:
        print(f"train: {notice}", file=sys.stderr)
        cluster.finish()
        sys.exit(cluster.PREEMPTED)
    except (UserError, OSError, TrainingStopped) as error:
        if cluster.several():
            cluster.leave(str(error))
        fail(str(error), "train")
    except Exception as error:
        if cluster.is_lost(error):
            cluster.leave(cluster.lost_message())
        if cluster.several():
            traceback.print_exc()
            cluster.leave(f"step {cluster.step()}: {type(error).__name__}; the lines above say where")
        raise


if __name__ == "__main__":
    app.run(main, flags_parser=absl_parser("train"))
