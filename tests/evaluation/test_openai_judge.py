"""The judge behind an endpoint: every question judged once or listed, nothing paid twice, also after a kill."""

import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest

from tests.evaluation.chat_server import ChatServer, Do
from videmo_jax.endpoints.client import Endpoint, EndpointError
from videmo_jax.endpoints.price import Price, PriceError, count_tokens, known_price, read_price
from videmo_jax.evaluation.answers.items import read_items
from videmo_jax.evaluation.answers.predictions import Prediction
from videmo_jax.evaluation.judges import prompts as judge_prompts
from videmo_jax.evaluation.judges.by_rules import RuleJudge
from videmo_jax.evaluation.judges.judging import Question
from videmo_jax.evaluation.judges.openai import OpenAIJudge, SettingsError, read_settings
from videmo_jax.evaluation.judges.prompts import KIND_OF_FILE, JudgePrompts, embedded_prompts
from videmo_jax.evaluation.results import Scoring, score_run
from videmo_jax.evaluation.scoring import question_of

# What is asked is the id, so that the server's log can be read.
PLAIN = {"match": "{labels} {answer}", "score": "{labels} {answer}", "labels": "{answer}", "six": "{labels} {answer}"}
PROMPTS = JudgePrompts({}, PLAIN)


def question(number, kind="match"):
    return Question(kind, f"MEAD_ID#{number}", "MEAD_ID", "Who?", f"truth-{number}", f"response-{number}")


def asked(number):
    return f"truth-{number} response-{number}"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-5f1d3b8a77c04e19")


def endpoint(server, **changes):
    return replace(Endpoint(server.url, "judge", 8, attempts=3, first_wait=0.001, longest_wait=0.002), **changes)


@pytest.fixture
def said():
    return []


def judge_of(server, out, said, prompts=PROMPTS, **changes):
    options = {name: changes.pop(name) for name in ("settings", "price", "max_price") if name in changes}
    return OpenAIJudge(endpoint(server, **changes), prompts, out, say=said.append, **options)


def test_replies_stand_in_the_order_of_the_questions(tmp_path, said):
    """Some replies come late."""
    questions, heard = [question(number) for number in range(40)], []
    with ChatServer(lambda seen: Do(f" Reply to {seen.text}.\n", delay=0.02 * (int(seen.text[-1]) < 3))) as server:
        judge = judge_of(server, tmp_path, said)
        replies = judge.judge(questions, lambda done, total: heard.append((done, total)))
    assert replies == [f" Reply to {asked(number)}.\n" for number in range(40)]  # raw: the rules read them
    assert heard == [(done, 40) for done in range(1, 41)]
    summary = judge.summary
    assert (summary.questions, summary.judged, summary.cached, summary.retried, summary.failed) == (40, 40, 0, 0, ())
    assert (summary.tokens_in, summary.tokens_out) == (40 * 7, 40 * 3)  # as the server counts
    assert server.seen[0].body["temperature"] == 0 and server.seen[0].body["model"] == "judge"
    assert [message["role"] for message in server.seen[0].body["messages"]] == ["user"]


def test_everything_at_once(tmp_path, said):
    """Each kind of fault hits some questions; some never get a reply."""
    faults = [
        Do(status=429, headers={"Retry-After": "0"}),
        Do(status=429),
        Do(status=500),
        Do(body=b"not JSON"),
        Do(body=b"{}"),
        Do(cut=25),
        Do(cut=0),
        Do(text=None),
        Do(text=""),
    ]

    def plan(seen):
        number = int(seen.text.rsplit("-", 1)[1])
        if number % 20 == 19:
            return Do(status=400, body=b'{"error": {"message": "content filter"}}')
        if number % 20 == 18:
            return Do(status=503)
        return faults[number % len(faults)] if seen.nth == 0 and number % 2 else Do(f"reply-{number}")

    questions = [question(number) for number in range(200)]
    with ChatServer(plan) as server:
        judge = judge_of(server, tmp_path, said)
        replies = judge.judge(questions)
        asked_once = Counter(server.texts)
        again = judge.judge(questions)
    never = {number for number in range(200) if number % 20 in (18, 19)}
    assert {number for number, reply in enumerate(replies) if reply is None} == never
    assert all(reply == f"reply-{number}" for number, reply in enumerate(replies) if number not in never)
    for number in range(200):
        times = 1 if number % 20 == 19 else 3 if number % 20 == 18 else 1 + number % 2
        assert asked_once[asked(number)] == times
    failed = [json.loads(line) for line in (tmp_path / "judge" / "failed.jsonl").read_text().splitlines()]
    assert [line["id"] for line in failed] == [f"MEAD_ID#{number}" for number in sorted(never)]
    for line in failed:
        number = int(line["id"].split("#")[1])
        said_by_server = line["error"].startswith("HTTP 503: ") and line["error"].endswith("(sent 3 times)")
        assert said_by_server if number % 20 == 18 else line["error"] == "HTTP 400: content filter"
    assert again == replies
    summary = json.loads((tmp_path / "judge" / "summary.json").read_text())
    assert (summary["questions"], summary["judged"], summary["cached"], summary["failed"]) == (200, 0, 180, 20)
    assert "200 questions: 180 judged now (90 of them after retries), 0 from the cache, 20 failed" in said[1]
    assert "and 15 more, all in judge/failed.jsonl" in said[1]


def test_a_next_run_asks_only_what_is_missing(tmp_path, said):
    questions = [question(number) for number in range(30)]
    with ChatServer(lambda seen: Do("yes") if seen.nth else Do(status=400)) as server:
        assert judge_of(server, tmp_path, said).judge(questions[:10]) == [None] * 10
        assert judge_of(server, tmp_path, said).judge(questions[:10]) == ["yes"] * 10
        judge_of(server, tmp_path, said).judge(questions)
        last = judge_of(server, tmp_path, said)
        assert last.judge(questions) == ["yes"] * 30
        assert max(Counter(server.texts).values()) == 2
        assert (last.summary.judged, last.summary.cached) == (20, 10)


def test_equal_questions_are_paid_once(tmp_path, said):
    twins = [replace(question(1), id=f"MEAD_ID#{number}") for number in range(5)]
    with ChatServer() as server:
        judge = judge_of(server, tmp_path, said)
        assert judge.judge(twins) == ["yes"] * 5
        assert len(server.seen) == 1 and (judge.summary.judged, judge.summary.cached) == (1, 4)
        assert "1 requests (4 more cost nothing)" in said[0]


@pytest.mark.parametrize("change", ["model", "settings", "prompts", "url"])
def test_another_recipe_is_asked_anew(change, tmp_path, said):
    other = JudgePrompts({}, PLAIN | {"match": "{labels} {answer}!"})
    with ChatServer() as server, ChatServer() as elsewhere:
        judge_of(server, tmp_path, said).judge([question(0)])
        changes = {
            "model": dict(model="other"),
            "settings": dict(settings={"temperature": 1}),
            "prompts": dict(prompts=other),
            "url": {},
        }[change]
        judge_of(elsewhere if change == "url" else server, tmp_path, said, **changes).judge([question(0)])
        assert len(server.seen) + len(elsewhere.seen) == 2


def test_an_empty_reply_answers_a_question_for_labels_alone(tmp_path, said):
    with ChatServer(lambda seen: Do(text="")) as server:
        judge = judge_of(server, tmp_path, said)
        assert judge.judge([question(0, "labels"), question(1)]) == ["", None]
    assert len(server.seen) == 1 + 3


def test_a_server_that_is_down_leaves_every_question_listed(tmp_path, said):
    def plan(seen):
        return Do(status=500) if int(seen.text.rsplit("-", 1)[1]) >= 10 else Do()

    questions = [question(number) for number in range(100)]
    with ChatServer(plan) as server:
        judge = judge_of(server, tmp_path, said, concurrency=2, attempts=2, max_failures_in_a_row=5)
        replies = judge.judge(questions)
    assert replies == ["yes"] * 10 + [None] * 90
    assert judge.summary.judged == 10 and len(judge.summary.failed) == 90 and len(server.seen) < 10 + 2 * 8
    errors = [error for _, error in judge.summary.failed]
    assert (
        errors[0].startswith("HTTP 500")
        and errors[-1].startswith("not asked: ")
        and "5 requests in a row" in errors[-1]
    )


def test_a_refused_key_keeps_what_was_judged(tmp_path, said):
    bad = {"now": False}
    with ChatServer(lambda seen: Do(status=401) if bad["now"] else Do()) as server:
        judge_of(server, tmp_path, said).judge([question(0)])
        bad["now"] = True
        with pytest.raises(EndpointError, match="HTTP 401"):
            judge_of(server, tmp_path, said).judge([question(0), question(1)])
        bad["now"] = False
        assert judge_of(server, tmp_path, said).judge([question(0), question(1)]) == ["yes", "yes"]
    assert Counter(server.texts) == {asked(0): 1, asked(1): 2}


JUDGING = """
import sys
from tests.evaluation.test_openai_judge import PROMPTS, question
from videmo_jax.endpoints.client import Endpoint
from videmo_jax.evaluation.judges.openai import OpenAIJudge
end = Endpoint(sys.argv[1], "judge", concurrency=8, first_wait=0.001, longest_wait=0.002)
replies = OpenAIJudge(end, PROMPTS, sys.argv[2]).judge([question(number) for number in range(300)])
print(replies == ["yes"] * 300)
"""


def test_a_kill_at_half_costs_what_was_in_flight_and_no_more(tmp_path, said):
    """Server and judge are processes of their own; the judge gets SIGKILL and is started again."""
    log, release = tmp_path / "log.jsonl", tmp_path / "release"
    log.touch()
    command = [sys.executable, "-m", "tests.evaluation.chat_server", "--log", str(log)]
    command += ["--hold-after", "150", "--release", str(release)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            judging = [sys.executable, "-c", JUDGING, url, str(tmp_path / "out")]
            with subprocess.Popen(judging, stdout=subprocess.PIPE, text=True) as first:
                while len(before := log.read_text().splitlines()) < 158 and first.poll() is None:
                    time.sleep(0.01)
                first.send_signal(signal.SIGKILL)
            assert first.returncode == -signal.SIGKILL and len(before) == 158  # the last 8 wait for their replies
            release.touch()
            second = subprocess.run(judging, capture_output=True, text=True, check=True)
        finally:
            server.kill()
    times = Counter(json.loads(line) for line in log.read_text().splitlines())
    assert set(times) == {asked(number) for number in range(300)}
    assert max(times.values()) == 2 and sum(times.values()) == 300 + 8
    assert second.stdout.splitlines()[-1] == "True"
    summary = json.loads((tmp_path / "out" / "judge" / "summary.json").read_text())
    assert (summary["questions"], summary["cached"], summary["judged"], summary["failed"]) == (300, 150, 150, 0)
    lines = [
        line for part in (tmp_path / "out" / "judge" / "replies").iterdir() for line in part.read_text().split("\n")
    ]
    ids = Counter(json.loads(line)["id"] for line in lines if line.endswith("}"))
    assert set(ids) == {f"MEAD_ID#{number}" for number in range(300)} and set(ids.values()) == {1}


def test_the_price_is_told_before_and_may_be_too_high(tmp_path, said):
    questions = [question(number, "six") for number in range(100)]
    price = Price(prompt=2.0, reply=10.0)
    with ChatServer() as server:
        with pytest.raises(PriceError, match=r"more than --judge-max-price 0\.1; nothing was asked"):
            judge_of(server, tmp_path, said, price=price, max_price=0.1).judge(questions)
        assert not server.seen and not (tmp_path / "judge").exists()
        judge_of(server, tmp_path, said, price=price, max_price=0.5).judge(questions)
        # About 22 characters and a message's marks each, and replies of 250 tokens.
        tokens = sum(8 + math.ceil(len(asked(number)) / 4) for number in range(100))
        dollars = (tokens * 2 + 25_000 * 10) / 1e6
        assert f"about {tokens:,} tokens of prompts and 25,000 of replies; about {dollars:.2f} USD" in said[0]
        judge_of(server, tmp_path, said, price=price, max_price=0.0).judge(questions)  # all is there: it costs nothing
        with pytest.raises(PriceError, match="the price of judge is not known; give it with --judge-price"):
            judge_of(server, tmp_path / "other", said, max_price=1).judge(questions)
        judge_of(server, tmp_path / "other", said).judge(questions)
        assert "price unknown" in said[-2]


def test_prices():
    assert known_price("gpt-4o-2024-08-06") == Price(2.5, 10.0) and known_price("nobody's") is None
    assert read_price("0.5,2") == Price(0.5, 2) and read_price("0,0") == Price(0, 0)
    for bad in ("1", "1,2,3", "a,b", "-1,2", "nan,1", "inf,1", ""):
        with pytest.raises(PriceError, match="expected PROMPT,REPLY"):
            read_price(bad)
    assert count_tokens(["abcd" * 10]) == 18 and count_tokens(["表情" * 10]) == 28 and count_tokens([]) == 0


def test_comparable_only_with_the_authors_prompts_and_model(tmp_path, monkeypatch):
    def info(prompts, model):
        return OpenAIJudge(Endpoint("http://host/v1", model), prompts, tmp_path).info

    official = JudgePrompts({}, PLAIN | {"match": "stands for the authors' {labels} {answer}"})
    monkeypatch.setattr(judge_prompts, "OFFICIAL_HASH", official.hash)
    assert info(official, "gpt-4o-2024-08-06").comparable
    for prompts, model, reason in [
        (official, "gpt-4o", "the judging model is not gpt-4o-2024-08-06"),
        (official, "gpt-4o-2024-08-06 ", "the judging model is not"),
        (embedded_prompts(), "gpt-4o-2024-08-06", "the prompts are not those of the authors'"),
        (PROMPTS, "other", "the prompts are not those of"),
    ]:
        held = info(prompts, model)
        assert not held.comparable and reason in " ".join(held.notes)
        assert held.prompts == prompts.hash and held.model == model and held.name == "openai"


def test_settings_are_the_authors_with_their_prompts(tmp_path, said, monkeypatch):
    """Their code sends the messages and the model, nothing else; ours asks for the likeliest reply."""
    with ChatServer() as server:
        judge_of(server, tmp_path, said).judge([question(0)])
        judge_of(server, tmp_path, said, settings={"max_tokens": 5}).judge([question(0)])
        monkeypatch.setattr(judge_prompts, "OFFICIAL_HASH", PROMPTS.hash)
        judge_of(server, tmp_path, said).judge([question(0)])
    extra = [{name: seen.body[name] for name in seen.body if name not in ("model", "messages")} for seen in server.seen]
    assert extra == [{"temperature": 0}, {"max_tokens": 5}, {}]


@pytest.mark.parametrize("bad", ["", "[]", "1", "{", '{"model": "b"}', '{"stream": true, "n": 2}', "[" * 100_000])
def test_settings_that_cannot_be_used(bad):
    with pytest.raises(SettingsError, match="--judge-settings"):
        read_settings(bad)
    assert read_settings('{"temperature": 0.5, "seed": 1}') == {"temperature": 0.5, "seed": 1}


def test_the_key_is_in_no_file_and_no_line(tmp_path, said, capfd):
    """The server repeats it in replies and errors."""

    def plan(seen):
        header = seen.headers["Authorization"]
        return Do(header) if seen.nth == 0 and seen.text == asked(0) else Do(status=400, body=header.encode())

    with ChatServer(plan) as server:
        judge = judge_of(server, tmp_path, said)
        replies = judge.judge([question(0), question(1)])
    assert replies == ["Bearer ***", None] and judge.summary.failed == (("MEAD_ID#1", "HTTP 400: Bearer ***"),)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    shown = "".join([*said, *capfd.readouterr(), repr(judge.summary), repr(judge.info), repr(vars(judge))])
    assert b"5f1d3b8a" not in written and "5f1d3b8a" not in shown and len(written) > 100


def test_scores_do_not_depend_on_where_the_judge_is(dataset, tmp_path, said):
    """A server that answers as the embedded judge would: all scores and tables are the same, to the last digit."""
    items = read_items(dataset, "test", "full", None)
    predictions: dict[str, list[Prediction]] = {}
    for number, item in enumerate(items):
        answers = [item.blank.labels, items[number - 1].blank.labels, "", "I can not say.", "A smile; she is happy."]
        predictions.setdefault(item.name, []).extend(replace(item.blank, response=answer) for answer in answers)
    prompts, rule = embedded_prompts(), RuleJudge()
    asked_of = [question_of(name, n, line) for name, lines in predictions.items() for n, line in enumerate(lines)]
    replies = {prompts.write(q): reply for q, reply in zip(asked_of, rule.judge(asked_of), strict=True)}
    assert len(predictions) == 22 and set(KIND_OF_FILE) == set(predictions) and len(replies) > 100
    with ChatServer(lambda seen: Do(replies[seen.text])) as server:
        judge = judge_of(server, tmp_path, said, prompts=prompts)
        scoring = [Scoring(judge=rule), Scoring(judge=judge)]
        ours, theirs = (
            score_run(tmp_path / str(place), predictions, how, data=dataset) for place, how in enumerate(scoring)
        )
    assert not judge.summary.failed and len(server.seen) == judge.summary.judged <= len(replies)
    held = [json.loads((tmp_path / place / "scores.json").read_text()) for place in "01"]
    assert held[0]["columns"] == held[1]["columns"] and held[0]["overall"] == held[1]["overall"]
    assert held[1]["judge"]["name"] == "openai" and held[1]["judge"]["prompts"] == prompts.hash
    assert [item.reply for item in ours.items] == [item.reply for item in theirs.items]
