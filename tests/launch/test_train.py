"""launch/train.py as a user meets it: it trains, resumes bit for bit after any kill, and says what is wrong."""

import hashlib
import json
import random
import shutil
import time

import jax
import numpy as np
import pytest

from tests.launch.commands import run, run_forked, start, train_arguments
from videmo_jax.training.checkpoint import read_meta, read_tokenizer_files, restore_params, steps

STEPS = 14


@pytest.fixture(scope="module")
def arguments(synthetic):
    def make(workdir, *more):
        plan = (f"--config.steps={STEPS}", "--config.checkpoint.every=2", "--config.log.every=1")
        return train_arguments(workdir, synthetic, *plan, *more)

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory, arguments):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    code, output = run(arguments(workdir))
    assert code == 0, output
    return workdir


def digest(workdir):
    """A hash over all parameters, bit for bit."""
    whole = hashlib.sha256()
    for leaf in jax.tree.leaves(restore_params(workdir)):
        whole.update(np.asarray(leaf).tobytes())
    return whole.hexdigest()


def metrics(workdir):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def logged(workdir):
    """The lines of training steps."""
    return [line for line in metrics(workdir) if "loss" in line]


def measured(workdir):
    """When perplexities of held-out samples were measured, and what they were."""
    return [(line.pop("step"), line.pop("measured"), line) for line in metrics(workdir) if "measured" in line]


def test_a_run_leaves_what_the_contract_names(finished):
    lines = logged(finished)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert {"loss", "learning_rate", "tokens_per_second", "gradient_norm", "epoch"} <= lines[0].keys()
    assert lines[-1]["loss"] < lines[0]["loss"]
    (first, before, start), (last, after, end) = measured(finished)
    assert (first, before, last, after) == (0, "before training", STEPS, "after all")
    levels = {f"perplexity_{level}" for level in ("attribute", "expression")}  # what data.include leaves
    assert start.keys() == end.keys() == levels
    assert end["perplexity_expression"] < start["perplexity_expression"]
    assert steps(finished) == [10, 12, 14]
    meta = read_meta(finished)
    assert meta.step == STEPS
    assert meta.inputs["frames"]["min_pixels"] == 112 * 112
    assert "tokenizer.json" in read_tokenizer_files(finished)
    assert json.loads((finished / "config.json").read_text())["steps"] == STEPS
    report = (finished / "report.html").read_text()
    assert "goodput" in report and "mfu" not in lines[-1]  # nobody knows what a CPU can do
    assert 0 < lines[-1]["goodput"] < 1 and lines[-1]["tokens_per_second"] > lines[-1]["samples_per_second"] > 0
    assert list((finished / "tensorboard").iterdir())


@pytest.mark.slow
def test_runs_killed_at_random_steps_end_bit_for_bit_like_one_that_was_not(finished, arguments, tmp_path):
    workdir = tmp_path / "killed"
    kills = sorted(random.Random(time.time_ns()).sample(range(2, STEPS), 2))
    for kill in kills:
        process = start(arguments(workdir))
        while process.poll() is None and not any(line["step"] >= kill for line in logged(workdir)):
            time.sleep(0.01)
        process.kill()
        process.communicate()
    code, output = run(arguments(workdir))
    assert code == 0, output
    assert digest(workdir) == digest(finished), f"killed at steps {kills}"
    losses = {line["step"]: line["loss"] for line in logged(finished)}
    assert {line["step"]: line["loss"] for line in logged(workdir)} == losses
    assert measured(workdir) == measured(finished)


CURRICULUM_STEPS = 5  # of each of the three stages


@pytest.fixture(scope="module")
def curriculum(tmp_path_factory, synthetic):
    """Makes the arguments of a curriculum over records, and over the same videos."""
    records = tmp_path_factory.mktemp("records") / "records"
    prepared = ["launch/prepare.py", "--emo-cfg", synthetic, "--out", records]
    code, output = run_forked([*prepared, "--frames", f"min_pixels={112 * 112}", f"max_pixels={112 * 112}"])
    assert code == 0, output

    def make(workdir, *more, config="configs/curriculum.py"):
        return train_arguments(
            workdir,
            records,
            f"--config.steps={CURRICULUM_STEPS}",
            "--config.checkpoint.every=2",
            "--config.log.every=1",
            *more,
            config=config,
        )

    return make


@pytest.fixture(scope="module")
def finished_curriculum(tmp_path_factory, curriculum):
    workdir = tmp_path_factory.mktemp("runs") / "curriculum"
    code, output = run_forked(curriculum(workdir))
    assert code == 0, output
    return workdir


def test_a_curriculum_runs_its_stages_in_one_workdir(finished_curriculum):
    lines = logged(finished_curriculum)
    assert [line["stage"] for line in lines] == [
        stage for stage in ("attribute", "expression", "emotion") for _ in range(CURRICULUM_STEPS)
    ]
    assert [line["step"] for line in lines] == list(range(1, 3 * CURRICULUM_STEPS + 1))
    rates = [line["learning_rate"] for line in lines]
    assert rates[:CURRICULUM_STEPS] == rates[CURRICULUM_STEPS : 2 * CURRICULUM_STEPS]  # each stage warms up anew
    assert min(rates) > 0  # also at the end of each stage
    assert [(step, when) for step, when, _ in measured(finished_curriculum)] == [
        (0, "before training"),
        (5, "after attribute"),
        (10, "after expression"),
        (15, "after emotion"),
    ]
    assert read_meta(finished_curriculum).stage == "emotion"
    assert "after expression" in (finished_curriculum / "report.html").read_text()


@pytest.mark.slow
def test_a_curriculum_killed_in_each_stage_and_around_each_boundary_ends_bit_for_bit(
    finished_curriculum, curriculum, tmp_path
):
    workdir = tmp_path / "killed"
    for kill in (4, 6, 9, 11, 15):
        process = start(curriculum(workdir))
        while process.poll() is None and not any(line["step"] >= kill for line in logged(workdir)):
            time.sleep(0.005)
        process.kill()
        process.communicate()
    code, output = run(curriculum(workdir))
    assert code == 0, output
    assert digest(workdir) == digest(finished_curriculum)
    losses = [(line["step"], line["stage"], line["loss"]) for line in logged(finished_curriculum)]
    assert [(line["step"], line["stage"], line["loss"]) for line in logged(workdir)] == losses
    assert measured(workdir) == measured(finished_curriculum)


@pytest.mark.slow
def test_a_stage_alone_starts_from_a_checkpoint(finished_curriculum, curriculum, tmp_path):
    """From the weights after stage one it is the second stage of the whole run, bit for bit."""
    whole, workdir = finished_curriculum, tmp_path / "second"
    alone = {"config": "configs/curriculum.py:stage2"}
    code, output = run_forked(curriculum(workdir, **alone))
    assert code != 0 and "name their checkpoint in init" in output and "Traceback" not in output
    code, output = run_forked(curriculum(tmp_path / "first", config="configs/curriculum.py:stage1"))
    assert code == 0, output
    code, output = run_forked(curriculum(workdir, f"--config.init={tmp_path / 'first'}", **alone))
    assert code == 0, output
    second = [line["loss"] for line in logged(whole) if line["stage"] == "expression"]
    assert [line["loss"] for line in logged(workdir)] == second
    assert {line["stage"] for line in logged(workdir)} == {"expression"}


def test_a_finished_run_started_again_changes_nothing(finished, arguments):
    before = digest(finished)
    code, output = run_forked(arguments(finished))
    assert code == 0, output
    assert digest(finished) == before


@pytest.mark.slow
def test_compiled_programs_are_kept_where_the_run_says(finished, arguments, tmp_path):
    folder, workdir = tmp_path / "programs", tmp_path / "run"
    for more in (("--config.compiled=off",), (f"--config.compiled={folder}",)):
        code, output = run(arguments(workdir, *more, "--config.steps=2"), JAX_COMPILATION_CACHE_DIR="")
        assert code == 0, output
        assert not (workdir / "compiled").exists()  # not asked for on CPUs
        shutil.rmtree(workdir)
    kept = {path.name for path in folder.iterdir()}
    assert any("step" in name for name in kept)
    code, output = run(arguments(workdir, f"--config.compiled={folder}"), JAX_COMPILATION_CACHE_DIR="")
    assert code == 0, output
    assert {path.name for path in folder.iterdir() if path.name.endswith("-cache")} <= kept
    assert digest(workdir) == digest(finished)


@pytest.mark.slow
def test_a_bad_step_is_not_taken_and_the_run_goes_on_as_its_user_decides(arguments, tmp_path):
    """A strict guard stops a run that learns too fast; without it the rest is that of a run that never stopped."""
    whole, workdir = tmp_path / "whole", tmp_path / "stopped"
    fast = ("--config.optimizer.learning_rate=0.1", "--config.checkpoint.every=100", "--config.held_out.samples=0")
    code, output = run_forked(arguments(whole, *fast, "--config.guard.spike=0"))
    assert code == 0, output
    said = []
    for _ in range(2):  # started again as it is, it stops at the same step
        strict = ("--config.guard.spike=1e-9", "--config.guard.warmup=2")
        code, output = run_forked(arguments(workdir, *fast, *strict))
        assert code != 0 and "Traceback" not in output
        said.append(output.strip().splitlines()[-1])
    assert said[0] == said[1] and "the loss leapt" in said[0]
    record = json.loads((workdir / "stopped.json").read_text())
    bad = record["step"]
    assert f"step {bad}:" in said[0] and record["samples"][0] in said[0]
    assert steps(workdir)[-1] == bad - 1 == logged(workdir)[-1]["step"]
    assert record["rows"] == [4 * (bad - 1), 4 * bad] and record["samples"]
    losses = {line["step"]: line["loss"] for line in logged(whole)}
    assert record["loss"] == losses[bad] > record["mean"]
    assert "<svg" in (workdir / "report.html").read_text()

    without = tmp_path / "without"
    shutil.copytree(workdir, without)
    code, output = run_forked(
        arguments(without, *fast, "--config.guard.spike=0", f"--config.data.leave_out={workdir / 'stopped.json'}"),
    )
    assert code == 0, output
    assert f"{len(set(record['samples']))} of" in output
    listed = [json.loads(line)["id"] for line in (without / "skipped.jsonl").read_text().splitlines()]
    assert sorted(listed) == sorted(set(record["samples"]))
    assert logged(without)[-1]["step"] == STEPS and logged(without)[bad - 1]["loss"] != losses[bad]

    code, output = run_forked(arguments(workdir, *fast, "--config.guard.spike=0"))
    assert code == 0, output
    assert digest(workdir) == digest(whole)
    assert {line["step"]: line["loss"] for line in logged(workdir)} == losses


@pytest.fixture
def damaged(synthetic, tmp_path):
    """The synthetic set with a clip cut short, one gone, and samples that cannot be used."""
    root = tmp_path / "damaged"
    shutil.copytree(synthetic, root)
    poses = root / "jsons/train/attribute/full/MEAD_Head-Pose.json"
    samples = json.loads(poses.read_text())
    (root / samples[0]["videos"][0]).unlink()
    whole = json.loads((root / "jsons/train/attribute/full/MEAD_ID.json").read_text())[0]["videos"][0]
    (root / whole).write_bytes((root / whole).read_bytes()[:200])
    question, answer = samples[0]["messages"]
    samples.append({"messages": [question], "videos": [whole]})
    samples.append({"messages": [question, answer], "videos": ["../../outside.mp4"]})
    samples.append({"messages": [{"role": "user", "content": "<video><video>?"}, answer], "videos": [whole]})
    poses.write_text(json.dumps(samples))
    return root


def test_what_cannot_be_used_is_listed_and_the_run_goes_on(damaged, arguments, tmp_path):
    workdir = tmp_path / "run"
    more = (f"--config.data.root={damaged}", "--config.data.max_skipped_share=0.6", "--config.steps=4")
    code, output = run_forked(arguments(workdir, *more))
    assert code == 0, output
    lines = [json.loads(line) for line in (workdir / "skipped.jsonl").read_text().splitlines()]
    reasons = " | ".join(line["reason"] for line in lines)
    for expected in ("missing", "assistant", "leaves", "2 <video>"):
        assert expected in reasons
    assert logged(workdir)[-1]["skipped"] == len(lines)
    assert f"{len(lines)} of" in output


def test_too_much_that_cannot_be_used_stops_the_run(damaged, arguments, tmp_path):
    code, output = run_forked(arguments(tmp_path / "run", f"--config.data.root={damaged}"))
    assert code != 0
    assert "max_skipped_share = 0.05" in output
    assert "Traceback" not in output


def test_a_broken_annotation_file_is_refused_at_the_start(damaged, arguments, tmp_path):
    path = damaged / "jsons/train/attribute/full/MEAD_ID.json"
    path.write_text(path.read_text()[:-20])
    code, output = run_forked(arguments(tmp_path / "run", f"--config.data.root={damaged}"))
    assert code != 0
    assert "MEAD_ID.json" in output
    assert "Traceback" not in output


WRONG = {
    "a typo in a flag": (["--config.optimizer.learning_rat=1"], "learning_rate"),
    "a field of another type": (["--config.batch=many"], "batch"),
    "another run's workdir": (["--config.optimizer.beta2=0.9"], "holds another run: optimizer.beta2"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_in_one_line(wrong, finished, arguments):
    more, expected = WRONG[wrong]
    code, output = run_forked(arguments(finished, *more))
    assert code != 0
    assert expected in output
    assert "Traceback" not in output


WRONG_START = {
    "no such data": (["--config.data.root=nowhere"], "nowhere"),
    "no such config": (["--config=configs/quickstrat.py"], "quickstrat"),
    "a mesh that does not fit": (["--config.mesh.fsdp=3"], "does not fit 1 devices"),
    "no checkpoint to start from": (["--config.init=nowhere"], "no checkpoint"),
    "no list of samples": (["--config.data.leave_out=nowhere.json"], "nowhere.json: No such file or directory"),
    "steps that are none": (["--profile=0:5"], "it must be STEP:COUNT"),
    "steps that do not come": ([f"--profile={STEPS}:2"], f"this start has 1 to {STEPS}"),
    "a guard without meaning": (["--config.guard.spike=-1."], "guard: spike is -1"),
    "a bucket that is none": (["--workdir=s3://bucket/run"], "needs gcsfs for gs://"),
    "a dtype that is none": (["--config.compute.dtype=int8"], "int8"),
    "a vocabulary too small": (["--config.model.text.vocab=100"], "model.text.vocab"),
    "a stage that there is not": (["--config.only=stage4"], "no stage 'stage4'"),
    "a curriculum of unknown stages": (["--config.curriculum=('first',)"], "no stage 'first'"),
    "a task without meaning": (["--config.data.tasks=('MEAD_*=joy',)"], "expected PATTERN=STAGE/FORM"),
    "a synthetic set in a bucket": (["--workdir=gs://bucket/run", "--config.data.root="], "data.root is empty"),
    "files that are not there": (["--config.data.include=('NOSUCH_*',)"], "NOSUCH_*"),
}


@pytest.mark.parametrize("wrong", WRONG_START)
def test_what_cannot_start_says_why_in_one_line(wrong, arguments, tmp_path):
    more, expected = WRONG_START[wrong]
    code, output = run_forked(arguments(tmp_path / "run", *more))
    assert code != 0
    assert expected in output
    assert "Traceback" not in output


def test_a_checkpoint_of_another_model_is_refused(finished, arguments, tmp_path):
    more = (f"--config.init={finished}", "--config.model.text.layers=2")
    code, output = run_forked(arguments(tmp_path / "run", *more))
    assert code != 0
    assert "text.layers: 1 there, 2 in the config" in output
    assert "Traceback" not in output


def test_a_start_that_was_refused_can_be_corrected_in_the_same_workdir(finished, arguments, tmp_path):
    """It is one that starts from a checkpoint."""
    workdir = tmp_path / "second"
    more = (f"--config.init={finished}", "--config.steps=2")
    code, output = run_forked(arguments(workdir, *more, "--config.data.row.tokens=8"))
    assert code != 0 and "tokens, a row has 8" in output and "Traceback" not in output
    code, output = run_forked(arguments(workdir, *more))
    assert code == 0, output
    assert not (workdir / "skipped.jsonl").exists()
    assert logged(workdir)[0]["loss"] < logged(finished)[0]["loss"]
    assert read_meta(workdir).origin == {"init": str(finished)}
