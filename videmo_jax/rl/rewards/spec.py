"""What the reward is made of: read from a config, checked at the start, kept with the checkpoint."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any, Literal, get_args

from videmo_jax.affective.edit_distance import Costs
from videmo_jax.affective.lexicon import similarity
from videmo_jax.evaluation.judges.judging import Question, judged_query
from videmo_jax.files.errors import UserError
from videmo_jax.tasks.answers import final_answer, parse_options
from videmo_jax.tasks.taxonomy import Form, Reward, Task, stem_of

Normalise = Literal["size", "printed"]
CaptionScorer = Literal["overlap", "openai", "reference"]
Branch = Reward | Literal["own", "mixed"]
BRANCHES: tuple[Branch, ...] = (*get_args(Reward), "own", "mixed")
Mixture = tuple[str, tuple[tuple[str, float], ...]]  # a pattern of file stems, components with their weights
OF_THE_TASK = "task"  # a component: the branch that a task takes by itself

KINDS: dict[Form, Literal["match", "score", "labels"]] = {
    "choice": "match",
    "multi_label": "labels",
    "tags": "labels",
    "units": "labels",
    "caption": "score",
    "open_qa": "score",
    "rationale": "score",
    "fine_caption": "score",  # without the tree branch
}


class RewardError(UserError):
    """Rewards cannot be computed as they are configured; the message says which field, what is wrong, what to do."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a group of answers is rewarded by.

    Attributes:
      id: of the sample, for messages.
      file: the annotation file; prompts of judges and rewards of one's own are chosen by its stem.
      task: what is asked.
      question: the user's text, tags included.
      truth: the annotated answer.
    """

    id: str
    file: str
    task: Task
    question: str
    truth: str

    @property
    def stem(self) -> str:
        """The file's name without folders and `.json`."""
        return stem_of(self.file)

    def judged(self, answer: str, number: int) -> Question:
        """The question to a judge about what the answer of this number says behind its thoughts."""
        labels = self.task.labels
        if self.task.form == "multi_label" and (options := parse_options(self.question)):
            labels = labels or tuple(option.letter for option in options)
        return Question(
            KINDS[self.task.form],
            f"{self.id}/{number}",
            self.stem,
            judged_query(self.question),
            self.truth,
            final_answer(answer),
            labels,
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A part of the reward of a group of answers.

    Attributes:
      query: what they answer.
      component: what scores them: `rule`, `caption`, `tree` or `package.module:function`.
    """

    query: Query
    component: str

    @property
    def own(self) -> bool:
        """Whether a function of the user's scores them."""
        return ":" in self.component


OwnReward = Callable[[Query, Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class RewardEndpoint:
    """The generative judge of short captions: fields of `evaluation.endpoint.Endpoint`, which says what they mean.

    Attributes:
      replies: folder where replies are kept, so that a resumed run gets the same ones; one for each run.
    """

    url: str
    model: str
    replies: str
    concurrency: int = 64
    timeout: float = 60.0
    attempts: int = 3
    longest_wait: float = 10.0
    longest_asked_wait: float = 60.0
    max_failures_in_a_row: int = 20


@dataclass(frozen=True)
class RewardSpec:
    """The reward (PAPER.md section 3).

    Lambda. With `size` the exponent is lambda x distance / max(|T_gt|, |T_pred|). The quotient is 0 for the truth and
    at most about 2, where nothing of either tree is left. Of synthetic captions of 13 to 38 nodes it is (5th to 95th
    percentile) 0.12 to 0.35 without the last third, 0.2 to 0.9 with the second half of another clip's caption, and 0.6
    to 1.0 for another clip's caption. Lambda = 2 gives them 0.8 to 0.5, 0.65 to 0.15 and 0.3 to 0.14; lambda = 1 would
    leave the lowest third of (0, 1) unused, and the printed form with lambda = 1 gives nearly all of them below 0.05.

    Attributes:
      decay: lambda of the tree reward.
      normalise: `size` divides the distance by the nodes of the larger tree, people not counted; `printed` does not.
      costs: of the edit distance; similarity is that of the lexicon.
      tree: whether fine-grained captions take the tree branch; without it they take the caption branch.
      caption: who scores short captions: `overlap` (embedded), `openai` (a model behind `endpoint`), `reference` (a
        function that `Rewards` is given).
      endpoint: needed by `openai` alone.
      node_credit: whether tree rewards come with the places in the answers that bear their costs.
      length_slack: a caption may have so many times the words of its truth; of one that has more, the reward is
        multiplied by (allowed words / words) ** length_power. None: no such penalty. Rule rewards have none.
      length_power: see there.
      timeout: seconds that a step waits for its rewards; what has not come by then has failed.
      own_timeout: seconds that one's own function may take for a group.
      max_failed_share: of a branch's groups over the last steps; where more of them fail the run ends.
      own: rewards of one's own, as (pattern of file stems, `package.module:function`); the first that fits replaces the
        branch. The function takes a `Query` and its answers and gives as many numbers in [0, 1].
      mixed: rewards of several components, as (pattern of file stems, ((component, weight), ...)); the first that fits
        replaces the branch, and `own`. Components are `rule`, `caption`, `tree`, `task` (whichever of them the task
        takes by itself) and `package.module:function` as in `own`; the reward is the mean by weight, so that weights
        need not add up to 1.
    """

    decay: float = 2.0
    normalise: Normalise = "size"
    costs: Costs = Costs(similarity=similarity, within="level")  # noqa: RUF009 (it is frozen)
    tree: bool = True
    caption: CaptionScorer = "overlap"
    endpoint: RewardEndpoint | None = None
    node_credit: bool = False
    length_slack: float | None = None
    length_power: float = 1.0
    timeout: float = 600.0
    own_timeout: float = 60.0
    max_failed_share: float = 0.5
    own: tuple[tuple[str, str], ...] = field(default=())
    mixed: tuple[Mixture, ...] = field(default=())

    def __post_init__(self) -> None:
        _check_number("decay", self.decay, above=0)
        for name in ("length_power", "timeout", "own_timeout"):
            _check_number(name, getattr(self, name), above=0)
        _check_number("max_failed_share", self.max_failed_share, least=0)
        if self.length_slack is not None:
            _check_number("length_slack", self.length_slack, least=1)
        _check_choice("normalise", self.normalise, get_args(Normalise))
        _check_choice("caption", self.caption, get_args(CaptionScorer))
        for name in ("tree", "node_credit"):
            if not isinstance(getattr(self, name), bool):
                raise RewardError(f"rewards.{name} is {getattr(self, name)!r}; it must be True or False")
        if (self.caption == "openai") != (self.endpoint is not None):
            raise RewardError('rewards: caption = "openai" and an endpoint (url, model, replies) belong together')
        if self.node_credit and not self.tree:
            raise RewardError("rewards: node_credit needs the tree branch; set tree = True or node_credit = False")
        for pattern, path in self.own:
            load_own(path, f"rewards.own[{pattern!r}]")
        for pattern, parts in self.mixed:
            self._check_mixture(f"mixed[{pattern!r}]", parts)

    def _check_mixture(self, where: str, parts: Sequence[tuple[str, float]]) -> None:
        known, names = (*get_args(Reward), OF_THE_TASK), [name for name, _ in parts]
        if not names or len(set(names)) < len(names):
            raise RewardError(f"rewards.{where} has the components {names}; it must have at least one, and each once")
        for name, weight in parts:
            _check_number(f"{where}: the weight of {name!r}", weight, above=0)
            if ":" in name:
                load_own(name, f"rewards.{where}")
            elif name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}, package.module:function"
                raise RewardError(f"rewards.{where}: there is no component {name!r}; {hint}")
            elif name == "tree" and not self.tree:
                raise RewardError(f"rewards.{where}: the component 'tree' needs rewards.tree = True")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "RewardSpec":
        """The spec of a config: fields by name.

        Args:
          config: `costs` and `endpoint` as mappings, `own` as {pattern: path}, `mixed` as rows (pattern, (component,
            weight), ...); fields that are missing have their defaults.

        Raises:
          RewardError: a field is unknown or has a value that cannot be.
        """
        values = _known(cls, config, "rewards")
        try:
            if "costs" in values:
                costs = _known(Costs, values["costs"], "rewards.costs", without=("similarity", "within"))
                values["costs"] = Costs(**costs, similarity=similarity, within="level")
            if values.get("endpoint") is not None:
                values["endpoint"] = RewardEndpoint(**_known(RewardEndpoint, values["endpoint"], "rewards.endpoint"))
            if "own" in values:
                values["own"] = tuple(dict(values["own"]).items())
            if "mixed" in values:
                values["mixed"] = _mixtures(values["mixed"])
            return cls(**values)
        except RewardError:
            raise
        except (TypeError, ValueError) as error:
            raise RewardError(f"rewards: {error}") from None

    def to_config(self) -> dict[str, Any]:
        """Plain values that `from_config` reads back, such as a checkpoint keeps."""
        costs = {each.name: getattr(self.costs, each.name) for each in fields(Costs)}
        return {
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "costs": {name: value for name, value in costs.items() if name not in ("similarity", "within")},
            "endpoint": dict(vars(self.endpoint)) if self.endpoint else None,
            "own": dict(self.own),
            "mixed": [[pattern, *map(list, parts)] for pattern, parts in self.mixed],
        }

    def branch(self, query: Query) -> Branch:
        """The branch that the answers to a question take."""
        if _first(self.mixed, query.stem):
            return "mixed"
        return "own" if _first(self.own, query.stem) else self._of_task(query.task)

    def components(self, stem: str, task: Task) -> dict[str, float]:
        """What scores the answers to questions of a file, with its weight: a branch, or `package.module:function`."""
        found: dict[str, float] = {}
        own = _first(self.own, stem) or self._of_task(task)
        for name, weight in _first(self.mixed, stem) or ((own, 1.0),):
            name = self._of_task(task) if name == OF_THE_TASK else name
            found[name] = found.get(name, 0) + weight
        return found

    @property
    def mixed_components(self) -> tuple[str, ...]:
        """All components that mixtures may have."""
        names = {name for _, parts in self.mixed for name, _ in parts}
        return tuple(sorted((names - {OF_THE_TASK}).union(get_args(Reward) if OF_THE_TASK in names else ())))

    def describe(self, query: Query) -> str:
        """The branch in words for people: of a mixture `0.7 tree + 0.3 caption`."""
        if (branch := self.branch(query)) != "mixed":
            return branch
        return " + ".join(f"{weight:g} {name}" for name, weight in self.components(query.stem, query.task).items())

    def require_components(self, file: str, task: Task) -> None:
        """Refuses a mixture for a file whose answers one of its components cannot score.

        Raises:
          RewardError: it names the file and the component.
        """
        able = ("caption", "tree") if KINDS[task.form] == "score" else ("rule",)
        for name in self.components(stem_of(file), task):
            if ":" not in name and name not in able:
                raise RewardError(
                    f"rewards.mixed: the component {name!r} cannot score {file}, whose answers are of the form "
                    f"{task.form!r}; those that can are {', '.join(able)}, task, and functions of one's own"
                )

    def _of_task(self, task: Task) -> Reward:
        return "caption" if task.reward == "tree" and not self.tree else task.reward


def load_own(path: str, where: str) -> OwnReward:
    """The function at `package.module:function`, which a field names.

    Raises:
      RewardError: it cannot be imported or is no function.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name.isidentifier()):
        raise RewardError(f"{where} is {path!r}; expected package.module:function")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RewardError(f"{where}: {path} cannot be imported ({error}); is its folder on PYTHONPATH?") from None
    if not callable(function):
        raise RewardError(f"{where}: {path} is no function")
    return function


def _first(rows: Sequence[tuple[str, Any]], stem: str) -> Any:
    """What stands beside the first pattern that fits; None where none does."""
    return next((value for pattern, value in rows if fnmatchcase(stem, pattern)), None)


def _mixtures(rows: Any) -> tuple[Mixture, ...]:
    try:
        found = tuple((pattern, tuple((name, weight) for name, weight in parts)) for pattern, *parts in rows)
    except (TypeError, ValueError):
        found = None
    if found is None or not all(isinstance(text, str) for row, parts in found for text in (row, *dict(parts))):
        raise RewardError(
            f"rewards.mixed is {rows!r}; expected rows such as ('caption_*', ('tree', 0.7), ('caption', 0.3)): the "
            "pattern of file stems, components with their weights"
        )
    return found


def _known(kind: type, config: Mapping[str, Any], where: str, without: Sequence[str] = ()) -> dict[str, Any]:
    """The entries of a config, all of them fields of a dataclass."""
    names = [each.name for each in fields(kind) if each.name not in without]
    if not isinstance(config, Mapping) and not hasattr(config, "items"):
        raise RewardError(f"{where} is {config!r}; expected fields by name")
    values = dict(config.items())
    if unknown := sorted(values.keys() - set(names)):
        raise RewardError(f"{where}: no field {', '.join(map(repr, unknown))}; there are {', '.join(names)}")
    return values


def _check_number(name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and value > above and value >= least):
        bound = f"above {above}" if above > -math.inf else f"from {least} on"
        raise RewardError(f"rewards.{name} is {value!r}; it must be a number {bound}")


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise RewardError(f"rewards.{name} is {value!r}; it must be one of {', '.join(choices)}")
