"""What a finished model made of pictures, kept beside it: looking takes time."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augend.checkpoint import read_arrays, write_bytes
from augend.contract import AugendError
from augend.models.pretrained import digest_of

__all__ = ["keep", "kept"]

_ABOUT = "about"


def keep(path: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays with what they were made for (JSON values) and the model beside them; where nothing can be written,
    nothing is kept."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{_ABOUT: np.array(_said(path, about)), **arrays})  # type: ignore[arg-type]
    with contextlib.suppress(OSError):
        write_bytes(path, buffer.getvalue())


def kept(path: Path, about: Mapping[str, Any]) -> dict[str, NDArray[Any]] | None:
    """The arrays, if they were made for the same, by the model that is there now; None where there are none or the file is
    damaged."""
    if not path.is_file():
        return None
    try:
        arrays = read_arrays(path)
    except AugendError:
        return None  # it is made again
    said = arrays.pop(_ABOUT, None)
    return arrays if said is not None and str(said) == _said(path, about) else None


def _said(path: Path, about: Mapping[str, Any]) -> str:
    model = path.parent / "model.safetensors"
    return json.dumps({**about, "model": digest_of(model) if model.is_file() else None}, sort_keys=True)
