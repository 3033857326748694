"""Where a model came from: the run that trained it, and the study that says how good its recipe is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from augend.contract import AugendError
from augend.recipes.plan import Plan
from augend.runner.folder import RunFolder
from augend.runner.job import Job, load_splits

__all__ = ["Origin", "origin_of", "read_plan", "real_pictures", "steps_taken"]


@dataclass(frozen=True)
class Origin:
    """What is known of a model.

    Attributes:
        run: folder of the run that trained it; None for a file that stands alone.
        study: content of the study's ``results.json``, or None; `recipe` is which of its recipes this is.
        trained_on: "train", or "trainval" or "all" where a study's model was trained once more on more pictures.
    """

    run: Path | None
    study: dict[str, Any] | None
    recipe: str | None
    trained_on: str

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run; empty where it is not there."""
        if self.run is None or not (self.run / name).is_file():
            return {}
        found: dict[str, Any] = RunFolder(self.run).read(name)
        return found


def origin_of(path: str | Path) -> Origin:
    """The origin of the model that `augend.load` would load from here: a run's or a study's folder, or a file in one."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if (folder / "study.json").is_file():
        study = _results(folder)
        if study is None or not study.get("choice") or study["choice"]["advised"] is None:
            return Origin(None, study, None, "train")
        recipe = str(study["choice"]["advised"])
        trained_on = str(study.get("model", {}).get("trained_on", "train"))
        run = folder / "trials" / f"{recipe}-r0" if trained_on == "train" else folder / "refit" / recipe
        return Origin(run if run.is_dir() else None, study, recipe, trained_on)
    if not (folder / "run.json").is_file():
        return Origin(None, None, None, "train")
    above = folder.resolve().parent.parent
    trained_on = str(RunFolder(folder).read("run.json").get("job", {}).get("refit", "train"))
    if not (above / "study.json").is_file():
        return Origin(folder, None, None, trained_on)
    study = _results(above)
    recipe = (
        folder.resolve().name if folder.resolve().parent.name == "refit" else folder.resolve().name.rpartition("-r")[0]
    )
    known = study is not None and recipe in study["recipes"]
    return Origin(folder, study if known else None, recipe if known else None, trained_on)


def _results(folder: Path) -> dict[str, Any] | None:
    path = folder / "results.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def read_plan(run: Path) -> Plan | None:
    """A run's plan; None where there is none that this augend can read."""
    try:
        return Plan.from_json((run / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError, AugendError):
        return None


def steps_taken(run: Path, plan: Plan) -> list[int | None]:
    """How many steps each phase took, as the ledger has counted them."""
    try:
        phases = json.loads((run / "ledger.json").read_text(encoding="utf-8"))["phases"]
    except (OSError, ValueError, KeyError):
        return [phase.steps for phase in plan.phases]
    stepped = [p.fit is None and p.name in phases for p in plan.phases]
    return [
        round(phases[p.name]["rows"] / p.rows) if known else p.steps
        for p, known in zip(plan.phases, stepped, strict=True)
    ]


def real_pictures(origin: Origin, most: int = 64) -> Tensor:
    """Test pictures of the run's own data, spread over the set: uint8 ``(n, C, H, W)``.

    Raises:
        AugendError: the data are not where they were, or the run's data came as objects of Python.
    """
    asked = origin.read("run.json")
    if not asked:
        raise AugendError("there is no run beside the model that says which pictures it was trained on")
    job = Job.from_json(asked["job"])
    plan = read_plan(origin.run) if origin.run is not None else None
    split = load_splits(job, plan)["main"]
    pictures = next(part for part in (split.test, split.valid, split.train) if len(part))
    step = max(1, len(pictures) // most)
    return pictures.take(list(range(0, len(pictures), step))[:most]).pixels[:]  # of a streamed set: read now
