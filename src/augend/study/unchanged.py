"""Whether what a study was made of is still what it was: its trials are compared with one another, and run on other days."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from augend.contract import AugendError
from augend.data.cache import Progress
from augend.names import known
from augend.recipes.library import settings_files
from augend.recipes.resolve import Asked
from augend.runner.job import Job, Kept, load_splits
from augend.study.request import Request, Study

__all__ = ["check_unchanged", "fingerprints"]


def fingerprints(
    request: Request, job: Job, kept: Kept | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Digests of somebody's own pictures, as repeat 0 splits them (None of a named data set), and of the files that the study
    reads anew for each trial: settings, what parameters name, augmentations, plugins. Recipes are copied instead.
    """
    pictures = None
    if request.data.partition(":")[0] not in known("data"):
        job = dataclasses.replace(job, fraction=request.fraction, false_labels=request.false_labels)
        pictures = load_splits(job, Asked({"main": job.data}, {}), progress, kept)["main"].digest
    return {"pictures": pictures, "files": {str(file): _digest(file) for file in _files(request)}}


def check_unchanged(study: Study, progress: Progress | None = None) -> None:
    """Refuse to go on with a study whose pictures or files are no longer what they were."""
    before = study.record.get("made_of")
    if before is None:  # of an augend before this check
        return
    now = fingerprints(study.request, study.job(next(iter(study.files)), 0), None, progress)
    if now["pictures"] != before["pictures"]:
        raise AugendError(
            f"{study.path}: the pictures of {study.request.data} have changed since the study began, and trials on others "
            "cannot be compared with its own; restore them, or give another --out"
        )
    for file, digest in before["files"].items():
        if now["files"].get(file) != digest:
            raise AugendError(
                f"{study.path}: {file} has changed or is gone since the study began; restore it, or give another --out"
            )


def _files(request: Request) -> list[Path]:
    words = [text.partition("=")[2].strip("'\"") for text in request.overrides]
    named = [Path(word) for word in words if word and len(word) < 1000 and Path(word).is_file()]
    return list(dict.fromkeys([*settings_files(request.settings), *named, *map(Path, request.plugins)]))


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise AugendError(f"{file}: cannot be read ({error.strerror or error})") from None
