"""Trains on Cloud TPU VMs: books slices as a queued resource, starts training on all their hosts, gives them back."""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from videmo_jax.pods import queued
from videmo_jax.pods.arguments import OneLineParser, PodError, train_arguments
from videmo_jax.pods.slices import slice_of

EXAMPLES = """examples:
  python launch/tpu/queued.py create --name videmo-7b --zone us-east5-a --topology v5p:4x4x4 --spot
  python launch/tpu/queued.py status --name videmo-7b --zone us-east5-a
  python launch/tpu/queued.py run --name videmo-7b --zone us-east5-a --config configs/curriculum.py \\
      --workdir gs://my-bucket/videmo-7b -- --config.data.root=gs://my-bucket/records
  python launch/tpu/queued.py logs --name videmo-7b --zone us-east5-a --follow
  python launch/tpu/queued.py stop --name videmo-7b --zone us-east5-a
  python launch/tpu/queued.py delete --name videmo-7b --zone us-east5-a

Each takes --dry-run, which prints the commands and does nothing; several slices are named by --num-slices in each.
`run` sends what is committed, so commit your recipe; again, it saves, ends and starts with the new code and flags.
Training goes on when the connection ends, and starts again when it fails or the VM does, 20 times a day at most.
"""

ROOT = Path(__file__).parents[2]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    style = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = OneLineParser(description=__doc__, **style)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about, **style)
        added.add_argument("--name", required=True, help="of the queued resource")
        added.add_argument("--zone", required=True, help="such as us-east5-a")
        added.add_argument("--project", default="", help="default: gcloud's")
        added.add_argument("--num-slices", type=int, default=1, metavar="N", help="default 1")
        added.add_argument("--dry-run", action="store_true", help="print the commands, do nothing")
        return added

    create = command("create", "ask for slices; they come when there are some")
    create.add_argument("--topology", required=True, metavar="GENERATION:SHAPE", help="of a slice, such as v5p:4x4x4")
    tier = create.add_mutually_exclusive_group()
    tier.add_argument("--spot", action="store_const", const="spot", dest="tier", default="", help="may be taken away")
    tier.add_argument("--reserved", action="store_const", const="reserved", dest="tier", help="from your reservation")
    create.add_argument("--runtime-version", default="", help="default: plain Ubuntu for the generation")
    create.add_argument("--service-account", default="", metavar="EMAIL", help="with rights on the bucket")
    create.add_argument("more", nargs="*", metavar="-- FLAG", help="further flags of gcloud, such as --network=NAME")

    run = command("run", "install this checkout on all hosts, and start training")
    run.add_argument("--config", required=True, metavar="FILE[:ARG]", help="of launch/train.py")
    run.add_argument("--workdir", required=True, metavar="DIR", help="gs://BUCKET/FOLDER, or a mounted folder")
    run.add_argument("more", nargs="*", metavar="-- FLAG", help="further flags of launch/train.py")

    command("status", "say whether the slices are there, and whether training runs")
    logs = command("logs", "print what training wrote last")
    logs.add_argument("--worker", default="0", help="of each slice: a number, several as 0-3 or 0,2, or all; default 0")
    logs.add_argument("--lines", type=int, default=100, metavar="N", help="default 100")
    logs.add_argument("--follow", action="store_true", help="go on with new lines")
    command("stop", "let training save and end; keep the slices")
    command("delete", "give the slices back")
    return parser.parse_args(arguments)


class Runner:
    """Runs commands, or prints them."""

    def __init__(self, dry_run: bool) -> None:
        self.dry_run = dry_run
        if not dry_run and shutil.which("gcloud") is None:
            raise PodError(
                "gcloud is not installed: see https://cloud.google.com/sdk/docs/install, "
                "or give --dry-run to see the commands"
            )

    def run(self, *commands: queued.Command) -> None:
        """Runs commands at the same time and waits for all.

        Raises:
          PodError: one of them failed; what it said stands above.
        """
        if self.dry_run:
            print("\n".join(map(shlex.join, commands)))
            return
        with ThreadPoolExecutor(len(commands)) as pool:
            codes = list(pool.map(lambda command: subprocess.run(command, cwd=ROOT, check=False).returncode, commands))
        for command, code in zip(commands, codes, strict=True):
            if code:
                raise PodError(f"exit code {code} of: {shlex.join(command)}")

    def read(self, command: queued.Command) -> str:
        """What a command prints; in a dry run nothing, and the command is printed.

        Raises:
          PodError: it failed; what it said stands above.
        """
        if self.dry_run:
            print(shlex.join(command))
            return ""
        done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise PodError(f"exit code {done.returncode} of: {shlex.join(command)}")
        return done.stdout


def check_committed(config: str) -> None:
    """Checks that the recipe is in what `git archive` sends, as it is here.

    Raises:
      PodError: it is not.
    """
    path = config.partition(":")[0]
    known = subprocess.run(["git", "ls-files", "--error-unmatch", path], cwd=ROOT, check=False, capture_output=True)
    same = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", path], cwd=ROOT, check=False, capture_output=True)
    if known.returncode or same.returncode:
        raise PodError(f"--config {config}: is not committed as it is here, and only commits are sent; commit it")


def train(flags: argparse.Namespace, booking: queued.Booking, runner: Runner) -> None:
    """Sends the checkout, installs and starts; each step on all workers before the next."""
    arguments = train_arguments(ROOT, flags.config, flags.workdir, flags.more)
    check_committed(flags.config)
    described = runner.read(queued.describe(booking))
    if not runner.dry_run:
        queued.check_active(booking, described)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path("" if runner.dry_run else folder) / queued.ARCHIVE
        runner.run(queued.archive(archive))
        runner.run(*queued.copy(booking, archive))
    runner.run(*queued.stop(booking))
    runner.run(*queued.install(booking))
    runner.run(*queued.start(booking, arguments))


def execute(flags: argparse.Namespace) -> None:
    """Runs one command."""
    booking = queued.Booking(flags.name, flags.zone, flags.project, flags.num_slices)
    plan: list[queued.Command] = []
    if flags.command == "create":
        tpu = slice_of(flags.topology)
        plan = [
            queued.create(
                booking,
                tpu,
                tier=flags.tier,
                runtime=flags.runtime_version,
                service_account=flags.service_account,
                more=flags.more,
            )
        ]
    elif flags.command == "logs":
        plan = queued.logs(booking, worker=flags.worker, lines=flags.lines, follow=flags.follow)
    elif flags.command == "stop":
        plan = queued.stop(booking)
    elif flags.command == "delete":
        plan = [queued.delete(booking)]
    runner = Runner(flags.dry_run)
    if flags.command == "run":
        train(flags, booking, runner)
    elif flags.command == "status":
        described = runner.read(queued.describe(booking))
        state, _ = ("ACTIVE", 0) if runner.dry_run else queued.state_of(booking, described)
        if not runner.dry_run:
            print(f"{booking.name}: {state}", flush=True)
        if state == "ACTIVE":
            runner.run(*queued.status(booking))
    else:
        runner.run(*plan)


def main() -> None:
    """Entry point: an error is one line, without a traceback."""
    flags = parse()
    try:
        execute(flags)
    except (PodError, OSError) as error:
        sys.exit(f"queued: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; training, where it runs, goes on")


if __name__ == "__main__":
    main()
