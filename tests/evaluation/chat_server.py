"""A real HTTP server with OpenAI's chat API on 127.0.0.1, which misbehaves as it is told.

In a thread: `with ChatServer(plan) as server`. In a process of its own, for benchmarks and kills:
`python -m tests.evaluation.chat_server --log FILE --delay SECONDS`, which prints its URL.
"""

import argparse
import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Do:
    """What the server does with a request.

    Attributes:
      text: of the reply; None gives no content.
      status: of HTTP.
      headers: further ones.
      body: sent as it is, instead of a reply.
      delay: seconds before anything is sent.
      cut: bytes after which the connection is cut; 0 cuts it before the head.
      more: fields of the choice.
    """

    text: str | None = "yes"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0
    cut: int | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A request: its last message's text, how often this text had come before, its body, headers and time."""

    text: str
    nth: int
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


Plan = Callable[[Seen], Do]


def text_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class ChatServer:
    """Serves in a thread; `seen` holds every request. Nothing is answered before `together` requests wait at once."""

    def __init__(self, plan: Plan | None = None, together: int = 1) -> None:
        self.plan = plan or (lambda seen: Do())
        self._together, self._full = together, asyncio.Event()
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self._at_once = 0
        self._counts: Counter[str] = Counter()

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner, self.url = asyncio.run_coroutine_threadsafe(start(self.handle), self._loop).result()
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def texts(self) -> list[str]:
        return [seen.text for seen in self.seen]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        text = text_of(body)
        seen = Seen(text, self._counts[text], body, dict(request.headers), time.monotonic())
        self._counts[text] += 1
        self.seen.append(seen)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self._at_once >= self._together:
                self._full.set()
            await asyncio.wait_for(self._full.wait(), 60)
            return await respond(request, self.plan(seen))
        finally:
            self._at_once -= 1


async def respond(request: web.Request, do: Do) -> web.StreamResponse:
    if do.delay:
        await asyncio.sleep(do.delay)
    message = {"role": "assistant", "content": do.text}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **do.more}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    held = {"id": "chat-1", "object": "chat.completion", "choices": [choice], "usage": usage}
    data = json.dumps(held).encode() if do.body is None else do.body
    if do.cut is None:
        return web.Response(body=data, status=do.status, headers=do.headers, content_type="application/json")
    if do.cut:
        response = web.StreamResponse(status=do.status, headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: do.cut])
        request.transport.close()
        return response
    request.transport.close()
    return web.Response()


async def start(handle) -> tuple[web.AppRunner, str]:
    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}/v1"


async def serve(log: str | None, delay: float, hold_after: int | None, release: str | None) -> None:
    file = open(log, "a") if log else None  # noqa: SIM115
    count = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal count
        body = await request.json()
        count += 1
        held = hold_after is not None and count > hold_after
        if file:
            file.write(json.dumps(text_of(body)) + "\n")
            file.flush()
        while held and not Path(release).exists():
            await asyncio.sleep(0.01)
        return await respond(request, Do(delay=delay))

    _, url = await start(handle)
    print(url, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log")
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--hold-after", type=int, help="requests beyond so many wait until --release exists")
    parser.add_argument("--release", metavar="FILE")
    flags = parser.parse_args()
    asyncio.run(serve(flags.log, flags.delay, flags.hold_after, flags.release))


if __name__ == "__main__":
    main()
