"""The programs of a step of RL on one mesh, each with what the others leave on the chip (`rl.iteration`)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from videmo_jax.aot.least import least_memory_traffic, least_traffic
from videmo_jax.aot.program import Program, Work, bytes_on_device, compile_program
from videmo_jax.aot.shapes import on_batch, rows_layout
from videmo_jax.model.flops import StepFlops, group_step_flops
from videmo_jax.model.videmo import abstract_model
from videmo_jax.rl.iteration import Programs
from videmo_jax.rl.plan import RlSettings, read_rl_settings
from videmo_jax.rl.rollout import make_sampler
from videmo_jax.rl.rows import with_answers
from videmo_jax.sharding.chips import Chip
from videmo_jax.sharding.rules import batch_shards, shard_state, whole_mesh
from videmo_jax.training.optimizer import make_optimizer
from videmo_jax.training.state import state_layout

# Ids that end answers and ids that are never drawn, as many as Qwen2.5-VL has of its own: a program has them as
# constants, and neither its memory nor its products depend on which ones they are.
STOPS, BANNED = (0, 1), tuple(range(2, 22))


def rl_programs(config: ConfigDict, mesh: Mesh, chip: Chip) -> tuple[Program, ...]:
    """Gather, rollout, reference and update of a step, compiled one after the other.

    FLOPs and collectives of the rollout are those of answers as long as they may get: a rollout ends sooner when all
    answers of a device have.

    Args:
      config: of `rl.recipe`; `init` may be empty.
      mesh: of the slice.
      chip: of the mesh.

    Raises:
      CompileError: a program cannot be compiled.
      ValueError: the config contradicts itself.
    """
    settings = read_rl_settings(config, "", runs=False)
    shared, decoding = settings.shared, settings.decoding
    optimizer = make_optimizer(settings.stage.optimizer)
    programs, whole = Programs(settings, mesh, optimizer), whole_mesh(mesh)
    sample = make_sampler(shared.model, mesh, shared.compute.dtype, decoding, STOPS, BANNED)

    dtype = jnp.dtype(shared.compute.dtype)
    state = state_layout(shared.model, optimizer, mesh, shared.trained)
    weights, reference = _weights(settings, whole, dtype), _weights(settings, mesh, dtype)
    rows = rows_layout(config.batch, shared.budget, shared.model, mesh)
    drawn = (config.batch, decoding.answers, decoding.max_new_tokens)
    answers = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in ((drawn, "int32"), (drawn[:2], "int32"))]
    group = on_batch(jax.eval_shape(with_answers, rows, *answers, jax.ShapeDtypeStruct(drawn, "float32")), mesh)

    policy, held = bytes_on_device(state), 0.0
    if settings.grpo.beta or settings.rewards.caption == "reference":
        held = bytes_on_device(reference)
    # With one step of staleness the rollout before waits for its rewards meanwhile.
    batch = bytes_on_device(group) * (1 + settings.staleness) + bytes_on_device(rows)
    flops = _flops(settings, config.batch)
    once, decoded = _rollout_traffic(settings, weights, config.batch, mesh)
    seeds = on_batch(jax.ShapeDtypeStruct((config.batch,), "uint32"), whole)
    how, parts, length = shared.compute.on(mesh), shared.compute.microbatches, group.layout.length
    update = Work(
        flops,
        least_memory_traffic(
            state.params,
            shared.model,
            mesh,
            config.batch,
            dataclasses.replace(shared.budget, tokens=length),
            how,
            parts,
        ),
        least_traffic(state.params, shared.model, mesh, config.batch, length, how, parts),
    )
    forward = StepFlops(flops.model / 3, flops.model / 3)
    gathering = Work(StepFlops(0.0, 0.0), bytes_on_device(state.params) + bytes_on_device(weights))
    found = [
        compile_program(
            "gather",
            programs.gather.compiled,
            (state.params,),
            mesh,
            chip,
            gathering,
            beside=policy - bytes_on_device(state.params) + held + batch,
        ),
        compile_program(
            "rollout",
            sample.compiled,
            (weights, on_batch(rows, whole), seeds),
            whole,
            chip,
            Work(forward, once + (decoding.max_new_tokens - 1) * decoded),
            beside=policy + held + batch - bytes_on_device(rows),
            open_trips=decoding.max_new_tokens - 1,
        ),
    ]
    if settings.grpo.beta:
        read = Work(forward, bytes_on_device(weights))
        call = programs.log_probs.compiled, (reference, group), mesh, chip, read
        found.append(compile_program("reference", *call, beside=policy + batch - bytes_on_device(group)))
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    call = programs.update.compiled, (state, group, rate), mesh, chip, update
    found.append(compile_program("update", *call, beside=held + batch - bytes_on_device(group)))
    return tuple(found)


def _weights(settings: RlSettings, mesh: Mesh, dtype: Any) -> nnx.State:
    """Shapes and places of parameters in the dtype of the computation."""
    params = nnx.state(abstract_model(settings.shared.model), nnx.Param)
    return jax.tree.map(
        lambda a, sharding: jax.ShapeDtypeStruct(a.shape, dtype, sharding=sharding), params, shard_state(params, mesh)
    )


def _flops(settings: RlSettings, rows: int) -> StepFlops:
    """Of one update. A third of the model's own are those of a pass forward, which the rollout makes bit by bit."""
    shared, decoding, row = settings.shared, settings.decoding, settings.shared.budget
    shape = (row.tokens, decoding.answers, decoding.max_new_tokens, row.slabs, row.patches)
    again = {"remat": shared.compute.remat, "vision_remat": shared.compute.vision_remat}
    return group_step_flops(shared.model, rows, *shape, **again)


def _rollout_traffic(settings: RlSettings, weights: nnx.State, rows: int, mesh: Mesh) -> tuple[float, float]:
    """Bytes that a chip must read of its memory: while it reads prompts, and for each further token of its answers.

    For a token: the decoder's weights and the output table, the caches of prompts, and half of the answers' own.
    """
    shared, decoding, text = settings.shared, settings.decoding, settings.shared.model.text
    language = weights["language"]
    read = bytes_on_device(language)
    if not text.tied:
        read -= bytes_on_device(language["embedding"])  # of which a few rows are looked up
    places = shared.budget.tokens + decoding.answers * decoding.max_new_tokens / 2
    place = 2 * text.layers * text.kv_heads // mesh.shape["tensor"] * text.head_width
    cached = rows / batch_shards(mesh) * places * place * jnp.dtype(shared.compute.dtype).itemsize
    return bytes_on_device(weights), read + cached
