"""Predictions for picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from augend.contract import AugendError
from augend.data.decode import decode_file
from augend.evaluate.load import Classifier, load

__all__ = ["SUFFIXES", "predict_files"]

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".heic", ".heif"}
)


def predict_files(
    model: str | Path | Classifier, paths: Sequence[str | Path], batch: int = 64
) -> tuple[list[dict[str, Any]], list[str]]:
    """The class of each picture, decoded as training decoded its own.

    Args:
        model: a model, or the folder or file it is loaded from.
        paths: picture files, or folders whose pictures (by suffix, at any depth) are taken in order of name.

    Returns:
        A row a picture (picture, class, probability in [0, 1], probabilities by class), and a line for each file that
        cannot be read.
    """
    classifier = model if isinstance(model, Classifier) else load(model)
    files, unreadable = _files(paths)
    rows: list[dict[str, Any]] = []
    channels, height, width = classifier.shape
    for begin in range(0, len(files), batch):
        pixels, named = [], []
        for file in files[begin : begin + batch]:
            try:
                array, grey = decode_file(file, max(height, width))
            except Exception as error:  # whatever Pillow raises for a file that is damaged or no picture
                unreadable.append(f"{file}: not a readable picture ({error})")
                continue
            tensor = torch.from_numpy(array)
            pixels.append(tensor[:1].expand(channels, -1, -1) if grey else tensor)
            named.append(file)
        if not pixels:
            continue
        for file, shown in zip(named, classifier.probabilities(_stacked(pixels)), strict=True):
            best = int(shown.argmax())
            rows.append(
                {
                    "picture": str(file),
                    "class": classifier.classes[best],
                    "probability": float(shown[best]),
                    "probabilities": {name: float(p) for name, p in zip(classifier.classes, shown, strict=True)},
                }
            )
    return rows, unreadable


def _stacked(pixels: list[torch.Tensor]) -> torch.Tensor:
    most = max(len(one) for one in pixels)
    return torch.stack([one if len(one) == most else one.expand(most, -1, -1) for one in pixels])


def _files(paths: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    missing: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            missing.append(f"{path}: there is no such file or folder")
    if not files and not missing:
        raise AugendError(f"{', '.join(map(str, paths))}: no pictures there (suffixes: {', '.join(sorted(SUFFIXES))})")
    return files, missing
