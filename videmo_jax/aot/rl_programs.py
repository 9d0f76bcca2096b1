"""The programs of a step of RL on one mesh, each with what the others leave on the chip (`rl.programs`)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from videmo_jax.aot.least import least_memory_traffic, least_traffic
from videmo_jax.aot.program import Program, Work, bytes_on_device, compile_program
from videmo_jax.aot.shapes import on_batch, rows_layout
from videmo_jax.data.rows import Budget
from videmo_jax.model.flops import StepFlops, group_step_flops, packed_step_flops
from videmo_jax.model.videmo import Rows, abstract_model
from videmo_jax.rl.layout import Layout, empty_layout, most_rows
from videmo_jax.rl.plan import RlSettings, read_rl_settings
from videmo_jax.rl.programs import Programs
from videmo_jax.rl.reference import reference_layout
from videmo_jax.rl.rollout import make_sampler
from videmo_jax.rl.rows import GroupBatch, with_answers
from videmo_jax.sampling.decode import Answers
from videmo_jax.sharding.chips import Chip
from videmo_jax.sharding.rules import batch_shards, shard_state, whole_mesh
from videmo_jax.training.optimizer import make_optimizer
from videmo_jax.training.state import TrainState, state_layout

# Ids that end answers and ids that are never drawn, as many as the 7B model has of both (152,064 rows, 151,665 tokens,
# 12 control tokens): a program has them as constants, and neither its memory nor its products depend on which ones.
STOPS, BANNED = (0, 1), tuple(range(2, 413))


@dataclass(frozen=True)
class _Arrays:
    """Shapes and places of what a step holds: all that stays on the chip from one of its programs to the next.

    Attributes:
      state: what is trained.
      reference: its parameters, the frozen ones those of the state; None: nothing asks for them.
      rows: prompts.
      answers: to them.
      layout: where everything is put.
      group: they in packed rows.
    """

    state: TrainState
    reference: nnx.State | None
    rows: Rows
    answers: Answers
    layout: Layout
    group: GroupBatch


def rl_programs(config: ConfigDict, mesh: Mesh, chip: Chip) -> tuple[Program, ...]:
    """Gather, rollout, packing, reference and update of a step, compiled one after the other.

    FLOPs and collectives of the rollout are those of answers as long as they may get: a rollout ends sooner when all
    answers of a device have. Those of reference and update are of the longest of the packed rows, one for each device:
    what Emo-CFG's answers take at most (`tests.benchmarks.filled`). Longer answers take several such rows.

    Args:
      config: of `rl.recipe`; `init` may be empty.
      mesh: of the slice.
      chip: of the mesh.

    Raises:
      CompileError: a program cannot be compiled.
      ValueError: the config contradicts itself.
    """
    settings = read_rl_settings(config, "", runs=False)
    shared, decoding, whole = settings.shared, settings.decoding, whole_mesh(mesh, settings.rollout_tensor)
    optimizer = make_optimizer(settings.stage.optimizer)
    programs = Programs(settings, mesh, optimizer)
    tensor = settings.rollout_tensor
    sample = make_sampler(shared.model, mesh, shared.compute.dtype, decoding, STOPS, BANNED, tensor=tensor)
    state = state_layout(shared.model, optimizer, mesh, shared.trained)
    arrays = _arrays(settings, state, config.batch, mesh)
    weights = _weights(settings, whole)
    works = _works(settings, arrays, weights, config.batch, mesh, whole)
    # With one step of staleness the batch before waits for its rewards meanwhile.
    # Before several updates parameters and moments are copied: a bad one takes all of them back.
    part, frozen = state.split(shared.trained)
    kept = (part.params, part.optimizer) if settings.updates > 1 else ()
    # References share what is frozen. Where one of them moves, the one that judges captions does not.
    copies = [] if arrays.reference is None else [shared.trained.of(arrays.reference)]
    copies *= 2 if settings.reference_every and settings.rewards.caption == "reference" else 1
    prompts, groups = (arrays.rows,) * settings.draws, [arrays.group] * (1 + settings.staleness)
    held = bytes_on_device((state, kept, copies, prompts, groups))

    def compiled(name: str, function: Any, on: Mesh, given: tuple[Any, ...], stays: Any, **how: Any) -> Program:
        """A program with these arguments, of which some are of what stays anyway."""
        beside = held - bytes_on_device(stays)
        return compile_program(name, function, given, on, chip, works[name], beside=beside, **how)

    rows, packed = on_batch(arrays.rows, whole), (tuple((each, arrays.answers) for each in prompts), arrays.layout)
    seeds, rate = (
        on_batch(jax.ShapeDtypeStruct((config.batch,), jnp.uint32), whole),
        jax.ShapeDtypeStruct((), "float32"),
    )
    drawn = {"open_trips": decoding.max_new_tokens - 1}
    found = [
        compiled("gather", programs.gather.compiled, mesh, (state.params,), state.params),
        compiled("rollout", sample.compiled, whole, (weights, rows, seeds), rows, **drawn),
        compiled("pack", programs.pack, mesh, packed, prompts),
    ]
    if settings.grpo.beta:
        read = (arrays.reference, arrays.group)
        found.append(compiled("reference", programs.log_probs.compiled, mesh, read, read, open_trips=1))
    trained = (part, frozen, arrays.group)
    found.append(compiled("update", programs.update.compiled, mesh, (*trained, rate), trained, open_trips=1))
    return tuple(found)


def _arrays(settings: RlSettings, state: TrainState, rows: int, mesh: Mesh) -> _Arrays:
    """What a step of so many prompts holds."""
    shared, decoding = settings.shared, settings.decoding
    prompts, drawn = rows_layout(rows, shared.budget, shared.model, mesh), (rows, decoding.answers)
    slots = (*drawn, decoding.max_new_tokens)
    shapes = (slots, jnp.int32), (slots, jnp.float32), (drawn, jnp.int32)
    answers = Answers(*(jax.ShapeDtypeStruct(*each) for each in shapes))
    row, shards = _longest(settings), batch_shards(mesh)
    layout = empty_layout(most_rows(rows, row, settings.drawn, shards), row)
    layout = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), layout)
    group = jax.eval_shape(with_answers, prompts, answers.tokens, answers.lengths, answers.log_probs, layout)
    answers, layout, group = on_batch((answers, layout, group), mesh)
    wanted = settings.grpo.beta or settings.rewards.caption == "reference"
    reference = reference_layout(state.params, shared.trained, jnp.dtype(shared.compute.dtype)) if wanted else None
    return _Arrays(state, reference, prompts, answers, layout, group)


def _longest(settings: RlSettings) -> Budget:
    """The packed row that takes most memory."""
    return max(settings.packed, key=lambda row: (row.tokens, row.slabs))


def _weights(settings: RlSettings, mesh: Mesh) -> nnx.State:
    """Shapes and places of the plain model's parameters in the dtype of the computation."""
    params, dtype = nnx.state(abstract_model(settings.shared.model.plain), nnx.Param), settings.shared.compute.dtype
    return jax.tree.map(
        lambda a, sharding: jax.ShapeDtypeStruct(a.shape, jnp.dtype(dtype), sharding=sharding),
        params,
        shard_state(params, mesh),
    )


def _works(
    settings: RlSettings, arrays: _Arrays, weights: nnx.State, rows: int, mesh: Mesh, answering: Mesh
) -> dict[str, Work]:
    """What each program computes; a third of an update's own operations are those of a pass forward.

    The rollout makes that pass token by token, and so it reads weights and caches for every token.
    """
    shared, decoding, prompt = settings.shared, settings.decoding, settings.shared.budget
    spec, model, params = shared.compute, shared.model, arrays.state.params
    shape = (rows, prompt.tokens, decoding.answers, decoding.max_new_tokens, prompt.slabs, prompt.patches)
    drawn, whole = group_step_flops(model, *shape).model / 3, bytes_on_device(weights)
    row, share = _longest(settings), batch_shards(mesh)
    sizes = (row.tokens, row.tokens - prompt.tokens, row.slabs, row.patches)
    flops = packed_step_flops(model, share, *sizes, remat=spec.remat, vision_remat=spec.vision_remat)
    how = spec.on(mesh), 1
    decoded = (decoding.max_new_tokens - 1) * _token_traffic(settings, weights, rows, answering)
    read = bytes_on_device(_weights(settings, whole_mesh(mesh)))
    return {
        "gather": Work(StepFlops(0.0, 0.0), bytes_on_device(params) + whole),
        "rollout": Work(StepFlops(drawn, drawn), whole + decoded),
        "pack": Work(StepFlops(0.0, 0.0), bytes_on_device((arrays.rows, arrays.group))),
        "reference": Work(StepFlops(flops.model / 3, flops.model / 3), read),
        "update": Work(
            flops,
            least_memory_traffic(params, model, mesh, share, row, *how),
            least_traffic(params, model, mesh, share, row.tokens, *how),
        ),
    }


def _token_traffic(settings: RlSettings, weights: nnx.State, rows: int, mesh: Mesh) -> float:
    """Bytes that a chip must read of its memory for one further token of all answers.

    They are the decoder's weights and the output table, the caches of prompts, and half of the answers' own.
    """
    shared, decoding, text = settings.shared, settings.decoding, settings.shared.model.text
    language = weights["language"]
    read = bytes_on_device(language)
    if not text.tied:
        read -= bytes_on_device(language["embedding"])  # of which a few rows are looked up
    if decoding.int8:
        read /= jnp.dtype(shared.compute.dtype).itemsize
    places = shared.budget.tokens + decoding.answers * decoding.max_new_tokens / 2
    place = 2 * text.layers * text.kv_heads / mesh.shape["tensor"] * text.head_width
    return read + rows / batch_shards(mesh) * places * place * jnp.dtype(shared.compute.dtype).itemsize
