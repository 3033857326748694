"""`--tune K`: K learning rates a recipe, tried at a quarter of its budget on repeat 0's split, chosen on validation.

Rates are factors of 3 apart around the settings' own. What the tuning took is charged to every trial of its recipe.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from augend.contract import AugendError
from augend.runner.job import Job
from augend.study.evidence import read_json
from augend.study.request import Study
from augend.study.trials import state_of, trial_folder

__all__ = ["Tuned", "choose_rates", "tuning_jobs"]

FACTOR = 3.0
PART = 4
NOT_TUNING = ("evaluation", "decoding")  # files are decoded once, for the trials and for all of this


class Tuned(NamedTuple):
    """A short run of a recipe, and the rate that it tries, as it is written."""

    recipe: str
    rate: str
    job: Job


def _rates(study: Study) -> list[float]:
    base = float(study.record["rate"])
    count = study.request.tune
    return [float(f"{base * FACTOR ** (number - (count - 1) / 2):.3g}") for number in range(count)]


def tuning_jobs(study: Study) -> dict[str, Tuned]:
    """``tuning/RECIPE-RATE`` -> a short run of it; recipes that take no steps have no rate.

    A name is not to be taken apart again: a rate may be written as 3.33e-05.
    """
    found: dict[str, Tuned] = {}
    for name, text in study.files.items():
        steps = study.record["plan"][name]["steps"]
        if not steps:
            continue
        for rate in (f"{rate:g}" for rate in _rates(study)):
            job = study.request.job(text, 0, overrides=(f"optimizer.lr={rate}",))
            short = {**job.to_json(), "budget": f"{max(1, steps // PART)}step"}
            found[f"tuning/{name}-{rate}"] = Tuned(name, rate, Job.from_json(short))
    return found


def choose_rates(study: Study) -> dict[str, dict[str, Any]]:
    """Recipe -> the override of its best rate, what each rate reached on validation, and the seconds that it took."""
    found: dict[str, dict[str, Any]] = {}
    for trial, (name, rate, _) in tuning_jobs(study).items():
        folder = trial_folder(study.path, trial)
        about = found.setdefault(name, {"tried": {}, "seconds": 0.0})
        state = state_of(folder)
        if state == "failed":  # a rate that diverges is an answer too
            about["tried"][rate] = None
            continue
        if state != "finished":  # its process was killed, or it is another's
            raise AugendError(
                f"{study.path}: {trial} has not ended, so no rate can be chosen yet; run the command again"
            )
        result = read_json(folder / "result.json")
        about["tried"][rate] = result["valid"]
        seconds = result["ledger"]["seconds"]
        about["seconds"] += sum(value for part, value in seconds.items() if part not in NOT_TUNING)
    for name, about in found.items():
        reached = {rate: value for rate, value in about["tried"].items() if value is not None}
        if not reached:
            raise AugendError(f"{study.path}: every learning rate of {name} failed ({json.dumps(about['tried'])})")
        middle = sorted(about["tried"], key=float)[len(about["tried"]) // 2]
        best = max(reached, key=lambda rate: (reached[rate], rate == middle))
        about["override"] = f"optimizer.lr={best}"
    return found
