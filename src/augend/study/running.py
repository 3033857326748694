"""Run a study: tune, train what is pending, choose, read the test sets once, train the model that is handed over."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from augend.checkpoint import write_bytes, write_json
from augend.contract import Saved
from augend.runner.assembly import build_networks
from augend.runner.hardware import Hardware
from augend.runner.job import load_splits, resolve_job
from augend.runner.stop import Stop
from augend.study import results
from augend.study.evidence import read_json, trial_name
from augend.study.held import hold, let_go
from augend.study.pool import Pool
from augend.study.request import Study
from augend.study.trials import prepare_trial, state_of, trial_folder
from augend.study.tuning import choose_rates, tuning_jobs
from augend.study.unchanged import check_unchanged

__all__ = ["Listen", "again", "footprint", "leave_model", "prepare", "run_study", "run_trials", "workers_for"]

Listen = Callable[[Mapping[str, Any]], None]

PROCESS_BYTES = 600 << 20  # of a process that has torch loaded and takes steps


def prepare(study: Study, command: str, only: str | None = None) -> None:
    """Write every trial that can be written (`only` this one): where learning rates are still to be tuned, those of the
    tuning.
    """
    hardware = Hardware(**study.record["hardware"])
    if study.request.tune and "tuned" not in study.record:
        for name, tuned in tuning_jobs(study).items():
            prepare_trial(trial_folder(study.path, name), tuned.job, hardware, command)
        return
    for name in study.names if only is None else [only]:
        recipe, _, repeat = name.rpartition("-r")
        prepare_trial(study.path / "trials" / name, study.job(recipe, int(repeat)), hardware, command)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(study: Study) -> int:
    """Trials side by side: one a core on a CPU, one on a GPU, whose timings would otherwise mean nothing."""
    if study.record["hardware"]["accelerator"] != "cpu":
        return 1
    return max(1, min(cores(), len(study.pending)))


def footprint(study: Study) -> tuple[int, int]:
    """Bytes of memory and of disk that a study takes, roughly: measured on its first recipe's network and data.

    Memory is that of all workers: torch itself, the pictures, weights with optimizer and averages. Disk is models and
    predictions of all trials, and the checkpoints of those that run.
    """
    job = study.job(next(iter(study.files)), 0)
    splits = load_splits(job)
    networks = build_networks(resolve_job(job, splits), splits, 0)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in networks.state_dict().values())
    pictures = sum(part.kept.numel() for split in splits.values() for part in split.pieces().values())
    rows = sum(len(part) for part in splits["main"].pieces().values())
    memory = workers_for(study) * (PROCESS_BYTES + 2 * pictures + 5 * weights)
    each = weights + rows * (4 * len(splits["main"].classes) + 40)
    disk = len(study.names) * each + workers_for(study) * 8 * weights
    return memory, disk


class _Workers:
    """Runs lists of trials in one pool, which starts with the first; stops for good when a signal asks."""

    def __init__(self, study: Study, listen: Listen, stop: Stop) -> None:
        self.study, self.listen, self.stop = study, listen, stop
        self.pool: Pool | None = None

    def run(self, names: list[str]) -> None:
        if not names or self.stop.asked:
            return
        self.pool = self.pool or Pool(self.study.path, workers_for(self.study))
        for event in self.pool.run(names):
            self.listen(event)
            if self.stop.asked:
                self.listen({"trial": "", "kind": "note", "text": "saving the trials that are running"})
                self.pool.stop()
                break

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.pool is not None:
            self.pool.__exit__(*exception)


def run_study(study: Study, listen: Listen) -> dict[str, Any]:
    """Run what is pending, then choose on validation, read the test sets once, and write results, model and report.

    Interrupted, what is finished is reported and `Saved` is raised.
    """
    from augend import report

    lock, stop = hold(study.path), Stop()
    try:
        with stop.listening(), _Workers(study, listen, stop) as workers:
            if study.request.tune and "tuned" not in study.record:
                jobs = tuning_jobs(study)
                workers.run([name for name in jobs if state_of(trial_folder(study.path, name)) != "finished"])
                if not stop.asked:
                    study.record["tuned"] = choose_rates(study)
                    write_json(study.path / "study.json", study.record)
                    prepare(study, study.record["command"])
                    listen({"trial": "", "kind": "tuned", "rates": study.record["tuned"]})
            if not stop.asked:
                workers.run(study.pending)
            gathered = results.write(study.path)
            if not stop.asked:
                workers.run(_refit(study, gathered))
        leave_model(study.path, gathered)
        report.write(study.path, gathered)
        _saved(study, stop)
        return gathered
    finally:
        let_go(lock)


def run_trials(study: Study, listen: Listen) -> None:
    """Run what is pending of a study that chooses nothing. Interrupted, finished trials are kept and `Saved` is raised."""
    lock, stop = hold(study.path), Stop()
    try:
        with stop.listening(), _Workers(study, listen, stop) as workers:
            workers.run(study.pending)
        _saved(study, stop)
    finally:
        let_go(lock)


def _saved(study: Study, stop: Stop) -> None:
    if stop.asked:
        code = 130 if stop.asked == signal.SIGINT else 75
        raise Saved(f"stopped; finished trials are kept. Continue with: {again(study)}", code)


def again(study: Study) -> str:
    """The command that continues a study."""
    out = shlex.quote(str(study.path))
    if "sensitivity" in study.record:
        return f"augend sensitivity --out {out}"
    about = study.record.get("reproduces")
    if about is None:
        return f"augend compare --out {out}"
    scale = f" --scale {about['scale']}" if about.get("scale") else ""
    return f"augend reproduce {about['table']} --protocol {about['protocol']}{scale} --out {out}"


def refit_name(study: Path, advised: str) -> str | None:
    """The trial that trains a study's model on more pictures; None where the model is repeat 0's own.

    A recipe that chooses by validation (the best epoch, a penalty) needs pictures it is not trained on, so its model is that
    of repeat 0.
    """
    record = read_json(study / "study.json")
    refit = record["request"].get("refit", "train")
    plan = study / "trials" / trial_name(advised, 0) / "plan.json"
    if "reproduces" in record or refit == "train" or not plan.is_file():
        return None
    if any(phase["keep"] != "last" or phase["fit"] is not None for phase in read_json(plan)["phases"]):
        return None
    return f"refit/{advised}"


def _refit(study: Study, gathered: Mapping[str, Any]) -> list[str]:
    """The last trial: the advised recipe on all but repeat 0's test pictures, where it is still to run."""
    advised = (gathered["choice"] or {}).get("advised")
    if advised is None or not gathered["complete"] or (name := refit_name(study.path, advised)) is None:
        return []
    folder = trial_folder(study.path, name)
    job = study.job(advised, 0, refit=study.request.refit)
    prepare_trial(folder, job, Hardware(**study.record["hardware"]), study.record["command"])
    if state_of(folder) == "finished":
        return []
    check_unchanged(study)
    return [name]


def leave_model(study: Path, gathered: dict[str, Any]) -> None:
    """Copy the model that is handed over into the study's folder, where `augend.load` and `predict` look for it.

    ``results.json`` says in "model" what it was trained on: "trainval" or "all", or "train" when it is repeat 0's.
    """
    advised = (gathered["choice"] or {}).get("advised")
    if advised is None:
        return
    name = refit_name(study, advised)
    again = None if name is None else trial_folder(study, name)
    refit = again is not None and state_of(again) == "finished"
    source = again if refit and again is not None else study / "trials" / trial_name(advised, 0)
    if not (source / "model.safetensors").is_file():
        return
    write_bytes(study / "model.safetensors", (source / "model.safetensors").read_bytes())
    how = read_json(study / "study.json")["request"].get("refit", "train") if refit else "train"
    gathered["model"] = {"recipe": advised, "trained_on": how}
    write_json(study / "results.json", gathered)
