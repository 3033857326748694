"""Validation accuracy after each epoch of a run, over seeds and beside the reference: what a paper's table by epochs has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from augend.runner.curve import PICTURES
from augend.study.evidence import Evidence, read_json
from augend.study.reach import validations
from augend.study.statistics import Estimate, estimate, mean_of, said

__all__ = ["after_epochs", "by_epoch", "epoch_difference"]

Ends = dict[int, list[float]]  # repeat -> validation accuracy after each epoch


def by_epoch(evidence: Evidence, rows: Sequence[str], reference: str) -> dict[str, dict[str, Any]]:
    """Row -> its level, and its paired difference to the reference, after each epoch; of rows that have finished repeats.

    Returns:
        JSON values: ``levels`` and ``versus`` (empty for the reference), one for each epoch: ``mean``, ``low``, ``high``,
        ``repeats``. Nothing for a row whose budget is not given in epochs, or in more than a curve has points.
    """
    ends = {row: after_epochs(evidence, row) for row in rows}
    base = ends.get(reference, {})
    return {
        row: {
            "levels": [said(_mean(evidence, each), 0, 1) for each in zip(*own.values(), strict=True)],
            "versus": [] if row == reference else [said(one, -1, 1) for one in _apart(evidence, own, base)],
        }
        for row, own in ends.items()
        if own
    }


def epoch_difference(evidence: Evidence, row: str, other: str, epoch: int) -> Estimate | None:
    """The paired difference of two rows after an epoch, counted from 1; None where no repeat of both is so long."""
    apart = _apart(evidence, after_epochs(evidence, row), after_epochs(evidence, other))
    return next(itertools.islice(apart, epoch - 1, None), None)


def after_epochs(evidence: Evidence, row: str) -> Ends:
    """What each finished repeat's curve says at the ends of its epochs; without those whose budget is no whole epochs."""
    found = {}
    for repeat in evidence.repeats(row):
        folder = evidence.trials[row, repeat].folder
        plan = read_json(folder / "plan.json")
        epochs = plan.get("epochs") or 0
        points = {line["global_step"]: float(line["accuracy"]) for line in validations(folder)}
        ends = [-(-epoch * plan["budget"] // epochs) for epoch in range(1, epochs + 1)]
        if ends and all(end in points for end in ends):
            found[repeat] = [points[end] for end in ends]
    return found


def _apart(evidence: Evidence, one: Ends, other: Ends) -> list[Estimate | None]:
    both = [zip(one[repeat], other[repeat], strict=False) for repeat in one if repeat in other]
    return [_mean(evidence, [a - b for a, b in pairs]) for pairs in zip(*both, strict=False)]


def _mean(evidence: Evidence, values: Sequence[float]) -> Estimate | None:
    """Over repeats whose validation pictures are drawn anew, as of accuracies at the end; answers of points are not kept."""
    evaluated, trained = min(PICTURES, evidence.record.sizes["valid"]), evidence.record.sizes["train"]
    if not values or evaluated > trained:
        return mean_of(values, 1 / evaluated)
    return estimate(values, evaluated=evaluated, trained=trained)
