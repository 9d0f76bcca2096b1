"""One program, compiled by libtpu for a slice that is not there: memory, traffic, bounds on its speed."""

import math
import re
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from videmo_jax.aot.hlo import Collective, collectives
from videmo_jax.files.errors import UserError
from videmo_jax.model.flops import StepFlops
from videmo_jax.sharding.chips import Chip

MARGIN = 0.9  # of a chip's memory that may be taken: batches ahead and the runtime need some
# Texts that the compiler leaves, and nothing else: whatever changes a program stands at its own `jax.jit`, where
# training finds it as well.
DUMP = {"xla_dump_hlo_as_text": True, "xla_dump_hlo_pass_re": "none"}


class CompileError(UserError):
    """A program cannot be compiled for the slice; the message says why."""


@dataclass(frozen=True)
class Work:
    """What a program does in one call, counted from the architecture.

    Attributes:
      flops: of all devices.
      memory_traffic: bytes to and from a chip's memory, at least.
      least: bytes that collectives must move into a device at least; None: no formula says.
    """

    flops: StepFlops
    memory_traffic: float
    least: float | None = None


@dataclass(frozen=True)
class Program:
    """What is known of a program before it runs. Bytes and seconds are of one device and one call.

    Attributes:
      name: what it does in a step.
      chip, mesh: of the slice.
      memory: bytes by use: arguments, temporaries, and, where something is held beside the program, that; total.
      work: what it computes.
      moved: the collectives; None where the program did not fit and so was not made.
      seconds: that the compiler took.
    """

    name: str
    chip: Chip
    mesh: Mesh
    memory: dict[str, float]
    work: Work
    moved: list[Collective] | None
    seconds: float

    @property
    def fits(self) -> bool:
        """Whether a tenth of the chip's memory stays free."""
        return self.moved is not None and self.memory["total"] <= MARGIN * self.chip.hbm

    def bound_seconds(self) -> dict[str, float]:
        """The least time of a call by what limits it: products, memory, interconnect, network between slices."""
        devices = self.mesh.size
        bounds = {
            "compute": self.work.flops.executed / devices / self.chip.flops,
            "memory": self.work.memory_traffic / self.chip.hbm_bandwidth,
        }
        within = devices // slices_of(self.mesh)
        for collective in self.moved or ():
            between = len({device // within for device in collective.devices}) > 1
            name = "network" if between else "interconnect"
            speed = self.chip.network_bandwidth if between else self.chip.ring_bandwidth
            bounds[name] = bounds.get(name, 0.0) + collective.total / speed
        return bounds

    def mfu_bound(self) -> float | None:
        """Model FLOPs utilisation if the slowest of `bound_seconds` took all the time and hid all others."""
        if self.moved is None:
            return None
        seconds = max(self.bound_seconds().values())
        return self.work.flops.model / self.mesh.size / self.chip.flops / seconds

    def by_kind(self) -> tuple[Counter[str], Counter[str]]:
        """(bytes, times) of the collectives by their kind."""
        size, count = Counter[str](), Counter[str]()
        for collective in self.moved or ():
            size[collective.kind] += round(collective.total)
            count[collective.kind] += collective.times
        return size, count

    def to_json(self) -> dict[str, Any]:
        """The figures, as `launch/compile.py` prints them."""
        size, count = self.by_kind()
        total, least = sum(size.values()), self.work.least
        made = self.moved is not None
        return {
            "hbm_bytes": round(self.memory["total"]),
            "hbm_limit": round(self.chip.hbm),
            "hbm_share": self.memory["total"] / self.chip.hbm,
            "hbm": {name: round(value) for name, value in self.memory.items()},
            "flops_per_step": self.work.flops.model,
            "executed_flops_per_step": self.work.flops.executed,
            "collective_bytes": total if made else None,
            "collective_bytes_by_kind": dict(size),
            "collectives_by_kind": dict(count),
            "least_collective_bytes": None if least is None else round(least),
            "collective_factor": total / least if made and least else None,
            "bound_seconds": self.bound_seconds(),
            "mfu_bound": self.mfu_bound(),
            "compile_seconds": self.seconds,
        }


def compile_program(
    name: str,
    function: Any,
    arguments: Sequence[Any],
    mesh: Mesh,
    chip: Chip,
    work: Work,
    *,
    beside: float | None = None,
    open_trips: int | None = None,
) -> Program:
    """Compiles a jitted function.

    Args:
      name: of the program.
      function: from `jax.jit`.
      arguments: shapes, dtypes and places of what it is called with.
      mesh: to compute on.
      chip: of the mesh.
      work: that it does.
      beside: bytes on each device that are neither its arguments nor its results, and stay there meanwhile.
      open_trips: how often a loop runs that ends when its data say so, in the count of collectives.

    Raises:
      CompileError: the compiler failed for another reason than memory.
    """
    began = time.perf_counter()
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder:
        lowered = function.trace(*arguments).lower(lowering_platforms=("tpu",))
        try:
            sizes = lowered.compile(compiler_options={"xla_dump_to": folder, **DUMP}).memory_analysis()
            memory = _memory(sizes, assigned_bytes(_text(folder, "memory-usage-report")))
            moved = collectives(_text(folder, "after_codegen"), open_trips=open_trips)
        except jax.errors.JaxRuntimeError as error:
            memory, moved = {"total": _wanted(error)}, None
    if beside is not None:
        memory = {**memory, "beside": beside, "total": memory["total"] + beside}
    return Program(name, chip, mesh, memory, work, moved, time.perf_counter() - began)


def bytes_on_device(tree: Any) -> float:
    """Bytes that a device holds of arrays with places."""
    shapes = [(leaf.sharding.shard_shape(leaf.shape), leaf.dtype.itemsize) for leaf in jax.tree.leaves(tree)]
    return float(sum(width * math.prod(shape) for shape, width in shapes))


def slices_of(mesh: Mesh) -> int:
    """How many slices a mesh's devices are of."""
    return len({getattr(device, "slice_index", None) or 0 for device in mesh.devices.flat})


def assigned_bytes(report: str) -> int:
    """What the compiler assigned of a chip's memory: arguments, results and temporaries, with the gaps between them.

    By this sum it refuses what does not fit. `temp_size_in_bytes` is another: libtpu 0.0.42 and 0.0.50 count most of
    what a scan keeps for its backward pass twice (7B on v5p:4x4x4: 116.6 GiB, where 81.5 are assigned in all).

    Args:
      report: the memory usage that the compiler dumps.

    Raises:
      CompileError: it does not say so.
    """
    found = re.search(r"Memory Space: default \(color=0\)\s+Total bytes: (\d+)", report)
    if found is None:
        raise CompileError("the compiler's report of memory has no total; use the libtpu that this jax pins")
    return int(found[1])


def _text(folder: str, name: str) -> str:
    """What the compiler dumped under a name."""
    files = list(Path(folder).glob(f"*{name}.txt"))
    if len(files) != 1:
        raise CompileError(f"the compiler left {len(files)} texts {name!r}; use the libtpu that this jax pins")
    return files[0].read_text()


def _memory(sizes: Any, total: int) -> dict[str, float]:
    """Bytes on each device: what the program is given and keeps, what it needs beside, and the sum."""
    kept = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return {
        "arguments": sizes.argument_size_in_bytes,
        "donated": sizes.alias_size_in_bytes,
        "temporaries": total - kept,
        "total": total,
    }


def _wanted(error: Exception) -> float:
    """The memory that a program would have needed, from the compiler's message that there is not so much.

    Raises:
      CompileError: it is another error.
    """
    message = str(error)
    match = re.search(r"exceeds available HBM|Ran out of memory in memory space hbm|CompileTimeHbmOom", message)
    sizes = re.findall(r"\(?([\d.]+)([MG])\)?", message)
    if match is None or not sizes:
        raise CompileError(f"the compiler failed: {message.splitlines()[0][:500]}") from error
    number, unit = sizes[0]
    return float(number) * {"M": 2**20, "G": 2**30}[unit]
