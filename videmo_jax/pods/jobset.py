"""A JobSet that trains on GKE: one Job a slice, one Pod a host; all start anew together when one ends early.

Sources: https://cloud.google.com/kubernetes-engine/docs/how-to/tpu-multislice and .../concepts/tpus (labels, ports,
and that GKE itself sets TPU_WORKER_ID, TPU_WORKER_HOSTNAMES and, for several slices, the MEGASCALE variables, from
which jax.distributed finds its way), https://jobset.sigs.k8s.io/docs/tasks/tpu_multislice (exclusive topology) and
.../failure_policy, https://kubernetes.io/docs/tasks/job/pod-failure-policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from videmo_jax.pods.arguments import PodError, checked, checked_name
from videmo_jax.pods.slices import Slice

JOB = "slice"  # each slice's Job is NAME-slice-NUMBER
CONTAINER = "train"
SAVED = 143  # launch/train.py ends so after it saved on SIGTERM

# Between hosts of a slice; to jax.distributed's coordinator; metrics of the chips.
PORTS = {"tpu": 8471, "coordinator": 8482, "metrics": 8431}

IMAGE = r"[a-z0-9][a-z0-9._-]*(?::[0-9]+)?(?:/[a-z0-9._-]+)*(?::[A-Za-z0-9_][A-Za-z0-9._-]*)?(?:@sha256:[0-9a-f]{64})?"


@dataclass(frozen=True)
class Options:
    """What a cluster or a run may want otherwise.

    Attributes:
      namespace: of Kubernetes; empty: the current one.
      service_account: of Kubernetes, bound to rights on the bucket; empty: the namespace's default.
      queue: a LocalQueue of Kueue; empty: none.
      spot: whether the nodes are Spot VMs.
      host_network: whether Pods use the hosts' own network, which is faster between slices; Autopilot refuses it.
      restarts: how often the run may fail of itself; evictions and saved ends do not count.
      grace_seconds: from SIGTERM to the end, for saving. Spot nodes give some 15 of them, whatever is asked.
    """

    namespace: str = ""
    service_account: str = ""
    queue: str = ""
    spot: bool = False
    host_network: bool = False
    restarts: int = 10
    grace_seconds: int = 300


def manifest(
    name: str, image: str, tpu: Slice, num_slices: int, arguments: Sequence[str], options: Options | None = None
) -> dict[str, Any]:
    """The JobSet, as kubectl takes it.

    Args:
      name: of the JobSet; names of Jobs and Pods begin with it.
      image: built from launch/tpu/Dockerfile.
      tpu: each of the slices; GKE needs a node pool of that topology for each.
      num_slices: how many.
      arguments: of launch/train.py.
      options: default: those of Options.

    Raises:
      PodError: Kubernetes or GKE would refuse it.
    """
    options = options or Options()
    if not 1 <= num_slices <= 256:
        raise PodError(f"--num-slices {num_slices}: give 1 to 256")
    if num_slices > 1 and tpu.hosts == 1:
        raise PodError(f"topology {tpu}: a slice of one host cannot be one of --num-slices {num_slices}")
    # The longest name is a Pod's: NAME-slice-NUMBER-INDEX-abcde.
    checked_name(name, 63 - len(f"-{JOB}-{num_slices - 1}-{tpu.hosts - 1}-abcde"))
    checked("--image", image, IMAGE, "give REGISTRY/NAME:TAG, or REGISTRY/NAME@sha256:DIGEST")
    for flag, value in (
        ("--namespace", options.namespace),
        ("--service-account", options.service_account),
        ("--queue", options.queue),
    ):
        if value:
            checked(flag, value, r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", "is no name of Kubernetes")
    if options.restarts < 0 or options.grace_seconds < 1:
        raise PodError("--restarts is 0 or more, --grace-seconds 1 or more")
    job = {
        "parallelism": tpu.hosts,
        "completions": tpu.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,  # no Pod is of use alone: the JobSet restarts all of them
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [SAVED]},
                    "onPodConditions": [],  # Kubernetes before 1.30 asks for it
                },
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {"spec": _pod(image, tpu, arguments, options)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            **({"namespace": options.namespace} if options.namespace else {}),
            **({"labels": {"kueue.x-k8s.io/queue-name": options.queue}} if options.queue else {}),
            # One Job a node pool: a slice is never spread over two.
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            # The headless service by which hosts find each other, also before they are ready.
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": options.restarts,
                "rules": [
                    {
                        "name": "interrupted",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [{"name": JOB, "replicas": num_slices, "template": {"spec": job}}],
        },
    }


def _pod(image: str, tpu: Slice, arguments: Sequence[str], options: Options) -> dict[str, Any]:
    """The Pod of one host."""
    chips = {"google.com/tpu": tpu.chips_a_host}
    container = {
        "name": CONTAINER,
        "image": image,
        "command": ["python", "launch/train.py"],
        "args": [argument.replace("$(", "$$(") for argument in arguments],  # Kubernetes would fill in variables
        "ports": [{"name": name, "containerPort": port} for name, port in PORTS.items()],
        "resources": {"requests": dict(chips), "limits": dict(chips)},
        # Worker processes of the data pipeline hand over batches here; a container's own has 64 MB.
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    selector = {
        "cloud.google.com/gke-tpu-accelerator": tpu.spec.gke,
        "cloud.google.com/gke-tpu-topology": tpu.topology,
    }
    spot = "cloud.google.com/gke-spot"
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": options.grace_seconds,
        **({"serviceAccountName": options.service_account} if options.service_account else {}),
        **({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if options.host_network else {}),
        "nodeSelector": selector | ({spot: "true"} if options.spot else {}),
        **(
            {"tolerations": [{"key": spot, "operator": "Equal", "value": "true", "effect": "NoSchedule"}]}
            if options.spot
            else {}
        ),
        "containers": [container],
        "volumes": [{"name": "shared-memory", "emptyDir": {"medium": "Memory"}}],
    }


def node_pool(name: str, tpu: Slice, *, spot: bool = False) -> list[str]:
    """The gcloud command that makes the nodes of one slice, with words in capitals for what the user knows.

    Source: https://cloud.google.com/sdk/gcloud/reference/container/node-pools/create

    Args:
      name: of the pool.
      tpu: the slice.
      spot: whether they are Spot VMs.
    """
    return [
        *("gcloud", "container", "node-pools", "create", name),
        *("--cluster=CLUSTER", "--location=LOCATION", "--node-locations=ZONE"),
        *(f"--machine-type={tpu.machine_type}", f"--tpu-topology={tpu.topology}", f"--num-nodes={tpu.hosts}"),
        *(["--spot"] if spot else []),
    ]


class _Indented(yaml.SafeDumper):
    """Indents lists below their key, as Kubernetes' own pages do."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Never leaves the indent out."""
        super().increase_indent(flow, False)


def to_yaml(document: dict[str, Any], comments: Sequence[str] = ()) -> str:
    """The manifest as text for `kubectl apply -f -`, with lines of comment above it."""
    text = yaml.dump(document, Dumper=_Indented, sort_keys=False, explicit_start=True, width=1_000)
    return "".join(f"# {comment}\n" for comment in comments) + text
