"""Trials of another study that are this one's own: the same plan, pictures, seed and machine are not trained twice."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augend.checkpoint import write_json
from augend.contract import AugendError
from augend.data.cache import Progress
from augend.runner.folder import Busy, RunFolder
from augend.runner.hardware import describe, program
from augend.runner.job import Job, Kept, load_splits, resolve_job
from augend.study.evidence import read_json
from augend.study.request import Study
from augend.study.trials import state_of, trial_folder
from augend.study.unchanged import files_in

__all__ = ["check_other", "take_from"]

# of environment.json: what last bits depend on
BITS = ("torch", "processor", "capability", "gpu", "augend", "commit")
# of a job: what comes to the plan and to the pictures, which are compared themselves
OWN = ("recipe", "settings", "overrides", "params", "model", "budget", "root")
LEFT = shutil.ignore_patterns("checkpoints", ".lock", "trial.json", "state.json")


def check_other(other: Path) -> None:
    """Refuse, before a study is opened, to take from what is none."""
    if not (other / "study.json").is_file():
        raise AugendError(f"--take-from {other}: is no study (no study.json there)")


def take_from(study: Study, other: Path, progress: Progress | None = None) -> tuple[int, dict[str, int]]:
    """Copy finished trials of `other` that this study would train to the same bits; each keeps the seconds it took there.

    Args:
        study: prepared; trials that have begun are left alone.
        other: another study's folder.
        progress: called with (files done, files in all) while a folder is decoded.

    Returns:
        How many were taken, and why others of the same name were not: reason -> how many.

    Raises:
        AugendError: `other` is no study.
    """
    check_other(other)
    if other.resolve() == study.path.resolve():
        raise AugendError(f"--take-from {other}: is this study itself")
    kept: Kept = {}
    taken, reasons, last = 0, dict[str, int](), "0"
    for name in study.names:  # repeat by repeat, each with a split of its own
        folder, found = trial_folder(study.path, name), trial_folder(other, name)
        if state_of(folder) != "pending" or not (folder / "trial.json").is_file() or state_of(found) != "finished":
            continue
        recipe, _, repeat = name.rpartition("-r")
        if repeat != last:
            kept.clear()
            last = repeat
        job = study.job(recipe, int(repeat))
        differs = _differs(job, study.record["hardware"], found, kept, progress)
        if differs is None and not _take(found, folder, job):
            differs = "another process is training it"
        if differs is None:
            taken += 1
        else:
            reasons[differs] = reasons.get(differs, 0) + 1
    if taken:
        text = f"{taken} trials were taken from {other}: the same plans, pictures, seeds and machine"
        study.record["notes"] = [*study.record["notes"], text]
        write_json(study.path / "study.json", study.record)
    return taken, reasons


def _differs(job: Job, hardware: Mapping[str, Any], found: Path, kept: Kept, progress: Progress | None) -> str | None:
    """Why a finished trial is not what this job would end in; None where it is."""
    try:
        run, before, their_plan = (read_json(found / f"{name}.json") for name in ("run", "environment", "plan"))
        theirs = Job.from_json(run["job"])
    except (AugendError, KeyError, TypeError):
        return "damaged"
    here = {**describe(), **program()}
    if any(before.get(key) != here.get(key) for key in BITS) or run.get("hardware") != hardware:
        return "another machine, build or version"
    if str(here.get("commit", "")).endswith("+"):
        return "a checkout with changes that no commit names"
    fields = [field.name for field in dataclasses.fields(Job) if field.name not in OWN]
    if any(getattr(theirs, name) != getattr(job, name) for name in fields) or job.plugins:
        return "other data, seeds or code"
    splits = load_splits(job, None, progress, kept)
    record = {role: split.record() for role, split in splits.items()}
    if run.get("data") != json.loads(json.dumps(record)):
        return "other pictures"
    plan = json.loads(resolve_job(job, splits).to_json())
    if plan["monitor"] is None:  # what looks on moves nothing
        their_plan = {**their_plan, "monitor": None}
    if plan != their_plan:
        return "another plan"
    if any(files_in(plan)):
        return "reads files, which may have changed"
    return None


def _take(found: Path, folder: Path, job: Job) -> bool:
    """False where somebody has begun to train the trial. Killed half-way, the folder is not there, and is prepared anew when
    the study goes on.
    """
    asked, run = read_json(folder / "trial.json"), read_json(found / "run.json")
    made = folder.with_name(f".taken-{folder.name}")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(found, made, ignore=LEFT)
    write_json(made / "run.json", {**run, "job": job.to_json()})
    write_json(made / "trial.json", asked)
    state = read_json(found / "state.json")
    write_json(made / "state.json", {**state, "taken_from": state.get("taken_from", str(found.resolve()))})
    lock = RunFolder(folder)
    try:
        lock.lock()
    except Busy:
        shutil.rmtree(made)
        return False
    try:
        if begun := state_of(folder) != "pending":
            shutil.rmtree(made)
        else:
            shutil.rmtree(folder)
            made.rename(folder)
    finally:
        lock.unlock()
    return not begun
