"""How sure a comparison is: intervals, three probabilities, and what a study can resolve before it is run.

Values are shares in [0, 1] (0.01 is one point). A mean over n repeats has the variance ``s^2 / n + shared``, where
`shared` is what more repeats do not shrink, and is read with a t distribution of n - 1 degrees of freedom:

* splits redrawn for every repeat overlap: ``shared = s^2 * n_evaluated / n_train`` (Nadeau and Bengio 2003,
  equation 9), used where n_evaluated <= n_train;
* one fixed set of pictures: ``shared = v / m``, v the variance over the m pictures of each one's mean over the
  repeats.

Deviation: the standard error is never less than one picture (1 / n_evaluated). Without that, recipes that agree on
every picture of a small set would get an interval of width zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DISAGREEMENT",
    "LEVEL",
    "Estimate",
    "Probabilities",
    "estimate",
    "guess",
    "mean_of",
    "picture_variance",
    "pictures_needed",
    "probabilities",
    "resolvable",
    "said",
]

DISAGREEMENT = 0.10
"""Guess, before training: the share of pictures on which exactly one of two good recipes is right (0.05 to 0.15)."""

LEVEL = 0.95
POWER = 0.80


def _quantile(share: float, freedom: float) -> float:
    from scipy.special import ndtri, stdtrit  # scipy.stats would cost 1.3 s

    return float(ndtri(share)) if math.isinf(freedom) else float(stdtrit(freedom, share))


def _below(t: float, freedom: float) -> float:
    from scipy.special import ndtr, stdtr

    return float(ndtr(t)) if math.isinf(freedom) else float(stdtr(freedom, t))


@dataclass(frozen=True)
class Estimate:
    """A mean over repeats and how sure it is.

    Attributes:
        mean: of a score, or of a paired difference.
        repeats: how many values it is the mean of.
        spread: standard deviation s of the values, None with one repeat.
        shared: the part of the mean's variance that more repeats do not shrink.
        floor: the smallest standard error that is believed.
        freedom: degrees of freedom; infinite for a guess made without data.
    """

    mean: float
    repeats: int
    spread: float | None
    shared: float
    floor: float
    freedom: float

    def error_at(self, repeats: int) -> float | None:
        """Standard error that this many repeats would have, the spread staying as it is."""
        if self.spread is None:
            return None
        return max(math.sqrt(self.spread**2 / repeats + self.shared), self.floor)

    @property
    def error(self) -> float | None:
        """Standard error of the mean; None with one repeat."""
        return self.error_at(self.repeats)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None with one repeat."""
        return self.interval_at(LEVEL)

    def interval_at(self, level: float) -> tuple[float, float] | None:
        """The interval of another level, as 0.99; None with one repeat."""
        if self.error is None:
            return None
        half = _quantile((1 + level) / 2, self.freedom) * self.error
        return self.mean - half, self.mean + half

    @property
    def separated(self) -> int:
        """1 when the 95 % interval lies above 0, -1 when it lies below, 0 otherwise and with one repeat."""
        if self.interval is None:
            return 0
        return int(self.interval[0] > 0) - int(self.interval[1] < 0)


@dataclass(frozen=True)
class Probabilities:
    """That a difference is above the margin, within it on both sides, below minus the margin. They sum to 1."""

    better: float
    within: float
    worse: float


def said(found: Estimate | None, least: float = -math.inf, most: float = math.inf) -> dict[str, Any] | None:
    """An estimate as JSON values: ``mean``, ``low``, ``high``, ``repeats``; None of none.

    An interval ends where scores do (`least`, `most`).

    >>> said(estimate([0.98, 1.0], evaluated=100, trained=300), 0, 1)["high"]
    1
    """
    if found is None:
        return None
    low, high = found.interval or (None, None)
    return {
        "mean": None if math.isnan(found.mean) else found.mean,
        "low": None if low is None else max(least, low),
        "high": None if high is None else min(most, high),
        "repeats": found.repeats,
    }


def mean_of(values: Sequence[float], floor: float = 0.0) -> Estimate | None:
    """The mean of independent values, one a repeat; None of none. `floor`: the smallest standard error that is believed."""
    if not values:
        return None
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Estimate(float(np.mean(values)), len(values), spread, 0.0, floor, max(1, len(values) - 1))


def estimate(
    values: Sequence[float] | NDArray[np.float64], *, evaluated: int, trained: int, pictures: float | None = None
) -> Estimate:
    """Mean of one value a repeat.

    Args:
        values: scores or paired differences, one a repeat.
        evaluated: pictures that each value was measured on.
        trained: pictures that each repeat trained on.
        pictures: v / m of a fixed set (`picture_variance`); None: the set was redrawn for every repeat.

    >>> one = estimate([0.02, 0.03, 0.01, 0.04, 0.0], evaluated=300, trained=900)
    >>> round(one.mean, 3), round(one.error, 5)
    (0.02, 0.01155)
    """
    if pictures is None and evaluated > trained:
        raise ValueError(f"the formula for redrawn splits needs evaluated <= trained, not {evaluated} and {trained}")
    numbers = np.asarray(values, dtype=np.float64)
    count = len(numbers)
    spread = float(numbers.std(ddof=1)) if count > 1 else None
    shared = (spread or 0.0) ** 2 * evaluated / trained if pictures is None else pictures
    return Estimate(float(numbers.mean()), count, spread, shared, 1 / evaluated, count - 1)


def picture_variance(
    ids: Sequence[NDArray[Any]],
    values: Sequence[NDArray[np.floating[Any]]],
    labels: Sequence[NDArray[np.int64]] | None = None,
) -> float:
    """v / m: the variance that a set of pictures, seen as a sample, gives to a mean over them.

    Args:
        ids: for each repeat which picture each row shows ``(m,)``, of any sortable type; rows that show one picture (its
            rotated copies) are no independent sample, and count as one row that contributes their mean.
        values: for each repeat what each picture contributes ``(m,)``: 0 or 1, or a difference of them.
        labels: for each repeat the classes ``(m,)``: given for balanced accuracy, the mean of class means; its variance
            is the sum over C classes of v_c / (C^2 m_c). A class of one picture takes the pooled v.
    """
    same = all(np.array_equal(ids[0], other) for other in ids[1:])
    if same and len(np.unique(ids[0])) == len(ids[0]):
        means = np.mean(np.stack(values), axis=0)
        kinds = None if labels is None else labels[0]
    else:
        _, first, number = np.unique(np.concatenate(ids), return_index=True, return_inverse=True)
        means = np.bincount(number, weights=np.concatenate(values)) / np.bincount(number)
        kinds = None if labels is None else np.concatenate(labels)[first]
    pooled = float(means.var(ddof=1)) if len(means) > 1 else 0.0
    if kinds is None:
        return pooled / len(means)
    groups = [means[kinds == kind] for kind in np.unique(kinds)]
    parts = [(float(g.var(ddof=1)) if len(g) > 1 else pooled) / len(g) for g in groups]
    return sum(parts) / len(groups) ** 2


def probabilities(found: Estimate, margin: float) -> Probabilities | None:
    """The three probabilities of a difference; None with one repeat.

    >>> probabilities(estimate([0.0, 0.002, -0.002], evaluated=100, trained=1000), 0.01).better < 0.3
    True
    """
    if found.error is None:
        return None
    better = _below((found.mean - margin) / found.error, found.freedom)
    worse = _below((-margin - found.mean) / found.error, found.freedom)
    return Probabilities(better, max(0.0, 1.0 - better - worse), worse)


def guess(repeats: int, *, evaluated: int, trained: int, fixed: bool, disagreement: float = DISAGREEMENT) -> Estimate:
    """What a paired difference would look like if nothing were known but the sizes; its mean is 0.

    Each repeat's difference has the variance disagreement / evaluated. On a fixed set half of the disagreement is taken
    to stay on the same pictures in every repeat, so v = disagreement * (1 + 1 / repeats) / 2.
    """
    variance = disagreement / evaluated
    one_set = fixed or evaluated > trained
    shared = variance * ((1 + 1 / repeats) / 2 if one_set else evaluated / trained)
    return Estimate(0.0, repeats, math.sqrt(variance), shared, 1 / evaluated, repeats - 1 if repeats > 1 else math.inf)


def resolvable(found: Estimate, repeats: int | None = None) -> float | None:
    """The smallest true difference that a study separates four times out of five; None with one repeat.

    That is (t of 97.5 % + t of 80 %) standard errors. A difference as large as the half-width alone, the other common
    answer, would be separated only every second time. Before training, give it `guess(...)`.

    >>> round(resolvable(guess(5, evaluated=300, trained=900, fixed=False)), 3)
    0.05
    """
    count = found.repeats if repeats is None else repeats
    error = found.error_at(count)
    if error is None or count < 2:
        return None
    freedom = count - 1
    return (_quantile((1 + LEVEL) / 2, freedom) + _quantile(POWER, freedom)) * error


def pictures_needed(found: Estimate, difference: float, pictures: int, repeats: int) -> int | None:
    """How many pictures more than `pictures` would separate a true `difference` with `repeats`; 0: none are missing.

    Variances are taken to fall as 1 / pictures with the shares of training and test staying. Rounded up to two digits.
    None: more than a million, or the difference is 0, or nothing is known of the spread.
    """
    now = resolvable(found, repeats)
    if now is None or difference == 0:
        return None
    more = pictures * ((now / abs(difference)) ** 2 - 1)
    if more <= 0:
        return 0
    if more > 1_000_000:
        return None
    unit: int = 10 ** max(0, math.floor(math.log10(more)) - 1)
    return int(math.ceil(more / unit) * unit)
