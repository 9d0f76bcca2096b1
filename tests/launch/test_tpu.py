"""launch/tpu as a user meets it: dry runs, one line for what is wrong, and a whole run against stand-ins.

No cloud is at hand here: gcloud, sudo and the installer are small scripts that do locally, in a folder a worker, what
they would do there. The checkout, the archive, the shells, worker.sh and the quoting are real.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.launch.commands import ROOT, run

TPU = ROOT / "launch" / "tpu"
WHERE = ["--name", "videmo", "--zone", "us-east5-a"]
RECIPE = ["--config", "configs/curriculum.py", "--workdir", "gs://my-bucket/run"]
FLAGS = ["--config.a=$(touch x)", "--config.data.include=('MEAD_*', \"B\")"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with one commit, whatever state the one under test is in."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("launch/tpu", "videmo_jax/pods"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "configs").mkdir()
    shutil.copy(ROOT / "configs/curriculum.py", root / "configs")
    for command in (["init"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-m", "all"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def queued(checkout):
    def call(*arguments, **environment):
        return run([checkout / "launch/tpu/queued.py", *arguments], **environment)

    return call


def jobset(*arguments):
    image = ["--name", "videmo", "--image", "gcr.io/p/train:1", "--topology", "v5p:4x4x4"]
    return run(["launch/tpu/jobset.py", *image, *RECIPE, *arguments])


@pytest.mark.parametrize("command", ["queued", "jobset"])
def test_help_shows_examples(command):
    code, output = run([f"launch/tpu/{command}.py", "--help"])
    assert code == 0 and f"python launch/tpu/{command}.py" in output


def test_the_manifest_alone_is_printed():
    code, output = jobset("--num-slices", "2", "--", *FLAGS)
    assert code == 0, output
    assert output.startswith("# Runs on 2 node pools") and "--num-nodes=16" in output.partition("\n---\n")[0]
    document = yaml.safe_load(output)
    pod = document["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"][:2] == ["--config=configs/curriculum.py", "--workdir=gs://my-bucket/run"]
    assert pod["containers"][0]["args"][3] == FLAGS[1]


def test_a_dry_run_prints_what_it_would_do_and_needs_no_gcloud(queued, tmp_path):
    (tmp_path / "git").symlink_to(shutil.which("git"))
    code, output = queued("run", *WHERE, "--num-slices", "2", *RECIPE, "--dry-run", "--", *FLAGS, PATH=str(tmp_path))
    assert code == 0, output
    lines = output.splitlines()
    kinds = [line.split()[:5] for line in lines]
    assert [kind[-1] for kind in kinds if kind[0] == "gcloud"] == ["describe", *["scp"] * 2, *["ssh"] * 6]
    assert sum("worker.sh start" in line and FLAGS[0] in line for line in lines) == 2
    for command, expected in (("create", "--accelerator-type=v5p-128"), ("delete", "--force"), ("stop", "systemctl")):
        more = ["--topology", "v5p:4x4x4"] if command == "create" else []
        code, output = queued(command, *WHERE, *more, "--dry-run", PATH=str(tmp_path))
        assert code == 0 and expected in output and len(output.splitlines()) == 1
    code, output = queued("logs", *WHERE, "--worker", "all", "--dry-run", PATH=str(tmp_path))
    assert code == 0 and "--worker=all" in output and "journalctl" in output


WRONG = {
    "no command": ([], "COMMAND"),
    "an unknown command": (["launch"], "invalid choice: 'launch'"),
    "no zone": (["stop", "--name", "a"], "--zone"),
    "two tiers": (["create", *WHERE, "--topology", "v5p:4x4x4", "--spot", "--reserved"], "not allowed with"),
    "no such topology": (["create", *WHERE, "--topology", "v5p:4x4", "--dry-run"], "v5p has 3 axes"),
    "no such recipe": (["run", *WHERE, "--config", "configs/none.py", *RECIPE[2:], "--dry-run"], "configs/none.py"),
    "a local workdir": (["run", *WHERE, *RECIPE[:3], "runs/x", "--dry-run"], "gs://BUCKET/FOLDER"),
    "no gcloud": (["stop", *WHERE], "gcloud is not installed"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_line(wrong, queued, tmp_path):
    arguments, said = WRONG[wrong]
    (tmp_path / "git").symlink_to(shutil.which("git"))
    code, output = queued(*arguments, PATH=str(tmp_path))
    assert code == 1 and said in output and len(output.splitlines()) == 1, output


def test_a_wrong_manifest_is_one_line():
    for more, said in (
        (["--name", "A"], "--name 'A'"),
        (["--restarts", "x"], "--restarts"),
        (["--queueing"], "--queueing"),
    ):
        code, output = jobset(*more)
        assert code == 1 and said in output and len(output.splitlines()) == 1, output


GCLOUD = '''#!{python}
"""Stands in for gcloud: a worker is a folder of HOSTS, by the name of its slice and its number."""
import json, os, pathlib, shutil, subprocess, sys
hosts = pathlib.Path(os.environ["HOSTS"])
verb, what, flags = sys.argv[4], sys.argv[5:7], dict(flag.split("=", 1) for flag in sys.argv[5:] if "=" in flag)
with open(hosts / "called", "a") as log:
    log.write(verb + " " + what[0] + "\\n")
if verb == "describe":
    print(os.environ["DESCRIBED"])
elif verb == "scp":
    node, _, name = what[1].partition(":")
    for worker in hosts.glob(node + ".*"):
        shutil.copy(what[0], worker / name)
elif verb == "ssh":
    for worker in sorted(hosts.glob(what[0] + ".*")):
        environment = os.environ | {{"HOME": str(worker)}}
        done = subprocess.run(["bash", "-c", flags["--command"]], cwd=worker, env=environment)
        if done.returncode:
            sys.exit(done.returncode)
'''

# Keeps what it was told, in the home of the worker.
SUDO = '#!/bin/bash\necho "$@" >>"$HOME/sudo"\n'

# The installer pip: it brings uv, which makes an env whose Python shows its directory and its arguments.
PYTHON3 = """#!/bin/bash
mkdir -p tools/bin
cp "$(dirname "$0")/uv" tools/bin/uv
"""
UV = """#!/bin/bash
echo "$@" >>"$HOME/installed"
mkdir -p env/bin
cat >env/bin/python <<'EOF'
#!{python}
import json, os, sys
print(json.dumps([os.getcwd(), sys.argv[1:]]))
EOF
chmod +x env/bin/python
"""


@pytest.fixture
def cloud(tmp_path):
    """Two slices of two workers each, and the environment in which the commands find them."""
    tools, hosts = tmp_path / "tools", tmp_path / "hosts"
    tools.mkdir()
    for name, text in (("gcloud", GCLOUD), ("sudo", SUDO), ("python3", PYTHON3), ("uv", UV)):
        (tools / name).write_text(text.format(python=sys.executable) if "{python}" in text else text)
        (tools / name).chmod(0o755)
    for name in ("videmo-0.0", "videmo-0.1", "videmo-1.0", "videmo-1.1"):
        (hosts / name).mkdir(parents=True)
    active = {"state": {"state": "ACTIVE"}, "tpu": {"nodeSpec": [{"multisliceParams": {"nodeCount": 2}}]}}
    return hosts, {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOSTS": str(hosts),
        "DESCRIBED": json.dumps(active),
    }


def workers(hosts):
    return [path for path in sorted(hosts.iterdir()) if path.is_dir()]


def test_a_run_installs_and_starts_the_same_training_on_every_worker(queued, cloud):
    hosts, environment = cloud
    code, output = queued("run", *WHERE, "--num-slices", "2", *RECIPE, "--", *FLAGS, **environment)
    assert code == 0, output
    called = (hosts / "called").read_text().split("\n")[:-1]
    assert [line.split()[0] for line in called] == ["describe", "scp", "scp", *["ssh"] * 6]
    for worker in workers(hosts):
        assert (worker / "videmo/source/videmo_jax/pods/queued.py").is_file()
        stopped, removed, *started = (worker / "sudo").read_text().splitlines()
        assert stopped == "systemctl stop videmo@*.service" and removed.startswith(
            "rm -f /etc/systemd/system/multi-user"
        )
        assert started[-1].startswith("systemctl enable --quiet --now videmo@")
        assert "./source[tpu,gcs]" in (worker / "installed").read_text()
        # As the service runs it: in the home of the user.
        home = os.environ | {"HOME": str(worker)}
        done = subprocess.run(["/bin/bash", "videmo/train.sh"], cwd=worker, env=home, capture_output=True, text=True)
        place, arguments = json.loads(done.stdout)
        assert place == str(worker / "videmo/source")
        assert arguments == [
            "launch/train.py",
            "--config=configs/curriculum.py",
            "--workdir=gs://my-bucket/run",
            *FLAGS,
        ]
        assert not (worker / "x").exists() and not (worker / "videmo/source/x").exists()


def test_nothing_is_sent_to_slices_that_are_not_there(queued, cloud):
    hosts, environment = cloud
    suspended = environment["DESCRIBED"].replace("ACTIVE", "SUSPENDED")
    code, output = queued("run", *WHERE, "--num-slices", "2", *RECIPE, **environment | {"DESCRIBED": suspended})
    assert (
        code == 1
        and output == "queued: videmo is SUSPENDED, not ACTIVE; it was preempted: delete and create it again\n"
    )
    assert (hosts / "called").read_text() == "describe videmo\n"


def test_the_status_is_googles_word_and_then_that_of_the_services(queued, cloud):
    hosts, environment = cloud
    waiting = environment["DESCRIBED"].replace("ACTIVE", "WAITING_FOR_RESOURCES")
    code, output = queued("status", *WHERE, "--num-slices", "2", **environment | {"DESCRIBED": waiting})
    assert (code, output) == (0, "videmo: WAITING_FOR_RESOURCES\n")
    (hosts.parent / "tools" / "systemctl").write_text('#!/bin/bash\necho "$(basename "$HOME") ${@: -1} running"\n')
    (hosts.parent / "tools" / "systemctl").chmod(0o755)
    code, output = queued("status", *WHERE, "--num-slices", "2", **environment)
    assert code == 0
    first, *others = output.splitlines()
    assert first == "videmo: ACTIVE"
    assert sorted(others) == [f"{worker.name} videmo@*.service running" for worker in workers(hosts)]


def test_a_step_that_fails_on_one_slice_ends_the_command(queued, cloud):
    hosts, environment = cloud
    (hosts / "videmo-1.1" / "videmo").write_text("in the way")
    code, output = queued("run", *WHERE, "--num-slices", "2", *RECIPE, **environment)
    assert code == 1 and "Traceback" not in output
    last = output.splitlines()[-1]
    assert last.startswith("queued: exit code 1 of: gcloud compute tpus tpu-vm ssh videmo-1 ")
    assert not any("enable" in (worker / "sudo").read_text() for worker in workers(hosts))


def test_only_what_is_committed_is_sent(queued, checkout):
    new = checkout / "configs/new.py"
    new.write_text("")
    for change in (lambda: None, lambda: subprocess.run(["git", "add", new], cwd=checkout, check=True)):
        change()
        code, output = queued("run", *WHERE, "--config", "configs/new.py:stage2", *RECIPE[2:], "--dry-run")
        assert code == 1 and "commit it" in output and len(output.splitlines()) == 1
    subprocess.run(["git", "rm", "--quiet", "-f", new], cwd=checkout, check=True)


def test_the_script_passes_its_linter():
    script = TPU / "worker.sh"
    subprocess.run(["bash", "-n", script], check=True)
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([checker, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_service_passes_its_linter(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "videmo@root.service"
    shutil.copy(TPU / "videmo@.service", unit)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    unit.write_text(unit.read_text().replace("RestartSec", "RestartSeconds"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert "RestartSeconds" in done.stderr  # so it would see a mistake
