"""Seconds become steps, once, before a study starts: how long each recipe may train so that all cost the same, and all
together what was promised. Timed on this machine, with as many processes side by side as the trials will have.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augend.checkpoint import write_json
from augend.contract import AugendError
from augend.data.pictures import Split
from augend.recipes.durations import resolve_steps
from augend.recipes.plan import Plan
from augend.runner.hardware import Hardware
from augend.runner.job import Job, Kept, load_splits, resolve_job
from augend.runner.probe import trial_of
from augend.runner.timing import RunTime, time_plan
from augend.study.equal import plan_flops
from augend.study.evidence import read_json
from augend.study.pool import Pool
from augend.study.request import Study, seconds_of
from augend.study.running import workers_for

__all__ = ["Sized", "agreed", "lengths", "makespan", "measure", "size", "sized_by", "time_job"]

AROUND = 10.0  # seconds for starting processes and for the report
PASSES = 3  # timings at most, the further ones in at most SHARE of the study's own time
SHARE = 0.15
SAFE = 0.92  # part of the promised time that is planned: the machine's speed drifts
LONGEST = 10_000_000


def lengths(
    study: Study,
    plans: Mapping[str, tuple[Plan, Mapping[str, Split]]],
    begun: float,
    *,
    once: bool,
    told: Callable[[int, int], None] | None = None,
) -> dict[str, Sized]:
    """Budgets that cost alike, and that together end in time.

    Args:
        plans: name -> plan, with the data that it was made for.
        begun: `time.monotonic()` when the command began.
        once: time every recipe but once, see `sized_by`.
        told: called with (recipes timed, recipes to time).
    """
    request, hardware = study.request, Hardware(**study.record["hardware"])
    equal = request.alike
    order, workers = [name.rpartition("-r")[0] for name in study.names], workers_for(study)
    flops = None
    if equal == "flops":
        flops = {name: [each for _, each in plan_flops(*made)] for name, made in plans.items()}
    timed = 0

    def time_all(names: Sequence[str], passes: int) -> dict[str, RunTime]:
        nonlocal timed
        before, whole = timed, passes * len(names)
        jobs = {name: request.job(study.files[name], 0) for name in names}
        against = request.job(study.files[study.record["reference"]], 0) if equal == "seconds" else None
        heard = None if told is None else lambda done: told(before + done, whole)
        found = measure(jobs, hardware, workers, heard, against=against)
        timed += len(names)
        return found

    def size_all(times: Mapping[str, RunTime]) -> dict[str, Sized]:
        return size(
            {name: plan for name, (plan, _) in plans.items()},
            times,
            {name: {role: len(split.train) for role, split in splits.items()} for name, (_, splits) in plans.items()},
            equal=equal,
            reference=study.record["reference"],
            order=order,
            workers=workers,
            seconds=None if request.time is None else seconds_of(request.time) - (time.monotonic() - begun) - AROUND,
            more=request.tune / 4 + (request.refit != "train") / max(1, len(plans)),
            flops=flops,
        )

    return sized_by(time_all, size_all, order=order, workers=workers, once=once or equal != "seconds")


def measure(
    jobs: Mapping[str, Job],
    hardware: Hardware,
    workers: int,
    told: Callable[[int], None] | None = None,
    *,
    against: Job | None = None,
) -> dict[str, RunTime]:
    """Time every recipe's phases with `workers` of them at once, as trials will run.

    Processes side by side slow each other down by a third, so each is timed while all the others step as well: they begin
    together, and who is done goes on until all are. Where there are fewer left than workers, some are timed twice.

    Args:
        told: called with how many are timed.
        against: a training step of its most expensive phase is timed in turn with the others', in every process, see
            `Stopwatch`: what recipes cost beside one another is then known far better than what they cost.
    """
    yardstick = None if against is None else against.to_json()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = [*jobs]
        rounds = [names[begin : begin + workers] for begin in range(0, len(names), workers)]
        again = itertools.cycle(names)
        rounds[-1] += [f"{next(again)}~{n}" for n in range(workers - len(rounds[-1]))]
        for together in rounds:
            for name in together:
                (folder / "time" / name).mkdir(parents=True)
                job = jobs[name.partition("~")[0]]
                asked = {
                    "job": job.to_json(),
                    "hardware": hardware.to_json(),
                    "together": together,
                    "yardstick": yardstick,
                }
                write_json(folder / "time" / name / "trial.json", asked)
        done = 0
        with Pool(folder, workers) as pool:
            for event in pool.run([f"time:{name}" for together in rounds for name in together]):
                if event["kind"] == "ended" and event["state"] != "finished":
                    raise AugendError(str(event["reason"]))
                if event["kind"] == "lost":
                    raise AugendError(f"timing {event['trial']} ended with code {event['code']}")
                if event["kind"] == "ended" and told is not None and done < len(names):
                    done += 1
                    told(done)
        return {name: RunTime.from_json(read_json(folder / "time" / name / "times.json")) for name in jobs}


def agreed(passes: Sequence[Mapping[str, RunTime]]) -> dict[str, RunTime]:
    """One timing of every recipe from several, each taken at a moment of its own.

    A machine that others share is a third faster or slower for minutes. How fast it was then is seen on the yardstick
    that each was timed against, and taken out; of what is left, the median. So no recipe is given more steps than
    another because it was timed at a better moment.
    """
    usual = statistics.median([run.unit for one in passes for run in one.values()])
    evened = [{name: run.scaled(usual / run.unit) for name, run in one.items()} for one in passes]
    return {name: RunTime.combined([one[name] for one in evened], statistics.median) for name in passes[0]}


def sized_by(
    time_all: Callable[[Sequence[str], int], Mapping[str, RunTime]],
    size_all: Callable[[Mapping[str, RunTime]], dict[str, Sized]],
    *,
    order: Sequence[str],
    workers: int,
    once: bool,
) -> dict[str, Sized]:
    """Time the recipes and size them; then, as far as the study is long enough for it, time them again in other orders.

    Args:
        time_all: times these recipes, in this order, of so many passes in all; `size_all` turns times into lengths.
        order: recipe of each trial, in the order they run, `workers` of them at once.
        once: one timing, however long the study: where nobody follows the plan, or its costs need not be alike in seconds.
    """
    names = [*dict.fromkeys(order)]
    begun = time.monotonic()
    passes = [time_all(names, 1)]
    took = time.monotonic() - begun
    found = size_all(agreed(passes))
    if once:
        return found
    worth = SHARE * makespan([found[name].total for name in order], workers)
    more = sum(number * took <= worth for number in range(1, PASSES))
    for number in range(1, 1 + more):
        turn = number * len(names) // PASSES
        passes.append(time_all([*names[turn:], *names[:turn]], 1 + more))
    return size_all(agreed(passes)) if more else found


def time_job(folder: Path) -> None:
    """What a worker does with a job that shall be timed."""
    asked = read_json(folder / "trial.json")
    others = [folder.parent / name for name in asked["together"]]

    def begin() -> None:
        (folder / "ready").touch()
        while not all((other / "ready").exists() for other in others):
            time.sleep(0.02)

    def end(work: Callable[[], object]) -> None:
        (folder / "done").touch()
        while not all((other / "done").exists() for other in others):
            work()

    job = Job.from_json(asked["job"])
    kept: Kept = {}
    loading = -time.perf_counter()
    splits = load_splits(job, kept=kept)
    plan = resolve_job(job, splits)
    loading += time.perf_counter()
    hardware, yardstick = Hardware(**asked["hardware"]), None
    if asked["yardstick"] is not None:
        against = Job.from_json(asked["yardstick"])
        given = load_splits(against, kept=kept)  # most often the same pictures, held once
        yardstick = trial_of(resolve_job(against, given), given)(hardware)
    found = time_plan(plan, splits, hardware, begin=begin, end=end, yardstick=yardstick)
    write_json(folder / "times.json", dataclasses.replace(found, begin=found.begin + loading).to_json())


@dataclass(frozen=True)
class Sized:
    """One recipe, sized.

    Attributes:
        budget: steps, or None where its phases fix them.
        training: predicted seconds of a trial as the ledger counts them.
        total: predicted seconds of a trial, evaluation included.
        share: its cost, of what all shall cost alike. Above 1 where its phases of a fixed length alone cost more.
    """

    budget: int | None
    training: float
    total: float
    share: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


class _Recipe:
    """A plan with its times: what it costs at a number of steps."""

    def __init__(self, plan: Plan, times: RunTime, sizes: Mapping[str, int], flops: Sequence[int]) -> None:
        self.plan, self.times, self.sizes, self.flops = plan, times, sizes, flops
        self.flexible = any(p.duration.unit in ("share", "percent") and p.fit is None for p in plan.phases)

    def at(self, budget: int | None) -> Plan | None:
        """The plan at a budget; None when that leaves a phase without a step."""
        if budget is None or not self.flexible:
            return self.plan
        try:
            return resolve_steps(dataclasses.replace(self.plan, budget=budget, epochs=None), self.sizes)
        except AugendError:
            return None

    def cost(self, kind: str, budget: int) -> float:
        """Steps, training seconds or FLOPs at a budget; 0 where it is too small for the phases: a search goes on upwards."""
        plan = self.at(budget)
        if plan is None:
            return 0.0
        if kind == "seconds":
            return self.times.training(plan)
        steps = [phase.steps or 0 for phase in plan.phases]
        return float(sum(steps) if kind == "steps" else sum(n * f for n, f in zip(steps, self.flops, strict=True)))

    def largest(self, kind: str, limit: float) -> int | None:
        """The largest budget that costs at most `limit`; the smallest that gives every phase a step, if that is more."""
        if not self.flexible:
            return None
        low = 1 if self.at(1) is not None else 1 + _largest(lambda budget: self.at(budget) is None, 1)
        if low > LONGEST:
            raise AugendError(f"{self.plan.recipe}: no budget gives each of its phases a step")
        return _largest(lambda budget: self.cost(kind, budget) <= limit, low)

    def sized(self, budget: int | None, kind: str, level: float) -> Sized:
        """What is predicted at a budget, where all shall cost `level`."""
        plan = self.at(budget)
        assert plan is not None
        steps = sum(phase.steps or 0 for phase in plan.phases)
        share = self.cost(kind, steps if budget is None else budget) / level if level else 1.0
        return Sized(budget, self.times.training(plan), self.times.total(plan), share)


def _largest(fits: Callable[[int], bool], low: int) -> int:
    high = low
    while fits(high) and high < LONGEST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last of these trials ends, each given to the first free worker in turn.

    >>> makespan([3, 1, 1, 2], 2)
    4.0
    """
    free = [0.0] * workers
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def size(
    plans: Mapping[str, Plan],
    times: Mapping[str, RunTime],
    sizes: Mapping[str, Mapping[str, int]],
    *,
    equal: str,
    reference: str,
    order: Sequence[str],
    workers: int,
    seconds: float | None,
    more: float = 0.0,
    flops: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Sized]:
    """How long each recipe trains.

    Args:
        plans: name -> plan at a nominal budget; `times`: how long its parts take.
        sizes: name -> training pictures of each role: a recipe that holds some out has fewer.
        equal: "steps", "seconds" or "flops": what all recipes cost alike.
        reference: its plan says how much that is, where no `seconds` are given.
        order: recipe of each trial, in the order they run.
        workers: trials side by side.
        seconds: for all trials together; None: the reference keeps its budget.
        more: what else each recipe costs once, in runs (tuning, the last model).
        flops: name -> FLOPs a step of each phase, for equal FLOPs.
    """
    recipes = {
        name: _Recipe(plan, times[name], sizes[name], (flops or {}).get(name, ())) for name, plan in plans.items()
    }

    def at(level: float) -> dict[str, Sized]:
        return {name: one.sized(one.largest(equal, level), equal, level) for name, one in recipes.items()}

    if seconds is None:
        base = recipes[reference]
        budget = base.plan.budget or sum(phase.steps or 0 for phase in base.plan.phases)
        level = base.cost(equal, budget)
        return {**at(level), reference: base.sized(base.plan.budget if base.flexible else None, equal, level)}

    def fits(found: Mapping[str, Sized]) -> bool:
        once = [more * one.total for one in found.values()]
        return makespan([found[name].total for name in order] + once, workers) <= SAFE * seconds

    low, high = 0.0, 1.0
    while fits(at(high)) and high < 1e18:
        low, high = high, 2 * high
        if all(not one.flexible for one in recipes.values()):
            break
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(at(middle)) else (low, middle)
        if high - low < 1e-3 * high:
            break
    return at(low)


def clock_text(seconds: float) -> str:
    """A length of time for a person.

    >>> clock_text(45), clock_text(150), clock_text(8000)
    ('45 s', '2.5 min', '2.2 h')
    """
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
