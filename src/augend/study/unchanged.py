"""Whether what a study was made of is still what it was: its trials are compared with one another, and run on other days."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from augend.contract import AugendError
from augend.data.cache import Progress
from augend.names import known
from augend.recipes.library import settings_files
from augend.recipes.plan import Plan
from augend.recipes.resolve import Asked
from augend.runner.hardware import describe, program
from augend.runner.job import Job, Kept, load_splits
from augend.study.request import Request, Study

__all__ = ["check_unchanged", "files_in", "fingerprints", "made_otherwise", "makers"]

# of environment.json: what made a trial, besides what was asked
MADE_BY = ("augend", "commit", "torch", "processor", "gpu")


def fingerprints(
    request: Request, job: Job, plans: Iterable[Plan], kept: Kept | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Digests of somebody's own pictures, as repeat 0 splits them (None of a named data set), and of the files that the study
    reads anew for each trial: settings, weights, what parameters and recipes name, augmentations, plugins. Recipes are copied
    instead.
    """
    files = {str(file): _digest(file) for file in _files(request, plans)}
    return {"pictures": _pictures(request, job, kept, progress), "files": files}


def check_unchanged(study: Study, progress: Progress | None = None) -> None:
    """Refuse to go on with a study whose pictures or files are no longer what they were."""
    before = study.record.get("made_of")
    if before is None:  # of an augend before this check
        return
    for file, digest in before["files"].items():
        if not _is_file(file) or _digest(Path(file)) != digest:
            raise AugendError(
                f"{study.path}: {file} has changed or is gone since the study began; restore it, or give another --out"
            )
    if _pictures(study.request, study.job(next(iter(study.files)), 0), None, progress) != before["pictures"]:
        raise AugendError(
            f"{study.path}: the pictures of {study.request.data} have changed since the study began, and trials on others "
            "cannot be compared with its own; restore them, or give another --out"
        )


def made_otherwise(record: Mapping[str, Any]) -> str | None:
    """What is no longer as it was when a study began: the code, torch, the machine. None where all is.

    Not refused: seconds and last bits change, and perhaps more; which it is, nobody but the user can say.
    """
    before, now = record.get("environment", {}), {**describe(), **program()}
    own = [
        key for key in MADE_BY if "augend" in before or key not in ("augend", "commit")
    ]  # old records know no program
    differs = [f"{key} was {before.get(key)} and is {now.get(key)}" for key in own if before.get(key) != now.get(key)]
    if not differs:
        return None
    return (
        f"NOT ONE CODE AND MACHINE: since the study began, {'; '.join(differs)}. Trials that were made otherwise stand "
        "beside one another in the table: differences between recipes, and seconds above all, may come from that"
    )


def makers(study: Path) -> dict[str, list[str]]:
    """The code and the machine of trials -> which they made, where not all were made alike."""
    made: dict[str, list[str]] = {}
    for path in sorted((study / "trials").glob("*/environment.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            said = ", ".join(f"{key} {found[key]}" for key in MADE_BY if found.get(key))
        except (OSError, ValueError, AttributeError):
            continue
        made.setdefault(said, []).append(path.parent.name)
    return made if len(made) > 1 else {}


def files_in(value: Any) -> Iterator[str]:
    """The files that a plan's plain values name."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from files_in(one)
    elif isinstance(value, str) and _is_file(value):
        yield value


def _pictures(request: Request, job: Job, kept: Kept | None, progress: Progress | None) -> str | None:
    if request.data.partition(":")[0] in known("data"):
        return None
    job = dataclasses.replace(job, fraction=request.fraction, false_labels=request.false_labels)
    return load_splits(job, Asked({"main": job.data}, {}), progress, kept)["main"].digest


def _files(request: Request, plans: Iterable[Plan]) -> list[Path]:
    words = [text.partition("=")[2].strip("'\"") for text in request.overrides]
    named = [word for word in words if _is_file(word)]
    if request.weights is not None:
        named.append(request.weights)
    for plan in plans:  # a word of a recipe is no file because one in this folder happens to be called so
        named += [file for file in files_in(json.loads(plan.to_json())) if os.sep in file or Path(file).suffix]
    own = [Path(word) for word in named if word != request.data]  # the pictures of a table have a digest of their own
    return list(dict.fromkeys([*settings_files(request.settings), *own, *map(Path, request.plugins)]))


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # too long for a name
        return False


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise AugendError(f"{file}: cannot be read ({error.strerror or error})") from None
