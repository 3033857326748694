"""Compare training procedures on somebody's pictures: paired repeats, validation chooses, the test set is read once."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augend.checkpoint import write_bytes, write_json
from augend.contract import AugendError, Saved
from augend.data.pictures import Split
from augend.names import load_plugin
from augend.recipes.library import Recipe, load, parent, read_file
from augend.recipes.plan import Plan
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware, default_accelerator, describe
from augend.runner.job import Job, load_splits, resolve_job
from augend.runner.stop import Stop
from augend.study import results
from augend.study.evidence import read_json
from augend.study.pool import Pool
from augend.study.trials import prepare_trial, state_of, trial_name

__all__ = ["SCRATCH", "Request", "Study", "compare", "next_folder", "open_study"]

SCHEMA = 1
DIGITS = "tilted-digits"
SCRATCH = ("plain", "augmented", "aug-ft", "augment-then-plain")
Listen = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Request:
    """What was asked of a study; an existing study keeps its own, and only `repeats` may grow."""

    data: str = DIGITS
    recipes: tuple[str, ...] = SCRATCH
    reference: str = "augmented"
    repeats: int = 5
    budget: str | None = None
    settings: str = "good-practice"
    model: str | None = None
    seed: int = 0
    root: str | None = None
    size: int | None = None
    overrides: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    margin: float = 0.01
    precision: str = "auto"
    metric: str = "auto"
    budgets: Mapping[str, str] = field(default_factory=dict)  # name of a recipe -> a budget of its own
    fewer: Mapping[str, int] = field(default_factory=dict)  # name of a recipe -> repeats, where it shall have fewer

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Request:
        """The request that `to_json` wrote."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        return cls(**values)

    def job(self, recipe: str, repeat: int) -> Job:
        """The job of one trial: a repeat has one seed and one split for all recipes, so differences are paired.

        Args:
            recipe: as a command names it: a name, FILE or FILE:NAME.
        """
        return Job(
            data=self.data,
            recipe=recipe,
            settings=self.settings,
            overrides=self.overrides,
            model=self.model,
            budget=self.budgets.get(load(recipe).name, self.budget) if self.budgets else self.budget,
            seed=self.seed,
            repeat=repeat,
            root=self.root,
            size=self.size,
            plugins=self.plugins,
        )


@dataclass
class Study:
    """A study's folder, its record, and the trials that are still to run."""

    path: Path
    request: Request
    record: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """All trials, repeat by repeat, so that the first table is complete as early as possible."""
        most = self.request.repeats
        recipes = {r["name"]: min(most, r.get("repeats") or most) for r in self.record["recipes"]}
        return [trial_name(name, repeat) for repeat in range(most) for name, n in recipes.items() if repeat < n]

    @property
    def pending(self) -> list[str]:
        """The trials that are not finished."""
        return [name for name in self.names if state_of(self.path / "trials" / name) != "finished"]


def next_folder(command: str, data: str) -> Path:
    """``runs/COMMAND-DATA-N``, the first that does not exist."""
    word = Path(data.split(":")[0]).name or "data"
    number = 1
    while (path := Path("runs") / f"{command}-{word}-{number}").exists():
        number += 1
    return path


def open_study(out: Path, given: Mapping[str, Any], command: str) -> Study:
    """A new study, or the one that lies in `out`: its data and recipes stand, and only repeats may grow.

    Args:
        given: the fields of `Request` that the user named; fields left out are the defaults, or the study's own.
    """
    known = {field.name for field in dataclasses.fields(Request)}
    given = {key: value for key, value in given.items() if key in known and value is not None}
    if (out / "study.json").is_file():
        record = read_json(out / "study.json")
        before = Request.from_json(record["request"])
        asked = dataclasses.replace(before, **given)
        changed = [k for k in known if k != "repeats" and getattr(asked, k) != getattr(before, k)]
        if changed:
            key = sorted(changed)[0]
            raise AugendError(
                f"{out}: this study was made with {key} {getattr(before, key)!r}, not {getattr(asked, key)!r}; "
                "its trials would not be comparable, so give another --out or leave that out"
            )
        if asked.repeats < before.repeats:
            raise AugendError(
                f"{out}: this study has {before.repeats} repeats; they may only grow, not {asked.repeats}"
            )
    else:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            kind = "the folder is not empty and holds no study" if out.is_dir() else "a file, not a folder"
            raise AugendError(f"{out}: {kind}; give another --out")
        record, asked = {}, Request(**given)
        if asked.data == DIGITS and asked.budget is None and asked.settings == "good-practice":
            asked = dataclasses.replace(asked, budget="800step")
        if asked.repeats < 1:
            raise AugendError(f"--repeats is {asked.repeats}; it must be 1 or more")
    for plugin in asked.plugins:
        load_plugin(plugin)
    study = _planned(out, asked, record, command)
    _prepare(study, command)
    return study


def _planned(out: Path, request: Request, record: dict[str, Any], command: str) -> Study:
    """Resolve every recipe on repeat 0's split and write the record; an existing record gets its repeats alone."""
    if record:
        record = {**record, "repeats": request.repeats, "request": request.to_json()}
        write_json(out / "study.json", record)
        return Study(out, request, record)
    if len(set(request.recipes)) != len(request.recipes):
        raise AugendError("--recipes names a recipe twice; copy it under another name to see it beside itself")
    splits = load_splits(request.job(request.recipes[0], 0))
    plans = {
        recipe: resolve_job(job, load_splits(job)) for recipe in request.recipes for job in [request.job(recipe, 0)]
    }
    names = [plan.recipe for plan in plans.values()]
    reference = request.reference if request.reference in names else names[0]
    hardware = _hardware(request, next(iter(plans.values())), splits)
    main = splits["main"]
    counts = main.train.counts(len(main.classes))
    metric = request.metric
    if metric == "auto":
        metric = "balanced" if max(counts) > 3 * max(1, min(counts)) else "accuracy"
    fewer = request.fewer
    record = {
        "schema": SCHEMA,
        "command": command,
        "request": request.to_json(),
        "data": {**main.record(), "path": request.data},
        "recipes": [
            {"name": p.recipe, "title": p.title, "phases": len(p.phases), "file": text, "repeats": fewer.get(p.recipe)}
            for text, p in plans.items()
        ],
        "reference": reference,
        "repeats": request.repeats,
        "margin": request.margin,
        "seed": request.seed,
        "metric": metric,
        "plan": {plan.recipe: _steps(plan, main) for plan in plans.values()},
        "n_train": len(main.train),
        "n_valid": len(main.valid),
        "n_test": len(main.test),
        "fixed_test": main.fixed_test,
        "classes": list(main.classes),
        "notes": list(main.notes),
        "hardware": hardware.to_json(),
        "environment": describe(),
        "default": request.data == DIGITS,
    }
    RunFolder(out).create()
    for recipe in record["recipes"]:
        recipe["file"] = _kept(out, recipe["file"])
    write_json(out / "study.json", record)
    return Study(out, request, record)


def _kept(out: Path, text: str) -> str:
    """A recipe of the user's, and those it is like, are copied into the study, which then needs the files no more."""
    recipe = load(text)
    if recipe.family:
        return text
    kept = out.resolve() / "recipes"
    step: Recipe | None = recipe
    while step is not None and not step.family:
        target = kept / Path(step.source).name
        target.parent.mkdir(exist_ok=True)
        write_bytes(target, Path(step.source).read_bytes())
        step = parent(step)
    file = kept / Path(recipe.source).name
    return f"{file}:{recipe.name}" if len(read_file(file)) > 1 else str(file)


def _steps(plan: Plan, main: Split) -> dict[str, Any]:
    phases = {phase.name: phase.steps for phase in plan.phases}
    total = sum(steps or 0 for steps in phases.values())
    epochs = sum((phase.steps or 0) * phase.rows for phase in plan.phases) / max(1, len(main.train))
    return {"steps": total, "phases": phases, "epochs": round(epochs, 2)}


def _hardware(request: Request, plan: Plan, splits: Mapping[str, Split]) -> Hardware:
    """One choice a study, written in its plan; on a CPU a device is one core."""
    from augend.runner.probe import choose

    accelerator = default_accelerator()
    base = Hardware(accelerator=accelerator, threads=1 if accelerator == "cpu" else os.cpu_count() or 1)
    if request.precision != "auto":
        return dataclasses.replace(base, precision=request.precision)
    return choose(plan, splits, base)[0]


def _prepare(study: Study, command: str) -> None:
    hardware = Hardware(**study.record["hardware"])
    files = {recipe["name"]: recipe["file"] for recipe in study.record["recipes"]}
    for name in study.names:
        recipe, _, repeat = name.rpartition("-r")
        prepare_trial(study.path / "trials" / name, study.request.job(files[recipe], int(repeat)), hardware, command)


def workers_for(study: Study) -> int:
    """Trials side by side: one a core on a CPU, one on a GPU, whose timings would otherwise mean nothing."""
    if study.record["hardware"]["accelerator"] != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, len(study.pending)))


def run_study(study: Study, listen: Listen) -> dict[str, Any]:
    """Run what is pending, then choose on validation, read the test sets once, and write results and report.

    Interrupted, what is finished is reported and `Saved` is raised.
    """
    import signal

    from augend import report

    lock, stop = RunFolder(study.path), Stop()
    lock.lock()
    try:
        pending = study.pending
        if pending:
            with stop.listening(), Pool(study.path, workers_for(study)) as pool:
                for event in pool.run(pending):
                    listen(event)
                    if stop.asked:
                        listen({"trial": "", "kind": "note", "text": "saving the trials that are running"})
                        pool.stop()
                        break
        gathered = results.write(study.path)
        leave_model(study.path, gathered)
        report.write(study.path, gathered)
        if stop.asked:
            code = 130 if stop.asked == signal.SIGINT else 75
            raise Saved(f"stopped; finished trials are kept. Continue with: {again(study)}", code)
        return gathered
    finally:
        lock.unlock()


def again(study: Study) -> str:
    """The command that continues a study."""
    out = shlex.quote(str(study.path))
    about = study.record.get("reproduces")
    if about is None:
        return f"augend compare --out {out}"
    return f"augend reproduce {about['table']} --protocol {about['protocol']} --out {out}"


def leave_model(study: Path, gathered: Mapping[str, Any]) -> None:
    """Copy the advised recipe's model of repeat 0 into the study's folder, where `augend.load` and `predict` look for it."""
    advised = (gathered["choice"] or {}).get("advised")
    if advised is None:
        return
    model = study / "trials" / trial_name(advised, 0) / "model.safetensors"
    if model.is_file():
        write_bytes(study / "model.safetensors", model.read_bytes())


def resolvable(study: Study) -> float | None:
    """The smallest difference in accuracy that this study can be expected to separate, as a share."""
    from augend.study import statistics

    record = study.record
    fixed = bool(record["fixed_test"])
    prior = statistics.guess(study.request.repeats, evaluated=record["n_test"], trained=record["n_train"], fixed=fixed)
    return statistics.resolvable(prior)


def compare(
    data: str = DIGITS,
    recipes: Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    listen: Listen | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Compare recipes on a data set; the Python face of ``augend compare``.

    Args:
        data: a word (``digits``, ``cifar10``) or a folder of class folders.
        recipes: names or files; default: the set for training from scratch.
        out: the study's folder (default ``runs/compare-DATA-N``); an existing one is continued.
        listen: hears events of trials as mappings with "trial" and "kind".
        options: other fields of `augend.study.compare.Request`: repeats, budget, settings, model, seed, margin, …

    Returns:
        What stands in ``results.json``: advice, levels with intervals, paired differences, cost.

    Example:
        >>> found = compare(recipes=["plain", "augmented"], repeats=1, budget="40step", out=getfixture("tmp_path") / "s")
        >>> sorted(found["recipes"])
        ['augmented', 'plain']
    """
    folder = Path(out) if out is not None else next_folder("compare", data)
    given = {**options, "data": data if data != DIGITS or not (folder / "study.json").is_file() else None}
    if recipes is not None:
        given["recipes"] = tuple(recipes)
    command = " ".join(map(shlex.quote, [Path(sys.argv[0]).name, *sys.argv[1:]]))
    return run_study(open_study(folder, given, command), listen or (lambda event: None))
