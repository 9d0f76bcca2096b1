"""How well a caption matches another: shared words, shared emotions, shared cues. Ours, simple, no language model.

With F1 of two bags of stems («not» stays with its word, so that «no glasses» is not «glasses»):

- whole: (F1 of words + F1 of cues and emotions) / 2
- video-text relevance: F1 of words
- response accuracy: the share of the response's words that the truth has
- instruction adherence: a mean of length (shorter / longer of the two) and whether an emotion is named where one is due
- label overlap: F1 of emotions
- clue overlap: F1 of cues
- fluency: the share of pairs of neighbouring words that are not said again (over the truth's share, at most 1); half of
  it without an end of the sentence where the truth has one

All are whole numbers from 1 to 100; an empty response has 0 everywhere. They are not comparable with the paper's rows.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from videmo_jax.affective.tree import AffectiveTree
from videmo_jax.tasks.answers import final_answer
from videmo_jax.tasks.words import folded, stem, words

# By stems: the emotions of the benchmarks and their plainest relatives.
EMOTIONS = frozenset(
    stem(word)
    for word in (
        "happy", "joy", "joyful", "cheerful", "pleased", "amused", "delighted", "excited", "content", "calm", "sad",
        "sorrow", "grief", "unhappy", "depressed", "angry", "furious", "annoyed", "irritated", "rage", "surprised",
        "astonished", "amazed", "shocked", "fear", "afraid", "frightened", "terrified", "worried", "anxious",
        "nervous", "disgusted", "contempt", "scorn", "helpless", "disappointed", "neutral", "shy", "embarrassed",
        "proud", "confused", "hopeful", "relieved", "tense", "positive", "negative",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Cues:
    """What a caption says: emotions, and what shows them."""

    labels: Counter[str]
    clues: Counter[str]


CueReader = Callable[[str], Cues]


@dataclass(frozen=True)
class Overlap:
    """How well a response matches the truth, 0 to 100; the fields but `whole` are named as in `judging.SIX`."""

    whole: int
    video_text_relevance: int
    fluency: int
    response_accuracy: int
    instruction_adherence: int
    label_overlap: int
    clue_overlap: int


def bag(text: str) -> Counter[str]:
    """The stems of a text and how often each comes, negated ones apart."""
    return Counter(f"not {word.stem}" if word.negated else word.stem for word in words(folded(text)))


def token_cues(text: str) -> Cues:
    """Emotions by a short list of words; every other word is a clue."""
    said = bag(text)
    labels = Counter({word: count for word, count in said.items() if word.removeprefix("not ") in EMOTIONS})
    return Cues(labels, said - labels)


def tree_cues(parse: Callable[[str], AffectiveTree]) -> CueReader:
    """Emotions and clues as the nodes of an affective tree: items of its emotion level, and all others."""

    def read(text: str) -> Cues:
        labels: Counter[str] = Counter()
        clues: Counter[str] = Counter()
        for node in parse(text).walk():
            (labels if node.level == "emotion" else clues)[f"{node.aspect}: {node.item}"] += 1
        return Cues(labels, clues)

    return read


def f1(truth: Counter[str], response: Counter[str]) -> float:
    """F1 of two bags, 1 where both are empty."""
    both = truth.total() + response.total()
    return 2 * (truth & response).total() / both if both else 1.0


def compare(truth: str, response: str, cues: CueReader) -> Overlap:
    """Compares a response with the truth."""
    response = final_answer(response)
    if not response:
        return Overlap(0, 0, 0, 0, 0, 0, 0)
    true_words, said_words = bag(truth), bag(response)
    true_cues, said_cues = cues(truth), cues(response)
    shared = f1(true_words, said_words)
    every = f1(true_cues.labels + true_cues.clues, said_cues.labels + said_cues.clues)
    longer = max(true_words.total(), said_words.total())
    length = min(true_words.total(), said_words.total()) / longer if longer else 1.0
    concluded = bool(said_cues.labels) or not true_cues.labels
    said = said_words.total()
    return Overlap(
        whole=_percent((shared + every) / 2),
        video_text_relevance=_percent(shared),
        fluency=_percent(min(1.0, _fluency(response) / max(_fluency(truth), 0.01))),
        response_accuracy=_percent((true_words & said_words).total() / said if said else 0.0),
        instruction_adherence=_percent((length + concluded) / 2),
        label_overlap=_percent(f1(true_cues.labels, said_cues.labels)),
        clue_overlap=_percent(f1(true_cues.clues, said_cues.clues)),
    )


def _fluency(text: str) -> float:
    spoken = re.findall(r"\w+", text.lower())
    pairs = list(itertools.pairwise(spoken))
    new = len(set(pairs)) / len(pairs) if pairs else 1.0
    ends = text.rstrip().endswith((".", "!", "?", '"', "\u201d", ")"))
    return new if ends else new / 2


def _percent(share: float) -> int:
    return max(1, round(100 * share))
