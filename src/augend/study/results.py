"""`results.json`: every number of a study, from the trials that are finished. Partial studies give partial results.

The order matters: `decide` reads validation rows only and its answer is written to `choice.json`; then the test rows
are read. Everything except seconds, FLOPs and curves can be recomputed from the `predictions.npz` of the trials.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from augend.evaluate import metrics
from augend.study import advice, statistics
from augend.study.evidence import (
    Evidence,
    Record,
    Scored,
    Trial,
    finished,
    read_json,
    read_record,
    read_rows,
    read_trials,
    trial_name,
)
from augend.study.statistics import Estimate
from augend.study.table import table_rows

__all__ = ["SCHEMA", "decide", "gather", "table_rows", "write"]

SCHEMA = 1
OFF = 0.15  # part of the predicted seconds by which they may be missed without a word
UNEQUAL = 0.1  # part of the reference's seconds, where all were given the same
PARTS = ("step", "augment", "data", "order", "cache", "bank", "decoding", "evaluation")
MISTAKES = 20
Done = Sequence[tuple[str, int, Path]]
"""Finished trials, as `finished` says them."""


def write(study: Path) -> dict[str, Any]:
    """Write `choice.json`, then `results.json`, through a temporary file and a rename; the content of the latter."""
    record = read_record(study)
    done = finished(record)  # others may end while these are read
    choice = decide(record, done)
    _save(study / "choice.json", choice)
    results = gather(record, choice, done)
    _save(study / "results.json", results)
    return results


def _save(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    """JSON values: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def decide(record: Record, done: Done | None = None) -> dict[str, Any] | None:
    """The content of `choice.json`: what is advised by the validation rows of the repeats that all recipes finished.

    A recipe whose weights validation pictures picked looks better on them than it is, so it is not advised beside recipes
    that keep their last. None while no repeat is finished by every recipe; one that failed in all of them is not waited for.

    Args:
        done: the trials that count; None: those that are finished now.
    """
    left_out = _flattered(record) | set(_failed_recipes(record))
    trials = [trial for trial in read_trials(record, test=False, only=done) if trial.recipe not in left_out]
    common = _common(Evidence(record, trials), left_out)
    evidence = Evidence(record, [trial for trial in trials if trial.repeat in common])
    if not common:
        return None

    def difference(name: str, other: str) -> Estimate:
        found = evidence.difference(name, other, "valid")
        assert found is not None  # every recipe has the common repeats
        return found

    entries = []
    for recipe in evidence.recipes:
        mine = [t for t in evidence.trials.values() if t.recipe == recipe.name]
        seconds = _cost(record, recipe.name, mine)["counted"]
        mean, above = evidence.level(recipe.name, "valid").mean, evidence.above_constant(recipe.name)
        entries.append(advice.Entry(recipe, mean, math.inf if seconds is None else seconds, above))
    pictures = next(iter(evidence.trials.values())).splits["valid"].pictures
    choice = advice.choose(
        entries,
        difference,
        reference=record.reference,
        margin=record.margin,
        prior=statistics.guess(1, evaluated=pictures, trained=record.sizes["train"], fixed=False),
        unjudged=[recipe for recipe in record.recipes if recipe.name in left_out],
    )
    return {"schema": SCHEMA, **asdict(choice), "repeats": common, "split": "valid"}


def _flattered(record: Record) -> set[str]:
    """Recipes that keep their best weights, where the reference does not."""
    names = {one["name"] for one in record.raw["recipes"] if one.get("keeps_best")}
    return set() if record.reference in names else names


def _failed_recipes(record: Record) -> list[str]:
    """Recipes of which every trial has failed: no repeat will ever be finished by all while they are counted."""
    failed = _failed(record, _expected(record))
    each = {recipe.name: [trial_name(recipe.name, r) for r in range(recipe.repeats)] for recipe in record.recipes}
    return [name for name, trials in each.items() if all(trial in failed for trial in trials)]


def _common(evidence: Evidence, left_out: Collection[str]) -> list[int]:
    """The repeats that all recipes of the study have finished, but for those left out."""
    names = [recipe.name for recipe in evidence.record.recipes if recipe.name not in left_out]
    return evidence.repeats(*names) if names else []


def _expected(record: Record) -> list[str]:
    return [trial_name(recipe.name, r) for recipe in record.recipes for r in range(recipe.repeats)]


def gather(record: Record, choice: dict[str, Any] | None, done: Done | None = None) -> dict[str, Any]:
    """The content of `results.json`, from whatever trials are finished: JSON values; shares, seconds, nats.

    Args:
        choice: what `decide` found.
        done: the trials that it was found by; None: those that are finished now.
    """
    evidence = Evidence(record, read_trials(record, test=True, only=done))
    failed = _failed_recipes(record)
    common = _common(evidence, failed)
    advised = choice["advised"] if choice else None
    expected, ended = _expected(record), len(evidence.trials)
    recipes = {recipe.name: _recipe(evidence, recipe.name, advised) for recipe in evidence.recipes}
    base = recipes[record.reference]["cost"]["seconds"] if record.reference in recipes else None
    for found in recipes.values():
        found["cost"]["ratio"] = _ratio(found["cost"]["seconds"], base)
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "augend study results",
        "folder": str(record.folder),
        "data": _data_name(record),
        "reference": record.reference,
        "metric": record.metric,
        "margin": record.margin,
        "alike": record.alike,
        "sizes": record.sizes,
        "fixed_test": record.fixed_test,
        "classes": list(record.classes),
        "trials": {"expected": len(expected), "finished": ended, "failed": _failed(record, expected)},
        "failed_recipes": failed,
        "complete": ended == len(expected),
        "repeats": record.repeats,
        "repeats_finished": len(common),
        "resolvable": _resolvable(record),
        "constant": evidence.largest() if ended else None,
        "choice": choice,
        "recipes": recipes,
        "advised": _advised(evidence, advised),
    }
    results = _plain(results)
    results["advice"] = _advice(results)
    results["missed"] = _missed(results)
    return results


def _advice(results: dict[str, Any]) -> dict[str, Any]:
    done, expected = results["trials"]["finished"], results["trials"]["expected"]
    if results["choice"] is None:
        return {"form": None, "text": f"No repeat is finished by every recipe yet ({done} of {expected} trials done)."}
    form, text = advice.sentence(results)
    return {"form": form, "text": text if results["complete"] else f"So far ({done} of {expected} trials): {text}"}


def _missed(results: dict[str, Any]) -> list[str]:
    """Where seconds were not those that were predicted; where recipes were given the same, who used more or less of them."""
    found = {name: one["cost"].get("used_of_predicted") for name, one in results["recipes"].items()}
    said = [
        f"{name} took {used:.2f} of the seconds that were predicted for it"
        for name, used in found.items()
        if used and abs(used - 1) > OFF
    ]
    base = found.get(results["reference"])
    if results["alike"] != "seconds" or not base:
        return said
    others = {name: used / base for name, used in found.items() if used and abs(used / base - 1) > UNEQUAL}
    if others:
        listed = ", ".join(f"{name} used {ratio:.2f}" for name, ratio in others.items())
        said.append(
            f"seconds were not equal after all: {listed} of what {results['reference']} used (it was timed "
            "wrong, or the machine was not as fast for all); to compare again, with nothing else running, give another --out"
        )
    return said


def _data_name(record: Record) -> str:
    data = record.raw.get("data", {})
    return str(data.get("path") or data.get("name") or "DATA") if isinstance(data, dict) else str(data)


def _failed(record: Record, expected: list[str]) -> dict[str, str]:
    """Failed trial -> the reason it left, one line."""
    paths = {name: record.folder / "trials" / name / "state.json" for name in expected}
    states = {name: read_json(path) for name, path in paths.items() if path.is_file()}
    return {name: str(state.get("reason", "")) for name, state in states.items() if state.get("state") == "failed"}


def _resolvable(record: Record) -> float | None:
    sizes = record.sizes
    prior = statistics.guess(record.repeats, evaluated=sizes["test"], trained=sizes["train"], fixed=record.fixed_test)
    return statistics.resolvable(prior)


def _level(found: Estimate, values: list[float]) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    return {
        "mean": found.mean,
        "low": None if low is None else max(0.0, low),
        "high": None if high is None else min(1.0, high),
        "error": found.error,
        "repeats": found.repeats,
        "values": values,
    }


def _difference(evidence: Evidence, name: str, other: str | None, split: str) -> dict[str, Any] | None:
    """A paired difference with everything that can be said of it; None against itself or without common repeats."""
    if other is None or name == other:
        return None
    found = evidence.difference(name, other, split)
    if found is None:
        return None
    low, high = found.interval or (None, None)
    three = statistics.probabilities(found, evidence.record.margin)
    return {
        "mean": found.mean,
        "low": low,
        "high": high,
        "error": found.error,
        "repeats": found.repeats,
        "spread": found.spread,
        "shared": found.shared,
        "floor": found.floor,
        "separated": found.separated,
        "probabilities": None if three is None else asdict(three),
    }


def _recipe(evidence: Evidence, name: str, advised: str | None) -> dict[str, Any]:
    recipe, reference = evidence.record.recipe(name), evidence.record.reference
    trials = [evidence.trials[name, repeat] for repeat in evidence.repeats(name)]
    splits = evidence.splits
    found: dict[str, Any] = {
        "title": recipe.title,
        "phases": recipe.phases,
        "special": recipe.special,
        "repeats": evidence.repeats(name),
    }
    for split in ("valid", "test"):
        found[split] = _level(evidence.level(name, split), evidence.scores(name, split)) if split in splits else None
    found["versus_reference"] = {
        split: _difference(evidence, name, reference, split) for split in ("valid", "test") if split in splits
    }
    found["versus_advised"] = _difference(evidence, name, advised, "test") if "test" in splits else None
    found["shifted"] = {
        split.removeprefix("shifted:"): {
            **_level(evidence.level(name, split), evidence.scores(name, split)),
            "versus_reference": _difference(evidence, name, reference, split),
        }
        for split in splits
        if split.startswith("shifted:")
    }
    if "test" in splits:
        found.update(_details([trial.splits["test"] for trial in trials], len(evidence.record.classes)))
    found["cost"] = _cost(evidence.record, name, trials)
    found["curve"] = _curve(trials)
    return found


def _details(parts: list[Scored], classes: int) -> dict[str, Any]:
    """What one number hides, on the test pictures of all repeats: both accuracies, nll, calibration, class recall."""
    pooled = metrics.calibration_of(
        np.concatenate([part.confidence for part in parts]), np.concatenate([part.right for part in parts]) > 0
    )
    right = sum(np.bincount(p.labels, weights=p.right, minlength=classes) for p in parts)
    count = sum(np.bincount(p.labels, minlength=classes) for p in parts)
    with np.errstate(invalid="ignore"):
        recall = np.asarray(right) / np.asarray(count)
    return {
        "accuracy": float(np.mean([part.score("accuracy") for part in parts])),
        "balanced_accuracy": float(np.mean([part.score("balanced_accuracy") for part in parts])),
        "nll": float(np.mean([part.nll for part in parts])),
        "calibration_error": pooled.error,
        "calibration": {"count": pooled.count, "confidence": pooled.confidence, "accuracy": pooled.accuracy},
        "recall": recall,
    }


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _cost(record: Record, name: str, trials: list[Trial]) -> dict[str, Any]:
    """Medians over the trials: cold seconds (all parts but evaluation), marginal ones, by part; FLOPs, bytes.

    What was tuned once for all trials of a recipe is part of the cold price of each, as are the seconds of decoding, whoever
    decoded. "trained" is without both. "counted" is the price that advice goes by: where recipes were given seconds, those
    that were planned, since what they used more or less is chance.
    """
    tuned, predicted = (record.raw.get(key, {}).get(name) for key in ("tuned", "predicted"))
    tuning = tuned["seconds"] if tuned else 0.0
    totals = [trial.ledger["total"] for trial in trials if "total" in trial.ledger]
    seconds = [{part: float(value) for part, value in total.get("seconds", {}).items()} for total in totals]
    cold = [sum(value for part, value in s.items() if part != "evaluation") for s in seconds]
    marginal = [float(t.get("marginal_seconds", c)) for t, c in zip(totals, cold, strict=True)]
    parts = [*PARTS, *sorted({part for s in seconds for part in s} - set(PARTS))]

    def of(key: str) -> float | None:
        return _median([float(total[key]) for total in totals if total.get(key) is not None])

    whole, trained = _median(cold), _median([c - s.get("decoding", 0.0) for c, s in zip(cold, seconds, strict=True)])
    planned = predicted["training"] if predicted else None
    counted = planned if record.alike == "seconds" and planned else whole
    return {
        "seconds": None if whole is None else whole + tuning,
        "counted": None if counted is None else counted + tuning,
        **({"used_of_predicted": trained / planned} if planned and trained else {}),
        "trained": trained,
        "marginal_seconds": _median(marginal),
        "parts": {
            **{part: _median([s.get(part, 0.0) for s in seconds]) for part in parts},
            **({"tuning": tuning} if tuning else {}),
        },
        **{key: of(key) for key in ("flops", "rows", "pictures", "forward", "backward", "memory")},
    }


def _ratio(mine: float | None, theirs: float | None) -> float | None:
    return None if not mine or not theirs else mine / theirs


def _curve(trials: list[Trial]) -> dict[str, Any]:
    """Validation accuracy over steps and seconds: mean, least and most over the repeats, at the steps that all have."""
    runs: list[dict[int, tuple[float, float]]] = []
    ends: dict[str, int] = {}
    for trial in trials:
        run: dict[int, tuple[float, float]] = {}
        path = trial.folder / "metrics.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the last line of a killed run
            ends[row["phase"]] = max(ends.get(row["phase"], 0), int(row["global_step"]))
            if row.get("kind") == "valid" and row.get("accuracy") is not None:
                run[int(row["global_step"])] = (float(row["seconds"]), float(row["accuracy"]))
        if run:
            runs.append(run)
    steps = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    grid = np.array([[run[step] for step in steps] for run in runs]) if steps else np.zeros((1, 0, 2))
    return {
        "steps": steps,
        "seconds": np.median(grid[..., 0], axis=0),
        "mean": grid[..., 1].mean(axis=0),
        "low": grid[..., 1].min(axis=0),
        "high": grid[..., 1].max(axis=0),
        "phases": [{"name": name, "end": end} for name, end in ends.items()],
    }


def _advised(evidence: Evidence, name: str | None) -> dict[str, Any] | None:
    """Confusions of the advised recipe over all repeats (row = true class), and repeat 0's most confident mistakes."""
    if name is None or "test" not in evidence.splits:
        return None
    classes = len(evidence.record.classes)
    table = np.zeros((classes, classes), dtype=np.int64)
    mistakes: list[dict[str, Any]] = []
    for number, repeat in enumerate(evidence.repeats(name)):
        rows = read_rows(evidence.trials[name, repeat].folder / "predictions.npz")
        test = rows["split"] == "test"
        labels, shown = rows["labels"][test].astype(np.int64), rows["probabilities"][test]
        table += metrics.confusion(labels, shown)
        if number == 0:
            ids, answers = rows["ids"][test], metrics.predicted(shown)
            mistakes = [
                {
                    "id": str(ids[row]),
                    "class": evidence.record.classes[labels[row]],
                    "answer": evidence.record.classes[answers[row]],
                    "confidence": float(shown[row].max()),
                }
                for row in metrics.worst_mistakes(labels, shown, MISTAKES)
            ]
    return {"recipe": name, "confusion": table, "mistakes": mistakes}
