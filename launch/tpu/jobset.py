"""Prints a JobSet that trains on TPU slices of a GKE cluster: YAML for `kubectl apply -f -`."""

import argparse
import shlex
import sys
import textwrap
from pathlib import Path

from videmo_jax.pods.arguments import OneLineParser, PodError, train_arguments
from videmo_jax.pods.jobset import Options, manifest, node_pool, to_yaml
from videmo_jax.pods.slices import slice_of

EXAMPLES = """examples:
  python launch/tpu/jobset.py --name videmo-7b --image us-docker.pkg.dev/my-project/videmo/train:1 \\
      --topology v5p:4x4x4 --config configs/curriculum.py --workdir gs://my-bucket/videmo-7b | kubectl apply -f -
  python launch/tpu/jobset.py --name videmo-7b --image us-docker.pkg.dev/my-project/videmo/train:1 \\
      --topology v5e:8x16 --num-slices 2 --host-network --config configs/curriculum.py \\
      --workdir gs://my-bucket/videmo-7b -- --config.mesh.replica=2 --config.data.root=gs://my-bucket/records

What follows -- goes to launch/train.py. The image comes from launch/tpu/Dockerfile:
  docker build -f launch/tpu/Dockerfile -t us-docker.pkg.dev/my-project/videmo/train:1 .
The cluster needs JobSet 0.6 or later and, for each slice, a node pool, whose command is printed too. Watch a run by
`kubectl get jobset,pods` and `kubectl logs -f job/NAME-slice-0`; `kubectl delete jobset NAME` saves and ends it.
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    default = Options()
    parser = OneLineParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="of the JobSet")
    parser.add_argument("--image", required=True, metavar="REGISTRY/NAME:TAG", help="with this package in it")
    parser.add_argument("--topology", required=True, metavar="GENERATION:SHAPE", help="of a slice, such as v5p:4x4x4")
    parser.add_argument("--num-slices", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="of launch/train.py")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="gs://BUCKET/FOLDER, or a mounted folder")
    parser.add_argument("--namespace", default="", help="default: kubectl's")
    parser.add_argument("--service-account", default="", help="Kubernetes account with rights on the bucket")
    parser.add_argument("--queue", default="", help="LocalQueue of Kueue, where the cluster has it")
    parser.add_argument("--spot", action="store_true", help="on Spot VMs, which may be taken away at any time")
    parser.add_argument("--host-network", action="store_true", help="faster between slices; not on Autopilot")
    parser.add_argument(
        "--restarts",
        type=int,
        default=default.restarts,
        metavar="N",
        help=f"after failures; default {default.restarts}",
    )
    parser.add_argument(
        "--grace-seconds",
        type=int,
        default=default.grace_seconds,
        metavar="S",
        help=f"for saving after SIGTERM; default {default.grace_seconds}",
    )
    parser.add_argument("train", nargs="*", metavar="-- FLAG", help="further flags of launch/train.py")
    return parser.parse_args(arguments)


def main() -> None:
    """Entry point: an error is one line, without a traceback."""
    flags = parse()
    root = Path(__file__).parents[2]
    try:
        arguments = train_arguments(root, flags.config, flags.workdir, flags.train)
        options = Options(
            flags.namespace,
            flags.service_account,
            flags.queue,
            flags.spot,
            flags.host_network,
            flags.restarts,
            flags.grace_seconds,
        )
        tpu = slice_of(flags.topology)
        document = manifest(flags.name, flags.image, tpu, flags.num_slices, arguments, options)
    except PodError as error:
        sys.exit(f"jobset: {error}")
    pools = "a node pool" if flags.num_slices == 1 else f"{flags.num_slices} node pools, each"
    pool = shlex.join(node_pool("POOL", tpu, spot=flags.spot))
    lines = textwrap.wrap(pool, 74, break_on_hyphens=False, break_long_words=False)
    comments = [f"Runs on {pools} made like this:", *(f"{line} \\" for line in lines[:-1]), lines[-1]]
    sys.stdout.write(to_yaml(document, comments))


if __name__ == "__main__":
    main()
