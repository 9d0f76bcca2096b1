"""A run on several hosts, played by two processes of four devices each: ended, damaged, lost, laid out anew."""

import re
import signal
import time

import jax
import pytest

from tests.launch.commands import Pair, run, run_pair, start, train_arguments
from tests.launch.restored import restored_hash
from tests.launch.test_train import logged
from videmo_jax.sharding.rules import make_mesh
from videmo_jax.training.checkpoint import steps

pytestmark = pytest.mark.slow

STEPS = 20
LOST = "another process of this run ended or cannot be reached"
LAYOUTS = {"one": ("fsdp=1",), "eight": ("fsdp=4", "tensor=2"), "pair": ("replica=2", "fsdp=2", "tensor=2")}


@pytest.fixture(scope="module")
def arguments(synthetic):
    """Makes the arguments of a run, every step of which is logged, and saved unless it is said how many are not."""

    def make(workdir, layout="pair", every=1):
        plan = (f"--config.steps={STEPS}", f"--config.checkpoint.every={every}", "--config.log.every=1")
        mesh = (f"--config.mesh.{axis}" for axis in LAYOUTS[layout])
        return train_arguments(workdir, synthetic, *plan, *mesh, "--config.held_out.samples=0")

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory, arguments):
    """The workdir of two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    first, second = run_pair(arguments(folder / "run", every=STEPS), folder)
    assert f"step {STEPS}/{STEPS}" in first and f"/{STEPS}  loss" not in second
    return folder / "run"


@pytest.fixture(scope="module")
def alone(tmp_path_factory, arguments):
    """Workdirs of runs of one process: with one device, and with eight."""
    folder = tmp_path_factory.mktemp("alone")
    for name, devices, more in (("one", "1", ("--config.checkpoint.minutes=1e-9",)), ("eight", "8", ())):
        code, output = run([*arguments(folder / name, name, every=STEPS), *more], JAX_NUM_CPU_DEVICES=devices)
        assert code == 0, output
    return folder


def on_one(workdir):
    """A hash of the newest checkpoint, restored by this process onto one device."""
    return restored_hash(workdir, make_mesh({"data": 1}, jax.devices()[:1]))


def losses(workdir):
    return [(line["step"], line["loss"]) for line in logged(workdir)]


def wait_for_step(workdir, step, processes):
    while not any(line["step"] >= step for line in logged(workdir)):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_what_is_logged_is_saved_where_so_many_minutes_went_by(alone):
    assert steps(alone / "one") == [STEPS - 2, STEPS - 1, STEPS] and steps(alone / "eight") == [STEPS]


def test_losses_do_not_depend_on_the_layout(whole, alone):
    reference = losses(alone / "one")
    assert len(reference) == STEPS
    for workdir in (whole, alone / "eight"):
        for (step, loss), (number, other) in zip(reference, losses(workdir), strict=True):
            assert step == number and abs(loss - other) < 1e-5, step


def test_a_checkpoint_restores_into_any_layout_bit_for_bit(whole, alone, tmp_path):
    """Saved by two processes and restored by one, and the other way round."""
    code, output = run(["-m", "tests.launch.restored", whole, *LAYOUTS["eight"]], JAX_NUM_CPU_DEVICES="8")
    assert code == 0 and output.split()[-1] == on_one(whole)
    first, second = run_pair(["-m", "tests.launch.restored", alone / "eight", *LAYOUTS["pair"]], tmp_path)
    assert first.split()[-1] == second.split()[-1] == on_one(alone / "eight")


def test_whatever_happens_to_a_run_it_goes_on_bit_for_bit(whole, arguments, tmp_path):
    """SIGTERM to one process; damage to what was saved; one process killed; the other one killed."""
    workdir = tmp_path / "run"
    with Pair(arguments(workdir), tmp_path) as pair:
        wait_for_step(workdir, 2, pair.processes)
        while pair.processes[1].poll() is None:  # a scheduler that repeats itself spoils nothing
            pair.processes[1].send_signal(signal.SIGTERM)
            time.sleep(0.3)
        results = [pair.wait(number) for number in (0, 1)]
    assert [code for code, _ in results] == [143, 143], results
    (step,) = {int(re.search(r"train: step (\d+): asked to end, and saved", output)[1]) for _, output in results}
    assert steps(workdir)[-1] == step < STEPS - 8

    pieces = (workdir / f"checkpoints/{step}/params/ocdbt.process_1/d").iterdir()
    flip(max(pieces, key=lambda path: path.stat().st_size))
    for victim, after in ((1, step + 2), (0, step + 5)):
        with Pair(arguments(workdir), tmp_path) as pair:
            wait_for_step(workdir, after, pair.processes)
            pair.processes[victim].kill()
            killed = time.monotonic()
            code, output = pair.wait(1 - victim)
            print(f"{time.monotonic() - killed:.1f} s from the end of process {victim} to that of the other")
            assert time.monotonic() - killed < 60
            if victim == 1:
                said = "".join(output.split())  # long paths are broken anywhere
                assert f"checkpoints/{step}:params" in said
                assert f"damaged/{step};goingonfromstep{step - 1}" in said
        assert code == 1, output
        (line,) = [line for line in output.splitlines() if line.startswith("train: ")]
        assert re.match(rf"train: step \d+: {LOST}", line)
    assert (workdir / f"damaged/{step}/params").exists()

    run_pair(arguments(workdir), tmp_path)
    assert losses(workdir) == losses(whole)
    assert on_one(workdir) == on_one(whole)


def test_sigterm_to_a_run_of_one_process(alone, arguments, tmp_path):
    workdir = tmp_path / "run"
    process = start(arguments(workdir, "one"))
    wait_for_step(workdir, 3, [process])
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    output, _ = process.communicate()
    assert process.returncode == 143, output
    step = int(re.search(r"train: step (\d+): asked to end, and saved", output)[1])
    assert steps(workdir)[-1] == step < STEPS
    code, output = run(arguments(workdir, "one"))
    assert code == 0 and f"resumed from step {step}" in output
    assert losses(workdir) == losses(alone / "one")
    assert on_one(workdir) == on_one(alone / "one")


def test_what_is_wrong_with_the_environment_is_one_line(arguments, tmp_path):
    for environment, said in (
        ({"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"}, "Set JAX_NUM_PROCESSES, JAX_PROCESS_ID"),
        ({"JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, "JAX_NUM_PROCESSES is 'two'"),
    ):
        code, output = run(arguments(tmp_path / "run"), **environment)
        assert code == 1 and said in output and "Traceback" not in output
    assert not (tmp_path / "run").exists()
