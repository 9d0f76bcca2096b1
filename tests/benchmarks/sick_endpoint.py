"""A judge of captions that is well, hangs, lies or limits the rate: seconds a step of rewards, and what was counted.

    python -m tests.benchmarks.sick_endpoint --steps 20 --workers 0 2

Each step has the same number of prompts with 4 answers each, half of them captions that the endpoint scores. The last
line of stdout is one JSON object.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable

from tests.evaluation.chat_server import ChatServer, Do
from tests.rl.test_rewards import CAPTIONS, FINE, SHORT, asked
from videmo_jax.rl.rewards.failures import FailureWatch, RewardsFail
from videmo_jax.rl.rewards.rewarder import Rewarder
from videmo_jax.rl.rewards.spec import RewardEndpoint, RewardSpec


def plans(timeout: float) -> dict[str, Callable[[int], Do]]:
    """What the server does with its n-th request."""
    return {
        "well": lambda n: Do("100", delay=0.1),
        "hanging": lambda n: Do("100", delay=10 * timeout),
        "hanging from step 6 on": lambda n: Do("100", delay=0.1 if n < 5 * 32 else 10 * timeout),
        "lying": lambda n: Do("It is quite good, I would say."),
        "lying now and then": lambda n: Do("good" if n % 17 == 0 else "100"),
        "limiting the rate": lambda n: (
            Do(status=429, headers={"Retry-After": "1"}) if n % 40 == 0 else Do("100", delay=0.1)
        ),
        "asking to wait an hour": lambda n: Do(status=429, headers={"Retry-After": "3600"}),
    }


def measured(plan, steps: int, prompts: int, workers: int, timeout: float) -> dict:
    """Seconds of each step, groups without a reward, and the step after which the run ended."""
    seconds, numbers, failed, ended = [], itertools.count(), Counter(), None
    with ChatServer(lambda seen: plan(next(numbers))) as server, tempfile.TemporaryDirectory() as folder:
        endpoint = RewardEndpoint(
            server.url, "judge", folder, timeout=timeout, longest_wait=1.0, longest_asked_wait=5.0
        )
        watch = FailureWatch(0.5)
        with Rewarder(RewardSpec(caption="openai", endpoint=endpoint), processes=workers) as rewarder:
            for step in range(1, steps + 1):
                queries, answers = [], []
                for number in range(prompts):
                    truth = CAPTIONS[(step + number) % len(CAPTIONS)]
                    queries.append(asked(SHORT if number % 2 else FINE, truth, id=f"{step}-{number}"))
                    answers.append([f"{CAPTIONS[(number + k) % len(CAPTIONS)]} {step}" for k in range(4)])
                began = time.perf_counter()
                found = rewarder(queries, answers)
                seconds.append(round(time.perf_counter() - began, 2))
                lost = Counter(failure.branch for failure in found.failures)
                failed.update(lost)
                try:
                    watch.check(step, Counter(found.branches), lost, found.failures[-1].reason if lost else "")
                except RewardsFail as error:
                    ended = str(error)
                    break
        requests = len(server.seen)
    return {"seconds": seconds, "requests": requests, "failed_groups": dict(failed), "ended": ended}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds of a request")
    flags = parser.parse_args()
    result = {}
    for name, plan in plans(flags.timeout).items():
        for workers in flags.workers:
            found = measured(plan, flags.steps, flags.prompts, workers, flags.timeout)
            result[f"{name}, {workers} workers"] = found
            print(name, workers, found, flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
