"""The train step of a recipe, compiled by libtpu for a slice that is not there."""

import dataclasses
import math
import re
import resource
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from videmo_jax.aot.hlo import Collective, collectives
from videmo_jax.aot.least import least_memory_traffic, least_traffic
from videmo_jax.data.rows import Batch, Budget
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.flops import StepFlops, step_flops
from videmo_jax.model.videmo import Rows
from videmo_jax.sft.step import make_train_step
from videmo_jax.sharding.chips import Chip, chip_of
from videmo_jax.sharding.rules import batch_sharding, batch_shards, make_mesh
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import state_layout
from videmo_jax.training.step import ComputeSpec
from videmo_jax.training.trained import read_trained

MARGIN = 0.9  # of a chip's memory that a step may take: batches ahead and the runtime need some


class CompileError(ValueError):
    """The step cannot be compiled for the slice; the message says why."""


@dataclass(frozen=True)
class Compiled:
    """What is known of a step before it runs. Bytes and seconds are of one device and one step.

    Attributes:
      chip, mesh: of the slice.
      rows, budget: the global batch.
      compute: how it computes.
      parameters: how many.
      memory: bytes by use: arguments, temporaries, total.
      flops: of all devices.
      moved: the collectives; None where the program did not fit and so was not made.
      least: bytes that collectives must move at least.
      memory_traffic: bytes to and from the chip's memory, at least.
      seconds: that the compiler took.
      host_bytes: the most memory that this process held.
    """

    chip: Chip
    mesh: Mesh
    rows: int
    budget: Budget
    compute: ComputeSpec
    parameters: int
    memory: dict[str, float]
    flops: StepFlops
    moved: list[Collective] | None
    least: float
    memory_traffic: float
    seconds: float
    host_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the step leaves a tenth of the chip's memory free."""
        return self.moved is not None and self.memory["total"] <= MARGIN * self.chip.hbm

    def bound_seconds(self) -> dict[str, float]:
        """The least time of a step by what limits it: products, memory, interconnect, network between slices."""
        devices = self.mesh.size
        bounds = {
            "compute": self.flops.executed / devices / self.chip.flops,
            "memory": self.memory_traffic / self.chip.hbm_bandwidth,
        }
        within = devices // _slices(self.mesh)
        for collective in self.moved or ():
            between = len({device // within for device in collective.devices}) > 1
            name = "network" if between else "interconnect"
            speed = self.chip.network_bandwidth if between else self.chip.ring_bandwidth
            bounds[name] = bounds.get(name, 0.0) + collective.total / speed
        return bounds

    def mfu_bound(self) -> float:
        """Model FLOPs utilisation if the slowest of `bound_seconds` took all the time and hid all others."""
        seconds = max(self.bound_seconds().values())
        return self.flops.model / self.mesh.size / self.chip.flops / seconds

    def to_json(self) -> dict[str, Any]:
        """The JSON object that launch/compile.py prints."""
        kinds: dict[str, Counter[str]] = {"bytes": Counter(), "count": Counter()}
        for collective in self.moved or ():
            kinds["bytes"][collective.kind] += round(collective.total)
            kinds["count"][collective.kind] += collective.times
        total = sum(kinds["bytes"].values())
        tokens = self.rows * self.budget.tokens
        return {
            "fits": self.fits,
            "chip": self.chip.name,
            "devices": self.mesh.size,
            "slices": _slices(self.mesh),
            "mesh": {axis: size for axis, size in self.mesh.shape.items() if size > 1},
            **dataclasses.asdict(self.compute),
            "parameters": self.parameters,
            "rows": self.rows,
            "row": dataclasses.asdict(self.budget),
            "tokens_per_step": tokens,
            "tokens_per_chip": tokens / self.mesh.size,
            "hbm_bytes": round(self.memory["total"]),
            "hbm_limit": round(self.chip.hbm),
            "hbm_share": self.memory["total"] / self.chip.hbm,
            "hbm": {name: round(value) for name, value in self.memory.items()},
            "flops_per_step": self.flops.model,
            "executed_flops_per_step": self.flops.executed,
            "collective_bytes": total if self.moved is not None else None,
            "collective_bytes_by_kind": dict(kinds["bytes"]),
            "collectives_by_kind": dict(kinds["count"]),
            "least_collective_bytes": round(self.least),
            "collective_factor": total / self.least if self.moved is not None and self.least else None,
            "bound_seconds": self.bound_seconds(),
            "mfu_bound": self.mfu_bound() if self.moved is not None else None,
            "compile_seconds": self.seconds,
            "host_bytes": self.host_bytes,
        }


def compile_step(config: ConfigDict, topology: str, slices: int = 1) -> Compiled:
    """Compiles the step that `launch/train.py` would run with this config on `slices` slices of `topology`.

    Args:
      config: of `sft.recipe`.
      topology: as libtpu names it, such as «v5p:4x4x4».
      slices: joined by the data-centre network.

    Raises:
      CompileError: the topology is unknown, or libtpu is missing.
      ValueError: the config contradicts itself or the slice.
    """
    devices = _devices(topology, slices)
    chip = chip_of(devices[0])
    if chip is None:
        raise CompileError(f"{topology}: no figures of {devices[0].device_kind!r} in sharding/chips.py")
    mesh = make_mesh(config.mesh.to_dict(), devices)
    model = ModelConfig.from_json(config.model.to_dict())
    compute = ComputeSpec(**config.compute.to_dict())
    budget = Budget(**config.data.row.to_dict())
    shards = batch_shards(mesh) * compute.microbatches
    if config.batch % shards:
        raise ValueError(
            f"batch is {config.batch}; on {topology} it must be a multiple of {shards}: the {batch_shards(mesh)} parts "
            f"that devices split it into, times compute.microbatches {compute.microbatches}"
        )
    optimizer = make_optimizer(OptimizerSpec(**config.optimizer.to_dict()))
    trained = read_trained(model, config.freeze, config.train_also)
    step = make_train_step(model, optimizer, mesh, compute, GuardSpec(**config.guard.to_dict()), trained)
    state = state_layout(model, optimizer, mesh, trained)
    batch = _batch(config.batch, budget, model, mesh)
    began = time.perf_counter()
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder:
        traced = step.compiled.trace(state, batch, jax.ShapeDtypeStruct((), jnp.float32))
        lowered = traced.lower(lowering_platforms=("tpu",))
        dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True, "xla_dump_hlo_pass_re": "none"}
        try:
            memory = _memory(lowered.compile(compiler_options=dump))
            (text,) = Path(folder).glob("*after_codegen.txt")
            moved = collectives(text.read_text())
        except jax.errors.JaxRuntimeError as error:
            memory, moved = {"total": _wanted(error)}, None
    seconds = time.perf_counter() - began
    shape = (config.batch, budget.tokens, budget.slabs, budget.patches)
    how, parts = compute.on(mesh), compute.microbatches
    return Compiled(
        chip,
        mesh,
        config.batch,
        budget,
        compute,
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
        memory,
        step_flops(model, *shape, remat=compute.remat, vision_remat=compute.vision_remat),
        moved,
        least_traffic(state.params, model, mesh, config.batch, budget.tokens, how, parts),
        least_memory_traffic(state.params, model, mesh, config.batch, budget, how, parts),
        seconds,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _devices(topology: str, slices: int) -> list[Any]:
    """The devices of a slice, described by libtpu."""
    several = {"num_slices": slices} if slices > 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **several).devices)
    except Exception as error:  # libtpu raises whatever it likes
        reason = str(error).splitlines()[0][:300]
        raise CompileError(
            f"--topology {topology}: libtpu does not describe it ({reason}). Names are such as v5p:4x4x4 or v5e:16x16; "
            "libtpu comes with pip install -e '.[tpu]'"
        ) from None


def _batch(rows: int, budget: Budget, model: ModelConfig, mesh: Mesh) -> Batch:
    """Shapes and places of a global batch."""

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=batch_sharding(mesh, (rows, *shape)))

    t, s, p = budget.tokens, budget.slabs, budget.patches
    ids = array(jnp.int32, t)
    patches = array(jnp.uint8, s, p, model.vision.patch_values)
    model_rows = Rows(ids, ids, array(jnp.int32, 3, t), ids, patches, array(jnp.int32, s, p, 2))
    return Batch(model_rows, ids, array(jnp.float32, t))


def _memory(compiled: Any) -> dict[str, float]:
    """Bytes on each device: what the program is given and keeps, what it needs beside, and the sum."""
    sizes = compiled.memory_analysis()
    kept = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return {
        "arguments": sizes.argument_size_in_bytes,
        "donated": sizes.alias_size_in_bytes,
        "temporaries": sizes.temp_size_in_bytes,
        "total": kept + sizes.temp_size_in_bytes,
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


def _slices(mesh: Mesh) -> int:
    return len({getattr(device, "slice_index", None) or 0 for device in mesh.devices.flat})
