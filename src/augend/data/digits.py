"""The embedded data: scikit-learn's 1,797 handwritten digits, 8x8, which need no download.

Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository 1998 (its test part).
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from augend.contract import AugendError
from augend.data.pictures import Pictures, Split
from augend.data.splits import Amount, three_ways

__all__ = ["DIGITS", "DIGIT_TRAITS", "digits", "embedded_digits"]

DIGITS = tuple("0123456789")
#: No flips (a mirrored 2 is no digit) and no colour.
DIGIT_TRAITS = frozenset({"rotate", "crop"})


def _table() -> torch.Tensor:
    """int64 ``(1797, 65)``: 64 greys 0 to 16 and the label."""
    # The file itself, since importing sklearn.datasets for it would take 1.8 s.
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            with gzip.open(file, "rt") as lines:
                return torch.from_numpy(np.loadtxt(lines, delimiter=",").astype(np.int64))
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise AugendError("digits: scikit-learn is not installed; install scikit-learn") from None
    data, target = load_digits(return_X_y=True)
    return torch.from_numpy(np.column_stack([data, target]).astype(np.int64))


def embedded_digits(side: int = 28) -> Pictures:
    """All 1,797 digits, uint8 ``(1797, 1, side, side)``: greys 0 to 16 scaled to 0 to 255, enlarged bilinearly."""
    table = _table()
    small = table[:, :64].reshape(-1, 1, 8, 8).float() * (255 / 16)
    large = functional.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    pixels = large.round_().clamp_(0, 255).to(torch.uint8)
    return Pictures(pixels, table[:, 64].clone(), tuple(f"digits/{i:04d}" for i in range(len(pixels))))


def digits(
    train: int | None = None, valid: Amount = 0.2, test: Amount = 0.2, *, seed: int = 0, repeat: int = 0
) -> Split:
    """The word ``digits``: 60 % train, 20 % validation, 20 % test, redrawn with each repeat.

    Example:
        >>> split = digits(train=200)
        >>> len(split.train), len(split.valid), len(split.test), split.shape
        (200, 359, 359, (1, 28, 28))
    """
    pieces = three_ways(embedded_digits(), train, valid, test, seed, repeat, what="digits")
    return Split("digits", DIGITS, *pieces, traits=DIGIT_TRAITS, seed=seed, repeat=repeat)
