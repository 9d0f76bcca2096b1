"""The judge's client beside other HTTP clients: items in seconds, against a server that answers in 100 ms.

    python -m tests.benchmarks.endpoint --items 2000 --concurrency 64

The server runs in a process of its own. `judge` is the whole judge, prompts, cache and summary included; `aiohttp`
is a bare loop of the same library; `httpx` is another one. The last line of stdout is one JSON object; `ideal` is
items / concurrency x delay.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import aiohttp

from videmo_jax.endpoints.client import Endpoint
from videmo_jax.evaluation.judges.judging import Question
from videmo_jax.evaluation.judges.openai import OpenAIJudge
from videmo_jax.evaluation.judges.prompts import embedded_prompts

NAME = "MEAD_ID"


@contextlib.contextmanager
def server(delay: float) -> Iterator[str]:
    """The URL of a server that answers each request after so many seconds."""
    command = [sys.executable, "-m", "tests.evaluation.chat_server", "--delay", str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def questions(count: int) -> list[Question]:
    """So many different ones of a usual length."""
    options = " ".join(f"({chr(65 + place)}) option {place}" for place in range(11))
    return [
        Question("match", f"{NAME}#{n}", NAME, f"<video>Which one is it? {options}", f"(A) person {n}", f"person {n}.")
        for n in range(count)
    ]


def judge(url: str, asked: list[Question], concurrency: int) -> float:
    """Seconds of the judge."""
    with tempfile.TemporaryDirectory() as out:
        judging = OpenAIJudge(Endpoint(url, "judge", concurrency), embedded_prompts(), out, say=lambda line: None)
        start = time.perf_counter()
        replies = judging.judge(asked)
        seconds = time.perf_counter() - start
    assert replies == ["yes"] * len(asked)
    return seconds


def bodies(asked: list[Question]) -> list[bytes]:
    """What the judge sends, made before the clock starts."""
    prompts = embedded_prompts()
    texts = [prompts.write(question) for question in asked]
    return [
        json.dumps({"model": "judge", "messages": [{"role": "user", "content": text}], "temperature": 0}).encode()
        for text in texts
    ]


async def in_workers(items: list[bytes], concurrency: int, send) -> float:
    """Seconds to send all, so many at once."""
    left, replies = iter(items), []

    async def work() -> None:
        for data in left:
            replies.append(await send(data))

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    assert [reply["choices"][0]["message"]["content"] for reply in replies] == ["yes"] * len(items)
    return time.perf_counter() - start


async def bare_aiohttp(url: str, items: list[bytes], concurrency: int) -> float:
    """Seconds of a loop without retries, cache or summary."""
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency), headers=headers) as session:

        async def send(data: bytes) -> dict:
            async with session.post(f"{url}/chat/completions", data=data) as response:
                return await response.json()

        return await in_workers(items, concurrency, send)


async def bare_httpx(url: str, items: list[bytes], concurrency: int) -> float | None:
    """The same with httpx; None where it is not installed."""
    try:
        import httpx
    except ImportError:
        return None
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    headers = {"Content-Type": "application/json"}
    async with httpx.AsyncClient(limits=limits, timeout=60, headers=headers, trust_env=False) as session:

        async def send(data: bytes) -> dict:
            return (await session.post(f"{url}/chat/completions", content=data)).json()

        return await in_workers(items, concurrency, send)


def main() -> None:
    """Measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--delay", type=float, default=0.1, help="seconds of the server (default 0.1)")
    parser.add_argument("--repeats", type=int, default=3, help="of each; the median counts (default 3)")
    flags = parser.parse_args()
    asked = questions(flags.items)
    data, seconds = bodies(asked), {"judge": [], "aiohttp": [], "httpx": []}
    for _ in range(flags.repeats):  # in turn, so that other work on the machine meets all alike
        with server(flags.delay) as url:
            seconds["judge"].append(judge(url, asked, flags.concurrency))
            seconds["aiohttp"].append(asyncio.run(bare_aiohttp(url, data, flags.concurrency)))
            seconds["httpx"].append(asyncio.run(bare_httpx(url, data, flags.concurrency)))
    medians = {name: sorted(runs)[len(runs) // 2] for name, runs in seconds.items() if None not in runs}
    versions = {name: importlib.metadata.version(name) for name in medians if name != "judge"}
    ideal = math.ceil(flags.items / flags.concurrency) * flags.delay
    print(json.dumps({name: round(value, 2) for name, value in medians.items()} | {"ideal": ideal} | {"v": versions}))


if __name__ == "__main__":
    main()
