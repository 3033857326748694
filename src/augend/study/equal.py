"""Equal cost: what a recipe's phases cost a step, and how long it must train to cost as much as another. FLOPs, counted as
the ledger counts them, on meta copies; nothing is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from augend.contract import AugendError
from augend.data.pictures import Split
from augend.order.choosing import Scored
from augend.order.scored import SampleByLoss
from augend.order.scoring import Passes
from augend.order.shuffle import Shuffle
from augend.randomness import Draws
from augend.recipes.plan import Plan
from augend.runner.assembly import build_networks, stage
from augend.runner.charge import step_cost
from augend.runner.job import Job, resolve_job

__all__ = ["equal_budget", "plan_flops"]


def plan_flops(plan: Plan, splits: Mapping[str, Split]) -> list[tuple[int, int]]:
    """(steps, FLOPs a step) of every phase, nothing cached. Phases that end on a plateau count to their cap."""
    networks = build_networks(plan, splits, 0)
    found = []
    for spec in plan.phases:
        scene = stage(spec, networks, splits, seed=0)
        sources = scene.sources(0.0)
        order = Shuffle() if scene.sight is not None else scene.order
        if scene.sight is not None:  # an order that scores needs an optimizer; what it picks has the same shapes
            order.start(len(scene.pictures), Draws(0, "shapes"), None, None)
        batch = scene.batch(order.next(0, spec.rows, sources, 0.0), Draws(0, spec.name, 0, spec.rows), 0.0)
        cost = step_cost(scene, batch)
        looked = scene.order.passes(spec.rows, sources) if isinstance(scene.order, Scored | SampleByLoss) else Passes()
        once = cost.taught * len(scene.pictures) / max(1, spec.steps or 0)  # a teacher is asked as the phase begins
        found.append((spec.steps or 0, round(cost.flops + cost.scores(looked) + cost.applied * looked.made + once)))
    return found


def equal_budget(job: Job, other: Job, splits: Mapping[str, Split], others: Mapping[str, Split] | None = None) -> str:
    """The budget, in steps, at which `job` costs the FLOPs of `other` without caches; the shares of its phases stay.

    `splits` are the data of `job`, `others` those of `other` where these differ (it holds pictures out, say).

    >>> from augend.runner.job import load_splits
    >>> fast = Job(data="digits", recipe="aug-ft", settings="quick", model="figure1", budget="1000step")
    >>> equal_budget(fast, dataclasses.replace(fast, recipe="augmented"), load_splits(fast))
    '1325step'
    """

    def prices(one: Job, on: Mapping[str, Split] = splits) -> list[tuple[int, int]]:
        return plan_flops(resolve_job(one, on), on)

    target = sum(steps * flops for steps, flops in prices(other, others or splits))
    budget = sum(steps for steps, _ in prices(job))
    for _ in range(3):  # phases have whole numbers of steps, so the second guess may differ by a few
        if budget < 1:
            raise AugendError(f"{job.recipe}: takes no steps, so no budget makes it cost as much as {other.recipe}")
        spent = sum(steps * flops for steps, flops in prices(dataclasses.replace(job, budget=f"{budget}step")))
        budget = max(1, round(budget * target / spent))
    return f"{budget}step"
