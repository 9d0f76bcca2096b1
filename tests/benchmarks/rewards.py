"""How long the rewards of one step take: 128 prompts with 8 answers each, all of them fine-grained captions.

    python -m tests.benchmarks.rewards
    python -m tests.benchmarks.rewards --emo-cfg ../shared/emo_cfg_mini --workers 2

Truths are synthetic captions and, with --emo-cfg, those of its caption files; an answer is a truth, cut or continued by
another clip's. Times are the best of several steps of other texts each, so that no tree is known before; `first_s` is
the first step of the process, with all that is compiled and started. `one_by_one_s`: a call for each pair of texts.
The last line of stdout is one JSON object.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np

from videmo_jax.affective.edit_distance import tree_edit_distance
from videmo_jax.affective.parser import parse_caption
from videmo_jax.data.synthetic.scene import draw_scene
from videmo_jax.data.synthetic.wording import fine_caption
from videmo_jax.rl.rewards.reward import Rewards
from videmo_jax.rl.rewards.rewarder import Rewarder
from videmo_jax.rl.rewards.spec import Query, RewardSpec
from videmo_jax.tasks.taxonomy import task_of

Step = tuple[list[Query], list[list[str]]]


def steps(count: int, prompts: int, group: int, real: list[str]) -> list[Step]:
    """So many batches of different texts."""
    rng, task, made = random.Random(0), task_of("caption_train"), []
    for step in range(count):
        truths = [
            fine_caption(draw_scene(step, "train", at), np.random.default_rng([step, at]))
            for at in range(prompts - len(real))
        ] + real
        asked = [
            Query(f"caption#{at}", "caption_train.json", task, "Describe.", text) for at, text in enumerate(truths)
        ]
        answers = []
        for truth in truths:
            parts = truth.split(". ")
            group_texts = []
            for _ in range(group):
                other = rng.choice(truths).split(". ")
                group_texts.append(". ".join(parts[: rng.randint(1, len(parts))] + other[rng.randint(0, len(other)) :]))
            answers.append(group_texts)
        made.append((asked, answers))
    return made


def real_captions(root: Path) -> list[str]:
    """The fine-grained captions of an Emo-CFG folder."""
    files = sorted((root / "jsons").glob("*/caption/full/caption_*.json"))
    return [record["messages"][-1]["content"] for file in files for record in json.loads(file.read_text("utf-8"))]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--emo-cfg", type=Path)
    flags = parser.parse_args()
    real = real_captions(flags.emo_cfg) if flags.emo_cfg else []
    batches = steps(flags.steps, flags.prompts, flags.answers, real[: flags.prompts])
    result = {"prompts": flags.prompts, "answers": flags.answers, "real_captions": len(real), "workers": flags.workers}
    nodes = [len(parse_caption(asked.truth)) for asked in batches[0][0]]
    result |= {"nodes_median": float(np.median(nodes)), "nodes_max": max(nodes)}

    def timed(work) -> list[float]:
        times = []
        for batch in batches:
            start = time.perf_counter()
            work(*batch)
            times.append(time.perf_counter() - start)
        return times

    for name, spec in (("", RewardSpec()), ("credit_", RewardSpec(node_credit=True))):
        times = timed(Rewards(spec))
        result |= {f"{name}first_s": round(times[0], 3), f"{name}in_process_s": round(min(times[1:]), 3)}
        start = time.perf_counter()
        with Rewarder(spec, processes=flags.workers) as workers:
            workers(*batches[0])
            result[f"{name}workers_first_s"] = round(time.perf_counter() - start, 3)
            result[f"{name}workers_s"] = round(min(timed(workers)[1:]), 3)
            same = [np.array_equal(workers(*each).rewards, Rewards(spec)(*each).rewards) for each in batches]
            result[f"{name}equal"] = all(same)
    costs = RewardSpec().costs
    start = time.perf_counter()
    for asked, texts in zip(*batches[0], strict=True):
        for text in texts:
            tree_edit_distance(parse_caption(asked.truth), parse_caption(text), costs)
    result["one_by_one_s"] = round(time.perf_counter() - start, 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
