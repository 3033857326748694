"""Open a study: what shall be compared on somebody's pictures, planned to the last step before anything is trained."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from augend.checkpoint import write_bytes, write_json
from augend.contract import AugendError
from augend.data.cache import Progress
from augend.data.check import BALANCED_ABOVE
from augend.data.pictures import Split
from augend.models.pretrained import digest_of
from augend.names import load_plugin, nearest
from augend.recipes.library import Recipe, load, parent, read_file
from augend.recipes.library import settings as load_settings
from augend.recipes.plan import Plan
from augend.recipes.resolve import Asked, settings_rate
from augend.runner.folder import Busy, RunFolder
from augend.runner.hardware import Hardware, default_accelerator, describe, program
from augend.runner.job import Job, Kept, check_plan, load_splits, resolve_job
from augend.runner.sight import check_orders, reads_files
from augend.study.evidence import read_json
from augend.study.held import hold, holding, let_go
from augend.study.lineage import weights_know
from augend.study.notes import keeps_best, notes_of
from augend.study.regime import settled
from augend.study.request import DIGITS, Request, Study
from augend.study.running import Listen, prepare, run_study
from augend.study.sizing import lengths
from augend.study.taken import check_other
from augend.study.taken import take_from as copy_trials
from augend.study.unchanged import check_unchanged, fingerprints, made_otherwise

__all__ = ["as_it_is", "compare", "next_folder", "open_study", "plan_only", "resolvable"]

SCHEMA = 1
DEFAULT_TIME = "30min"


def next_folder(command: str, data: str) -> Path:
    """``runs/COMMAND-DATA-N``, the first that does not exist."""
    word = Path(data.split(":")[0]).stem or "data"
    number = 1
    while (path := Path("runs") / f"{command}-{word}-{number}").exists():
        number += 1
    return path


def check_free(out: Path, option: str = "--out") -> None:
    """Refuse a place where a new study cannot begin."""
    if out.exists() and (not out.is_dir() or any(file.name != ".lock" for file in out.iterdir())):
        kind = "the folder is not empty and holds no study" if out.is_dir() else "a file, not a folder"
        raise AugendError(f"{out}: {kind}; give another {option}")
    RunFolder(out).check(option)


def open_study(
    out: Path | Callable[[], Path],
    given: Mapping[str, Any],
    command: str,
    *,
    begun: float | None = None,
    progress: Progress | None = None,
    timing: Progress | None = None,
    about: Mapping[str, Any] | None = None,
) -> Study:
    """A new study, or the one that lies in `out`: its data and recipes stand, and only repeats may grow.

    It is this process's alone until it has been run (`augend.study.running`) or is forgotten.

    Args:
        out: its folder, or what names a folder that is free, and the next one where another process takes it first.
        given: the fields of `Request` that the user named; fields left out are the defaults, or the study's own.
        begun: `time.monotonic()` when the command began, from where a promised time counts.
        progress: called with (files done, files in all) while a folder is decoded.
        timing: called with (recipes timed, recipes to time) where lengths follow from seconds.
        about: what else its record shall hold; of a study that compares no recipes, what it is instead.
    """
    begun = time.monotonic() if begun is None else begun
    known = {field.name for field in dataclasses.fields(Request)}
    given = {key: value for key, value in given.items() if key in known and value is not None}
    path = out if isinstance(out, Path) else out()
    if (path / "study.json").is_file():
        if "sensitivity" not in (about or {}):
            _comparison(path)
        with holding(path) as held:
            study = _continued(path, given, progress)
            study.held = held
            prepare(study, command)
        return study
    check_free(path)
    study = plan_study(path, _with_length(Request(**given)), command, begun, progress, timing=timing)
    study.record.update(about or {})
    _claim(study, out)
    _write(study)
    prepare(study, command)
    return study


def as_it_is(out: Path, progress: Progress | None = None) -> Study:
    """The study that lies in `out`, for those who run one trial each, at once: nothing is locked and nothing written."""
    _comparison(out)
    record = read_json(out / "study.json")
    request = Request.from_json(record["request"])
    for plugin in request.plugins:
        load_plugin(plugin)
    study = Study(out, request, record)
    if study.pending:
        check_unchanged(study, progress)
    return study


def _comparison(out: Path) -> None:
    if "sensitivity" in read_json(out / "study.json"):
        raise AugendError(
            f"{out}: compares no recipes; continue it with: augend sensitivity --out {shlex.quote(str(out))}"
        )


def _claim(study: Study, out: Path | Callable[[], Path]) -> None:
    """Make and lock the folder of a study that is planned: planning takes its time, and others may have begun there."""
    while study.held is None:
        RunFolder(study.path).create()
        try:
            held = hold(study.path, 0.0, new=True)
            if (study.path / "study.json").is_file():
                let_go(held)
                raise Busy(f"{study.path}: another process has begun a study there; continue it, or give another --out")
        except Busy:
            if isinstance(out, Path):
                raise
            study.path = out()
        else:
            study.held = held


def plan_only(
    out: Path,
    given: Mapping[str, Any],
    command: str,
    *,
    begun: float | None = None,
    progress: Progress | None = None,
    timing: Progress | None = None,
) -> Study:
    """The study that `open_study` would make, its phases timed; nothing is written."""
    begun = time.monotonic() if begun is None else begun
    if (out / "study.json").is_file():
        raise AugendError(f"{out}: there is a study already; --plan is for new ones")
    asked = Request(**{key: value for key, value in given.items() if value is not None})
    return plan_study(out, _with_length(asked), command, begun, progress, timed=True, timing=timing)


def _continued(out: Path, given: Mapping[str, Any], progress: Progress | None) -> Study:
    record = read_json(out / "study.json")
    before = Request.from_json(record["request"])
    asked = dataclasses.replace(before, **given)
    names = (field.name for field in dataclasses.fields(Request))
    changed = [k for k in names if k != "repeats" and getattr(asked, k) != getattr(before, k)]
    if changed:
        key = sorted(changed)[0]
        raise AugendError(
            f"{out}: this study was made with {key} {getattr(before, key)!r}, not {getattr(asked, key)!r}; "
            "its trials would not be comparable, so give another --out or leave that out"
        )
    if asked.repeats < before.repeats:
        raise AugendError(f"{out}: this study has {before.repeats} repeats; they may only grow, not {asked.repeats}")
    for plugin in asked.plugins:
        load_plugin(plugin)
    record = {**record, "repeats": asked.repeats, "request": asked.to_json()}
    study = Study(out, asked, record)
    if study.pending:  # a complete one needs nothing any more
        check_unchanged(study, progress)
        note = made_otherwise(record)
        if note is not None and note not in record["notes"]:
            record["notes"] = [*record["notes"], note]
    if asked.repeats > before.repeats:
        kept: Kept = {}
        for name in study.files:
            jobs = functools.partial(study.job, name)
            plan = resolve_job(jobs(0), load_splits(jobs(0), None, progress, kept))
            _check_repeats(plan, jobs, range(before.repeats, study.repeats_of(name)))
    write_json(out / "study.json", record)
    return study


def _with_length(asked: Request) -> Request:
    """A study that was given no length gets one: 800 steps on the embedded digits, half an hour in all on a CPU."""
    own = asked.settings != "auto" and load_settings(asked.settings).words.budget is not None
    if asked.budget is not None or asked.time is not None or own:
        return asked
    if asked.data == DIGITS and asked.settings in ("auto", "good-practice"):
        return dataclasses.replace(asked, budget="800step")
    if default_accelerator() == "cpu":
        return dataclasses.replace(asked, time=DEFAULT_TIME)
    return asked


def plan_study(
    out: Path,
    request: Request,
    command: str,
    begun: float,
    progress: Progress | None = None,
    *,
    timed: bool = False,
    timing: Progress | None = None,
) -> Study:
    """Resolve every recipe on repeat 0's split, and size it; nothing is written.

    Args:
        timed: time the recipes' phases also where no length of time was promised; but once only.
        timing: called with (recipes timed, recipes to time).
    """
    for plugin in request.plugins:
        load_plugin(plugin)
    wanted = request.reference
    kept: Kept = {}  # recipes share their data, which is read once
    request, said = settled(request, kept, progress)
    if len(set(request.recipes)) != len(request.recipes):
        raise AugendError("--recipes names a recipe twice; copy it under another name to see it beside itself")
    splits = {recipe: load_splits(request.job(recipe, 0), None, progress, kept) for recipe in request.recipes}

    def resolved() -> dict[str, Plan]:
        return {recipe: resolve_job(request.job(recipe, 0), splits[recipe]) for recipe in request.recipes}

    plans = resolved()
    called = [plan.recipe for plan in plans.values()]
    for name in called:
        if called.count(name) > 1:
            raise AugendError(
                f"--recipes: two are called {name!r}, as {' and '.join(r for r, p in plans.items() if p.recipe == name)}; "
                "give the file another name"
            )
    for recipe, plan in plans.items():
        check_plan(plan, splits[recipe])
        most = min(request.repeats, request.fewer.get(plan.recipe, request.repeats))
        _check_repeats(plan, functools.partial(request.job, recipe), range(1, most))
    reference = _reference(wanted, request.reference, plans)
    first = request.recipes[0]
    hardware = _hardware(request, plans[first], splits[first])
    main = splits[first]["main"]
    if request.poorer or any(plan.hold for plan in plans.values()):  # some have less; the record is of what there is
        whole = dataclasses.replace(request, poorer={}).job(first, 0)
        main = load_splits(whole, Asked({"main": whole.data}, {}), progress, kept)["main"]
    counts = main.train.counts(len(main.classes))
    metric = request.metric
    if metric == "auto":
        metric = "balanced" if max(counts) > BALANCED_ABOVE * max(1, min(counts)) else "accuracy"
    fewer = request.fewer
    notes = [*said, *weights_know(request, plans, main), *notes_of(request, plans, splits, reference, main)]
    record = {
        "schema": SCHEMA,
        "command": command,
        "data": {**main.record(), "path": request.data},
        "regime": request.regime,
        "weights": None if request.weights is None else digest_of(Path(request.weights)),
        "recipes": [
            {
                "name": p.recipe,
                "title": p.title,
                "phases": len(p.phases),
                "file": text,
                "repeats": fewer.get(p.recipe),
                "keeps_best": keeps_best(p),
            }
            for text, p in plans.items()
        ],
        "reference": reference,
        "repeats": request.repeats,
        "margin": request.margin,
        "seed": request.seed,
        "metric": metric,
        "n_train": len(main.train),
        "n_valid": len(main.valid),
        "n_test": len(main.test),
        "fixed_test": main.fixed_test,
        "classes": list(main.classes),
        "notes": list(dict.fromkeys(notes)),  # a protocol may set again what its scale sets
        "hardware": hardware.to_json(),
        "environment": {**describe(), **program()},
        "default": request.data == DIGITS,
        "rate": settings_rate(first, request.job(first, 0).settings, overrides=request.job(first, 0).overrides),
    }
    study = Study(out, request, record)
    if timed or request.alike != "steps":
        made = {plan.recipe: (plan, splits[recipe]) for recipe, plan in plans.items()}
        found = lengths(study, made, begun, once=timed, told=timing)
        budgets = {name: f"{one.budget}step" for name, one in found.items() if one.budget is not None}
        study.request = request = dataclasses.replace(request, budgets={**request.budgets, **budgets})
        record["predicted"] = {name: one.to_json() for name, one in found.items()}
        plans = resolved()
    record["made_of"] = fingerprints(request, request.job(first, 0), plans.values(), kept, progress)
    record["request"] = request.to_json()
    record["plan"] = {plan.recipe: _steps(plan, splits[recipe]["main"]) for recipe, plan in plans.items()}
    return study


def _check_repeats(plan: Plan, jobs: Callable[[int], Job], repeats: Iterable[int]) -> None:
    """Refuse files of scores or orders that do not fit the pictures which other repeats draw, before anything is trained."""
    if not reads_files(plan):
        return
    for repeat in repeats:
        job = jobs(repeat)
        try:
            splits = load_splits(job)  # one at a time: each repeat has pictures of its own
            check_orders(resolve_job(job, splits), splits)
        except AugendError as error:
            raise AugendError(f"repeat {repeat} of {plan.recipe} draws other pictures than repeat 0: {error}") from None


def _reference(wanted: str, usual: str, plans: Mapping[str, Plan]) -> str:
    """The name of the recipe that others are measured against: the one that was named, or the usual one, or the first."""
    names = [plan.recipe for plan in plans.values()]
    if not wanted:
        return usual if usual in names else names[0]
    found = plans[wanted].recipe if wanted in plans else wanted
    if found not in names:
        raise AugendError(
            f"--reference {wanted}: is none of the recipes that are compared ({', '.join(names)}){nearest(wanted, names)}"
        )
    return found


def _write(study: Study) -> None:
    RunFolder(study.path).create()
    for recipe in study.record["recipes"]:
        recipe["file"] = _kept(study.path, recipe["file"])
    write_json(study.path / "study.json", study.record)


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
    take_from: str | Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Compare recipes on a data set; the Python face of ``augend compare``.

    Args:
        data: a word (``digits``, ``cifar10``), a folder of class folders, or a table of paths and labels.
        recipes: names or files; default: the set for training from scratch.
        out: the study's folder (default ``runs/compare-DATA-N``); an existing one is continued.
        take_from: another study, whose finished trials are copied where this one would train the same to the same bits.
        listen: hears events of trials as mappings with "trial" and "kind".
        options: other fields of `augend.study.request.Request`: repeats, budget, settings, model, seed, margin, …

    Returns:
        What stands in ``results.json``: advice, levels with intervals, paired differences, cost.

    Example:
        >>> found = compare(recipes=["plain", "augmented"], repeats=1, budget="40step", out=getfixture("tmp_path") / "s")
        >>> sorted(found["recipes"])
        ['augmented', 'plain']
    """
    folder = Path(out) if out is not None else functools.partial(next_folder, "compare", data)
    again = isinstance(folder, Path) and (folder / "study.json").is_file()
    given = {**options, "data": data if data != DIGITS or not again else None}
    if recipes is not None:
        given["recipes"] = tuple(recipes)
    command = " ".join(map(shlex.quote, [Path(sys.argv[0]).name, *sys.argv[1:]]))
    if take_from is not None:
        check_other(Path(take_from))
    study = open_study(folder, given, command)
    if take_from is not None:
        copy_trials(study, Path(take_from))
    return run_study(study, listen or (lambda event: None))
