"""Hierarchical reasoning: attributes, then expressions, then emotions, the best of n candidates kept at each level.

PAPER.md section 4. The levels are turns of one conversation: what was kept is the assistant's turn before the next
question, so that each level builds on those below it. A last question may follow, answered with all of it in view.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from videmo_jax.affective.edit_distance import Costs
from videmo_jax.affective.lexicon import similarity
from videmo_jax.affective.tree import LEVELS, AffectiveTree, Level, Node, Person
from videmo_jax.data.chat import encode
from videmo_jax.data.inputs import Preparer
from videmo_jax.data.rows import Prepared
from videmo_jax.data.sample import VIDEO_TAG, Message, Sample
from videmo_jax.data.video import Clip
from videmo_jax.files.errors import UserError
from videmo_jax.model.positions import VisionGrid
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sampling.policy import Answer, Policy
from videmo_jax.sampling.reasoning_scores import Contest, Scorer

Parse = Callable[[str], AffectiveTree]


@dataclass(frozen=True)
class Prompts:
    """What the user asks at each level, and the question of the scorer `yes`, which follows a candidate."""

    attribute: str = (
        "Describe what can be seen of each person in the video: age, gender, hair, eyes, skin and accessories, and "
        "what the face, head and body do."
    )
    expression: str = (
        "Given these attributes, describe the facial expression of each person and how it changes, and name the cues "
        "that show it."
    )
    emotion: str = (
        "Given these attributes and expressions, conclude with the emotional state of each person and explain which "
        "cues show it."
    )
    check: str = "Is everything in your last answer right for this video? Answer yes or no."

    def __post_init__(self) -> None:
        for name, text in asdict(self).items():
            if not isinstance(text, str) or not text.strip() or VIDEO_TAG in text:
                raise UserError(f"prompts: {name} must be a text that is not empty and without {VIDEO_TAG}")

    @classmethod
    def from_json(cls, values: Any) -> "Prompts":
        """Reads an object with some of the four texts; the others are the default ones."""
        if not isinstance(values, dict):
            raise UserError("prompts: an object with the texts is expected")
        names = list(cls.__dataclass_fields__)
        if unknown := [name for name in values if name not in names]:
            raise UserError(f"prompts: {unknown[0]!r} is unknown; there are {', '.join(names)}")
        return cls(**values)


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
      candidates: n of each level.
      temperature, top_k, top_p: of their draw, as in Decoding; without a temperature there is one candidate.
      max_new_tokens: of a candidate, its end token included.
      answer_tokens: of the answer to the last question; None: as many.
      max_prompt_tokens: conversations that grow longer are given up.
      scorer: which candidate is kept.
      costs: of the edit distance; by default items are as similar as the lexicon of the parser has it.
      prompts: the questions.
    """

    candidates: int = 8
    temperature: float = 0.9
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 512
    answer_tokens: int | None = None
    max_prompt_tokens: int = 8192
    scorer: Scorer = field(default_factory=Scorer)
    costs: Costs = Costs(similarity=similarity, within="level")  # noqa: RUF009 (it is frozen)
    prompts: Prompts = field(default_factory=Prompts)

    def __post_init__(self) -> None:
        _ = self.decoding, self.last  # which refuse what has no meaning
        if self.candidates > 1 and not self.temperature:
            raise UserError(
                f"{self.candidates} candidates at temperature 0 would be {self.candidates} times the same; set a "
                "temperature, or take one candidate"
            )

    @classmethod
    def of(cls, candidates: int, temperature: float | None = None, **others: Any) -> "Settings":
        """Settings whose temperature, where none is given, goes with the candidates: one is the greedy one."""
        default = cls.temperature if candidates > 1 else 0.0
        return cls(candidates, default if temperature is None else temperature, **others)

    @property
    def decoding(self) -> Decoding:
        """How the candidates of a level are drawn."""
        return Decoding(self.max_new_tokens, self.candidates, self.temperature, self.top_k, self.top_p)

    @property
    def last(self) -> Decoding:
        """How the last question is answered: greedily, once."""
        return Decoding(self.max_new_tokens if self.answer_tokens is None else self.answer_tokens)

    def to_json(self) -> dict[str, Any]:
        """All that decides the outcome."""
        similarity = self.costs.similarity
        costs = asdict(self.costs) | {
            "similarity": f"{similarity.__module__}.{getattr(similarity, '__qualname__', 'custom')}"
        }
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {"scorer": str(self.scorer), "costs": costs, "prompts": asdict(self.prompts)}


@dataclass(frozen=True)
class Subject:
    """What is looked at.

    Attributes:
      id: what messages call it.
      clips: its videos, sampled and resized as the policy's inputs say.
      turns: what is asked after the three levels, such as the turns of a sample before its answer; a system message
        among them opens the conversation, and tags of videos are left out, as the videos stand in the first turn.
      seed: of all that is drawn, from 0 on.
    """

    id: str
    clips: tuple[Clip, ...]
    turns: tuple[Message, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """An answer at a level, how it is read, its scores by name (in their own units), and their weighted sum."""

    answer: Answer
    tree: AffectiveTree
    scores: Mapping[str, float]
    score: float


@dataclass(frozen=True)
class Step:
    """One level: what was asked, what was said, and the place of what was kept."""

    level: Level
    question: str
    candidates: tuple[Candidate, ...]
    chosen: int

    @property
    def kept(self) -> Candidate:
        """The candidate that the next level builds on."""
        return self.candidates[self.chosen]


@dataclass(frozen=True)
class Reasoning:
    """The outcome.

    Attributes:
      steps: the three levels, bottom-up.
      tree: of all that was kept.
      answer: to the last question, where there was one.
    """

    steps: tuple[Step, ...]
    tree: AffectiveTree
    answer: Answer | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object of all of it."""
        return {
            "levels": [
                {
                    "level": step.level,
                    "question": step.question,
                    "chosen": step.chosen,
                    "candidates": [
                        {
                            "text": each.answer.text,
                            "mean_log_prob": each.answer.mean_log_prob,
                            "tokens": len(each.answer.log_probs),
                            "cut": each.answer.cut,
                            "scores": dict(each.scores),
                            "score": each.score,
                            "tree": tree_json(each.tree),
                        }
                        for each in step.candidates
                    ],
                }
                for step in self.steps
            ],
            "answer": self.answer and {"text": self.answer.text, "cut": self.answer.cut},
            "tree": tree_json(self.tree),
        }


def tree_json(tree: AffectiveTree) -> dict[str, Any]:
    """The tree as a JSON object: people, each with its nodes, each with what it follows from."""

    def plain(node: Node) -> dict[str, Any]:
        children = [plain(child) for child in node.children]
        return {"level": node.level, "aspect": node.aspect, "item": node.item, "children": children}

    return {"people": [[plain(node) for node in person.nodes] for person in tree.people]}


def level_seed(seed: int, step: int) -> int:
    """The seed of a level's draw (0 to 2), and of the last answer's (3)."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def reason(
    policy: Policy,
    subjects: Sequence[Subject],
    settings: Settings,
    parse: Parse,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Reasoning | str]:
    """Reasons about several subjects side by side: one batch for each level.

    Args:
      policy: the model.
      subjects: what is looked at; the outcome of one does not depend on the others.
      settings: how to search.
      parse: reads a candidate's text (`affective.text.read_tree`).
      on_progress: called with (turns done, turns in all), a turn being a level or the last question.

    Returns:
      For each subject its outcome, or why there is none: a conversation that grew too long.
    """
    talks = [_Talk.of(subject, policy, settings) for subject in subjects]
    report = on_progress or (lambda done, total: None)
    turns = len(LEVELS) + any(subject.turns for subject in subjects)
    report(0, turns)
    for number, level in enumerate(LEVELS):
        for talk in talks:
            talk.ask(getattr(settings.prompts, level))
        drawn = list(_answered(policy, talks, settings, settings.decoding, number))
        for (talk, answers), chances in zip(drawn, _checked(policy, drawn, settings, level), strict=True):
            if not talk.fault:
                trees = [parse(answer.text) for answer in answers]
                talk.keep(level, settings, Contest(answers, trees, settings.costs, chances))
        report(number + 1, turns)
    waiting = [talk for talk in talks if talk.subject.turns]
    for talk in waiting:
        talk.ask_last()
    for talk, (answer,) in _answered(policy, waiting, settings, settings.last, len(LEVELS)):
        talk.answer = answer
    report(turns, turns)
    return [talk.fault or talk.outcome() for talk in talks]


class _TooLong(Exception):
    """A conversation has outgrown its limit; the message says where."""


def _require_room(prompt: Prepared, longest: int, where: str) -> None:
    if (length := len(prompt.encoded.tokens)) > longest:
        raise _TooLong(f"the conversation has {length} tokens at the {where}, more than the limit of {longest}")


@dataclass
class _Talk:
    """The conversation about a subject so far."""

    subject: Subject
    first: Prepared  # with the patches of its clips
    turns: list[Message]
    steps: list[Step] = field(default_factory=list)
    answer: Answer | None = None
    fault: str = ""

    @classmethod
    def of(cls, subject: Subject, policy: Policy, settings: Settings) -> "_Talk":
        tags = VIDEO_TAG * len(subject.clips)
        opening = [turn for turn in subject.turns[:1] if turn.role == "system"]
        sample = Sample(subject.id, "", (*opening, Message("user", tags + settings.prompts.attribute)), ())
        first = Preparer(policy.tokenizer, policy.inputs)(sample, subject.clips, answer=False)
        return cls(subject, first, [*opening, Message("user", tags)])

    def ask(self, question: str) -> None:
        """The user's next turn; the first one begins with the videos."""
        if self.turns[-1].role == "user":
            question = self.turns.pop().content + question
        self.turns.append(Message("user", question))

    def ask_last(self) -> None:
        """The turns of the subject itself, whose videos have been shown."""
        self.turns += [
            replace(turn, content=turn.content.replace(f"{VIDEO_TAG}.", "").replace(VIDEO_TAG, "").strip())
            if turn.role == "user"
            else turn
            for turn in self.subject.turns
            if turn.role != "system"
        ]

    def outcome(self) -> Reasoning:
        """What came of it."""
        return Reasoning(tuple(self.steps), joined([step.kept.tree for step in self.steps]), self.answer)

    def prompt(self, policy: Policy, *more: Message) -> Prepared:
        """The conversation, `more` at its end, ready for a row."""
        grids = [segment for segment in self.first.encoded.segments if isinstance(segment, VisionGrid)]
        merge = policy.inputs.frames.merge
        encoded = encode([*self.turns, *more], grids, policy.tokenizer, answer=False, merge=merge)
        return replace(self.first, encoded=encoded)

    def keep(self, level: Level, settings: Settings, contest: Contest) -> None:
        """Goes on from the best candidate of a level."""
        scores, total, chosen = settings.scorer(contest)
        candidates = tuple(
            Candidate(answer, tree, {name: float(values[place]) for name, values in scores.items()}, total[place])
            for place, (answer, tree) in enumerate(zip(contest.answers, contest.trees, strict=True))
        )
        self.steps.append(Step(level, getattr(settings.prompts, level), candidates, chosen))
        self.turns.append(Message("assistant", contest.answers[chosen].text))


def _checked(
    policy: Policy, drawn: Sequence[tuple[_Talk, list[Answer]]], settings: Settings, level: Level
) -> list[Sequence[float]]:
    """For each talk what the model says of its candidates, where the scorer asks; one without room gets its fault."""
    if not settings.scorer.asks:
        return [()] * len(drawn)
    check, checks = Message("user", settings.prompts.check), {}
    for place, (talk, answers) in enumerate(drawn):
        prompt = talk.prompt(policy)
        wholes = [talk.prompt(policy, Message("assistant", answer.text), check) for answer in answers]
        try:
            for whole in wholes:
                _require_room(whole, settings.max_prompt_tokens, f"check of level {level}")
        except _TooLong as error:
            talk.fault = str(error)
        else:
            # A prompt's tokens begin those of the prompt with its answer.
            begun = len(prompt.encoded.tokens)
            checks[place] = prompt, [whole.encoded.tokens[begun:] for whole in wholes]
    chances = policy.yes_probabilities(*zip(*checks.values(), strict=True)) if checks else []
    by_place = dict(zip(checks, chances, strict=True))
    return [by_place.get(place, ()) for place in range(len(drawn))]


def _answered(
    policy: Policy, talks: Sequence[_Talk], settings: Settings, decoding: Decoding, number: int
) -> Iterator[tuple[_Talk, list[Answer]]]:
    """The talks that can go on, with the answers to their last turn; the others get their fault."""
    longest = min(settings.max_prompt_tokens, policy.longest_prompt(decoding))
    going, prompts = [], []
    for talk in talks:
        if talk.fault:
            continue
        prompt = talk.prompt(policy)
        try:
            _require_room(prompt, longest, f"level {LEVELS[number]}" if number < len(LEVELS) else "last question")
        except _TooLong as error:
            talk.fault = str(error)
        else:
            going.append(talk)
            prompts.append(prompt)
    if going:
        seeds = [level_seed(talk.subject.seed, number) for talk in going]
        yield from zip(going, policy.answers(prompts, decoding, seeds), strict=True)


def joined(trees: Sequence[AffectiveTree]) -> AffectiveTree:
    """One tree of what several say of the same people, who come in the same order in each.

    Equal nodes in one place become one, with the children of all. A node that stands directly below its person in one
    tree and below another node elsewhere goes there: so an emotion gets its expressions, and these their attributes.
    """
    people = max((len(tree.people) for tree in trees), default=0)
    of_each = [
        [node for tree in trees if place < len(tree.people) for node in tree.people[place].nodes]
        for place in range(people)
    ]
    return AffectiveTree(tuple(Person(_joined_nodes(nodes)) for nodes in of_each))


def _joined_nodes(nodes: Sequence[Node]) -> tuple[Node, ...]:
    left = {_label(node): node for node in _merged(nodes)}
    for label in list(left):
        for host, node in left.items():
            if host != label and (grown := _grafted(node, left[label])):
                left[host] = grown
                del left[label]
                break
    return tuple(left.values())


def _label(node: Node) -> tuple[Level, str, str]:
    return node.level, node.aspect, node.item


def _merged(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Nodes of one label as one, likewise below them."""
    alike: dict[tuple[Level, str, str], list[Node]] = {}
    for node in nodes:
        alike.setdefault(_label(node), []).append(node)
    return tuple(
        Node(*label, _merged([child for node in group for child in node.children])) for label, group in alike.items()
    )


def _grafted(node: Node, branch: Node) -> Node | None:
    """The node with the branch put where its label stands below it; None where it does not."""
    for place, child in enumerate(node.children):
        same = _label(child) == _label(branch)
        if grown := _merged([child, branch])[0] if same else _grafted(child, branch):
            return replace(node, children=(*node.children[:place], grown, *node.children[place + 1 :]))
    return None
