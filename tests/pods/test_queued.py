"""Commands for gcloud: what each says, and that nothing a user gives becomes shell."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from videmo_jax.pods import queued
from videmo_jax.pods.arguments import PodError, train_arguments
from videmo_jax.pods.jobset import node_pool
from videmo_jax.pods.queued import Booking
from videmo_jax.pods.slices import slice_of

ROOT = Path(__file__).parents[2]
ONE = Booking("videmo", "us-east5-a", "my-project")
TWO = Booking("videmo", "us-east5-a", num_slices=2)


def test_one_slice_is_booked_as_one_node():
    command = queued.create(ONE, slice_of("v5p:4x4x4"), tier="spot", service_account="a@b.c", more=["--network=n"])
    assert shlex.join(command) == (
        "gcloud compute tpus queued-resources create videmo --zone=us-east5-a --project=my-project "
        "--accelerator-type=v5p-128 --runtime-version=v2-alpha-tpuv5 --node-id=videmo --spot "
        "--service-account=a@b.c --network=n"
    )


def test_several_slices_are_numbered_nodes():
    command = queued.create(TWO, slice_of("v5e:8x16"), tier="reserved", runtime="own")
    assert {"--node-count=2", "--node-prefix=videmo", "--reserved", "--runtime-version=own"} <= set(command)
    assert not any(flag.startswith(("--node-id", "--project")) for flag in command)
    assert [command[5] for command in queued.stop(TWO)] == ["videmo-0", "videmo-1"]
    assert [command[5] for command in queued.stop(ONE)] == ["videmo"]


@pytest.mark.slow
def test_gcloud_knows_every_flag():
    """By the help of the gcloud that is installed here."""
    if shutil.which("gcloud") is None:
        pytest.skip("gcloud is not installed")
    commands = [
        queued.create(ONE, slice_of("v4:4x4x4"), tier="spot", service_account="a@b.c"),
        queued.create(TWO, slice_of("v4:4x4x4"), tier="reserved"),
        queued.describe(ONE),
        queued.delete(ONE),
        *queued.copy(ONE, Path("a.tar.gz")),
        *queued.stop(ONE),
        node_pool("pool", slice_of("v4:4x4x4"), spot=True),
    ]
    helps = {}
    for command in commands:
        name = tuple(command[:5] if command[1] == "compute" else command[:4])
        if name not in helps:
            done = subprocess.run([*name, "--help"], capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            helps[name] = done.stdout
        for word in command[5:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in helps[name], f"{word} of {shlex.join(name)}"


def test_arguments_of_training_pass_through_two_shells_unchanged():
    arguments = ["--config.a=$(touch x)", "--config.b=('A_*', \"B\")", "--config.c=; rm -rf ~", "--config.d=ü\t"]
    for command in queued.start(TWO, arguments):
        remote = command[-1].removeprefix("--command=")
        assert shlex.split(remote) == ["bash", queued.WORKER, "start", *arguments]
        words = subprocess.run(["bash", "-c", f"printf '%s\\0' {remote}"], capture_output=True, text=True).stdout
        assert words.split("\0")[3:-1] == arguments


def described(state="ACTIVE", **node):
    return json.dumps({"state": {"state": state}, "tpu": {"nodeSpec": [{"parent": "p"} | node]}})


def test_only_slices_that_are_there_are_used():
    queued.check_active(ONE, described(nodeId="videmo"))
    queued.check_active(TWO, described(multisliceParams={"nodeCount": 2}))
    for state, said in (("SUSPENDED", "was preempted"), ("WAITING_FOR_RESOURCES", "try again later")):
        with pytest.raises(PodError, match=said):
            queued.check_active(ONE, described(state))
    with pytest.raises(PodError, match="has 1 slices, --num-slices says 2"):
        queued.check_active(TWO, described())
    for broken in ("", "[]", "{}", '{"state": "ACTIVE"}', '{"state": {"state": "ACTIVE"}, "tpu": {"nodeSpec": [1]}}'):
        with pytest.raises(PodError, match="cannot be read"):
            queued.check_active(ONE, broken)


WRONG = {
    "a name with a semicolon": (lambda: Booking("a;b", "us-east5-a"), "--name 'a;b'"),
    "a name that is a flag": (lambda: Booking("--force", "us-east5-a"), "--name"),
    "a name too long for hosts": (lambda: Booking("a" * 51, "us-east5-a"), "at most 50"),
    "a region for a zone": (lambda: Booking("a", "us-east5"), "--zone 'us-east5'"),
    "a project with a space": (lambda: Booking("a", "us-east5-a", "my project"), "--project"),
    "no slices": (lambda: Booking("a", "us-east5-a", num_slices=0), "give 1 to 256"),
    "slices of one host": (lambda: queued.create(TWO, slice_of("v6e:2x4")), "a slice of one host"),
    "a worker that is none": (lambda: queued.logs(ONE, worker="0;ls", lines=1, follow=False), "--worker '0;ls'"),
    "no lines": (lambda: queued.logs(ONE, worker="0", lines=0, follow=False), "--lines 0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_google_would_refuse_is_refused(wrong):
    make, said = WRONG[wrong]
    with pytest.raises(PodError, match=said):
        make()


def test_a_recipe_and_a_workdir_that_all_hosts_see():
    arguments = train_arguments(ROOT, "configs/curriculum.py:stage2", "gs://bucket/run", ["--config.batch=8"])
    assert arguments == ["--config=configs/curriculum.py:stage2", "--workdir=gs://bucket/run", "--config.batch=8"]
    assert train_arguments(ROOT, "configs/quickstart.py", "/mnt/bucket/run", [])[1] == "--workdir=/mnt/bucket/run"
    for config in ("configs/none.py", "../x.py", "/etc/passwd", "configs", ""):
        with pytest.raises(PodError, match="no such file"):
            train_arguments(ROOT, config, "gs://bucket/run", [])
    for workdir in ("runs/here", "gs://bucket", "gs:///x", "s3://bucket/x", ""):
        with pytest.raises(PodError, match="give gs://BUCKET/FOLDER"):
            train_arguments(ROOT, "configs/quickstart.py", workdir, [])
    with pytest.raises(PodError, match="as --NAME=VALUE"):
        train_arguments(ROOT, "configs/quickstart.py", "gs://bucket/run", ["batch=8"])
