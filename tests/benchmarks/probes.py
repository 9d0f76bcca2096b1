"""Probes of the synthetic set: can each task be read from the pixels, and does the text alone stay at chance?

    python -m tests.benchmarks.probes
    python -m tests.benchmarks.probes --scenes-per-kind 300 --tasks MEAD_Head-Pose QA

Pixels: scikit-learn learns on patches of four frames of training scenes and is asked about unseen test scenes. A first
network learns what is drawn of the training people (facts); each task has probes on what that network makes of unseen
people and on the pixels themselves.
A choice is measured by accuracy (the probe takes the likeliest of the offered options; chance is the better of one in
K and the commonest answer). All other answers are sets of labels - tags, action units, letters, statements of a text -
measured by balanced accuracy, the mean of the shares of present and of absent labels that are recognised, averaged
over labels with at least 10 of each in the test; chance, which the label prior scores too, is 1/2. A task passes
half-way from chance to 1. (The question of a rationale names the feeling, as in Emo-CFG; the probe is not told it.)

Text: logistic regression on the words of the question and on each option together with its letter predicts the letter.
It passes within two standard errors of chance; of some 40 tests two or so miss that by luck, so the verdict on all of
them is Bonferroni's bound. The last line of stdout is one JSON object.
"""

import argparse
import json
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tests.benchmarks.probe_features import Eyes
from tests.benchmarks.probe_tasks import Item, facts, items
from videmo_jax.data.synthetic import Scene, draw_scene
from videmo_jax.data.synthetic.scene import KINDS, SPLITS

FEWEST_OF_A_LABEL = 10
TEST_SHARE = 0.35
# Kinds that ask for what no other kind shows - actions, gaze, single action units - have more scenes.
SHARES = {"celebv_hq": 3, "celebv_text": 3, "affwild2": 3}
# Passes over the training people; a network gains little after these.
EPOCHS = 12
# The finder of eyes and mouths learns from scenes that no task uses.
FINDER_SCENES, FINDER_START = 85, 10**6


class Reader:
    """Networks from pixels to facts, each without one part of the training people, whom it then reads as unseen."""

    def __init__(self, rows: np.ndarray, known: Sequence[frozenset[str]], parts: int = 4) -> None:
        count = Counter(fact for each in known for fact in each)
        names = sorted(fact for fact, times in count.items() if 30 <= times < len(known))
        truth = np.array([[name in each for name in names] for each in known], dtype=int)
        # Shuffled: the kinds come in turn, and a network must not miss one altogether.
        self.part = np.random.default_rng(0).permutation(len(rows)) % parts
        self.networks = [
            make_pipeline(
                StandardScaler(), MLPClassifier((512,), alpha=1.0, batch_size=128, max_iter=EPOCHS, random_state=part)
            ).fit(rows[self.part != part], truth[self.part != part])
            for part in range(parts)
        ]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Log odds of the facts, by the mean of the networks."""
        return np.mean([_log_odds(network, rows) for network in self.networks], axis=0)

    def read_training(self, rows: np.ndarray) -> np.ndarray:
        """The same for the rows that it was fitted on, each by the network that has not seen it."""
        parts = [_log_odds(network, rows[self.part == part]) for part, network in enumerate(self.networks)]
        found = np.empty((len(rows), parts[0].shape[1]), np.float32)
        for part, odds in enumerate(parts):
            found[self.part == part] = odds
        return found


def _log_odds(network: object, rows: np.ndarray) -> np.ndarray:
    odds = np.clip(network.predict_proba(rows), 1e-3, 1 - 1e-3)
    return np.log(odds / (1 - odds)).astype(np.float32)


@dataclass
class Samples:
    """The samples of one task in one split: pixels, facts as they were read, and what is asked."""

    features: list[np.ndarray] = field(default_factory=list)
    read: list[np.ndarray] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """How well a task is read; `labels` are the scores of single labels, where the answer is a set."""

    samples: int
    chance: float
    score: float
    labels: dict[str, float] = field(default_factory=dict)

    @property
    def half_way(self) -> float:
        """Half-way from chance to 1."""
        return (1 + self.chance) / 2

    @property
    def passes(self) -> bool:
        """Whether the task is read at least half-way."""
        return self.score >= self.half_way


def joined(item: Item, people: Sequence[np.ndarray]) -> np.ndarray:
    """The features that a question looks at: one person's, or both people's and how they differ."""
    if len(item.people) == 1:
        return people[item.people[0]]
    left, right = people
    return np.concatenate([left, right, np.abs(left - right)])


def choices(train: Samples, test: Samples) -> Result:
    """Accuracy of the best of some probes, chosen on a fifth of the training samples."""
    y = np.array([item.answer for item in train.items])
    held = len(y) // 5
    found = []
    for which in ("read", "features"):
        x, unseen = np.stack(getattr(train, which)), np.stack(getattr(test, which))
        for make in (
            lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
            lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=200)),
            lambda x=x: SVC(C=10, gamma=1 / x.var(axis=0).sum() / 2),
        ):
            accuracy = _accuracy(make().fit(x[held:], y[held:]), x[:held], train.items[:held])
            found.append((accuracy, make, x, unseen))
    _, make, x, unseen = max(found, key=lambda each: each[0])
    score = _accuracy(make().fit(x, y), unseen, test.items)
    commonest = max(Counter(item.answer for item in test.items).values()) / len(test.items)
    fewest = float(np.mean([1 / len(item.options) for item in test.items]))
    several = len({item.options and tuple(sorted(item.options)) for item in test.items}) > 1
    return Result(len(test.items), fewest if several else max(fewest, commonest), score)


def _accuracy(probe: object, x: np.ndarray, items: Sequence[Item]) -> float:
    """Share of items of which the probe finds the right one among the offered options."""
    classes = list(probe.classes_)
    decided = probe.decision_function(x)
    if decided.ndim == 1:
        decided = np.stack([-decided, decided], axis=1)
    right = 0
    for row, item in zip(decided, items, strict=True):
        offered = [option for option in item.options if option in classes]
        right += item.answer == max(offered, key=lambda option: row[classes.index(option)])
    return right / len(items)


def label_sets(train: Samples, test: Samples) -> Result:
    """Balanced accuracy of the labels that are there and missing often enough, by ridge regression on the facts."""
    count = Counter(label for item in test.items for label in item.labels)
    names = sorted(n for n, c in count.items() if FEWEST_OF_A_LABEL <= c <= len(test.items) - FEWEST_OF_A_LABEL)
    known = Counter(label for item in train.items for label in item.labels)
    names = [name for name in names if known[name] >= FEWEST_OF_A_LABEL]
    if not names:
        return Result(len(test.items), 0.5, float("nan"))
    y = _matrix(train.items, names)
    held = len(y) // 5
    there, truth = _matrix(test.items, names), y[:held]
    found = []
    x = np.stack(train.read)
    for strength in (10.0, 100.0, 1000.0):
        probe = make_pipeline(StandardScaler(), Ridge(alpha=strength)).fit(x[held:], y[held:])
        level = _levels(probe, x[:held])
        # Half-way between what held-out samples with and without the label get.
        with_it, without = ((level * side).sum(0) / np.maximum(side.sum(0), 1) for side in (truth, 1 - truth))
        cut = (with_it + without) / 2
        found.append((float(np.mean(_balanced(level > cut, truth))), probe, cut))
    _, probe, cut = max(found, key=lambda each: each[0])
    scores = _balanced(_levels(probe, np.stack(test.read)) > cut, there)
    return Result(len(test.items), 0.5, float(scores.mean()), dict(zip(names, scores.tolist(), strict=True)))


def _matrix(items: Sequence[Item], names: Sequence[str]) -> np.ndarray:
    return np.array([[name in item.labels for name in names] for item in items], dtype=int)


def _levels(probe: object, x: np.ndarray) -> np.ndarray:
    """How strongly each label is felt, [N, labels]."""
    return probe.predict(x).reshape(len(x), -1)


def _balanced(said: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Balanced accuracy of each column."""
    hit = (said & (there == 1)).sum(0) / np.maximum(there.sum(0), 1)
    spared = (~said & (there == 0)).sum(0) / np.maximum((1 - there).sum(0), 1)
    return (hit + spared) / 2


def see(seed: int, eyes: Eyes, scenes_per_kind: int, split: str) -> list[tuple[Scene, list[np.ndarray]]]:
    """The scenes of a split, each kind as often but for SHARES, and the features of their people."""
    turns = range(scenes_per_kind * max(SHARES.values()))
    scenes = [
        draw_scene(seed, split, turn * len(KINDS) + number)
        for turn in turns
        for number, kind in enumerate(KINDS)
        if turn < scenes_per_kind * SHARES.get(kind, 1)
    ]
    found = []
    for done, scene in enumerate(scenes, start=1):
        found.append((scene, eyes.see(seed, scene)))
        if done % 500 == 0 or done == len(scenes):
            print(f"\r{split}: {done} of {len(scenes)} clips seen", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


Seen = dict[str, list[tuple[Scene, list[np.ndarray]]]]


def samples(seed: int, seen: Seen, wanted: Callable[[str], bool]) -> dict[str, dict[str, Samples]]:
    """Split -> task -> samples, with the facts that a network learnt on the training people reads in them."""
    rows = {split: np.stack([row for _, people in seen[split] for row in people]) for split in SPLITS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reader = Reader(rows["train"], [fact for scene, _ in seen["train"] for fact in facts(scene)])
    read = {"train": reader.read_training(rows["train"]), "test": reader.read(rows["test"])}
    found: dict[str, dict[str, Samples]] = {split: defaultdict(Samples) for split in SPLITS}
    for split in SPLITS:
        first = 0
        for scene, people in seen[split]:
            told = read[split][first : first + len(people)]
            first += len(people)
            for item in filter(lambda item: wanted(item.task), items(seed, scene)):
                task = found[split][item.task]
                task.features.append(joined(item, people))
                task.read.append(joined(item, told))
                task.items.append(item)
    return found


def part_of(samples: Samples, places: slice) -> Samples:
    """Some of the samples, in their order."""
    return Samples(samples.features[places], samples.read[places], samples.items[places])


@dataclass(frozen=True)
class TextResult:
    """How well the text alone finds the right letter, in standard errors of chance."""

    samples: int
    chance: float
    accuracy: float

    @property
    def error(self) -> float:
        """One standard error of the accuracy at chance."""
        return float(np.sqrt(self.chance * (1 - self.chance) / self.samples))

    @property
    def deviation(self) -> float:
        """Standard errors above (or below) chance."""
        return (self.accuracy - self.chance) / self.error


def _words(item: Item) -> str:
    """The question's words, each option, and each option together with its place."""
    options = [option.replace(" ", "_") for option in item.options]
    return " ".join([item.question.split("\n")[0], *options, *(f"{i}={option}" for i, option in enumerate(options))])


def text_alone(seed: int, scenes_per_kind: int, wanted: Callable[[str], bool]) -> dict[str, TextResult]:
    """Task -> how often words of the question give the letter away, learnt on one split and asked on the other."""
    found: dict[str, dict[str, list[Item]]] = {split: defaultdict(list) for split in SPLITS}
    for split in SPLITS:
        for number in range(scenes_per_kind * len(KINDS)):
            for item in items(seed, draw_scene(seed, split, number)):
                if item.options and wanted(item.task):
                    found[split][item.task].append(item)
    results = {}
    for task, train in found["train"].items():
        test = found["test"][task]
        words = TfidfVectorizer(token_pattern=r"\S+", lowercase=False, sublinear_tf=True)
        rows = words.fit_transform(map(_words, train))
        probe = LogisticRegression(C=1.0, max_iter=300).fit(rows, [item.letter for item in train])
        said = probe.predict(words.transform(map(_words, test)))
        right = float(np.mean([letter == item.letter for letter, item in zip(said, test, strict=True)]))
        chance = float(np.mean([1 / len(item.options) for item in test]))
        results[task] = TextResult(len(test), chance, right)
    return results


def say(*columns: object) -> None:
    """One line of a table on stderr."""
    task, *rest = columns
    print(f"{task!s:<66}" + "".join(f"{c:>10.3f}" if isinstance(c, float) else f"{c:>10}" for c in rest),
          file=sys.stderr, flush=True)  # fmt: skip


def main() -> None:
    """Probes pixels and text, prints both tables and the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes-per-kind", type=int, default=450, metavar="N", help="training scenes (default 450)")
    parser.add_argument("--text-scenes-per-kind", type=int, default=2500, metavar="N", help="of each split (2500)")
    parser.add_argument("--tasks", nargs="*", default=[""], help="beginnings of names of tasks (default all)")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()

    def wanted(task: str) -> bool:
        return task.startswith(tuple(flags.tasks))

    start = time.time()
    first = FINDER_START * len(KINDS)
    eyes = Eyes(flags.seed, [draw_scene(flags.seed, "train", first + i) for i in range(FINDER_SCENES * len(KINDS))])
    counts = {"train": flags.scenes_per_kind, "test": round(flags.scenes_per_kind * TEST_SHARE)}
    seen = samples(flags.seed, {split: see(flags.seed, eyes, counts[split], split) for split in SPLITS}, wanted)
    say("pixels", "samples", "chance", "half-way", "score", "passes")
    pixels = {task: pixel_result(task, seen["train"][task], seen["test"][task]) for task in sorted(seen["train"])}
    say("text alone", "samples", "chance", "2 errors", "score", "errors")
    text = text_alone(flags.seed, flags.text_scenes_per_kind, wanted)
    for task, result in sorted(text.items()):
        say(task, result.samples, result.chance, 2 * result.error, result.accuracy, result.deviation)
    bound = NormalDist().inv_cdf(1 - 0.05 / max(len(text), 1))
    highest = max((result.deviation for result in text.values()), default=0.0)
    spread = float(np.sqrt(np.mean([result.deviation**2 for result in text.values()]))) if text else 0.0
    print(json.dumps({
        "finder_error_px": round(eyes.error, 2),
        "pixels": {task: {"samples": r.samples, "chance": round(r.chance, 4), "half_way": round(r.half_way, 4),
                          "score": round(r.score, 4), "passes": r.passes,
                          "labels": {name: round(score, 3) for name, score in r.labels.items()}}
                   for task, r in pixels.items()},
        "text": {task: {"samples": r.samples, "chance": round(r.chance, 4), "accuracy": round(r.accuracy, 4),
                        "standard_errors": round(r.deviation, 2)} for task, r in text.items()},
        "text_highest_standard_errors": round(highest, 2),
        "text_bound_of_the_highest": round(bound, 2),
        "text_spread_of_standard_errors": round(spread, 2),
        "minutes": round((time.time() - start) / 60, 1),
    }))  # fmt: skip


def pixel_result(task: str, train: Samples, test: Samples) -> Result:
    """Probes one task and says how it went."""
    if not test.items:  # Rationales are asked in training only: the last quarter of the scenes is not learnt from.
        cut = len(train.items) * 3 // 4
        train, test = part_of(train, slice(cut)), part_of(train, slice(cut, None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = (choices if train.items[0].options else label_sets)(train, test)
    say(task, result.samples, result.chance, result.half_way, result.score, "yes" if result.passes else "NO")
    unread = [f"{name} {score:.2f}" for name, score in result.labels.items() if score < result.half_way]
    if unread:
        print(f"    of {len(result.labels)} labels below: {', '.join(unread)}", file=sys.stderr)
    return result


if __name__ == "__main__":
    main()
