"""What a finished model made of pictures, kept beside it: a finished model does not change, and looking takes time."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augend.checkpoint import write_bytes

__all__ = ["keep", "kept"]

_ABOUT = "about"


def keep(path: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays with what they were made for (JSON values); where nothing can be written, nothing is kept."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{_ABOUT: np.array(json.dumps(about, sort_keys=True)), **arrays})  # type: ignore[arg-type]
    with contextlib.suppress(OSError):
        write_bytes(path, buffer.getvalue())


def kept(path: Path, about: Mapping[str, Any]) -> dict[str, NDArray[Any]] | None:
    """The arrays, if they were made for the same; None where there are none or the file is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        said = str(arrays.pop(_ABOUT))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # it is made again
    return arrays if said == json.dumps(about, sort_keys=True) else None
