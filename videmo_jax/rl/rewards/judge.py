"""Short captions scored by a language model, such as one behind an OpenAI-style endpoint (PAPER.md section 3).

Imported where an endpoint is configured only: its cache's hashes bring JAX along, which worker processes do without.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from videmo_jax.endpoints.cache import CacheError, Reply, ReplyCache
from videmo_jax.endpoints.client import Endpoint, EndpointDown, EndpointError, Failure, Outcome, ask
from videmo_jax.evaluation.judges.judging import Question
from videmo_jax.evaluation.judges.openai import judge_request
from videmo_jax.evaluation.judges.prompts import embedded_prompts
from videmo_jax.evaluation.judges.rules import read_reply
from videmo_jax.files.paths import is_remote
from videmo_jax.rl.rewards.branches import PERFECT, Failed, Group, Scored, failed
from videmo_jax.rl.rewards.spec import RewardEndpoint, RewardError

SETTINGS = {"temperature": 0}


def check_text(question: Question) -> str:
    """What a yes/no judge, such as the frozen reference, is asked about a question: the embedded prompt for matches."""
    return embedded_prompts().write(replace(question, kind="match", file=""))


class EndpointScorer:
    """Asks an endpoint for scores of 0 to 100; replies are kept on disk, equal questions asked once."""

    def __init__(self, spec: RewardEndpoint) -> None:
        """Reads the replies that are kept; nothing is asked yet.

        Raises:
          RewardError: the endpoint is no endpoint, or kept replies cannot be read.
        """
        values = {name: value for name, value in vars(spec).items() if name != "replies"}
        try:
            self._endpoint = Endpoint(**values)
            self._cache = ReplyCache(spec.replies)
        except (EndpointError, CacheError, TypeError) as error:
            raise RewardError(f"rewards.endpoint: {error}") from None
        self._prompts = embedded_prompts()
        self._in_bucket = is_remote(spec.replies)
        self._down = False

    def score(self, groups: Sequence[Group]) -> list[Scored]:
        """The scores; a group with an answer that got no readable reply has failed."""
        questions = [[item.judged(answer, number) for number, answer in enumerate(answers)] for item, answers in groups]
        replies = self._replies([question for group in questions for question in group])
        given = iter(replies)
        return [_read(group, [next(given) for _ in group]) for group in questions]

    def _replies(self, questions: Sequence[Question]) -> list[Reply | Failed]:
        requests = [judge_request(self._endpoint, self._prompts, SETTINGS, question) for question in questions]
        places = {id(request): place for place, request in enumerate(requests)}
        outcomes: list[Outcome | None] = [None] * len(requests)
        stopped = "not asked"
        try:
            if self._down and (first := next((r for r in requests if self._cache.get(r.key) is None), None)):
                # It was given up before: one request, sent once, tells whether it is back.
                for outcome in ask(replace(self._endpoint, attempts=1, max_failures_in_a_row=1), [first], self._cache):
                    outcomes[places[id(first)]] = outcome
            with closing(ask(self._endpoint, requests, self._cache)) as arriving:
                for outcome in arriving:
                    outcomes[places[id(outcome.request)]] = outcome
            self._down = False
        except (EndpointError, CacheError) as error:
            self._down, stopped = isinstance(error, EndpointDown), f"not asked: {error}"
        if self._in_bucket:
            self._cache.close()  # it collects lines there; the next ones go into another file
        found: list[Reply | Failed] = []
        for request, outcome in zip(requests, outcomes, strict=True):
            result = outcome.result if outcome else self._cache.get(request.key) or Failure(stopped, 0)
            found.append(result if isinstance(result, Reply) else failed(f"endpoint: {result}"))
        return found


def _read(questions: Sequence[Question], replies: Sequence[Reply | Failed]) -> Scored:
    values = []
    for question, reply in zip(questions, replies, strict=True):
        if isinstance(reply, Failed):
            return reply
        verdict = read_reply(question, reply.text, "strict")
        if verdict.values is None or not verdict.readable:
            return failed(f"endpoint: the reply {reply.text[:80]!r} is no number from 0 to 100")
        values.append(verdict.values[0] / PERFECT)
    return values
