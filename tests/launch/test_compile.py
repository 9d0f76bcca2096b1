"""launch/compile.py as a user meets it, on a small recipe; the real ones stand in docs/slices.md."""

import importlib.util
import json

import pytest

from tests.launch.commands import run

pytestmark = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install '.[tpu]'")
SMALL_RL = (
    "--config=configs/quickstart_rl.py",
    "--config.compute.dtype=bfloat16",
    "--config.data.row.patches=128",
    "--config.model.text.layers=2",
    "--config.mesh.fsdp=2",
    "--config.mesh.tensor=2",
)
SMALL = ("--config=configs/quickstart.py", "--config.compute.dtype=bfloat16", "--config.data.row.patches=128")


@pytest.mark.slow
def test_a_small_recipe_fits_a_small_slice_and_moves_what_it_must():
    code, output = run(["launch/compile.py", *SMALL, "--topology", "v5e:2x2"])
    assert code == 0, output
    told = json.loads(output.splitlines()[-1])
    assert told["fits"]
    assert told["devices"] == 4
    assert told["mesh"] == {"fsdp_x": 2, "fsdp_y": 2}
    assert 0 < told["hbm_bytes"] < told["hbm_limit"] / 10
    assert 0.8 < told["collective_factor"] < 1.3
    assert set(told["collective_bytes_by_kind"]) >= {"all-gather", "reduce-scatter"}
    assert 0 < told["mfu_bound"] < 1


@pytest.mark.slow
def test_the_programs_of_a_small_rl_recipe_share_a_small_slice():
    """Four devices: two parts of the batch, each on two along the tensor axis."""
    code, output = run(["launch/compile.py", *SMALL_RL, "--topology", "v5e:2x2"])
    assert code == 0, output
    told = json.loads(output.splitlines()[-1])
    programs = told["programs"]
    assert list(programs) == ["gather", "rollout", "pack", "reference", "update"]
    assert told["fits"]
    assert told["hbm_bytes"] == max(program["hbm_bytes"] for program in programs.values())
    assert told["flops_per_step"] == sum(program["flops_per_step"] for program in programs.values())
    assert 0.8 < programs["update"]["collective_factor"] < 1.3
    # Four prompts a device: ids of 224 tokens, and 4 slabs of 128 patches. A packed row has 768 and 12: three of the
    # 8 answers of 160 tokens fit beside any prompt, so that 3 rows for each suffice.
    pixels = 128 * (1176 + 8)
    prompts, group = 4 * (224 * 24 + 4 * pixels), 4 * 3 * (768 * (24 + 4 + 8 * 4) + 12 * pixels)
    # The policy is there three times in float32, the reference in bfloat16, beside whatever does not take them itself.
    held = {name: program["hbm"]["beside"] for name, program in programs.items()}
    policy, reference = held["reference"] - prompts, held["update"] - prompts
    assert policy == pytest.approx(6 * reference, abs=100)
    assert held["rollout"] == pytest.approx(policy + reference + group, abs=100)
    assert held["gather"] == pytest.approx(policy * 2 / 3 + reference + group + prompts, abs=100)
    # Decoder and tables are split over all four devices, the vision tower over the two parts of the batch.
    assert 2 * told["parameters"] / 4 < reference < 2 * told["parameters"] / 2
    # The other half of the weights comes from the other part, in bfloat16.
    assert programs["gather"]["collective_bytes"] == pytest.approx(reference, rel=0.1)
    # For each of 159 tokens that follow the first: two sums a layer and one of embeddings over the tensor axis.
    sums = programs["rollout"]["collectives_by_kind"]["all-reduce"]
    assert 159 * (2 * 2 + 1) <= sums < 159 * (2 * 2 + 1) + 100


@pytest.mark.slow
def test_a_reference_of_adapters_takes_their_own_size_and_the_rollout_gathers_plain_weights():
    more = ("--config.mesh.fsdp=4", "--config.mesh.tensor=1", "--config.model.lora.rank=4", "--topology", "v5e:2x2")
    code, output = run(["launch/compile.py", *SMALL_RL, *more])
    assert code == 0, output
    told = json.loads(output.splitlines()[-1])
    programs = told["programs"]
    # Two layers, rank 4, what goes in and out of q, k, v, o, gate, up and down; in bfloat16, a quarter on each device.
    adapters = 2 * 4 * (2 * (128 + 128) + 2 * (128 + 64) + 3 * (128 + 384))
    prompts = 2 * (224 * 24 + 4 * 128 * (1176 + 8))
    assert programs["update"]["hbm"]["beside"] - prompts == pytest.approx(2 * adapters / 4, abs=100)
    # Adapters and two moments of each; the weights are the reference's, too.
    assert programs["reference"]["hbm"]["beside"] - prompts == pytest.approx(3 * 4 * adapters / 4, abs=100)
    # Three quarters of the plain weights come in bfloat16; in float32 they would be twice as much.
    plain = 2 * (told["parameters"] - adapters)
    assert programs["gather"]["collective_bytes"] == pytest.approx(plain * 3 / 4, rel=0.1)


@pytest.mark.slow
def test_an_rl_recipe_that_does_not_fit_says_so():
    """Twenty thousand prompts on a device, 0.6 MB each."""
    code, output = run(["launch/compile.py", *SMALL_RL, "--topology", "v5e:2x2", "--config.batch=40960"])
    assert code == 0, output
    told = json.loads(output.splitlines()[-1])
    assert not told["fits"]
    assert not told["programs"]["update"]["fits"]
    assert told["hbm_share"] > 0.9
    assert "does not fit" in output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((*SMALL, "--topology", "v9:4x4"), "libtpu does not describe it"),
        ((*SMALL, "--topology", "v5e:2x2", "--config.batch=6"), "batch is 6; on v5e:2x2 it must be a multiple of 4"),
        ((*SMALL, "--topology", "v5e:2x2", "--config.mesh.fsdp=3"), "mesh"),
        ((*SMALL, "--topology", "v5e:2x2", "--config.rollout.answers=2"), "the recipe has no field 'rollout'"),
        ((*SMALL_RL, "--topology", "v5e:2x2", "--config.rollout.answers=1"), "answers is 1"),
        (SMALL, "topology"),
    ],
    ids=["unknown slice", "batch", "mesh", "no such field", "no group", "no slice"],
)
def test_what_cannot_be_compiled_is_said_in_one_line(more, message):
    code, output = run(["launch/compile.py", *more])
    assert code == 1
    assert message in output.splitlines()[-1]
    assert "Traceback" not in output
