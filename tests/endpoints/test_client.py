"""The client against a real server on this machine that misbehaves as it is told."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from etils import epath

from tests.evaluation.chat_server import ChatServer, Do
from videmo_jax.endpoints.cache import BUCKET_LINES, Reply, ReplyCache, cache_key
from videmo_jax.endpoints.client import (
    BudgetSpent,
    Endpoint,
    EndpointDown,
    EndpointError,
    Failure,
    Request,
    ask,
    wait_after,
)
from videmo_jax.endpoints.price import Budget, Price
from videmo_jax.files.errors import UserError

SECRET = "sk-test-5f1d3b8a77c04e19"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


def endpoint(server, **changes):
    quick = Endpoint(server.url, "judge", concurrency=8, first_wait=0.001, longest_wait=0.002, attempts=4)
    return replace(quick, **changes)


def request(text, blank=False):
    messages = [{"role": "user", "content": text}]
    return Request(text, cache_key("url", "judge", {"messages": messages}), messages, {"temperature": 0}, blank)


def run(end, texts, folder, blank=False):
    """Outcomes by text."""
    with ReplyCache(folder) as cache:
        outcomes = [*ask(end, [request(text, blank) for text in texts], cache)]
    assert sorted(outcome.request.id for outcome in outcomes) == sorted(texts)
    return {outcome.request.id: outcome.result for outcome in outcomes}


def first(do):
    """The first request of each text goes wrong, later ones do not."""
    return lambda seen: do if seen.nth == 0 else Do(f"reply to {seen.text}")


def test_a_request_is_what_the_api_expects(tmp_path):
    with ChatServer(lambda seen: Do("fine")) as server:
        results = run(endpoint(server), ["how are you?"], tmp_path)
    assert results == {"how are you?": Reply("fine", False, 1, None, 7, 3)}
    (seen,) = server.seen
    assert seen.body == {
        "model": "judge",
        "messages": [{"role": "user", "content": "how are you?"}],
        "temperature": 0,
    }
    assert seen.headers["Authorization"] == f"Bearer {SECRET}"
    assert seen.headers["Content-Type"] == "application/json"


PASSING = {
    "too many": Do(status=429, body=b'{"error": {"message": "slow down"}}'),
    "too many, with a time": Do(status=429, headers={"Retry-After": "0"}),
    "internal": Do(status=500, body=b"<html>oops</html>"),
    "bad gateway": Do(status=502),
    "unavailable": Do(status=503),
    "gateway time-out": Do(status=504),
    "no JSON": Do(body=b"<html>captive portal</html>"),
    "half a JSON": Do(body=b'{"choices": [{"mess'),
    "nested without end": Do(body=b"[" * 100_000),
    "no UTF-8": Do(body=b'{"choices": [{"message": {"content": "\xff"}}]}'),
    "no choices": Do(body=b'{"error": {"message": "overloaded"}}'),
    "empty choices": Do(body=b'{"choices": []}'),
    "choices of another form": Do(body=b'{"choices": {"0": "yes"}}'),
    "a bare list": Do(body=b"[1]"),
    "no content": Do(text=None),
    "blank content": Do(text=" \n"),
    "cut in the body": Do(cut=40),
    "cut before the head": Do(cut=0),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_asked_again(name, tmp_path):
    with ChatServer(first(PASSING[name])) as server:
        results = run(endpoint(server), ["a", "b"], tmp_path)
    assert {text: (result.text, result.attempts) for text, result in results.items()} == {
        "a": ("reply to a", 2),
        "b": ("reply to b", 2),
    }
    assert sorted(server.texts) == ["a", "a", "b", "b"]


def test_a_time_out_is_asked_again(tmp_path):
    """The server would answer after an hour."""
    with ChatServer(first(Do(delay=3600))) as server:
        results = run(endpoint(server, timeout=0.5, attempts=20), ["a"], tmp_path)
    assert results["a"].text == "reply to a" and results["a"].attempts == len(server.seen) >= 2


@pytest.mark.parametrize(
    "name, error",
    {
        "internal": "HTTP 500: <html>oops</html>",
        "too many": "HTTP 429: slow down",
        "no JSON": "the reply is no JSON",
        "no choices": "the reply holds no choices with a message",
        "blank content": "the reply holds no text",
        "cut in the body": "the connection failed",
        "cut before the head": "the connection failed",
    }.items(),
)
def test_what_does_not_pass_is_given_up_and_told(name, error, tmp_path):
    def plan(seen):
        return PASSING[name] if seen.text == "bad" else Do()

    with ChatServer(plan) as server:
        results = run(endpoint(server), ["bad", "good"], tmp_path)
    assert results["good"].text == "yes"
    assert results["bad"].error.startswith(error) and results["bad"].attempts == 4
    assert str(results["bad"]).endswith("(sent 4 times)")
    assert sorted(server.texts) == ["bad"] * 4 + ["good"]


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_cannot_pass_is_sent_once(status, tmp_path):
    def plan(seen):
        return Do(status=status, body=b'{"error": {"message": "no\\nway", "code": 7}}') if seen.text == "bad" else Do()

    with ChatServer(plan) as server:
        results = run(endpoint(server), ["bad", "good"], tmp_path)
    assert results == {"bad": Failure(f"HTTP {status}: no way", 1), "good": Reply("yes", False, 1, None, 7, 3)}


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_all_in_one_line(status, tmp_path):
    """The server repeats the header in its body: nobody may see it."""

    def plan(seen):
        return Do(status=status, body=json.dumps({"error": seen.headers["Authorization"]}).encode())

    with ChatServer(plan) as server, pytest.raises(EndpointError, match=f"HTTP {status}.*OPENAI_API_KEY") as caught:
        run(endpoint(server, concurrency=2), [str(number) for number in range(50)], tmp_path)
    assert len(server.seen) <= 3 and "\n" not in str(caught.value)
    assert SECRET not in "".join(repr(error) for error in (caught.value, caught.value.__context__))


def test_without_a_key_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with ChatServer(lambda seen: Do(status=401)) as server, pytest.raises(EndpointError, match="is not set"):
        run(endpoint(server), ["a"], tmp_path)
    assert "Authorization" not in server.seen[0].headers


@pytest.mark.parametrize("bad", ["sk-line\nbreak", "sk-ключ-ключ", "sk with space"])
def test_keys_that_no_header_holds_are_not_shown(bad, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", bad)
    with ChatServer() as server, pytest.raises(EndpointError, match="characters that no key has") as caught:
        run(endpoint(server), ["a"], tmp_path)
    assert bad not in str(caught.value) and not server.seen


def test_a_server_that_repeats_the_key_does_not_spread_it(tmp_path, capfd):
    """In errors, in replies, in broken replies; also where the text is cut for a message."""

    def plan(seen):
        header = seen.headers["Authorization"]
        return {
            "error": Do(status=400, body=json.dumps({"error": {"message": header}}).encode()),
            "page": Do(status=500, body=f"<p>{header}</p>".encode()),
            "many": Do(status=400, body=(header * 50).encode()),
            "edge": Do(status=400, body=("x" * 190 + header).encode()),
            "reply": Do(text=f"You sent {header}"),
            "redirect": Do(status=307, headers={"Location": f"http://elsewhere.invalid/{header}"}),
        }[seen.text]

    with ChatServer(plan) as server:
        end = endpoint(server)
        results = run(end, ["error", "page", "many", "edge", "reply", "redirect"], tmp_path)
    assert results["reply"].text == "You sent Bearer ***"
    assert results["error"].error == "HTTP 400: Bearer ***"
    shown = repr(results) + repr(end) + "".join(capfd.readouterr())
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for piece in (SECRET, SECRET[:12], SECRET[-12:]):
        assert piece not in shown and piece.encode() not in written
    assert b"You sent Bearer ***" in written


def test_redirects_are_not_followed(tmp_path):
    with ChatServer() as other:
        target = f"{other.url}/chat/completions"
        with ChatServer(lambda seen: Do(status=307, headers={"Location": target})) as server:
            results = run(endpoint(server), ["a"], tmp_path)
    assert not other.seen and len(server.seen) == 1
    assert "HTTP 307: the endpoint sends elsewhere (127.0.0.1)" in results["a"].error


def test_huge_replies_are_not_read(tmp_path):
    reply = {"choices": [{"message": {"content": "y" * 100_000}}]}
    plan = {"large": Do(body=json.dumps(reply).encode()), "small": Do(text="yes")}
    with ChatServer(lambda seen: plan[seen.text]) as server:
        results = run(endpoint(server, max_reply_bytes=50_000), ["large", "small"], tmp_path)
    assert results["large"] == Failure("HTTP 200: a reply of over 50,000 bytes", 1) and results["small"].text == "yes"


def test_compressed_replies_are_not_unpacked(tmp_path):
    """A small body could become a huge one; the client says that it takes none."""
    import gzip

    data = gzip.compress(json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode())
    with ChatServer(lambda seen: Do(body=data, headers={"Content-Encoding": "gzip"})) as server:
        results = run(endpoint(server), ["a"], tmp_path)
    assert results["a"].error == "the reply is no JSON" and server.seen[0].headers["Accept-Encoding"] == "identity"


def test_blank_replies_can_be_allowed(tmp_path):
    with ChatServer(lambda seen: Do(text="")) as server:
        assert run(endpoint(server), ["a"], tmp_path, blank=True)["a"].text == ""
    assert len(server.seen) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_nothing_is_sent_before_the_server_says_so(form, tmp_path):
    """One request is told to wait: the others wait with it."""
    wait = 0.3 if form == "seconds" else 2  # dates count whole seconds

    def plan(seen):
        header = str(wait) if form == "seconds" else formatdate(time.time() + wait, usegmt=True)
        return Do(status=429, headers={"Retry-After": header}) if len(server.seen) == 1 else Do()

    with ChatServer(plan) as server:
        run(endpoint(server, concurrency=1), ["a", "b", "c"], tmp_path)
    waited = server.seen[1].at - server.seen[0].at
    assert waited >= (0.29 if form == "seconds" else 0.9)
    assert server.texts == ["a", "a", "b", "c"]


def test_a_wait_that_no_one_waits_out_is_cut(tmp_path):
    with ChatServer(first(Do(status=503, headers={"Retry-After": "86400"}))) as server:
        assert run(endpoint(server, longest_asked_wait=0.01), ["a"], tmp_path)["a"].attempts == 2


@pytest.mark.parametrize("header", ["soon", "nan", "inf", "-5", ""])
def test_strange_waits_are_no_waits(header, tmp_path):
    with ChatServer(first(Do(status=429, headers={"Retry-After": header}))) as server:
        assert run(endpoint(server), ["a"], tmp_path)["a"].attempts == 2


def test_waits_grow_and_depend_on_the_seed_alone():
    end = Endpoint("http://host/v1", "judge", first_wait=1.0, longest_wait=20.0)
    whole = [1, 2, 4, 8, 16, 20, 20]
    waits = [wait_after(end, "a", attempt) for attempt in range(1, 8)]
    assert all(full / 2 <= wait <= full for wait, full in zip(waits, whole, strict=True))
    assert len({wait / full for wait, full in zip(waits, whole, strict=True)}) == 7  # else all would come together
    assert waits == [wait_after(end, "a", attempt) for attempt in range(1, 8)]
    assert wait_after(end, "b", 1) != waits[0] != wait_after(replace(end, seed=1), "a", 1)


def test_so_many_are_in_flight_and_no_more(tmp_path):
    texts = [str(number) for number in range(100)]
    with ChatServer(together=8) as server:
        run(endpoint(server, concurrency=8), texts, tmp_path)
    assert server.most_at_once == 8 and sorted(server.texts) == sorted(texts)


def test_a_server_that_is_away_is_not_asked_for_ever(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    end = Endpoint(url, "judge", 4, attempts=2, first_wait=0.001, max_failures_in_a_row=10)
    asked = []

    def requests():
        for number in range(1000):
            asked.append(number)
            yield request(str(number))

    with (
        ReplyCache(tmp_path) as cache,
        pytest.raises(EndpointDown, match="10 requests in a row failed; the last: nobody listens"),
    ):
        list(ask(end, requests(), cache))
    assert len(asked) < 20


def test_a_reply_between_failures_lets_the_rest_be_asked(tmp_path):
    def plan(seen):
        return Do() if int(seen.text) % 3 == 0 else Do(status=400)

    with ChatServer(plan) as server:
        results = run(endpoint(server, concurrency=1, max_failures_in_a_row=3), [str(n) for n in range(30)], tmp_path)
    assert sum(isinstance(result, Reply) for result in results.values()) == 10


def test_nothing_is_asked_twice(tmp_path):
    with ChatServer(lambda seen: Do(f"reply to {seen.text}")) as server:
        with ReplyCache(tmp_path) as cache:
            outcomes = [*ask(endpoint(server), [request(text) for text in "ababc"], cache)]
        assert sorted(server.texts) == ["a", "b", "c"]
        assert sorted(outcome.request.id for outcome in outcomes) == [*"aabbc"]
        assert all(outcome.result.text == f"reply to {outcome.request.id}" for outcome in outcomes)
        assert sum(outcome.cached for outcome in outcomes) == 2
        with ReplyCache(tmp_path) as cache:
            again = [*ask(endpoint(server), [request(text) for text in "abcd"], cache)]
        assert sorted(server.texts) == [*"abcd"]
        assert [outcome.request.id for outcome in again if not outcome.cached] == ["d"]


def test_failures_are_asked_again_by_the_next_run(tmp_path):
    with ChatServer(lambda seen: Do(status=400) if seen.nth == 0 else Do()) as server:
        assert isinstance(run(endpoint(server), ["a"], tmp_path)["a"], Failure)
        assert isinstance(run(endpoint(server), ["a"], tmp_path)["a"], Reply)


def test_replies_are_kept_when_they_arrive_and_not_later(tmp_path):
    """The caller holds the first outcome and asks for no other; the rest comes and is kept all the same."""
    with ChatServer() as server, ReplyCache(tmp_path) as cache:
        outcomes = ask(endpoint(server, concurrency=4), [request(text) for text in "abcd"], cache)
        next(outcomes)
        deadline = time.monotonic() + 30
        while len(cache) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(ReplyCache(tmp_path)) == 4
        outcomes.close()


def test_a_line_that_was_cut_is_asked_again(tmp_path):
    with ChatServer() as server:
        run(endpoint(server, concurrency=1), [*"abc"], tmp_path)
        (part,) = tmp_path.glob("*.jsonl")
        part.write_bytes(part.read_bytes()[:-10])
        with ReplyCache(tmp_path) as cache:
            assert len(cache) == 2
        run(endpoint(server, concurrency=1), [*"abc"], tmp_path)
        assert server.texts == [*"abcc"]
        assert len(ReplyCache(tmp_path)) == 3 and len([*tmp_path.glob("*.jsonl")]) == 2


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"key": 1}', "nonsense", ""])
def test_a_broken_line_is_named(line, tmp_path):
    with ChatServer() as server:
        run(endpoint(server), ["a"], tmp_path)
    (part,) = tmp_path.glob("*.jsonl")
    part.write_text(f"{part.read_text()}{line}\n")
    with pytest.raises(UserError, match=re.escape(f"{part}, line 2: no") + ".*delete this line"):
        ReplyCache(tmp_path)


def test_two_runs_of_a_folder_do_not_write_into_one_file(tmp_path):
    with ReplyCache(tmp_path) as one, ReplyCache(tmp_path) as two:
        for name, cache in (("a", one), ("b", two), ("c", one)):
            cache.add(name, name, Reply(name))
    held = ReplyCache(tmp_path)
    assert [held.get(name) for name in "abc"] == [Reply(name) for name in "abc"]


def test_a_reply_comes_back_from_disk_as_it_was(tmp_path):
    choice = {"finish_reason": "length", "logprobs": {"content": [{"token": "a", "logprob": -0.125}]}}
    with ChatServer(lambda seen: Do(text='é "\n\u2028 half \ud83d', more=choice)) as server:
        (first,) = run(endpoint(server), ["a"], tmp_path).values()
    assert first == Reply('é "\n\u2028 half ?', True, 1, (-0.125,), 7, 3)
    with ReplyCache(tmp_path) as cache:
        assert cache.get(request("a").key) == first


@pytest.mark.parametrize(
    "url, message",
    [
        ("http://host:8000", "expected the form"),
        ("host:8000/v1", "expected the form"),
        ("ftp://host/v1", "expected the form"),
        ("http://host/v1?key=1", "expected the form"),
        ("http://host:port/v1", "cannot be read"),
        ("https://host/v1/chat/completions", "leave out /chat/completions"),
        ("https://me:secret@host/v1", "holds a name or password"),
        ("", "expected the form"),
    ],
)
def test_urls_that_are_none(url, message):
    with pytest.raises(EndpointError, match=message) as caught:
        Endpoint(url, "judge")
    assert "secret" not in str(caught.value)


def test_urls_that_are_some():
    assert Endpoint(" https://host/v1/ ", "judge").url == "https://host/v1"
    assert Endpoint("http://[::1]:80/proxy/v1", "judge").url == "http://[::1]:80/proxy/v1"


@pytest.mark.parametrize("change", [dict(concurrency=0), dict(attempts=0), dict(timeout=0), dict(timeout=float("nan"))])
def test_settings_that_make_no_sense(change):
    with pytest.raises(EndpointError, match=next(iter(change))):
        Endpoint("http://host/v1", "judge", **change)


def test_the_key_depends_on_all_that_is_asked():
    asked = {"messages": [{"role": "user", "content": "a"}], "settings": {"temperature": 0}}
    keys = [
        cache_key("u", "m", asked),
        cache_key("v", "m", asked),
        cache_key("u", "n", asked),
        cache_key("u", "m", {**asked, "settings": {}}),
        cache_key("u", "m", {**asked, "messages": [{"role": "user", "content": "b"}]}),
    ]
    assert len(set(keys)) == 5 and cache_key("u", "m", dict(reversed(asked.items()))) == keys[0]


def test_importing_reads_no_key():
    """A process without the key can import, and one with it shows nothing."""
    code = "import videmo_jax.endpoints.client as e; print(vars(e))"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=Path.cwd(), check=True
    )
    assert SECRET not in shown.stdout + shown.stderr


def test_replies_are_kept_in_buckets(bucket):
    """Nothing can be appended there: files of so many lines, the rest when all is done."""
    texts = [str(number) for number in range(BUCKET_LINES + 5)]
    with ChatServer(lambda seen: Do(f"reply to {seen.text}")) as server:
        run(endpoint(server), texts, f"{bucket}/replies")
        run(endpoint(server), [*texts, "one more"], f"{bucket}/replies")
    assert sorted(server.texts) == sorted([*texts, "one more"])
    parts = sorted(epath.Path(f"{bucket}/replies").glob("*.jsonl"))
    assert [len(part.read_text().splitlines()) for part in parts] == [BUCKET_LINES, 5, 1]


FINAL = {
    "the limit of tokens was reached before any text": Do(text=None, more={"finish_reason": "length"}),
    "the endpoint's content filter": Do(text="", more={"finish_reason": "content_filter"}),
    "the model refused: I cannot say": Do(
        body=b'{"choices": [{"message": {"content": null, "refusal": "I cannot\\nsay"}}]}'
    ),
    "HTTP 429: you are out of money": Do(
        status=429, body=b'{"error": {"message": "you are out of money", "code": "insufficient_quota"}}'
    ),
    "HTTP 400: Unsupported parameter: 'max_tokens'": Do(
        status=400, body=b'{"error": {"message": "Unsupported parameter: \'max_tokens\'"}}'
    ),
}


@pytest.mark.parametrize("error", FINAL)
def test_what_would_come_again_is_sent_once(error, tmp_path):
    with ChatServer(lambda seen: FINAL[error] if seen.text == "bad" else Do()) as server:
        results = run(endpoint(server), ["bad", "good"], tmp_path)
    assert error in results["bad"].error and results["bad"].attempts == 1
    assert sorted(server.texts) == ["bad", "good"]


def test_text_in_parts_is_joined(tmp_path):
    parts = [{"type": "text", "text": "ye"}, {"type": "reasoning", "text": "hm"}, {"type": "text", "text": "s"}]
    body = json.dumps({"choices": [{"message": {"content": parts}}]}).encode()
    with ChatServer(lambda seen: Do(body=body)) as server:
        assert run(endpoint(server), ["a"], tmp_path)["a"].text == "yes"


def test_tokens_of_failed_attempts_count(tmp_path):
    with ChatServer(lambda seen: Do(text=" ") if seen.nth < 2 or seen.text == "bad" else Do()) as server:
        results = run(endpoint(server), ["good", "bad"], tmp_path)
    assert (results["good"].attempts, results["good"].tokens_in, results["good"].tokens_out) == (3, 21, 9)
    assert (results["bad"].attempts, results["bad"].tokens_in, results["bad"].tokens_out) == (4, 28, 12)


def test_what_may_be_spent_holds_while_it_is_spent(tmp_path):
    """A request costs 7 x 1 + 3 x 1 millionths: of 100 requests 20 are paid for, however many are in flight."""
    texts = [str(number) for number in range(100)]
    for folder, concurrency in (("one", 1), ("many", 8)):
        budget = Budget(Price(1, 1), 205e-6)
        with ChatServer() as server, ReplyCache(tmp_path / folder) as cache:
            outcomes = ask(endpoint(server, concurrency=concurrency), map(request, texts), cache, budget=budget)
            with pytest.raises(BudgetSpent, match=r"20 requests have cost 0\.00 USD, and 0\.000205 are allowed"):
                list(outcomes)
        assert len(server.seen) == len(ReplyCache(tmp_path / folder)) == 20


def test_a_port_where_nobody_listens_is_given_up_within_seconds(tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    quick = Endpoint(url, "judge", first_wait=0.001, attempts=1000, max_failures_in_a_row=1000)
    with ReplyCache(tmp_path) as cache, pytest.raises(EndpointDown, match=r"nobody listens there.*Start the server"):
        list(ask(quick, map(request, ["a", "b"]), cache))
    assert capsys.readouterr().err.count(f"{url}: nobody listens there") == 1
