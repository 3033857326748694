"""Trials of a study: folders that run independently of one another, here one after the other or in a Slurm array."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from augend.checkpoint import write_json
from augend.contract import AugendError, Saved
from augend.data.pictures import Split
from augend.names import load_plugin
from augend.runner.folder import Busy, RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, Kept, load_splits, resume, start
from augend.study.evidence import read_json

__all__ = ["prepare_trial", "run_trial", "state_of", "trial_folder"]

_KEPT: Kept = {}  # the data of the last trial: recipes of one repeat share them


def trial_folder(study: Path, name: str) -> Path:
    """Where a trial lies: in ``trials``, or where its name says (``refit/plain``)."""
    return study / name if "/" in name else study / "trials" / name


def state_of(folder: Path) -> str:
    """ "pending", "running", "finished" or "failed"."""
    path = folder / "state.json"
    return str(read_json(path).get("state", "pending")) if path.is_file() else "pending"


def prepare_trial(folder: Path, job: Job, hardware: Hardware, command: str) -> None:
    """Write what a trial needs to run by itself; an existing one is left alone."""
    if (folder / "trial.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "trial.json", {"job": job.to_json(), "hardware": hardware.to_json(), "command": command})
    write_json(folder / "state.json", {"state": "pending"})


def run_trial(folder: Path, listen: Callable[[str, Mapping[str, Any]], None], wait: float = 0.0) -> str:
    """Run a trial to its end, from wherever it stands; returns its state, or "busy".

    One that another process is working on is "busy", and nothing of it is touched. A failed trial keeps its one-line reason
    in ``state.json`` and, when it was not the user's mistake, the traceback in ``error.txt``; running it again tries again. A
    finished one keeps its model and loses its checkpoints.
    """
    asked = read_json(folder / "trial.json")
    job, hardware = Job.from_json(asked["job"]), Hardware(**asked["hardware"])
    try:
        if _begin(folder, wait) == "finished":
            return "finished"
        for plugin in job.plugins:
            load_plugin(plugin)
        run = RunFolder(folder)
        splits = _splits(job)
        if run.exists:
            result = resume(folder, listen=listen, wait=wait, splits=splits)
        else:
            result = start(job, run, hardware, splits=splits, command=asked["command"], listen=listen, wait=wait)
    except (Saved, BrokenPipeError):
        raise
    except Busy:
        return "busy"
    except AugendError as error:
        return _failed(folder, str(error))
    except Exception as error:
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return _failed(folder, f"{type(error).__name__}: {error} (see {folder / 'error.txt'})")
    write_json(folder / "state.json", {"state": "finished", "accuracy": result.get("valid")})
    for checkpoint in (folder / "checkpoints").glob(
        "*.ckpt"
    ):  # eight times the model, and nothing is left to be resumed
        checkpoint.unlink(missing_ok=True)
    return "finished"


def _begin(folder: Path, wait: float) -> str:
    """The state of a trial that nobody is working on: "running" from now on, or "finished"."""
    if state_of(folder) == "finished":
        return "finished"
    lock = RunFolder(folder)
    lock.lock(wait)
    try:
        if state_of(folder) != "finished":  # as it may have become while it was waited for
            write_json(folder / "state.json", {"state": "running"})
        return state_of(folder)
    finally:
        lock.unlock()


def _failed(folder: Path, reason: str) -> str:
    """Write why a trial failed, unless another process has ended it meanwhile; its state."""
    if state_of(folder) == "finished":
        return "finished"
    write_json(folder / "state.json", {"state": "failed", "reason": reason})
    return "failed"


def _splits(job: Job) -> dict[str, Split]:
    for key in [key for key in _KEPT if key[1:5] != (job.root, job.seed, job.repeat, job.size)]:
        del _KEPT[key]
    return load_splits(job, kept=_KEPT)
