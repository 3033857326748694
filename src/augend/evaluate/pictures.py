"""Predictions for picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from augend.contract import AugendError
from augend.data.decode import decode_file, heic
from augend.data.folder import SUFFIXES
from augend.data.rows import centred
from augend.evaluate.load import Classifier, load

__all__ = ["picture_files", "predict_files", "read_picture"]


def predict_files(
    model: str | Path | Classifier, paths: Sequence[str | Path], *, top: int = 3, batch: int = 64
) -> tuple[list[dict[str, Any]], list[str]]:
    """The most probable classes of each picture, decoded as training decoded its own.

    Args:
        model: a model, or the folder (of a run or a study) or file that it is loaded from.
        paths: picture files, or folders whose pictures (by suffix, at any depth, hidden ones aside) are taken by name.
        top: classes a picture, the most probable first; there are never more than the model has.

    Returns:
        A row a picture: ``picture``, its ``class`` and ``probability`` in [0, 1], and ``top``, a list of such pairs; and a
        line for each file that cannot be read.
    """
    if top < 1:
        raise AugendError(f"--top is {top}; it is a number of classes, 1 or more")
    classifier = model if isinstance(model, Classifier) else load(model)
    files, unreadable = picture_files(paths)
    heic()
    rows: list[dict[str, Any]] = []
    for begin in range(0, len(files), batch):
        pixels, named = [], []
        for file in files[begin : begin + batch]:
            try:
                pixels.append(read_picture(classifier, file))
            except Exception as error:  # whatever Pillow raises for a file that is damaged or no picture
                unreadable.append(f"{file}: not a readable picture ({_line(error)})")
            else:
                named.append(file)
        if pixels:
            shown = classifier.probabilities(torch.stack(pixels))
            rows += [_row(file, classifier.classes, one, top) for file, one in zip(named, shown, strict=True)]
    return rows, unreadable


def _row(file: Path, classes: tuple[str, ...], shown: Tensor, top: int) -> dict[str, Any]:
    order = torch.argsort(shown, descending=True, stable=True)[:top].tolist()
    best = [{"class": classes[number], "probability": float(shown[number])} for number in order]
    return {"picture": str(file), **best[0], "top": best}


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def read_picture(classifier: Classifier, file: str | Path) -> Tensor:
    """One picture file as the model's networks take it: float32 ``(C, H, W)`` in [0, 1], decoded as for training."""
    fit: Literal["crop", "pad"] = "pad" if classifier.about.get("fit") == "pad" else "crop"
    array, grey = decode_file(file, max(classifier.resize, *classifier.shape[1:]), fit)
    pixels = centred(torch.from_numpy(array), classifier.shape[1:])
    return classifier.fitted(pixels[:1] if grey else pixels)[0]


def picture_files(paths: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """The picture files that paths name, and a line for each path where there is nothing.

    Raises:
        AugendError: there is no picture at all, and no path is missing.
    """
    files: list[Path] = []
    missing: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if _wanted(file, path))
        elif path.is_file():
            files.append(path)
        else:
            missing.append(f"{path}: there is no such file or folder")
    if not files and not missing:
        raise AugendError(f"{', '.join(map(str, paths))}: no pictures there (suffixes: {', '.join(sorted(SUFFIXES))})")
    return files, missing


def _wanted(file: Path, below: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(below).parts)
    return file.suffix.lower() in SUFFIXES and not hidden and file.is_file()
