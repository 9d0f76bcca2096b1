"""What a recipe computes in a step, compiled by libtpu for a slice that is not there."""

import dataclasses
import math
import resource
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from videmo_jax.aot.least import least_memory_traffic, least_traffic
from videmo_jax.aot.program import CompileError, Program, Work, compile_program, slices_of
from videmo_jax.aot.rl_programs import rl_programs
from videmo_jax.aot.shapes import batch_layout
from videmo_jax.aot.versions import Versions, installed
from videmo_jax.data.rows import Budget
from videmo_jax.files.errors import UserError
from videmo_jax.model.config import ModelConfig
from videmo_jax.model.flops import step_flops
from videmo_jax.model.videmo import abstract_model
from videmo_jax.sft.step import make_train_step
from videmo_jax.sharding.chips import Chip, chip_of
from videmo_jax.sharding.rules import batch_shards, make_mesh
from videmo_jax.training.guard import GuardSpec
from videmo_jax.training.optimizer import OptimizerSpec, make_optimizer
from videmo_jax.training.state import state_layout
from videmo_jax.training.step import ComputeSpec
from videmo_jax.training.trained import read_trained


@dataclass(frozen=True)
class Compiled:
    """What is known of a step before it runs. Bytes and seconds are of one device and one step.

    Attributes:
      chip, mesh: of the slice.
      rows, budget: the global batch.
      compute: how it computes.
      parameters: how many.
      programs: that it consists of, the one that trains last: SFT has no other.
      answers, slots: to each row, tokens of each, as rows of RL hold them; 0: they hold none.
      updates: calls of the last program; all others are called once.
      versions: of what compiled it.
      host_bytes: the most memory that this process held.
    """

    chip: Chip
    mesh: Mesh
    rows: int
    budget: Budget
    compute: ComputeSpec
    parameters: int
    programs: tuple[Program, ...]
    answers: int
    slots: int
    updates: int
    versions: Versions
    host_bytes: int

    @property
    def fits(self) -> bool:
        """Whether each program leaves a tenth of the chip's memory free."""
        return all(program.fits for program in self.programs)

    @property
    def tokens(self) -> int:
        """Of text and vision, in all rows with their answers."""
        return self.rows * (self.budget.tokens + self.answers * self.slots)

    def to_json(self) -> dict[str, Any]:
        """The JSON object that launch/compile.py prints.

        Of several programs, memory is that of the one that takes most; operations, bytes and seconds are sums; bounds
        on MFU and factors are the update's.
        """
        described = {
            "fits": self.fits,
            "versions": self.versions.to_json(),
            "chip": self.chip.name,
            "devices": self.mesh.size,
            "slices": slices_of(self.mesh),
            "mesh": {axis: size for axis, size in self.mesh.shape.items() if size > 1},
            **dataclasses.asdict(self.compute),
            "parameters": self.parameters,
            "rows": self.rows,
            "row": dataclasses.asdict(self.budget),
            "tokens_per_step": self.tokens,
            "tokens_per_chip": self.tokens / self.mesh.size,
        }
        trained = self.programs[-1].to_json()
        if len(self.programs) == 1:
            return {**described, **trained, "host_bytes": self.host_bytes}
        called = [(program, program.to_json(), 1) for program in self.programs[:-1]]
        called.append((self.programs[-1], trained, self.updates))
        largest = max((figures for _, figures, _ in called), key=lambda figures: figures["hbm_bytes"])
        sums: dict[str, Any] = {
            name: sum(figures[name] * times for _, figures, times in called)
            for name in ("flops_per_step", "executed_flops_per_step")
        }
        for name in ("collective_bytes_by_kind", "collectives_by_kind", "bound_seconds"):
            sums[name] = _added([(figures[name], times) for _, figures, times in called])
        made = all(program.moved is not None for program in self.programs)
        return {
            **described,
            "answers": self.answers,
            "max_new_tokens": self.slots,
            "updates": self.updates,
            **trained,
            **{name: largest[name] for name in ("hbm_bytes", "hbm_limit", "hbm_share", "hbm")},
            **sums,
            "collective_bytes": sum(sums["collective_bytes_by_kind"].values()) if made else None,
            "compile_seconds": sum(figures["compile_seconds"] for _, figures, _ in called),
            "host_bytes": self.host_bytes,
            "programs": {program.name: {"fits": program.fits, **figures} for program, figures, _ in called},
        }


def _added(parts: list[tuple[dict[str, Any], int]]) -> dict[str, Any]:
    """The sum of what each name has, so many times each."""
    total: Counter[str] = Counter()
    for values, times in parts:
        for name, value in values.items():
            total[name] += value * times
    return dict(total)


def compile_step(config: ConfigDict, topology: str, slices: int = 1) -> Compiled:
    """Compiles what `launch/train.py` would run with this config on `slices` slices of `topology`.

    Args:
      config: of `sft.recipe`, or of `rl.recipe`: it has a rollout.
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
    compute = ComputeSpec(**config.compute.to_dict())
    shards = batch_shards(mesh) * compute.microbatches
    if config.batch % shards:
        raise UserError(
            f"batch is {config.batch}; on {topology} it must be a multiple of {shards}: the {batch_shards(mesh)} parts "
            f"that devices split it into, times compute.microbatches {compute.microbatches}"
        )
    answers, slots, updates = 0, 0, 1
    if "rollout" in config:
        answers, slots, updates = config.rollout.answers, config.rollout.max_new_tokens, config.grpo.updates
        programs = rl_programs(config, mesh, chip)
    else:
        programs = (_sft_program(config, mesh, chip),)
    params = nnx.state(abstract_model(ModelConfig.from_json(config.model.to_dict())), nnx.Param)
    return Compiled(
        chip,
        mesh,
        config.batch,
        Budget(**config.data.row.to_dict()),
        compute,
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        programs,
        answers,
        slots,
        updates,
        installed(),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _sft_program(config: ConfigDict, mesh: Mesh, chip: Chip) -> Program:
    """The train step of SFT."""
    model = ModelConfig.from_json(config.model.to_dict())
    compute = ComputeSpec(**config.compute.to_dict())
    budget = Budget(**config.data.row.to_dict())
    optimizer = make_optimizer(OptimizerSpec(**config.optimizer.to_dict()))
    trained = read_trained(model, config.freeze, config.train_also)
    step = make_train_step(model, optimizer, mesh, compute, GuardSpec(**config.guard.to_dict()), trained)
    state = state_layout(model, optimizer, mesh, trained)
    how, parts = compute.on(mesh), compute.microbatches
    shape = (config.batch, budget.tokens, budget.slabs, budget.patches)
    work = Work(
        step_flops(model, *shape, remat=compute.remat, vision_remat=compute.vision_remat),
        least_memory_traffic(state.params, model, mesh, config.batch, budget, how, parts),
        least_traffic(state.params, model, mesh, config.batch, budget.tokens, how, parts),
    )
    batch = batch_layout(config.batch, budget, model, mesh)
    arguments = (*state.split(trained), batch, jax.ShapeDtypeStruct((), jnp.float32))
    return compile_program("step", step.compiled, arguments, mesh, chip, work)


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
