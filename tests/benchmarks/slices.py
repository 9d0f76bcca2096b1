"""The tables of docs/slices.md: what every recipe computes in a step, compiled for its slices, without a TPU.

    python -m tests.benchmarks.slices [--write docs/slices.md] [--only v5e] [--python ENV/bin/python ...]

Each row is a process of its own, `launch/compile.py`, of each Python that is named: environments with other versions of
jax, each with the libtpu that it pins (pip install -e '.[tpu]'). The last line of stdout is one JSON object.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPES = (  # recipe, topology, slices
    ("videmo_7b_sft.py", "v5p:4x4x4", 1),
    ("videmo_3b_sft.py", "v5e:4x4", 1),
    ("videmo_7b_sft.py:v6e-8x8", "v6e:8x8", 1),
    ("videmo_7b_sft.py:v5e-16x16", "v5e:16x16", 1),
    ("videmo_7b_sft.py:v5e-8x16-2", "v5e:8x16", 2),
    ("videmo_72b_sft.py", "v5p:8x8x16", 1),
    ("videmo_7b_rl.py", "v5p:4x4x4", 1),
    ("videmo_7b_rl.py:v6e-16x16", "v6e:16x16", 1),
    ("videmo_3b_rl.py", "v5e:4x4", 1),
)
HEADER = """# Recipes on slices

Made by `python -m tests.benchmarks.slices --write docs/slices.md --python OLD/bin/python --python NEW/bin/python`: the
real programs of each recipe, compiled by libtpu for a slice that was not there, with the oldest and the newest jax that
`pip install -e '.[tpu]'` takes and the libtpu that each pins. Nothing here has run on a TPU. Bytes and seconds are of
one chip and one step. A row by itself: `python launch/compile.py --config configs/RECIPE --topology SLICE`
(`--num-slices 2` for two of them).

- HBM: what the compiler assigns, of what it may use of the chip's memory. A step fits at 90 % or less. This is not the
  sum that `memory_analysis()` of jax suggests: its `temp_size_in_bytes` of libtpu 0.0.42 and 0.0.50 has more in it than
  is ever allocated (7B on v5p:4x4x4: 116.6 GiB beside 81.5 in all, and it is not refused on a chip of 95.7).
- Collectives: bytes that a chip takes in, counted from the compiled program with the trips of its loops; the factor is
  against the least for the recipe (`videmo_jax/aot/least.py` states the formula).
- Bound on MFU: model FLOPs by what the slowest of products, memory, interconnect and network takes at the makers'
  figures (`videmo_jax/sharding/chips.py`), if it hid all others.

"""
COLUMNS = (
    "recipe",
    "slice",
    "jax, libtpu",
    "mesh",
    "tokens a chip",
    "remat (decoder, vision)",
    "HBM",
    "model FLOPs",
    "collectives",
    "factor",
    "bound on MFU",
    "compiled in",
    "host",
)


RL_HEADER = """
## RL

A step of RL is several programs on one mesh: weights are gathered for the rollout, prompts are answered, prompts and
answers are packed into rows, the frozen reference scores the answers, the policy is updated. All stay within what the
others leave of the chip.

- Held beside: policy, optimizer, reference, prompts and answers, where they are no arguments of the program.
- Reference and update: of the longest shape of `packed`, a row on each chip or group of chips that share one.
- The rollout's FLOPs, bytes and seconds are those of answers that are all as long as they may get.
- Takes at least: the slowest of products, memory, interconnect and network, if it hid all others.

"""
RL_COLUMNS = (
    "recipe",
    "slice",
    "jax, libtpu",
    "mesh",
    "remat (decoder, vision)",
    "program",
    "HBM",
    "held beside",
    "model FLOPs",
    "collectives",
    "factor",
    "takes at least",
    "bound on MFU",
    "compiled in",
)


def compile_recipe(python: str, recipe: str, topology: str, slices: int) -> dict:
    """The JSON object of launch/compile.py, run by a Python."""
    command = [
        "launch/compile.py",
        "--config",
        f"configs/{recipe}",
        "--topology",
        topology,
        "--num-slices",
        str(slices),
    ]
    done = subprocess.run([python, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python} {' '.join(command)} failed")
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(recipe: str, told: dict) -> list[str]:
    """Rows of the first table, or of the second one where a step is several programs."""
    rings = [str(size) for axis, size in told["mesh"].items() if axis.startswith("fsdp")]
    others = [f"{axis} {size}" for axis, size in told["mesh"].items() if not axis.startswith("fsdp")]
    mesh = ", ".join([*others, f"fsdp {' x '.join(rings)}"])
    slices = f"{told['slices']} x " if told["slices"] > 1 else ""
    stack = f"{told['versions']['jax']}, {told['versions']['libtpu']}"
    where, remat = (
        (f"`{recipe}`", f"{slices}{told['topology']}", stack, mesh),
        f"{told['remat']}, {told['vision_remat']}",
    )
    if "programs" not in told:
        tokens = f"{told['tokens_per_chip']:,.0f}"
        host = f"{told['host_bytes'] / 2**30:.1f} GiB"
        return [line(*where, tokens, remat, memory(told), *work(told), bound(told), seconds(told), host)]
    return [
        line(
            *where,
            remat,
            name,
            memory(program),
            f"{program['hbm']['beside'] / 2**30:.1f} GiB",
            *work(program),
            slowest(program),
            bound(program) if name == "update" else "-",
            seconds(program),
        )
        for name, program in told["programs"].items()
    ]


def line(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def memory(told: dict) -> str:
    """What is taken of a chip's memory, and whether it fits."""
    used = f"{told['hbm_bytes'] / 2**30:.1f} of {told['hbm_limit'] / 2**30:.1f} GiB, {told['hbm_share']:.0%}"
    return used + ("" if told["fits"] else ", **does not fit**")


def work(told: dict) -> tuple[str, str, str]:
    """FLOPs, bytes of collectives, and how many times the least they are."""
    return (
        f"{told['flops_per_step']:.3g}" if told["flops_per_step"] else "-",
        f"{told['collective_bytes'] / 1e9:.1f} GB" if told["collective_bytes"] else "-",
        f"{told['collective_factor']:.2f}" if told["collective_factor"] else "-",
    )


def slowest(told: dict) -> str:
    """What takes most of a program's time, and how much."""
    name, found = max(told["bound_seconds"].items(), key=lambda item: item[1])
    return f"{found:.2f} s ({name})"


def bound(told: dict) -> str:
    """On MFU."""
    return f"{told['mfu_bound']:.0%}" if told["mfu_bound"] else "-"


def seconds(told: dict) -> str:
    """That the compiler took."""
    return f"{told['compile_seconds']:.0f} s"


def page(rows: Sequence[str]) -> str:
    """The whole of docs/slices.md, from the rows of both tables."""
    first = [row for row in rows if row.count("|") == len(COLUMNS) + 1]
    second = [row for row in rows if row.count("|") == len(RL_COLUMNS) + 1]
    parts = [HEADER.rstrip("\n"), "", *table(COLUMNS, first)]
    if second:
        parts += [RL_HEADER.rstrip("\n"), "", *table(RL_COLUMNS, second)]
    return "\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Sequence[str]) -> list[str]:
    """Lines of Markdown."""
    return [line(*columns), "|---" * len(columns) + "|", *rows]


def kept(file: Path | None, recipe: str, topology: str, slices: int) -> list[str]:
    """The rows that a page has already of a recipe on a slice."""
    if file is None or not file.exists():
        return []
    begin = f"| `{recipe}` | {f'{slices} x ' if slices > 1 else ''}{topology} |"
    return [found for found in file.read_text().splitlines() if found.startswith(begin)]


def main() -> None:
    """Compiles all, prints the rows, and writes the page where it is asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="takes the page; rows that are not made stay")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose recipe or topology holds it")
    parser.add_argument("--python", action="append", metavar="FILE", help="that compiles; several: a row for each")
    arguments = parser.parse_args()
    rows = {each: kept(arguments.write, *each) for each in RECIPES}
    results = []
    for each in RECIPES:
        recipe, topology, _ = each
        if arguments.only in recipe or arguments.only in topology:
            told = [compile_recipe(python, *each) for python in arguments.python or [sys.executable]]
            rows[each] = [row for one in told for row in rows_of(recipe, one)]
            results += told
            print(*rows[each], sep="\n", file=sys.stderr, flush=True)
            if arguments.write:
                arguments.write.write_text(page([found for some in rows.values() for found in some]))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
