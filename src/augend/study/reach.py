"""What it cost a row to get as far as the reference did: FLOPs, and seconds where a quiet bench has timed the phases.

FLOPs count as the ledger counts them, with nothing cached. Seconds are never those of the study's own trials, which run side
by side: they are seconds a step from ``seconds.json``, which ``bench/factoring_seconds.py`` writes, without and with caches.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augend.checkpoint import write_json
from augend.runner.job import Job, Kept, load_splits, resolve_job
from augend.study.equal import plan_flops
from augend.study.evidence import Evidence, Record, read_json

__all__ = ["Price", "Prices", "counted", "falls", "mean_fall", "reaches", "spent", "validations"]


@dataclasses.dataclass(frozen=True)
class Price:
    """What a phase costs: `steps` of `each`, and `fill` before the first one (a cache)."""

    steps: int
    each: float
    fill: float = 0.0


Prices = Sequence[Price]


def spent(prices: Prices, step: int | None = None) -> float:
    """What the first `step` steps of a run cost; None: all of them.

    >>> spent([Price(10, 5), Price(10, 1, fill=3)], 12), spent([Price(10, 5), Price(10, 1)], 10)
    (55.0, 50.0)
    """
    total = 0.0
    left = sum(price.steps for price in prices) if step is None else step
    for price in prices:
        if left <= 0:
            break
        total += price.fill + min(left, price.steps) * price.each
        left -= price.steps
    return total


def mean_fall(accuracies: Sequence[float]) -> float | None:
    """How far accuracy falls from one look to the next, on average; a rise is no fall. None below two looks.

    >>> round(mean_fall([0.5, 0.7, 0.6, 0.8]), 3)
    0.033
    """
    falls = [max(0.0, before - after) for before, after in itertools.pairwise(accuracies)]
    return sum(falls) / len(falls) if falls else None


def falls(evidence: Evidence, row: str) -> list[float]:
    """The mean fall of validation accuracy over each repeat's curve: a small one is a stable run."""
    found = [
        mean_fall([line["accuracy"] for line in validations(evidence.trials[row, repeat].folder)])
        for repeat in evidence.repeats(row)
    ]
    return [one for one in found if one is not None]


def reached(trial: Path, target: float) -> int | None:
    """The first step after which a run's validation accuracy was at least `target`; None: never."""
    for line in validations(trial):
        if line["accuracy"] >= target:
            return int(line["global_step"])
    return None


def validations(trial: Path) -> list[dict[str, Any]]:
    """The points of a run's validation curve, as they were written."""
    lines = map(json.loads, (trial / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["kind"] == "valid"]


def counted(study: Path, recipes: Iterable[str]) -> dict[str, Prices]:
    """FLOPs of the recipes of a study whose trials are prepared, counted once and kept in ``flops.json``."""
    path, names = study / "flops.json", set(recipes)
    stored = read_json(path) if path.is_file() else {}
    if set(stored) != names:
        jobs = {name: Job.from_json(read_json(study / "trials" / f"{name}-r0" / "trial.json")["job"]) for name in names}
        kept: Kept = {}
        stored = {}
        for row, job in jobs.items():  # rows may hold pictures out, or have fewer
            splits = load_splits(job, kept=kept)
            stored[row] = plan_flops(resolve_job(job, splits), splits)
        write_json(path, stored)
    return {row: [Price(steps, flops) for steps, flops in prices] for row, prices in stored.items()}


def _seconds(record: Record) -> dict[str, dict[str, Prices]]:
    """``plain`` and ``cached``, each row's phases in seconds; empty without a bench of this study."""
    path = record.folder / "seconds.json"
    rows = read_json(path)["rows"] if path.is_file() else {}
    if not {recipe.name for recipe in record.recipes} <= set(rows):
        return {}
    plain: dict[str, Prices] = {row: [Price(p["steps"], p["plain"]) for p in phases] for row, phases in rows.items()}
    cached: dict[str, Prices] = {
        row: [
            Price(p["steps"], p["cached"], p["fill"]) if "cached" in p else Price(p["steps"], p["plain"])
            for p in phases
        ]
        for row, phases in rows.items()
        if any("cached" in p for p in phases)
    }
    return {"plain": plain, "cached": cached}


def _unpriced(evidence: Evidence) -> bool:
    """Whether some row ends at a plateau, whose steps no plan knows, or keeps its best weights, so that its last validation
    accuracy is not that of its model, and is looked at more often than others.
    """
    phases = [
        phase
        for recipe in evidence.recipes
        for phase in read_json(evidence.trials[recipe.name, evidence.repeats(recipe.name)[0]].folder / "plan.json")[
            "phases"
        ]
    ]
    return any(phase.get("keep", "last") != "last" or phase["duration"].get("plateau") for phase in phases)


def reaches(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """For each row: the price of its whole run, and of the part until it had the reference's last validation accuracy.

    All are parts of the price of the reference's whole run, without caches; of the parts the median over those repeats that
    got there, each against the same repeat of the reference.
    """
    record, reference = evidence.record, evidence.record.reference
    if not evidence.repeats(reference) or _unpriced(evidence):
        return {}
    kinds = {
        "flops": counted(record.folder, (recipe.name for recipe in record.recipes)),
        **{f"seconds_{how}": rows for how, rows in _seconds(record).items()},
    }
    base = {kind: spent(kinds[kind.replace("_cached", "_plain")][reference]) for kind in kinds}
    found: dict[str, dict[str, Any]] = {}
    for recipe in evidence.recipes:
        repeats = evidence.repeats(recipe.name, reference)
        steps = []
        for r in repeats:
            target = validations(evidence.trials[reference, r].folder)[-1]["accuracy"]
            steps.append(reached(evidence.trials[recipe.name, r].folder, target))
        there = [step for step in steps if step is not None]
        mine = {kind: rows[recipe.name] for kind, rows in kinds.items() if recipe.name in rows}
        found[recipe.name] = {
            "reached": len(there),
            "of": len(repeats),
            "steps": float(np.median(there)) if there else None,
            "whole": {kind: spent(prices) / base[kind] for kind, prices in mine.items()},
            "part": {
                kind: float(np.median([spent(prices, step) for step in there])) / base[kind] if there else None
                for kind, prices in mine.items()
            },
        }
    return found
