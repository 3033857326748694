"""Pictures, splits and the sets that are known by a word."""

from __future__ import annotations

from augend.data.datasets import from_dataset
from augend.data.loading import load
from augend.data.pictures import TRAITS, Pictures, Split
from augend.data.splits import stratified

__all__ = ["TRAITS", "Pictures", "Split", "from_dataset", "load", "stratified"]
