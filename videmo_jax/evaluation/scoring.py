"""From predictions to scores: lines matched to annotations, questions to the judge, replies read by the rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from videmo_jax.evaluation.annotations import AnnotatedQuestion, Matching, line_key, match_lines, official_aspects
from videmo_jax.evaluation.answers.predictions import Prediction
from videmo_jax.evaluation.judges.by_rules import RuleJudge, remarks, true_option
from videmo_jax.evaluation.judges.judging import SIX, Judge, Kind, OnProgress, Question, judged_query
from videmo_jax.evaluation.judges.rules import Rules, Verdict, mean_of, read_reply, unreadable
from videmo_jax.evaluation.tables.columns import QA, TEST_FILES
from videmo_jax.evaluation.tables.scores import FileScore, ItemScore, Judged, PartScore, Results, exact_score
from videmo_jax.tasks.metrics import uar, war
from videmo_jax.tasks.replies import final_answer
from videmo_jax.tasks.taxonomy import ASPECTS, Form, task_of

KINDS: dict[Form, Kind] = {
    "choice": "match",
    "multi_label": "labels",
    "tags": "labels",
    "units": "labels",
    "caption": "score",
    "open_qa": "score",
    "fine_caption": "six",
}
STRICT_READS = "unreadable reply, which strict rules read"


@dataclass(frozen=True)
class Line:
    """One line that counts, its question and its part: an aspect, or nothing."""

    question: Question
    part: str


@dataclass(frozen=True)
class Missing:
    """A record without a line, which counts 0 by strict rules."""

    query: str
    truth: str
    part: str


def score(
    predictions: Mapping[str, Sequence[Prediction]],
    judge: Judge,
    rules: Rules = "official",
    *,
    annotations: Mapping[str, Sequence[AnnotatedQuestion]] | None = None,
    cut: Mapping[str, int] | None = None,
    on_progress: OnProgress | None = None,
) -> Results:
    """Scores all prediction files of one method.

    Args:
      predictions: lines by file, named by stem.
      judge: is asked all questions at once.
      rules: by which its replies are read. `official` scores the lines that there are; `strict` the records of the
        annotations, where there are any: a record without a line counts 0, an extra line nothing; and the judge is
        asked about the answer behind the thoughts.
      annotations: records by stem; without them the open questions have no aspects, so their columns are gaps.
      cut: by file, how many answers had not ended.
      on_progress: called with (questions judged, questions in all).
    """
    matching = {
        name: match_lines(lines, annotations[name])
        for name, lines in predictions.items()
        if annotations and name in annotations
    }
    official = [name for name in predictions if name in TEST_FILES]
    lines = {name: _lines(name, predictions[name], matching.get(name), rules) for name in official}
    questions = [line.question for name in official for line in lines[name]]
    replies = iter(_judged(judge, questions, on_progress))
    noted = remarks(questions) if isinstance(judge, RuleJudge) else {}
    items: list[ItemScore] = []
    files: list[FileScore] = []
    for name, held in predictions.items():
        judged = None
        if name in TEST_FILES:
            own = [(line, next(replies)) for line in lines[name]]
            scored = [_item(line, reply, rules, noted) for line, reply in own]
            items += scored
            judged = _file(name, lines[name], scored, matching.get(name), rules, len(held))
        files.append(exact_score(name, held, (cut or {}).get(name, 0), judged))
    return Results(rules, judge.info, files, items, matching)


def _judged(judge: Judge, questions: Sequence[Question], on_progress: OnProgress | None) -> list[str | None]:
    replies = judge.judge(questions, on_progress)
    if len(replies) != len(questions):
        raise ValueError(f"the judge {judge.info.name} gave {len(replies)} replies to {len(questions)} questions")
    return replies


def kind_of(name: str) -> Kind:
    """What a judge is asked about the items of an official test file."""
    return KINDS[task_of(name).form]


def _lines(name: str, predictions: Sequence[Prediction], matching: Matching | None, rules: Rules) -> list[Line]:
    """The lines that count, with their questions."""
    aspects = official_aspects(matching.records) if matching and rules == "official" else {}
    result = []
    for number, prediction in enumerate(predictions):
        place = matching.places[number] if matching else None
        if rules == "strict" and matching and place is None:
            continue
        part = ""
        if name == QA:
            part = matching.records[place].aspect if place is not None else ""
            part = aspects.get(line_key(prediction), part)
            if not part:
                continue
        question = question_of(name, number, prediction)
        if rules == "strict":
            question = replace(question, response=final_answer(question.response))
        result.append(Line(question, part))
    return result


def question_of(name: str, number: int, prediction: Prediction) -> Question:
    """What a judge is asked about one line of an official test file.

    Its query is the first user's message, which in the official files is the first of all.
    """
    query = judged_query(next((turn.content for turn in prediction.messages if turn.role == "user"), ""))
    task = task_of(name)
    return Question(
        KINDS[task.form], f"{name}#{number}", name, query, prediction.labels, prediction.response, task.labels
    )


def _item(line: Line, reply: str | None, rules: Rules, noted: Mapping[str, str]) -> ItemScore:
    verdict = read_reply(line.question, reply, rules)
    remark = noted.get(line.question.id, "")
    if verdict.values is None:
        remark = remark or "no reply"
    elif not verdict.readable:
        readable = rules == "official" and read_reply(line.question, reply, "strict").readable
        remark = remark or (STRICT_READS if readable else "unreadable reply")
    return ItemScore(
        line.question.id,
        line.question.file,
        line.part,
        line.question.kind,
        reply,
        verdict.values,
        verdict.readable,
        remark,
    )


def _file(
    name: str,
    lines: Sequence[Line],
    items: Sequence[ItemScore],
    matching: Matching | None,
    rules: Rules,
    held: int,
) -> Judged:
    """The judged score of one file."""
    kind = kind_of(name)
    missing = _missing(name, matching) if rules == "strict" else []
    silent = unreadable(items)
    truths, uar_score, war_score = [], None, None
    if kind == "match":
        pairs = [(line.question.query, line.question.truth) for line in lines]
        pairs += [(record.query, record.truth) for record in missing]
        truths = [true_option(*pair) for pair in pairs]
        classes = [_class(option.text if option else truth) for option, (_, truth) in zip(truths, pairs, strict=True)]
        right = np.array([bool(item.values and item.values[0]) for item in items] + [False] * len(missing), bool)
        uar_score, war_score = (None, None) if silent else (uar(classes, right), war(classes, right))
    parts = _parts(name, kind, items, missing, rules)
    return Judged(
        kind,
        {part: PartScore(each.items, None) for part, each in parts.items()} if silent else parts,
        failed=sum(item.values is None for item in items),
        unreadable=sum(not item.readable for item in items),
        strict_reads=sum(item.remark == STRICT_READS for item in items),
        odd_truths=sum(option is None for option in truths),
        ambiguous=sum(item.remark.startswith("ambiguous") for item in items),
        no_aspect=held - len(lines) if name == QA and not (rules == "strict" and matching) else 0,
        uar=uar_score,
        war=war_score,
    )


def _class(text: str) -> str:
    """The class of a truth: its option's text, whatever letter it has here."""
    return " ".join(text.casefold().split())


def _missing(name: str, matching: Matching | None) -> list[Missing]:
    if not matching:
        return []
    records = [matching.records[index] for index in matching.missing]
    return [
        Missing(judged_query(record.query), record.truth, record.aspect if name == QA else "")
        for record in records
        if record.aspect or name != QA
    ]


def _parts(
    name: str, kind: Kind, items: Sequence[ItemScore], missing: Sequence[Missing], rules: Rules
) -> dict[str, PartScore]:
    """The score of each part: an aspect, one of the six scores, or the whole file."""
    result = {}
    for part in ASPECTS if name == QA else ("",):
        own = [item for item in items if item.part == part]
        absent = sum(record.part == part for record in missing)
        verdicts = [Verdict(item.values, item.readable) for item in own]
        means = mean_of(verdicts, kind, rules, absent)
        names = SIX if kind == "six" else (part,)
        for index, each in enumerate(names):
            result[each] = PartScore(len(own) + absent, means and means[index])
    return result
