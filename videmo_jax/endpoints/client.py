"""Requests to an OpenAI-style chat endpoint: many in flight, each repeated until it is answered or given up.

`ask` is what others use. It asks for what the cache does not hold, keeps each reply the moment it arrives, and yields
outcomes as they come. The key is read from the environment, sent to one host only, and shown nowhere. Proxies that the
environment names are not used.
"""

import asyncio
import json
import math
import os
import queue
import random
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from videmo_jax.endpoints.cache import Reply, ReplyCache
from videmo_jax.endpoints.price import Budget
from videmo_jax.files.errors import UserError

SHORTEST_SECRET = 8  # characters; local servers take words such as EMPTY, which may stand in any text
MAX_EXCERPT = 200  # characters of a server's words in our messages
REFUSALS = 3  # attempts at a port where nobody has ever answered: some seconds


class EndpointError(UserError):
    """The endpoint cannot be used; the message says why and what to do. Replies that had come are kept."""


class EndpointDown(EndpointError):
    """Nobody answers, or so many requests in a row failed that the rest was not asked."""


class BudgetSpent(EndpointDown):
    """What was asked has cost as much as it may; the rest was not asked."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
      url: ends in `/v1`; requests go to `URL/chat/completions`.
      model: as the endpoint calls it.
      concurrency: requests in flight.
      connect_timeout: seconds until a connection stands.
      timeout: seconds until a reply is there, connection included.
      attempts: times that a request is sent before it is given up.
      first_wait: seconds before the second attempt; each further wait is twice as long.
      longest_wait: seconds that such a wait takes at most.
      longest_asked_wait: seconds to wait at most where the server says how long (Retry-After).
      max_reply_bytes: of a reply's body; larger ones are not read.
      max_failures_in_a_row: requests given up, without a reply between, after which the rest is not asked.
      seed: of the waits' random share.
      key_name: the environment variable that holds the key; none is sent where it is not set.
    """

    url: str
    model: str
    concurrency: int = 64
    connect_timeout: float = 10.0
    timeout: float = 180.0
    attempts: int = 8
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_asked_wait: float = 600.0
    max_reply_bytes: int = 4 * 1024**2
    max_failures_in_a_row: int = 100
    seed: int = 0
    key_name: str = "OPENAI_API_KEY"

    def __post_init__(self) -> None:
        for name in ("concurrency", "attempts", "max_reply_bytes", "max_failures_in_a_row"):
            if getattr(self, name) < 1:
                raise EndpointError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("connect_timeout", "timeout", "longest_wait", "longest_asked_wait"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise EndpointError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not self.model.strip():
            raise EndpointError("the endpoint's model has no name; give it as the endpoint calls it")
        object.__setattr__(self, "url", checked_url(self.url))


def checked_url(url: str) -> str:
    """The URL without a slash at its end.

    Raises:
      EndpointError: it is no URL of an endpoint, or carries a password, which would end in result files.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise EndpointError("the endpoint's URL cannot be read; expected the form https://HOST/v1") from None
    if "@" in parts.netloc:
        raise EndpointError(
            "the endpoint's URL holds a name or password; leave it out: the key comes from the environment"
        )
    path = parts.path.rstrip("/")
    if path.endswith("/chat/completions"):
        raise EndpointError(f"{url}: leave out /chat/completions; the URL ends in /v1")
    if parts.scheme not in ("http", "https") or not host or not path or parts.query or parts.fragment:
        raise EndpointError(f"{url}: expected the form https://HOST/v1")
    return f"{parts.scheme}://{parts.netloc}{path}"


@dataclass(frozen=True)
class Request:
    """One thing to ask.

    Attributes:
      id: what messages call it.
      key: its name in the cache; requests of one key are asked once.
      messages: of the chat, in OpenAI's form.
      settings: further fields of the body, such as `temperature`.
      blank: whether an empty text is a reply; else it counts as a fault of the server, and is asked again.
    """

    id: str
    key: str
    messages: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    blank: bool = False


@dataclass(frozen=True)
class Failure:
    """Why a request has no reply, how often it was sent, and the tokens that all this took, by the endpoint's count."""

    error: str
    attempts: int
    tokens_in: int = 0
    tokens_out: int = 0

    def __str__(self) -> str:
        """For lists of what failed."""
        return f"{self.error} (sent {self.attempts} times)" if self.attempts > 1 else self.error


@dataclass(frozen=True)
class Outcome:
    """What became of a request; `cached`: the reply was there before, nothing was sent for it."""

    request: Request
    result: Reply | Failure
    cached: bool = False


def ask(
    endpoint: Endpoint, requests: Iterable[Request], cache: ReplyCache, *, budget: Budget | None = None
) -> Iterator[Outcome]:
    """Asks, and yields outcomes as they come, each request's once; replies go into the cache on arrival.

    Requests are taken one by one as places get free, so that they may be made lazily.

    Args:
      endpoint: whom.
      requests: what.
      cache: of replies.
      budget: what it may cost; None: whatever it costs.

    Raises:
      BudgetSpent: the next request might cost more than there is.
      EndpointDown: nobody listens there, or `max_failures_in_a_row` is reached.
      EndpointError: the key is refused or unusable.
      CacheError: a reply cannot be kept.
    """
    waiting: dict[str, list[Request]] = {}
    failures = 0

    def settle(key: str, result: Reply | Failure) -> Iterator[Outcome]:
        nonlocal failures
        failures = failures + 1 if isinstance(result, Failure) else 0
        first, *others = waiting.pop(key)
        if budget:
            budget.pay(result.tokens_in or 0, result.tokens_out or 0)
        yield Outcome(first, result)
        yield from (Outcome(other, result, cached=isinstance(result, Reply)) for other in others)
        if isinstance(result, Failure) and failures >= endpoint.max_failures_in_a_row:
            raise EndpointDown(
                f"{endpoint.url}: {failures} requests in a row failed; the last: {result.error}. Replies that came "
                "before are kept: the same command goes on with what is missing"
            )

    with _Sender(endpoint, cache) as sender:
        for request in requests:
            if (kept := cache.get(request.key)) is not None:
                yield Outcome(request, kept, cached=True)
            elif request.key in waiting:
                waiting[request.key].append(request)
            else:
                while waiting and budget and not budget.allows(len(waiting) + 1):
                    yield from settle(*sender.next())
                if budget and not budget.allows(1):
                    raise BudgetSpent(f"{budget}; replies that came are kept. Raise the limit to go on")
                waiting[request.key] = [request]
                sender.send(request)
            while len(waiting) >= endpoint.concurrency or (waiting and sender.ready):
                yield from settle(*sender.next())
        while waiting:
            yield from settle(*sender.next())


def wait_after(endpoint: Endpoint, key: str, attempt: int) -> float:
    """Seconds between an attempt, counted from 1, and the next: they double, less a random share of up to half.

    The share is drawn from the seed, the request's key and the attempt: it does not depend on other requests.
    """
    share = random.Random(f"{endpoint.seed}:{key}:{attempt}").uniform(0.5, 1)
    return min(endpoint.first_wait * 2.0 ** (attempt - 1), endpoint.longest_wait) * share


class _Sender:
    """An event loop in a thread of its own: replies are read and kept while the caller does something else."""

    def __init__(self, endpoint: Endpoint, cache: ReplyCache) -> None:
        self._endpoint, self._cache = endpoint, cache
        self._done: queue.SimpleQueue[tuple[str, Reply | Failure] | BaseException] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)

    def __enter__(self) -> "_Sender":
        try:
            self._client = _Client(self._endpoint)
        except EndpointError:
            self._loop.close()
            raise
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    def send(self, request: Request) -> None:
        """Starts a request."""
        asyncio.run_coroutine_threadsafe(self._ask(request), self._loop)

    @property
    def ready(self) -> bool:
        """Whether `next` need not wait."""
        return not self._done.empty()

    def next(self) -> tuple[str, Reply | Failure]:
        """Waits for the next outcome; raises what stops all."""
        done = self._done.get()
        if isinstance(done, BaseException):
            raise done
        return done

    async def _ask(self, request: Request) -> None:
        try:
            result = await self._client.ask(request)
            if isinstance(result, Reply):
                self._cache.add(request.key, request.id, result)
            self._done.put((request.key, result))
        except Exception as error:
            self._done.put(error)


@dataclass(frozen=True)
class _Fault:
    """An attempt without a reply.

    Attributes:
      error: what went wrong.
      again: whether another attempt may help.
      wait: seconds that the server asks for.
      tokens: of the prompt and of what came, where the endpoint counted them: they are paid for.
      refused: whether nobody listens at the endpoint's port.
    """

    error: str
    again: bool
    wait: float | None = None
    tokens: tuple[int, int] = (0, 0)
    refused: bool = False


class _Client:
    """One session with an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._key = _key(endpoint.key_name)
        self._session: aiohttp.ClientSession | None = None
        self._not_before = 0.0  # of the loop's clock: a server that asks to wait means all requests
        self._answered = self._told = False

    def __repr__(self) -> str:
        return f"_Client({self._endpoint.url})"

    async def close(self) -> None:
        """Ends the session."""
        if self._session:
            await self._session.close()

    async def ask(self, request: Request) -> Reply | Failure:
        """Sends a request until it is answered, cannot be, or was sent often enough."""
        body = {"model": self._endpoint.model, "messages": list(request.messages), **request.settings}
        data = json.dumps(body).encode()
        spent_in = spent_out = 0
        for attempt in range(1, self._endpoint.attempts + 1):
            await self._cleared()
            result = await self._attempt(data, request.blank)
            if isinstance(result, Reply):
                self._answered = True
                tokens = {"tokens_in": result.tokens_in, "tokens_out": result.tokens_out}
                if spent_in or spent_out:  # attempts that failed are paid for, too
                    tokens = {"tokens_in": (result.tokens_in or 0) + spent_in}
                    tokens["tokens_out"] = (result.tokens_out or 0) + spent_out
                return replace(result, text=self._hidden(result.text), attempts=attempt, **tokens)
            spent_in, spent_out = spent_in + result.tokens[0], spent_out + result.tokens[1]
            if result.refused and not self._answered:
                self._nobody(result, attempt)
            if not result.again or attempt == self._endpoint.attempts:
                break
            await self._wait(result, request.key, attempt)
        return Failure(self._hidden(result.error), attempt, spent_in, spent_out)

    def _nobody(self, fault: _Fault, attempt: int) -> None:
        """Says that nobody has answered yet, and gives up where a server that was just started would be there."""
        if attempt >= REFUSALS:
            raise EndpointDown(f"{self._endpoint.url}: {fault.error}. Start the server, or mend the URL")
        if not self._told:
            print(f"{self._endpoint.url}: {fault.error}; trying again", file=sys.stderr, flush=True)
        self._told = True

    async def _cleared(self) -> None:
        loop = asyncio.get_running_loop()
        while (missing := self._not_before - loop.time()) > 0:
            await asyncio.sleep(missing)

    async def _wait(self, fault: _Fault, key: str, attempt: int) -> None:
        if fault.wait is None:
            await asyncio.sleep(wait_after(self._endpoint, key, attempt))
        else:
            until = asyncio.get_running_loop().time() + min(fault.wait, self._endpoint.longest_asked_wait)
            self._not_before = max(self._not_before, until)

    async def _attempt(self, data: bytes, blank: bool) -> Reply | _Fault:
        endpoint = self._endpoint
        try:
            # The key goes to this host alone, so that no redirect is followed.
            async with self._opened().post(
                f"{endpoint.url}/chat/completions", data=data, allow_redirects=False
            ) as response:
                body = await _body(response, endpoint.max_reply_bytes)
                if response.status in (401, 403):
                    raise self._refused(response.status)
                if body is None:
                    return _Fault(f"HTTP {response.status}: a reply of over {endpoint.max_reply_bytes:,} bytes", False)
                if response.status != 200:
                    return self._http_fault(response, body)
                return _read(body, blank)
        except TimeoutError:
            return _Fault(f"no reply within {endpoint.timeout:g} s", True)
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, ConnectionRefusedError | socket.gaierror)
            return _Fault(f"nobody listens there ({error})" if refused else _failed(error), True, refused=refused)
        except (aiohttp.ClientError, OSError) as error:
            return _Fault(_failed(error), True)

    def _opened(self) -> aiohttp.ClientSession:
        """The session; it must be made where the loop runs."""
        if self._session is None:
            headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._endpoint.concurrency),
                timeout=aiohttp.ClientTimeout(
                    total=self._endpoint.timeout, sock_connect=self._endpoint.connect_timeout
                ),
                headers=headers,
                auto_decompress=False,  # a small body could become a huge one
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _refused(self, status: int) -> EndpointError:
        """Without the server's words, which may repeat the key."""
        name = self._endpoint.key_name
        what = f"refused the key in {name}" if self._key else f"wants a key, and {name} is not set"
        return EndpointError(
            f"{self._endpoint.url}: HTTP {status}: the endpoint {what}, or the key may not use "
            f"{self._endpoint.model}. Set the right key and give the same command again: it goes on where it was"
        )

    def _http_fault(self, response: aiohttp.ClientResponse, body: bytes) -> _Fault:
        status = response.status
        if 300 <= status < 400:
            place = urlsplit(response.headers.get("Location", ""))
            return _Fault(
                f"HTTP {status}: the endpoint sends elsewhere ({place.hostname or 'it does not say where'}); give the "
                "URL of the endpoint itself",
                False,
            )
        # A quota that is used up has the status of haste, and does not pass.
        again = (status in (408, 425, 429) or status >= 500) and b"insufficient_quota" not in body
        wait = _retry_after(response.headers.get("Retry-After")) if again else None
        return _Fault(f"HTTP {status}: {_excerpt(self._hidden(_words(body)))}", again, wait)

    def _hidden(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self._key, "***") if self._key and len(self._key) >= SHORTEST_SECRET else text


def _key(name: str) -> str:
    """The key in an environment variable, or nothing.

    Raises:
      EndpointError: it cannot stand in a header; it is not shown.
    """
    key = os.environ.get(name, "").strip()
    if not all("!" <= character <= "~" and character not in '"\\' for character in key):
        raise EndpointError(f"{name} holds characters that no key has; set it again")
    return key


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body, or None where it is larger than the limit."""
    chunks, size = [], 0
    async for chunk in response.content.iter_chunked(1 << 16):
        size += len(chunk)
        if size > limit:
            response.close()
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, in either of its forms (RFC 9110, 10.2.3); None without one."""
    if not value:
        return None
    with suppress(ValueError):
        seconds = float(value)
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    with suppress(ValueError, TypeError):
        when = parsedate_to_datetime(value)
        return max((when - datetime.now(UTC)).total_seconds(), 0.0)
    return None


def _words(body: bytes) -> str:
    """What a server says in the body of an error: the message of OpenAI's form, else the body."""
    text = body.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        held = json.loads(text)
        error = held.get("error", held) if isinstance(held, dict) else held
        message = error.get("message", error) if isinstance(error, dict) else error
        return message if isinstance(message, str) else json.dumps(message)
    return text


def _excerpt(text: str) -> str:
    """One short line."""
    line = "".join(character if character.isprintable() else " " for character in " ".join(text.split()))
    return line if len(line) <= MAX_EXCERPT else f"{line[:MAX_EXCERPT]}..."


def _read(body: bytes, blank: bool) -> Reply | _Fault:
    """The reply in a body with status 200."""
    try:
        held = json.loads(body)
    except (ValueError, RecursionError):
        return _Fault("the reply is no JSON", True)
    usage = held.get("usage") if isinstance(held, dict) else None
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    tokens_in, tokens_out = (count if isinstance(count, int) else None for count in counts)
    paid = (tokens_in or 0, tokens_out or 0)
    try:
        choice = held["choices"][0]
        message, end = choice["message"], choice.get("finish_reason")
        text = _joined(message["content"])
    except (KeyError, IndexError, TypeError, AttributeError):
        return _Fault("the reply holds no choices with a message", True, tokens=paid)
    if refusal := message.get("refusal"):
        return _Fault(f"the model refused: {_excerpt(str(refusal))}", False, tokens=paid)
    if not isinstance(text, str) or not (text.strip() or blank):
        # What the settings or the model decided would be decided again.
        reason = {
            "length": "the limit of tokens was reached before any text; raise it (a thinking model spends them first)",
            "content_filter": "the endpoint's content filter kept the text back",
        }.get(end)
        return _Fault(f"the reply holds no text{f': {reason}' if reason else ''}", reason is None, tokens=paid)
    return Reply(
        text.encode("utf-8", "replace").decode(),  # halves of surrogate pairs fit into no file
        cut=end == "length",
        log_probs=_log_probs(choice.get("logprobs")),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
    )


def _joined(content: Any) -> Any:
    """The text of a message that comes in parts, as some servers send it; what is not in parts stays."""
    if not isinstance(content, list):
        return content
    return "".join(part["text"] for part in content if part.get("type") in ("text", "output_text"))


def _failed(error: Exception) -> str:
    return f"the connection failed ({type(error).__name__}: {error})"


def _log_probs(held: Any) -> tuple[float, ...] | None:
    """The log-probabilities of a reply's tokens, where the endpoint gives them."""
    try:
        values = tuple(float(token["logprob"]) for token in held["content"])
    except (KeyError, TypeError, ValueError):
        return None
    return values if all(map(math.isfinite, values)) else None
