"""Equal cost: how long a recipe must train so that its FLOPs are those of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from augend.data.pictures import Split
from augend.randomness import Draws
from augend.recipes.plan import Plan
from augend.runner.assembly import build_networks, stage
from augend.runner.charge import step_cost
from augend.runner.job import Job, load_splits, resolve_job

__all__ = ["equal_budget", "plan_flops"]


def plan_flops(plan: Plan, splits: Mapping[str, Split]) -> list[tuple[int, int]]:
    """(steps, FLOPs a step) of every phase, nothing cached. Phases that end on a plateau count to their cap.

    FLOPs are counted as the ledger counts them: on meta copies, from the shapes of one batch.
    """
    networks = build_networks(plan, splits, 0)
    found = []
    for spec in plan.phases:
        scene = stage(spec, networks, splits, seed=0)
        picks = scene.order.next(0, spec.rows, scene.sources(0.0), 0.0)
        batch = scene.batch(picks, Draws(0, spec.name, 0, spec.rows), 0.0)
        found.append((spec.steps or 0, step_cost(scene, batch).flops))
    return found


def equal_budget(job: Job, other: Job) -> str:
    """The budget, in steps, at which `job` costs the FLOPs of `other` without caches; the shares of its phases stay.

    >>> fast = Job(data="digits", recipe="aug-ft", settings="quick", model="figure1", budget="1000step")
    >>> equal_budget(fast, dataclasses.replace(fast, recipe="augmented"))
    '1325step'
    """
    target = sum(steps * flops for steps, flops in _cost(other))
    budget = sum(steps for steps, _ in _cost(job))
    for _ in range(3):  # phases have whole numbers of steps, so the second guess may differ by a few
        spent = sum(steps * flops for steps, flops in _cost(dataclasses.replace(job, budget=f"{budget}step")))
        budget = max(1, round(budget * target / spent))
    return f"{budget}step"


def _cost(job: Job) -> list[tuple[int, int]]:
    splits = load_splits(job)
    return plan_flops(resolve_job(job, splits), splits)
