"""Measures of answers, in percent: F1 of an item's labels, recall by class."""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Float


def micro_f1(truth: Collection[str], predicted: Collection[str], *, empty: float) -> float:
    """Micro-F1 of one item's labels in percent: 200 TP / (2 TP + FP + FN).

    Args:
      truth: the labels that hold.
      predicted: the labels that are named.
      empty: what the item counts where both are empty: 0 by the official rules, 100 by ours (PAPER.md section 6).
    """
    truth, predicted = set(truth), set(predicted)
    both = len(truth) + len(predicted)
    return 200 * len(truth & predicted) / both if both else empty


def class_recalls(truth: Sequence[str], right: Bool[np.ndarray, "items"]) -> Float[np.ndarray, "classes"]:
    """The recall of each class that the truth has, in percent, in the order of the classes' names."""
    _, classes = np.unique(np.asarray(truth), return_inverse=True)
    return 100 * np.bincount(classes, weights=np.asarray(right, float)) / np.bincount(classes)


def uar(truth: Sequence[str], right: Bool[np.ndarray, "items"]) -> float | None:
    """Unweighted average recall in percent: every class of the truth counts the same; None without items."""
    return float(class_recalls(truth, right).mean()) if len(truth) else None


def war(truth: Sequence[str], right: Bool[np.ndarray, "items"]) -> float | None:
    """Weighted average recall in percent: every item counts the same, so it is the accuracy; None without items."""
    return float(100 * np.mean(right)) if len(truth) else None
