"""What affective-tree RL teaches a small model on rendered faces: three seeds, an ablation, paired bootstrap.

  python launch/train.py --config configs/quickstart_rl.py:sft --workdir runs/faces
  python -m tests.benchmarks.learning --sft runs/faces --out runs/learning       # trains what is not there, then tells
  python -m tests.benchmarks.learning --sft runs/faces --out runs/learning --only measure tell

Arms, each from the same SFT checkpoint with the same prompts held out:
- tree: configs/quickstart_rl.py.
- no_tree: no prompt of the tree branch is trained on (fine-grained captions weigh 0); rules and short captions are.
- overlap: fine-grained captions are rewarded by the embedded overlap score in place of the tree.

Compared are answers to all prompts of the test split, drawn as in training, of the SFT checkpoint and of the last one
of each run: 4 to each prompt, with the same random numbers, whose mean is the prompt's score. Of fine-grained captions:
the tree reward and the six scores of the embedded judge (0 to 100, their mean is `six`); of closed tasks the rule
reward. A prompt's gain is the mean over seeds; intervals are percentiles of 10,000 resamples of the prompts. The last
line is one JSON object; OUT/curves.html has the curves of the runs.
"""

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from configs.quickstart_rl import get_config
from videmo_jax.evaluation.judges.by_rules import RuleJudge
from videmo_jax.evaluation.judges.judging import Question
from videmo_jax.evaluation.judges.rules import read_reply
from videmo_jax.reports.figures import line_chart
from videmo_jax.reports.page import page
from videmo_jax.rl.held_out import FOLDER, HeldOutRewards
from videmo_jax.rl.plan import make_rl_plan, read_rl_settings
from videmo_jax.rl.programs import Programs
from videmo_jax.rl.rewards.reward import Rewards
from videmo_jax.rl.rewards.spec import Query, RewardSpec
from videmo_jax.tasks.taxonomy import task_of
from videmo_jax.training.optimizer import make_optimizer
from videmo_jax.training.session import mesh_of
from videmo_jax.training.state import initial_params

ROOT = Path(__file__).parents[2]
ARMS = {
    "tree": (),
    "no_tree": ("--config.stages.rl.weights=(('caption_*',0.0),)",),
    "overlap": ("--config.rewards.tree=False",),
}
SIX = ("relevance", "fluency", "accuracy", "adherence", "label_overlap", "clue_overlap")
RESAMPLES = 10_000


def train(sft: Path, out: Path, arm: str, seed: int, more: Sequence[str]) -> None:
    """One run, unless it is there; its output goes to a file beside it."""
    workdir = out / f"{arm}-{seed}"
    command = [
        sys.executable,
        "launch/train.py",
        "--config=configs/quickstart_rl.py",
        f"--config.init={sft}",
        f"--config.data.root={sft / 'emo_cfg_synthetic'}",
        f"--config.seed={seed}",
        f"--workdir={workdir}",
        *ARMS[arm],
        *more,
    ]
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{arm}-{seed}.log").open("a") as log:
        subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=subprocess.STDOUT)


def measure(sft: Path, out: Path, name: str) -> Path:
    """The answers of the SFT checkpoint («sft») or of a run to all prompts that are held out, unless they are there."""
    path = out / "measured" / name / FOLDER / "000000.jsonl"
    if path.exists():
        return path
    folder, checkpoint = path.parents[1], sft if name == "sft" else out / name
    folder.mkdir(parents=True, exist_ok=True)
    config = get_config()
    config.init, config.data.root = str(checkpoint), str(sft / "emo_cfg_synthetic")
    config.held_out.samples = sys.maxsize
    settings, console = read_rl_settings(config, folder), Console(quiet=True)
    plan, mesh = make_rl_plan(config, settings, folder, console), mesh_of(config)
    programs = Programs(settings, mesh, make_optimizer(settings.stage.optimizer))
    held_out = HeldOutRewards(
        plan.held_out,
        programs,
        Rewards(settings.rewards),
        config.batch,
        print,
    )
    params = initial_params(settings.shared.model, mesh, seed=0, checkpoint=checkpoint)
    print(name, held_out(params, 0, folder), flush=True)
    return path


def scores(path: Path) -> dict[str, dict[str, float]]:
    """Of each held-out prompt what its answers score, by name of the score."""
    found: dict[str, dict[str, float]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        id, truth, answers = line["id"], line["truth"], line["answers"]
        file = id.partition("#")[0]
        task = task_of(file)
        if task.reward != "tree":
            found[id] = {task.reward: float(np.mean(line["rewards"]))}
            continue
        asked = Query(id, file, task, "", truth)
        rewards = Rewards(RewardSpec())([asked], [answers]).rewards[0]
        questions = [Question("six", id, "", "", truth, answer) for answer in answers]
        replies = RuleJudge().judge(questions)
        read = [
            read_reply(question, reply, "strict").values for question, reply in zip(questions, replies, strict=True)
        ]
        six = dict(zip(SIX, np.mean(read, axis=0).tolist(), strict=True))
        found[id] = {"tree": float(rewards.mean()), **six, "six": float(np.mean(list(six.values())))}
    return found


def gains(sft: Path, out: Path, arm: str, seeds: Sequence[int]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By score: how much each held-out prompt gained, mean over seeds, in the order of ids; and what it had."""
    start = scores(measure(sft, out, "sft"))
    names = sorted({name for values in start.values() for name in values})
    ids = {name: sorted(id for id, values in start.items() if name in values) for name in names}
    before = {name: np.array([start[id][name] for id in ids[name]]) for name in names}
    after = [scores(measure(sft, out, f"{arm}-{seed}")) for seed in seeds]
    mean = {name: np.mean([[end[id][name] for id in ids[name]] for end in after], axis=0) for name in names}
    return {name: mean[name] - before[name] for name in names}, before


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean and 95 % interval of a mean over prompts."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"gain": float(values.mean()), "low": float(low), "high": float(high), "prompts": len(values)}


def curves(out: Path, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Means over seeds by step: of held-out prompts, and of training over the last ten logged steps."""
    runs = {arm: [_logged(out / f"{arm}-{seed}") for seed in seeds] for arm in arms}
    charts = []
    for name in ("held_out/tree", "six", "held_out/caption", "held_out/rule", "reward/tree", "kl"):
        found = {arm: _curve(lines, name) for arm, lines in runs.items()}
        first, *others = found
        named = {arm: found[arm] for arm in others if found[arm][0]}
        charts.append(line_chart(*found[first], title=f"{first}: {name}", x_label="step", others=named))
    title = f"What RL teaches: means of {len(seeds)} seeds"
    (out / "curves.html").write_text(page(title, f"<main>{''.join(charts)}</main>"))


def _curve(runs: Sequence[Sequence[dict[str, float]]], name: str) -> tuple[list[int], list[float]]:
    """Steps, and means over runs."""
    by_step: dict[int, list[float]] = {}
    for line in itertools.chain(*runs):
        if name in line:
            by_step.setdefault(int(line["step"]), []).append(line[name])
    steps = sorted(by_step)
    values = [float(np.mean(by_step[step])) for step in steps]
    if name in ("reward/tree", "kl"):
        values = [float(np.mean(values[max(at - 9, 0) : at + 1])) for at in range(len(values))]
    return steps, values


def _logged(workdir: Path) -> list[dict[str, float]]:
    """The metrics of a run, and the six scores of the captions that it was measured by."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for path in sorted((workdir / FOLDER).glob("*.jsonl")):
        values = [each["six"] for each in scores(path).values() if "six" in each]
        lines.append({"step": float(path.stem), "six": float(np.mean(values))})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sft", type=Path, required=True, help="work directory of configs/quickstart_rl.py:sft")
    parser.add_argument("--out", type=Path, required=True, help="takes the runs")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=["train", "measure", "tell"], help="some of these three")
    parser.add_argument("more", nargs="*", help="further flags of launch/train.py, after --")
    given = parser.parse_args()
    sft, out = given.sft.resolve(), given.out.resolve()
    runs = [(arm, seed) for seed in given.seeds for arm in given.arms]
    if "train" in given.only:
        for arm, seed in runs:
            train(sft, out, arm, seed, given.more)
    if "measure" in given.only:
        for name in ("sft", *(f"{arm}-{seed}" for arm, seed in runs)):
            measure(sft, out, name)
    if "tell" not in given.only:
        return
    found = {arm: gains(sft, out, arm, given.seeds) for arm in given.arms}
    told = {arm: {name: interval(values) for name, values in gain.items()} for arm, (gain, _) in found.items()}
    before = {name: float(values.mean()) for name, values in next(iter(found.values()))[1].items()}
    less = {}
    for arm in set(given.arms) - {"tree"}:
        if "tree" in found:
            less[arm] = {n: interval(found["tree"][0][n] - found[arm][0][n]) for n in ("tree", "six")}
    curves(out, given.arms, given.seeds)
    for arm, values in told.items():
        print(f"\n{arm}: gain, 95 % interval, prompts (before)")
        for name, each in values.items():
            span = f"[{each['low']:+.4f}, {each['high']:+.4f}]"
            print(f"  {name:14} {each['gain']:+.4f} {span} {each['prompts']} ({before[name]:.4f})")
    print(json.dumps({"seeds": given.seeds, "before": before, "gains": told, "tree_minus": less}))


if __name__ == "__main__":
    main()
