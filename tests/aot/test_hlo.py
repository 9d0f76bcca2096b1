"""Collectives read from a program's text: a text written by hand, and what JAX compiles for eight CPU devices."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from videmo_jax.aot.hlo import HloError, collectives

TEXT = """HloModule step, is_scheduled=true

%add (a: bf16[], b: bf16[]) -> bf16[] {
  ROOT %sum = bf16[] add(%a, %b)
}

%all-reduce-scatter.1 (input: bf16[4,6,8]) -> bf16[6,8] {
  %input = bf16[4,6,8]{2,1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.2 = bf16[4,6,8]{2,1,0} all-reduce(%input), replica_groups={{0,4,8,12},{1,5,9,13}}, to_apply=%add
  ROOT %slice = bf16[6,8]{1,0} dynamic-slice(%all-reduce.2)
}

%body (state: (s32[], bf16[6,8])) -> (s32[], bf16[6,8]) {
  %kernel = bf16[6,8]{1,0} custom-call(%x), custom_call_config={"body":"{
}}", op_name="a line that starts with braces"}
  %all-gather.7 = bf16[4,6,8]{2,1,0:T(8,128)(2,1)} all-gather(%kernel), replica_groups={{0,4,8,12}}, op_name="a/gather"
  %fusion.3 = bf16[6,8]{1,0} fusion(%all-gather.7), kind=kCustom, calls=%all-reduce-scatter.1
}

%condition (state: (s32[], bf16[6,8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(28)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (p: bf16[6,8]) -> bf16[6,8] {
  %while.1 = (s32[], bf16[6,8]{1,0}) while(%state), condition=%condition, body=%body
  %all-reduce-start.1 = (f32[10]{0}, f32[10]{0}) all-reduce-start(%g), replica_groups=[2,8]<=[4,2,2]T(1,0,2)
  %permute = bf16[6,8]{1,0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}
  %turned = f32[2]{0} all-reduce(%c), replica_groups=mesh['x'=1,'y'=4,'z'=2], device_ids=([4,2]T(1,0)) {'y'}
  %last = (f32[3]{0}, f32[5]{0}) all-reduce(%a, %b), replica_groups=mesh['x'=4, 'y'=4] {'y'}, to_apply=%add
}
"""


def test_a_text_by_hand():
    gather, scatter, reduce, permute, turned, last = collectives(TEXT)
    assert (gather.kind, gather.times, gather.devices, gather.where) == ("all-gather", 28, (0, 4, 8, 12), "a/gather")
    assert gather.moved == 4 * 6 * 8 * 2 * 3 / 4
    assert (scatter.kind, scatter.times, scatter.moved) == ("reduce-scatter", 28, 4 * 6 * 8 * 2 * 3 / 4)
    assert scatter.total == 28 * scatter.moved
    # 16 devices as [4, 2, 2], the middle axis in front: the first group is those whose middle number is 0
    assert (reduce.kind, reduce.devices) == ("all-reduce", (0, 1, 4, 5, 8, 9, 12, 13))
    assert reduce.moved == 2 * 10 * 4 * 7 / 8
    assert (permute.kind, permute.moved) == ("collective-permute", 6 * 8 * 2)
    # [[0, 1], [2, 3], [4, 5], [6, 7]] turned is [[0, 2, 4, 6], [1, 3, 5, 7]], which the mesh takes as [1, 4, 2]
    assert turned.devices == (0, 4, 1, 5)
    assert (last.devices, last.moved) == ((0, 1, 2, 3), 2 * (3 + 5) * 4 * 3 / 4)


def test_what_runs_beside_several_products_is_counted_once():
    part = """%async_collective_fusion.NUMBER (p: bf16[2,8]) -> bf16[8,8] {
  ROOT %all-gather.NUMBER = bf16[8,8]{1,0} all-gather(%p), replica_groups={{0,1,2,3}}, ATTRIBUTES
}

"""
    called = "  %f.NUMBER = bf16[8,8]{1,0} fusion(%p), kind=kCustom, calls=%async_collective_fusion.NUMBER\n"
    parts = [("21", "0"), ("22", "0"), ("23", "1")]
    text = "".join(
        part.replace("NUMBER", number).replace("ATTRIBUTES", f'frontend_attributes={{chain_id="{chain}"}}')
        for number, chain in parts
    )
    text += (
        "ENTRY %main (p: bf16[2,8]) -> bf16[8,8] {\n" + "".join(called.replace("NUMBER", n) for n, _ in parts) + "}\n"
    )
    assert [collective.moved for collective in collectives(text)] == [8 * 8 * 2 * 3 / 4] * 2


def test_a_loop_without_a_limit_is_refused():
    with pytest.raises(HloError, match="condition"):
        collectives(TEXT.replace("constant(28)", "parameter(0)"))


def test_a_loop_that_ends_when_its_data_say_so_takes_the_trips_that_it_is_given():
    compared = "ROOT %less = pred[] compare(%i, %limit), direction=LT"
    opened = "%less = pred[] compare(%i, %limit), direction=LT\n  ROOT %go = pred[] and(%less, %unfinished)"
    text = TEXT.replace(compared, opened)
    assert text != TEXT
    gather, scatter, *others = collectives(text, open_trips=511)
    assert (gather.times, scatter.times) == (511, 511)
    assert [collective.times for collective in others] == [1, 1, 1, 1]
    assert collectives(TEXT, open_trips=511)[0].times == 28
    with pytest.raises(HloError, match="condition"):
        collectives(text)


def test_what_xla_compiles_here():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(x):
        x = lax.fori_loop(0, 5, lambda _, x: jnp.sin(lax.all_gather(x, "x")[0]), x)
        return lax.psum_scatter(jnp.tile(x, 4), "x", tiled=True) + lax.psum(x, "x")

    spec = PartitionSpec("x")
    run = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
    found = collectives(run.lower(jnp.zeros(64)).compile().as_text())
    kinds = {collective.kind: collective for collective in found}
    assert kinds["all-gather"].total == 5 * 64 * 4 * 3 / 4
    assert kinds["reduce-scatter"].total == 64 * 4 * 3 / 4
    assert kinds["all-reduce"].total == 2 * 16 * 4 * 3 / 4
    assert all(collective.devices == (0, 1, 2, 3) for collective in found)
