"""Tables that are one long run instead of rows of recipes: the folder of such a run, begun or taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from augend.checkpoint import write_json
from augend.contract import AugendError
from augend.recipes.reading import Place, parse
from augend.recipes.schema import Words, checked
from augend.runner.hardware import describe, keep_pages, program
from augend.study.evidence import read_json
from augend.study.tables import table_text

__all__ = ["asked_scale", "opened", "rank_correlation", "sizes_of", "whole_table"]

Table = TypeVar("Table", bound=Words)


def asked_scale(name: str, scale: str | None, known: Iterable[str]) -> str:
    """The scale by name; none is "cpu"."""
    asked, names = scale or "cpu", list(known)
    if asked not in names:
        raise AugendError(f"{name}: there is no scale {asked!r} (known: {', '.join(names)})")
    return asked


def sizes_of(kind: type[Words]) -> Callable[[object], object]:
    """A check of a table's scales: name -> what `kind` says of a run's size."""

    def check(value: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError(f"found {value!r}; allowed: a mapping of scales")
        return {name: checked(kind, one, Place(str(name))) for name, one in value.items()}

    return check


def whole_table(kind: type[Table], name: str) -> Table:
    """A table of this kind by name."""
    return checked(kind, parse(table_text(name), name), Place(name))


def opened(out: Path, request: Mapping[str, Any], command: str) -> dict[str, Any]:
    """What ``request.json`` of a run says; it is written where the folder is new. A run keeps its number of threads.

    Args:
        request: what makes it this run: ``table``, ``scale``, ``seed``.

    Raises:
        AugendError: the folder holds another run, or something else.
    """
    keep_pages()
    file = out / "request.json"
    if file.is_file():
        before: dict[str, Any] = read_json(file)
        if {key: before.get(key) for key in request} != dict(request):
            raise AugendError(
                f"{out}: holds another run ({before.get('table')}, {before.get('scale')}); give another --out"
            )
        torch.set_num_threads(before["threads"])
        return before
    if out.exists() and any(out.iterdir()):
        raise AugendError(f"{out}: the folder is not empty and holds no run of {request['table']}; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    about = {"threads": torch.get_num_threads(), "command": command, "environment": {**describe(), **program()}}
    write_json(file, {**request, **about})
    return {**request, **about}


def rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Spearman's, of pairs that are both there; None of fewer than three, or where one side is all alike.

    >>> rank_correlation(np.array([1.0, 2.0, 5.0]), np.array([0.1, 0.3, 0.2]))
    0.5
    """
    both = ~(np.isnan(one) | np.isnan(other))
    one, other = one[both], other[both]
    if len(one) < 3 or len(np.unique(one)) < 2 or len(np.unique(other)) < 2:
        return None
    return float(spearmanr(one, other).statistic)
