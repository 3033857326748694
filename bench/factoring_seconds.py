"""What freezing-then-augmenting saves in seconds: each phase of a reproduced study timed alone, on a quiet machine.

    python bench/factoring_seconds.py runs/reproduce-factoring-table-1-authors

Trials of a study run side by side, so their own seconds mean nothing. Here the first trial of every row is run again for
a few steps a phase, with the cache and without it, all rows in turn, one thread, CPU time. The seconds a step, and those of
filling a cache, go into the study as ``seconds.json``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from augend.checkpoint import write_json
from augend.data.pictures import Split
from augend.recipes.plan import Plan
from augend.runner import curve, keeper
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, load_splits, resolve_job
from augend.runner.loop import run
from common import machine

STEPS = 150
ROUNDS = 3


def shortened(plan: Plan, number: int, steps: int, cache: bool) -> Plan:
    """One phase of a plan alone, for a few steps."""
    phase = plan.phases[number]
    duration = dataclasses.replace(phase.duration, unit="step", amount=steps, plateau=None)
    kept = dataclasses.replace(phase, steps=steps, duration=duration, start={}, segment=0, cache=cache)
    return dataclasses.replace(plan, phases=(kept,), budget=steps, monitor=None)


def seconds(plan: Plan, split: Split, hardware: Hardware) -> float:
    with tempfile.TemporaryDirectory() as folder:
        target = RunFolder(Path(folder) / "run")
        target.create()
        begin = time.process_time()
        run(plan, {"main": split}, target, seed=0, hardware=hardware)
        return time.process_time() - begin


def main(study: Path) -> None:
    record = json.loads((study / "study.json").read_text())
    hardware = Hardware(**{**record["hardware"], "threads": 1})
    torch.set_num_threads(1)
    curve.POINTS, keeper.SAVE_SECONDS = 1, 1e9
    jobs = {
        recipe["name"]: Job.from_json(
            json.loads((study / "trials" / f"{recipe['name']}-r0" / "trial.json").read_text())["job"]
        )
        for recipe in record["recipes"]
    }
    full = load_splits(next(iter(jobs.values())))["main"]
    few = full.valid.take(range(10))
    split = dataclasses.replace(full, valid=few, test=few, shifted={})
    plans = {row: resolve_job(job, {"main": full}) for row, job in jobs.items()}
    kinds = distinct(plans)
    best: dict[str, dict[str, float]] = {key: {} for key in kinds}
    for _ in range(ROUNDS):
        for key, (plan, number, cached) in kinds.items():
            for name, steps in (("one", 1), ("many", 1 + STEPS)):
                took = seconds(shortened(plan, number, steps, cached), split, hardware)
                best[key][name] = min(best[key].get(name, float("inf")), took)
    found: dict[str, Any] = {"machine": json.loads(machine()), "rows": {}}
    for row, plan in plans.items():
        found["rows"][row] = []
        for number, phase in enumerate(plan.phases):
            each: dict[str, Any] = {"steps": phase.steps}
            for cached in (False, True):
                timed = best.get(_key(plan, number, cached))
                if timed is not None:  # with a cache, the run of one step is what filling it takes
                    each["cached" if cached else "plain"] = (timed["many"] - timed["one"]) / STEPS
                    if cached:
                        each["fill"] = max(0.0, timed["one"] - best[_key(plan, number, False)]["one"])
            found["rows"][row].append(each)
            print(f"{row:28} {phase.name:10} {json.dumps(each)}")
    write_json(study / "seconds.json", found)


def _key(plan: Plan, number: int, cached: bool) -> str:
    phase = plan.phases[number]
    same = dataclasses.replace(
        phase, name="", steps=0, duration=plan.phases[0].duration, segment=0, cache=False, start={}
    )
    return repr((same, cached))


def distinct(plans: dict[str, Plan]) -> dict[str, tuple[Plan, int, bool]]:
    """Each kind of phase once, and those that freeze something with a finite augmentation also with a cache."""
    found: dict[str, tuple[Plan, int, bool]] = {}
    for plan in plans.values():
        for number, phase in enumerate(plan.phases):
            found.setdefault(_key(plan, number, False), (plan, number, False))
            if any(part.first for part in phase.train):
                found.setdefault(_key(plan, number, True), (plan, number, True))
    return found


if __name__ == "__main__":
    print(machine())
    main(Path(sys.argv[1]))
