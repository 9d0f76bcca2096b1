"""The `openai` judge: a model behind an OpenAI-style chat endpoint (PAPER.md section 6)."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from etils import epath

from videmo_jax.endpoints.cache import Reply, ReplyCache, cache_key
from videmo_jax.endpoints.client import Endpoint, EndpointDown, Failure, Outcome, Request, ask
from videmo_jax.endpoints.price import Budget, Estimate, Price, count_tokens, known_price
from videmo_jax.evaluation.judges.judging import NOT_COMPARABLE, JudgeInfo, Kind, OnProgress, Question
from videmo_jax.evaluation.judges.prompts import OFFICIAL_MODEL, JudgePrompts
from videmo_jax.files.errors import UserError
from videmo_jax.files.json_records import to_line
from videmo_jax.files.paths import open_path
from videmo_jax.files.writing import write_json, write_text

# Tokens of a reply, for the estimate: about what the forms of reply take.
TOKENS_OF_REPLY: dict[Kind, int] = {"match": 2, "score": 2, "labels": 15, "six": 250}
OWN_FIELDS = {"model", "messages", "stream", "n"}
MAX_LISTED = 5  # failures in the text of a summary


class SettingsError(UserError):
    """The fields that requests shall carry cannot be used; the message says why."""


def read_settings(text: str) -> dict[str, Any]:
    """Reads fields of a request from a JSON object, such as `{"temperature": 0, "max_tokens": 500}`.

    Raises:
      SettingsError: it is no JSON object, or has a field that the judge fills in or cannot read the answer to.
    """
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        held = None
    if not isinstance(held, dict):
        raise SettingsError(f'--judge-settings {text!r}: expected a JSON object, such as {{"temperature": 0}}')
    if own := sorted(OWN_FIELDS & set(held)):
        raise SettingsError(f"--judge-settings: {', '.join(own)} cannot be set; the judge does that itself")
    return held


@dataclass(frozen=True)
class Summary:
    """What became of the questions; `judged`, `cached` and `failed` add up to `questions`.

    Attributes:
      questions: all.
      judged: with a reply that this run asked for.
      cached: with a reply that was there, or that an equal question of this run got.
      retried: of those judged, the ones that took more than one attempt.
      failed: ids of questions without a reply, each with its last error; the next run asks them again.
      tokens_in: of prompts, as the endpoint counted, failed attempts included; 0 where it does not.
      tokens_out: of replies, likewise.
    """

    questions: int
    judged: int
    cached: int
    retried: int
    failed: tuple[tuple[str, str], ...]
    tokens_in: int
    tokens_out: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object, the failures counted."""
        return {**self.__dict__, "failed": len(self.failed)}

    def __str__(self) -> str:
        """For a terminal."""
        lines = [
            f"{self.questions:,} questions: {self.judged:,} judged now ({self.retried:,} of them after retries), "
            f"{self.cached:,} from the cache, {len(self.failed):,} failed"
        ]
        lines += [f"  failed: {id}: {error}" for id, error in self.failed[:MAX_LISTED]]
        if len(self.failed) > MAX_LISTED:
            lines.append(f"  and {len(self.failed) - MAX_LISTED:,} more, all in judge/failed.jsonl")
        return "\n".join(lines)


class OpenAIJudge:
    """Judges through an endpoint; a `judging.Judge`.

    Below the folder of an evaluation it writes `judge/replies/*.jsonl` (its cache), `judge/failed.jsonl` (questions
    without a reply, each with its last error) and `judge/summary.json`.

    Attributes:
      summary: of the last call of `judge`; None before.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        prompts: JudgePrompts,
        out: epath.PathLike,
        *,
        settings: Mapping[str, Any] | None = None,
        price: Price | None = None,
        max_price: float | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        """Prepares; nothing is asked or written yet.

        Args:
          endpoint: whom to ask.
          prompts: what to ask.
          out: the folder of the evaluation.
          settings: further fields of each request, such as `temperature`. None: those of the authors' code with their
            prompts, that is none at all; temperature 0 with others.
          price: of the model; None takes the list price where there is one.
          max_price: US dollars; an estimate above it is refused. None allows everything.
          say: shows the estimate and the summary.
        """
        self._endpoint, self._prompts = endpoint, prompts
        self._folder = open_path(out) / "judge"
        default = {} if prompts.official else {"temperature": 0}
        self._settings = dict(default if settings is None else settings)
        self._price = price or known_price(endpoint.model)
        self._max_price, self._say = max_price, say
        self.summary: Summary | None = None

    @property
    def info(self) -> JudgeInfo:
        """What results say of the judge; the paper's rows are comparable with its own prompts and model alone."""
        reasons = []
        if self._endpoint.model != OFFICIAL_MODEL:
            reasons.append(f"the judging model is not {OFFICIAL_MODEL}")
        if not self._prompts.official:
            reasons.append("the prompts are not those of the authors' eval/config.py (--judge-prompts)")
        notes = [f"requests were sent with {json.dumps(self._settings, sort_keys=True)}"] if self._settings else []
        if reasons:
            notes.append(f"{NOT_COMPARABLE}{'; '.join(reasons)}")
        return JudgeInfo("openai", self._endpoint.model, self._prompts.hash, not reasons, tuple(notes))

    def judge(self, questions: Sequence[Question], on_progress: OnProgress | None = None) -> list[str | None]:
        """The raw replies, in the order of the questions; None for those that failed.

        Raises:
          PriceError: it would cost more than allowed; nothing was asked.
          EndpointError: the key is refused; what was judged before is kept.
          CacheError: the cache cannot be read or written.
          PromptError: a question has no prompt.
        """
        requests = [self._request(question) for question in questions]
        with ReplyCache(self._folder / "replies") as cache:
            estimate = self._estimate(questions, requests, cache)
            self._say(str(estimate))
            estimate.check(self._max_price)
            outcomes = self._ask(requests, cache, on_progress or (lambda done, total: None))
        self.summary = _summary(requests, outcomes)
        self._write(self.summary)
        self._say(str(self.summary))
        results = [outcome.result for outcome in outcomes]
        return [result.text if isinstance(result, Reply) else None for result in results]

    def _request(self, question: Question) -> Request:
        return judge_request(self._endpoint, self._prompts, self._settings, question)

    def _estimate(self, questions: Sequence[Question], requests: Sequence[Request], cache: ReplyCache) -> Estimate:
        missing = {
            request.key: (request.messages[0]["content"], question.kind)
            for question, request in zip(questions, requests, strict=True)
            if cache.get(request.key) is None
        }
        return Estimate(
            self._endpoint.model,
            len(missing),
            len(requests) - len(missing),
            count_tokens(text for text, _ in missing.values()),
            sum(TOKENS_OF_REPLY[kind] for _, kind in missing.values()),
            self._price,
        )

    def _ask(self, requests: Sequence[Request], cache: ReplyCache, report: OnProgress) -> list[Outcome]:
        """What became of each request, in their order."""
        places: dict[int, int] = {id(request): place for place, request in enumerate(requests)}
        outcomes: list[Outcome | None] = [None] * len(requests)
        error = ""
        try:
            budget = Budget(self._price, self._max_price) if self._price and self._max_price is not None else None
            with closing(ask(self._endpoint, requests, cache, budget=budget)) as arriving:
                for done, outcome in enumerate(arriving, start=1):
                    outcomes[places[id(outcome.request)]] = outcome
                    report(done, len(requests))
        except EndpointDown as down:
            error = f"not asked: {down}"
        # What was under way may have been kept before all was stopped.
        return [outcome or _late(request, cache, error) for request, outcome in zip(requests, outcomes, strict=True)]

    def _write(self, summary: Summary) -> None:
        lines = (to_line({"id": id, "error": error}) for id, error in summary.failed)
        write_text(self._folder / "failed.jsonl", lines)
        write_json(self._folder / "summary.json", summary.to_json())


def judge_request(
    endpoint: Endpoint, prompts: JudgePrompts, settings: Mapping[str, Any], question: Question
) -> Request:
    """What an endpoint is sent for a question; raises PromptError where there is no prompt for it."""
    messages = [{"role": "user", "content": prompts.write(question)}]
    # The official code asks again after an empty reply, but takes it as the answer to a question for labels.
    return Request(
        question.id,
        cache_key(endpoint.url, endpoint.model, {"messages": messages, "settings": settings}),
        messages,
        settings,
        blank=question.kind == "labels",
    )


def _late(request: Request, cache: ReplyCache, error: str) -> Outcome:
    """The outcome of a request that was not waited for."""
    return Outcome(request, cache.get(request.key) or Failure(error, 0))


def _summary(requests: Sequence[Request], outcomes: Sequence[Outcome]) -> Summary:
    replies = [(outcome.result, outcome.cached) for outcome in outcomes if isinstance(outcome.result, Reply)]
    fresh = [reply for reply, cached in replies if not cached]
    paid = fresh + [outcome.result for outcome in outcomes if isinstance(outcome.result, Failure)]
    return Summary(
        questions=len(requests),
        judged=len(fresh),
        cached=len(replies) - len(fresh),
        retried=sum(reply.attempts > 1 for reply in fresh),
        failed=tuple((o.request.id, str(o.result)) for o in outcomes if isinstance(o.result, Failure)),
        tokens_in=sum(each.tokens_in or 0 for each in paid),
        tokens_out=sum(each.tokens_out or 0 for each in paid),
    )
