"""Several processes that train as one: how they start, stop together, agree, and end when one of them is gone.

Everything here also works in a single process, where nothing has to be started and there is nobody to ask.
"""

import ctypes
import os
import signal
import time
from types import TracebackType
from typing import NoReturn, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from videmo_jax.files.errors import UserError

HEARTBEAT_SECONDS = 40  # without a sign of life, after which a process counts as lost; a busy host may be late
PREEMPTED = 143  # exit code of a run that was asked to end: 128 + SIGTERM, what schedulers expect
REASON_BYTES = 512  # of a text that processes tell each other

# jax reads the first by itself; the other two are ours, for launchers that jax does not know.
ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

# How a lost process shows, beside the abort that `_speak_when_aborted` is for: Gloo, the coordinator, barriers.
LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "Gloo", "heartbeat", "oordination", "barrier")


class ClusterError(UserError):
    """The processes of a run cannot find each other; the message says what to set."""


class Preempted(RuntimeError):
    """The run was asked to end, and has saved the step that the message names."""


class _Self:
    """What this process is and does, for the message of its end."""

    number = 0
    step = 0
    leaving = False


def start() -> bool:
    """Joins the other processes of this run where the environment tells of any; before a device is touched.

    What jax itself detects is found: TPU pods (Cloud TPU VMs, GKE), SLURM, Open MPI, Kubernetes Jobs. Other launchers
    set JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Returns:
      Whether this is one of several processes, or could be.

    Raises:
      ClusterError: the environment tells of others, but not enough, or they cannot be reached.
    """
    given = [os.environ.get(name) for name in (ADDRESS, COUNT, NUMBER)]
    address, *numbers = given
    try:
        count, number = (int(value) if value else None for value in numbers)
    except ValueError:
        raise ClusterError(f"{COUNT} is {numbers[0]!r}, {NUMBER} is {numbers[1]!r}; both must be numbers") from None
    if not address and not _may_be_detected():
        return False
    try:
        jax.distributed.initialize(
            address,
            count,
            number,
            # Nothing is left to detect, and a detection that fails would end the run.
            cluster_detection_method="deactivate" if all(given) else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        if not any(given):
            return False  # jax found no cluster: a plain run
        missing = [name for name, value in zip((ADDRESS, COUNT, NUMBER), given, strict=True) if not value]
        raise ClusterError(f"{error} Set {', '.join(missing) or 'them anew'}, or none of the three") from None
    except RuntimeError as error:
        raise ClusterError(f"the other processes of this run cannot be reached: {error}") from None
    _speak_when_aborted()
    _Self.number = jax.process_index()
    return True


def _may_be_detected() -> bool:
    """Whether jax may look for a cluster; where it would find one of a single process, or fail, it need not."""
    if "1" in (os.environ.get("SLURM_NTASKS"), os.environ.get("OMPI_COMM_WORLD_SIZE")):
        return False
    # Of Kubernetes' pods, only numbered ones of a Job can tell which process they are.
    numbered = ("JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
    return "KUBERNETES_SERVICE_HOST" not in os.environ or any(name in os.environ for name in numbered)


def _speak_when_aborted() -> None:
    """Ends with our message where jaxlib would abort: it does so as soon as it learns that a process is lost.

    The abort comes in a thread of jaxlib, while the main one may hang in a collective; and its own callback for this
    moment cannot be a Python function (it fails to convert the status). So the signal is caught in C, by ctypes.
    """
    libc_signal = ctypes.CDLL(None).signal
    libc_signal.argtypes, libc_signal.restype = (ctypes.c_int, _HANDLER), ctypes.c_void_p
    libc_signal(signal.SIGABRT, _ON_ABORT)


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


@_HANDLER
def _ON_ABORT(_: int) -> None:
    leave(lost_message())


def several() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def step() -> int:
    """The step that this process has taken last, 0 before the first."""
    return _Self.step


def is_lost(error: BaseException) -> bool:
    """Whether an error of jax's runtime comes from a process that is gone, and not from this one."""
    return several() and isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)


def lost_message() -> str:
    """What is said when another process is gone."""
    return (
        f"step {_Self.step}: another process of this run ended or cannot be reached (its own output says why); "
        "run the same command again on all hosts, and it goes on from the last checkpoint"
    )


def leave(message: str, code: int = 1) -> NoReturn:
    """Says one line and ends at once: the way out for one process of several.

    An ordinary exit waits for the others, which may be gone, or wait in a collective for this one.
    """
    if not _Self.leaving:  # a thread of jaxlib and the main one may learn of a lost process at the same time
        _Self.leaving = True
        os.write(2, f"train: {' '.join(message.split())}\n".encode())
    if _Self.number == 0:
        time.sleep(2)  # when process 0 ends, all others do: time for those that fail alike to say so
    os._exit(code)


def finish() -> None:
    """Waits for the other processes and parts from them; nothing in a plain run."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def agree(problem: str) -> str:
    """The first problem that any process has; "" where none has. All processes must call it."""
    if not several():
        return problem
    reason = problem.encode()[:REASON_BYTES]
    mine = np.zeros(REASON_BYTES, np.uint8)
    mine[: len(reason)] = np.frombuffer(reason, np.uint8)
    for row in multihost_utils.process_allgather(mine):
        if row.any():
            return row.tobytes().rstrip(b"\0").decode(errors="ignore")
    return ""


def wait_for_all(name: str) -> None:
    """A barrier of all processes; `name` must be the same in each."""
    if several():
        multihost_utils.sync_global_devices(name)


class Stop:
    """Asks after each step whether the run is to end: SIGTERM to any process, or a notice of preemption.

    Several processes agree on one step, by jax's protocol, which costs nothing while there is no notice. A context
    manager: in a plain run it holds the signal's handler. A second SIGTERM changes nothing.
    """

    def __init__(self) -> None:
        self._asked = False
        self._calls = 0
        self._before: signal._HANDLER = signal.SIG_DFL

    def __enter__(self) -> Self:
        if not jax.distributed.is_initialized():  # else jax holds it
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a notice the signal stays caught: a second one must not cut short what is still being written.
        if not jax.distributed.is_initialized() and not self._asked:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self._asked = True

    @property
    def asked(self) -> bool:
        """Whether this process was asked to end; False where several have to agree, which they do between steps."""
        return self._asked

    def after(self, step: int) -> bool:
        """Whether to save `step` and end; all processes must ask after every step, and hear the same."""
        _Self.step = step
        if not jax.distributed.is_initialized():
            return self._asked
        # Counted from this process's first step: a notice that came before it means that one, whatever its number.
        self._calls += 1
        return multihost_utils.reached_preemption_sync_point(self._calls)
