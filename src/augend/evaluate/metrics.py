"""What a table of predictions says, as pure numpy functions of labels and probabilities.

Everywhere `labels` is int64 ``(N,)`` in 0 .. C - 1 and `probabilities` is float ``(N, C)``, rows in [0, 1] summing
to 1. A row that is not finite (a diverged network) counts as a wrong answer. Ties go to the lowest class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Calibration",
    "accuracy",
    "balanced_accuracy",
    "calibration",
    "calibration_of",
    "confusion",
    "correct",
    "nll",
    "predicted",
    "recall",
    "top_k",
    "worst_mistakes",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


def predicted(probabilities: Floats) -> Ints:
    """The answer of each row, int64 ``(N,)``; -1 where the row is not finite.

    >>> predicted(np.array([[0.2, 0.8], [np.nan, np.nan]])).tolist()
    [1, -1]
    """
    answers: Ints = np.argmax(probabilities, axis=1).astype(np.int64)
    answers[~np.isfinite(probabilities).all(axis=1)] = -1
    return answers


def correct(labels: Ints, probabilities: Floats) -> NDArray[np.bool_]:
    """Which rows are answered rightly, bool ``(N,)``."""
    right: NDArray[np.bool_] = predicted(probabilities) == labels
    return right


def accuracy(labels: Ints, probabilities: Floats) -> float:
    """Share of right answers in [0, 1].

    >>> accuracy(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    0.6666666666666666
    """
    return float(correct(labels, probabilities).mean())


def recall(labels: Ints, probabilities: Floats) -> NDArray[np.float64]:
    """Share of each class that is recognised, float64 ``(C,)``; NaN for a class without pictures."""
    classes = probabilities.shape[1]
    count = np.bincount(labels, minlength=classes).astype(np.float64)
    right = np.bincount(labels[correct(labels, probabilities)], minlength=classes)
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = np.where(count > 0, right / count, np.nan)
    return result


def balanced_accuracy(labels: Ints, probabilities: Floats) -> float:
    """Mean recall over the classes that have pictures, in [0, 1]: every class counts the same."""
    return float(np.nanmean(recall(labels, probabilities)))


def nll(labels: Ints, probabilities: Floats, *, floor: float = 1e-12) -> float:
    """Mean cross-entropy in nats; probabilities below `floor` count as `floor`. NaN if a row is not finite."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(chosen, floor)).mean())


def top_k(labels: Ints, probabilities: Floats, k: int) -> float:
    """Share of rows whose class is among the k most probable ones, in [0, 1]; fewer than k classes: 1.

    A class is among them when fewer than k others are strictly more probable, or equally probable and lower in number.
    """
    rows = np.arange(len(labels))
    own = probabilities[rows, labels][:, None]
    lower = np.arange(probabilities.shape[1])[None, :] < labels[:, None]
    ahead = ((probabilities > own) | ((probabilities == own) & lower)).sum(axis=1)
    return float(((ahead < k) & np.isfinite(probabilities).all(axis=1)).mean())


def confusion(labels: Ints, probabilities: Floats) -> Ints:
    """Counts, int64 ``(C, C)``: row = true class, column = answer. Rows that are not finite are left out."""
    classes = probabilities.shape[1]
    answers = predicted(probabilities)
    kept = answers >= 0
    flat = np.bincount(labels[kept] * classes + answers[kept], minlength=classes * classes)
    return flat.astype(np.int64).reshape(classes, classes)


@dataclass(frozen=True)
class Calibration:
    """Reliability by confidence: `count`, mean `confidence` and share right (`accuracy`) of each bin, and their gap.

    Attributes:
        error: expected calibration error, the mean of |accuracy - confidence| over bins weighted by count, in [0, 1].
        count: int64 ``(bins,)``; `confidence` and `accuracy` are float64 ``(bins,)``, NaN in an empty bin.
    """

    error: float
    count: Ints
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def calibration_of(confidence: Floats, right: NDArray[np.bool_], *, bins: int = 15) -> Calibration:
    """Calibration of answers with a stated confidence ``(N,)``; see `calibration`."""
    sure = confidence.astype(np.float64)
    # (i/bins, (i+1)/bins], the first bin closed on the left too
    number = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(number, minlength=bins).astype(np.int64)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(number, weights=sure, minlength=bins) / count
        hit = np.bincount(number, weights=right.astype(np.float64), minlength=bins) / count
    error = float(np.nansum(np.abs(hit - mean) * count) / max(count.sum(), 1))
    return Calibration(error, count, mean, hit)


def calibration(labels: Ints, probabilities: Floats, *, bins: int = 15) -> Calibration:
    """Expected calibration error of the most probable class, with `bins` equal-width bins (Guo et al. 2017, section 2).

    Bins are open on the left and closed on the right, as in the paper. Rows that are not finite are left out.

    >>> always = np.tile([0.75, 0.25], (4, 1))
    >>> calibration(np.array([0, 0, 0, 1]), always).error
    0.0
    """
    kept = np.isfinite(probabilities).all(axis=1)
    shown = probabilities[kept]
    return calibration_of(shown.max(axis=1), np.argmax(shown, axis=1) == labels[kept], bins=bins)


def worst_mistakes(labels: Ints, probabilities: Floats, n: int = 20) -> Ints:
    """Row numbers of the n most confident wrong answers, the most confident first (equal ones by row number)."""
    finite = np.isfinite(probabilities).all(axis=1)
    wrong = np.flatnonzero(~correct(labels, probabilities) & finite)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order][:n].astype(np.int64)
