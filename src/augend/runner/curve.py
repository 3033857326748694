"""The validation curve of a run: how many points it has and on how many pictures, fixed by the plan, never by the clock; and
when what is watched has stopped getting better.

Looking at a picture costs a third of a training step's row, so points on three tenths as many pictures as there are training
rows take about a tenth of the training's cost.
"""

from __future__ import annotations

from typing import Any

from augend.recipes.plan import Plan

__all__ = ["PICTURES", "POINTS", "no_better", "points"]

POINTS, LEAST = 40, 8
PICTURES = 2500  # of a point; phase ends and kept bests use all
SHARE = 0.3


def points(plan: Plan, valid: int) -> int:
    """Points of a run on `valid` validation pictures, beside those at the ends of its phases. A budget of up to `POINTS`
    whole epochs has equally many in each, the last at its end.

    >>> from augend.recipes import resolve
    >>> facts = {"sizes": {"main": 9000}, "traits": {"main": frozenset()}, "data": "mine", "model": "small"}
    >>> [points(resolve("plain", budget=f"{n}step", **facts), 1000) for n in (100, 1000, 9000)]
    [8, 19, 40]
    >>> [points(resolve("plain", budget=f"{n}epoch", **facts), 1000) for n in (1, 3, 30, 100)]
    [8, 9, 30, 40]
    """
    rows = sum((phase.steps or 0) * phase.rows for phase in plan.phases)
    count = min(POINTS, max(LEAST, int(SHARE * rows / max(1, min(valid, PICTURES)))))
    if plan.epochs is None or plan.epochs > POINTS:
        return count
    return plan.epochs * max(1, min(round(count / plan.epochs), POINTS // plan.epochs))


def no_better(state: dict[str, Any], value: float, watch: str, delta: float) -> int:
    """Count epochs without a new best; returns how many in a row."""
    score = -value if watch == "train/loss" else value
    if state["best"] is None or score > state["best"] + delta:
        state["best"], state["bad"] = score, 0
    else:
        state["bad"] += 1
    return int(state["bad"])
