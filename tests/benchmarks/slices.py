"""The table of docs/slices.md: every recipe's train step compiled for its slices, without a TPU.

    python -m tests.benchmarks.slices [--write docs/slices.md] [--only v5e]

Each row is a process of its own, `launch/compile.py`. The last line of stdout is one JSON object.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPES = (  # recipe, topology, slices
    ("videmo_7b_sft.py", "v5p:4x4x4", 1),
    ("videmo_3b_sft.py", "v5e:4x4", 1),
    ("videmo_7b_sft.py:v6e-8x8", "v6e:8x8", 1),
    ("videmo_7b_sft.py:v5e-16x16", "v5e:16x16", 1),
    ("videmo_7b_sft.py:v5e-8x16-2", "v5e:8x16", 2),
    ("videmo_72b_sft.py", "v5p:8x8x16", 1),
)
HEADER = """# Recipes on slices

Made by `python -m tests.benchmarks.slices --write docs/slices.md`: the real train step of each recipe, compiled by
libtpu for a slice that was not there. Nothing here has run on a TPU. Bytes and seconds are of one chip and one step.

- HBM: arguments and temporaries, of what the compiler may use of the chip's memory. A step fits at 90 % or less.
- Collectives: bytes that a chip takes in, counted from the compiled program with the trips of its loops; the factor is
  against the least for the recipe (`videmo_jax/aot/least.py` states the formula).
- Bound on MFU: model FLOPs by what the slowest of products, memory, interconnect and network takes at the makers'
  figures (`videmo_jax/sharding/chips.py`), if it hid all others.

"""
COLUMNS = (
    "recipe",
    "slice",
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


def compile_recipe(recipe: str, topology: str, slices: int) -> dict:
    """The JSON object of launch/compile.py."""
    command = [
        "launch/compile.py",
        "--config",
        f"configs/{recipe}",
        "--topology",
        topology,
        "--num-slices",
        str(slices),
    ]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(done.stdout.splitlines()[-1])


def row(recipe: str, told: dict) -> str:
    """One row of the table."""
    rings = [str(size) for axis, size in told["mesh"].items() if axis.startswith("fsdp")]
    others = [f"{axis} {size}" for axis, size in told["mesh"].items() if not axis.startswith("fsdp")]
    mesh = ", ".join([*others, f"fsdp {' x '.join(rings)}"])
    slices = f"{told['slices']} x " if told["slices"] > 1 else ""
    cells = (
        f"`{recipe}`",
        f"{slices}{told['topology']}",
        mesh,
        f"{told['tokens_per_chip']:,.0f}",
        f"{told['remat']}, {told['vision_remat']}",
        f"{told['hbm_bytes'] / 2**30:.1f} of {told['hbm_limit'] / 2**30:.1f} GiB, {told['hbm_share']:.0%}"
        + ("" if told["fits"] else ", **does not fit**"),
        f"{told['flops_per_step']:.3g}",
        f"{told['collective_bytes'] / 1e9:.1f} GB" if told["collective_bytes"] else "-",
        f"{told['collective_factor']:.2f}" if told["collective_factor"] else "-",
        f"{told['mfu_bound']:.0%}" if told["mfu_bound"] else "-",
        f"{told['compile_seconds']:.0f} s",
        f"{told['host_bytes'] / 2**30:.1f} GiB",
    )
    return f"| {' | '.join(cells)} |"


def page(rows: list[str]) -> str:
    """The whole of docs/slices.md."""
    return "\n".join([HEADER, f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *rows]) + "\n"


def main() -> None:
    """Compiles all, prints the table, and writes it where it is asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="takes the page")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose recipe or topology holds it")
    arguments = parser.parse_args()
    rows, results = [], []
    for recipe, topology, slices in RECIPES:
        if arguments.only in recipe or arguments.only in topology:
            told = compile_recipe(recipe, topology, slices)
            rows.append(row(recipe, told))
            results.append(told)
            print(rows[-1], file=sys.stderr, flush=True)
            if arguments.write:
                arguments.write.write_text(page(rows))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
