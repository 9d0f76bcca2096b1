"""What the commands share."""

import subprocess
import sys

import pytest

from tests.launch.commands import ROOT, run, run_forked


@pytest.mark.parametrize("name", ["train", "compile"])
def test_help_is_no_failure_and_a_wrong_flag_is_one_line(name):
    command = [sys.executable, ROOT / "launch" / f"{name}.py"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert f"python launch/{name}.py --config " in helped.stdout + helped.stderr
    failed = subprocess.run([*command, "--no-such-flag=1"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert failed.returncode == 1 and "no-such-flag" in failed.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("flag", "said"),
    {
        "--config.data.rot=x": """train: the recipe has no field 'rot'. Did you mean "root" instead of "rot"?""",
        "--config.dat.root=x": """train: the recipe has no field 'dat'. Did you mean "data" instead of "dat"?""",
        "--config.steps=many": "train: flag --config.steps=many: invalid literal for int() with base 10: 'many'",
    }.items(),
)
def test_a_wrong_field_is_one_line_wherever_it_is_wrong(flag, said, tmp_path):
    code, output = run_forked(["launch/train.py", "--config=configs/quickstart.py", flag, f"--workdir={tmp_path}"])
    assert code == 1 and output.splitlines()[-1] == said and "Traceback" not in output


BUCKET = "import importlib.util as u, runpy, sys\nfind = u.find_spec\n" + (
    "u.find_spec = lambda name, *rest: None if name in ('gcsfs', 'tensorflow') else find(name, *rest)\n"
    "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
)


@pytest.mark.parametrize(
    "command",
    [
        "train.py --config=configs/quickstart.py --workdir=gs://b/run --config.data.root=gs://b/records",
        "evaluate.py --predictions gs://b/answers --out OUT",
        "evaluate.py --checkpoint OUT --data gs://b/data --out OUT",
        "reason.py --checkpoint gs://b/c --video a.mp4 --out OUT",
        "convert.py import --hf gs://b/hf --out OUT",
        "convert.py export --checkpoint gs://b/c --out OUT",
        "prepare.py --emo-cfg . --out gs://b/records",
        "look.py --data gs://b/records --out OUT/look.html",
    ],
)
def test_a_bucket_that_cannot_be_reached_is_one_line(command, tmp_path):
    name, *words = command.replace("OUT", str(tmp_path / "out")).split()
    code, output = run(["-c", BUCKET, ROOT / "launch" / name, *words])
    assert code == 1 and "Traceback" not in output
    assert ": gs://b/" in output.splitlines()[-1]
    assert ("mount the bucket" if "OUT --data" in command else "videmo-jax[gcs]") in output.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_platform_that_cannot_start_is_one_line_that_names_the_extra(platform, tmp_path):
    """Neither has its support installed here, or has no device."""
    arguments = ["launch/train.py", "--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}"]
    code, output = run(arguments, JAX_PLATFORMS=platform)
    last = output.splitlines()[-1]
    assert code == 1 and "Traceback" not in output
    assert last.startswith("train: jax ") and f"cannot start on {platform}" in last and f"'.[{platform}]'" in last
