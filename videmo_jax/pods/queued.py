"""Queued resources of Cloud TPU as gcloud commands: lists of arguments, which nothing joins into a shell line here.

Sources: https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources/create (and delete, describe),
https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/ssh (and scp),
https://cloud.google.com/tpu/docs/queued-resources (states), https://cloud.google.com/tpu/docs/multislice-introduction.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from videmo_jax.pods.arguments import PROJECT, ZONE, PodError, checked, checked_name
from videmo_jax.pods.slices import Slice

Command = list[str]

ARCHIVE = "videmo.tar.gz"  # in the home of every worker
SERVICE = "videmo@*.service"  # of whatever user started it; launch/tpu/videmo@.service
ADVICE = {"SUSPENDED": "it was preempted: delete and create it again", "FAILED": "delete it and create it again"}

WANTED = "/etc/systemd/system/multi-user.target.wants"  # links to what starts with the VM
WORKER = "videmo/source/launch/tpu/worker.sh"

# 63 characters a node, whose name ends in the number of its slice; a worker's host name ends in -w-NUMBER.
LONGEST_NAME = 50


@dataclass(frozen=True)
class Booking:
    """One queued resource: where it is, and of how many slices."""

    name: str
    zone: str
    project: str = ""
    num_slices: int = 1

    def __post_init__(self) -> None:
        checked_name(self.name, LONGEST_NAME)
        checked("--zone", self.zone, ZONE, "give a zone, such as us-east5-a")
        if self.project:
            checked("--project", self.project, PROJECT, "give the ID of a project, such as my-project-123")
        if not 1 <= self.num_slices <= 256:
            raise PodError(f"--num-slices {self.num_slices}: give 1 to 256")

    @property
    def nodes(self) -> list[str]:
        """Names of the slices: Cloud TPU numbers them from 0 where there are several."""
        if self.num_slices == 1:
            return [self.name]
        return [f"{self.name}-{number}" for number in range(self.num_slices)]

    @property
    def where(self) -> list[str]:
        """Flags that every command takes."""
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]


def create(
    booking: Booking,
    tpu: Slice,
    *,
    tier: str = "",
    runtime: str = "",
    service_account: str = "",
    more: Sequence[str] = (),
) -> Command:
    """Asks for the slices; they come when there are some, see `describe`.

    Args:
      booking: how it will be called.
      tpu: each of the slices.
      tier: spot, reserved, or empty: on demand.
      runtime: software version of the VMs; empty: the generation's plain Ubuntu.
      service_account: whose rights training has; empty: the project's default.
      more: further flags of gcloud, such as --network=NAME.
    """
    if booking.num_slices > 1 and tpu.hosts == 1:
        raise PodError(f"topology {tpu}: a slice of one host cannot be one of --num-slices {booking.num_slices}")
    node = (
        [f"--node-id={booking.name}"]
        if booking.num_slices == 1
        else [f"--node-count={booking.num_slices}", f"--node-prefix={booking.name}"]
    )
    return [
        *("gcloud", "compute", "tpus", "queued-resources", "create", booking.name),
        *booking.where,
        f"--accelerator-type={tpu.accelerator_type}",
        f"--runtime-version={runtime or tpu.spec.runtime}",
        *node,
        *([f"--{tier}"] if tier else []),
        *([f"--service-account={service_account}"] if service_account else []),
        *more,
    ]


def describe(booking: Booking) -> Command:
    """Prints the queued resource as JSON; `state_of` reads it."""
    return ["gcloud", "compute", "tpus", "queued-resources", "describe", booking.name, *booking.where, "--format=json"]


def delete(booking: Booking) -> Command:
    """Gives the slices back, with all that is on their disks."""
    quiet = ["--force", "--quiet"]  # with its nodes, and without asking again
    return ["gcloud", "compute", "tpus", "queued-resources", "delete", booking.name, *booking.where, *quiet]


def archive(path: Path) -> Command:
    """Packs what is committed in the current directory's checkout."""
    return ["git", "archive", "--format=tar.gz", f"--output={path}", "HEAD"]


def copy(booking: Booking, path: Path) -> list[Command]:
    """Sends the archive to all workers, one command a slice."""
    return [
        ["gcloud", "compute", "tpus", "tpu-vm", "scp", str(path), f"{node}:{ARCHIVE}", *booking.where, "--worker=all"]
        for node in booking.nodes
    ]


def on_workers(booking: Booking, command: str, *, worker: str = "all") -> list[Command]:
    """Runs a shell command on workers of every slice, one command a slice."""
    checked("--worker", worker, r"all|[0-9]+(?:[-,][0-9]+)*", "give all, a number, or several as 0-3 or 0,2")
    return [
        [
            "gcloud",
            "compute",
            "tpus",
            "tpu-vm",
            "ssh",
            node,
            *booking.where,
            f"--worker={worker}",
            f"--command={command}",
        ]
        for node in booking.nodes
    ]


def stop(booking: Booking) -> list[Command]:
    """Asks training to save and end, and waits for it; it stays ended when the VM starts anew.

    Succeeds where none runs.
    """
    # `systemctl disable` fails where the service was never there; to remove its links is what it does.
    return on_workers(booking, f"sudo systemctl stop '{SERVICE}' && sudo rm -f {WANTED}/{SERVICE}")


def install(booking: Booking) -> list[Command]:
    """Unpacks the archive and installs the package on every worker."""
    unpack = f"rm -rf videmo/source && mkdir -p videmo/source && tar -xzf {ARCHIVE} -C videmo/source"
    return on_workers(booking, f"{unpack} && bash {WORKER} install")


def start(booking: Booking, arguments: Sequence[str]) -> list[Command]:
    """Starts launch/train.py on every worker, as a service that outlives the connection.

    Args:
      booking: of the workers.
      arguments: of launch/train.py.
    """
    return on_workers(booking, shlex.join(["bash", WORKER, "start", *arguments]))


def status(booking: Booking) -> list[Command]:
    """Says of every worker whether its service runs; succeeds where there is none."""
    return on_workers(booking, shlex.join(["systemctl", "list-units", "--all", "--no-legend", "--plain", SERVICE]))


def logs(booking: Booking, *, worker: str, lines: int, follow: bool) -> list[Command]:
    """Prints the last lines that training wrote.

    Args:
      booking: of the workers.
      worker: numbers in each slice, or all.
      lines: of each worker.
      follow: goes on with new lines until it is interrupted.
    """
    if lines < 1:
        raise PodError(f"--lines {lines}: give a number above 0")
    read = [
        "sudo",
        "journalctl",
        f"--unit={SERVICE}",
        "--no-pager",
        f"--lines={lines}",
        *(["--follow"] if follow else []),
    ]
    return on_workers(booking, shlex.join(read), worker=worker)


def state_of(booking: Booking, described: str) -> tuple[str, int]:
    """Google's word for where the queued resource stands, such as ACTIVE, and its number of slices.

    Args:
      booking: what is asked for.
      described: what `describe` printed.

    Raises:
      PodError: it is in another form.
    """
    try:
        found = json.loads(described)
        nodes = [spec.get("multisliceParams", {}).get("nodeCount", 1) for spec in found["tpu"]["nodeSpec"]]
        return str(found["state"]["state"]), sum(map(int, nodes))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PodError(f"{booking.name}: gcloud's description cannot be read ({error!r}); update gcloud") from None


def check_active(booking: Booking, described: str) -> None:
    """Checks that the slices are there and as many as said.

    Args:
      booking: what is asked for.
      described: what `describe` printed.

    Raises:
      PodError: they are not (yet), or no longer.
    """
    state, count = state_of(booking, described)
    if state != "ACTIVE":
        raise PodError(f"{booking.name} is {state}, not ACTIVE; {ADVICE.get(state, 'try again later')}")
    if count != booking.num_slices:
        raise PodError(f"{booking.name} has {count} slices, --num-slices says {booking.num_slices}")
