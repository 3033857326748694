"""Trained models behind many test-time sums at once: one run, or every trial of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from augend.contract import AugendError
from augend.evaluate import grid as room
from augend.evaluate.threats import Asked, Sums
from augend.runner.hardware import default_accelerator
from augend.runner.job import Kept
from augend.study.attacked import above, blind_of, record_of, share_of, shown_of
from augend.study.evidence import Evidence, Scored, Trial, finished
from augend.study.shifted import Progress, answered, other_data, told
from augend.study.statistics import said

__all__ = ["grid"]


def grid(
    path: Path,
    wanted: Asked,
    sums: Sequence[Sums],
    *,
    data: str | None = None,
    root: str | None = None,
    after: Progress | None = None,
) -> dict[str, Any]:
    """How accurate a model is behind test-time sums, clean and under attack, for each of several sums.

    Args:
        path: a run's folder, a model file (with `data`), or a study's folder: then all its finished trials.
        wanted: attacks, budgets and pictures, as of `augend.study.attacked.attacked`; its `sums` do not count.
        sums: as `augend.evaluate.grid.grid_of` gives them.
        data, root, after: as of `augend.study.attacked.attacked`.

    Returns:
        `models`: name -> ``repeats``, ``blind`` (as of `augend.study.attacked.attacked`), ``bare`` (the model alone) and
        ``points`` (k, weight, draws), both with `conditions`: attack, budget, threat model and ``accuracy`` as mean, low and
        high: for a run over the pictures (Wilson), for a study by its own statistics; ``notes``: `above` of every point.
    """
    other_data(path, data, wanted.on)
    wanted = replace(wanted, sums=sums[0])
    about = {"data": data, "asked": {**wanted.common, "sums": [asdict(one) for one in sums]}}
    if not (path / "study.json").is_file():
        splits = _looked(path, wanted, sums, {}, data, root, told(after, path.resolve().name))
        shares = {name: share_of(one.right, one.shows) for name, one in splits.items()}
        model = {
            "repeats": 1,
            "blind": blind_of(splits) if wanted.attacks else None,
            **_with_notes(room.summary(shares, wanted, sums)),
        }
        pictures = len(next(iter(splits.values())).ids)
        return {"model": str(path), **about, "pictures": pictures, "models": {path.resolve().name: model}}
    record = record_of(path, wanted, data)
    kept: Kept = {}
    trials = [
        Trial(recipe, repeat, folder, _looked(folder, wanted, sums, kept, data, root, told(after, folder.name)), 0, {})
        for recipe, repeat, folder in finished(record)
    ]
    if not trials:
        raise AugendError(f"{path}: no trial of this study is finished")
    evidence = Evidence(record, trials)
    models = {}
    for recipe in evidence.recipes:
        shares = {
            cell.name: said(evidence.level(recipe.name, cell.name, "accuracy"), 0, 1)
            for cell in room.cells(wanted, sums)
        }
        models[recipe.name] = {
            "repeats": len(repeats := evidence.repeats(recipe.name)),
            "blind": float(np.mean([blind_of(evidence.trials[recipe.name, r].splits) for r in repeats]))
            if wanted.attacks
            else None,
            **_with_notes(room.summary(shares, wanted, sums)),
        }
    pictures = len(next(iter(trials[0].splits.values())).ids)
    return {"study": str(path), **about, "pictures": pictures, "models": models}


def _with_notes(model: dict[str, Any]) -> dict[str, Any]:
    notes = [
        f"k = {one['k']}, weight {one['weight']:g}, {one['draws']} draws, {line}"
        for one in model["points"]
        for line in above([*model["bare"], *one["conditions"]])
    ]
    return {**model, "notes": notes}


def _looked(
    path: Path,
    wanted: Asked,
    sums: Sequence[Sums],
    kept: Kept,
    data: str | None,
    root: str | None,
    after: Callable[[int, int], None] | None,
) -> dict[str, Scored]:
    model, pictures, labels, partners = shown_of(path, wanted, kept, data, root)
    assert partners is not None
    references, classes = partners
    found = room.look(
        model,
        pictures,
        labels,
        wanted,
        sums,
        references,
        classes=classes,
        device=default_accelerator(),
        after=after,
    )
    return answered(np.array(pictures.ids), labels.cpu().numpy(), found)
