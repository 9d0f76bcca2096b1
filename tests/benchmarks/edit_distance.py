"""The edit distance of a batch of tree pairs, beside zss.

    python -m tests.benchmarks.edit_distance
    python -m tests.benchmarks.edit_distance --pairs 4096 --nodes 40

Times are the best of several runs, from trees to distances, with all that is done in Python; of zss, which takes the
same time for every pair, some pairs are measured. `first_call_s` is that of the first call of this process, which
compiles, or loads what an earlier process compiled. The last line of stdout is one JSON object.
"""

import argparse
import json
import os
import random
import time

from tests.affective.test_edit_distance import by_zss, random_tree
from videmo_jax.affective.edit_distance import Costs, edit_operations, tree_edit_distance, tree_edit_distances


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--nodes", type=int, default=30, help="of each tree")
    parser.add_argument("--zss-pairs", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    flags = parser.parse_args()
    rng, costs = random.Random(0), Costs()
    pairs = [(random_tree(rng, flags.nodes), random_tree(rng, flags.nodes)) for _ in range(flags.pairs)]

    def best(work, repeats):
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    result = {
        "pairs": flags.pairs,
        "nodes": flags.nodes,
        "cores": os.cpu_count(),
        "first_call_s": best(lambda: tree_edit_distance(*pairs[0], costs), 1),
        "batch_s": best(lambda: tree_edit_distances(pairs, costs), flags.repeats),
        "batch_one_thread_s": best(lambda: tree_edit_distances(pairs, costs, threads=1), flags.repeats),
        "script_of_one_pair_s": best(lambda: edit_operations(*pairs[0], costs), flags.repeats),
    }
    some = pairs[: flags.zss_pairs]
    measured = best(lambda: [by_zss(a, b, costs) for a, b in some], 1)
    result |= {"zss_batch_s": measured * flags.pairs / len(some), "zss_measured_pairs": len(some)}
    result["speedup"] = result["zss_batch_s"] / result["batch_s"]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
