"""Autoencoders on changed pictures, of one run or of every trial of a study: is a change undone, does the label stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from augend.contract import AugendError
from augend.evaluate.decoded import Decoded, autoencoder, changes, changing, decode, recognised
from augend.evaluate.load import Classifier, load
from augend.runner.job import Kept
from augend.study.attacked import share_of
from augend.study.evidence import finished, read_record, read_rows, shown_by
from augend.study.shifted import Progress, model_of, other_data, pictures_of, told
from augend.study.statistics import mean_of, said

__all__ = ["decoded"]

Seen = dict[str, Tensor]
Judge = tuple[Classifier, frozenset[str]]


def decoded(
    path: Path,
    wanted: str,
    judge: Path | None = None,
    *,
    data: str | None = None,
    root: str | None = None,
    after: Progress | None = None,
) -> tuple[dict[str, Any], dict[str, Seen]]:
    """Whether an autoencoder undoes changes of held-out pictures, and whether their labels stay.

    Args:
        path: a run's folder, a model file (with `data`), or a study's folder: then all of its trials that have one.
        wanted: ``all``, or names of `augend.evaluate.decoded.CHANGES` separated by commas.
        judge: a run or model file of a classifier of the same classes, that knows nothing of the autoencoder. Pictures that
            it was trained on, as the predictions beside it say, are left out of its shares.
        data: another data set's test pictures.
        root: folder of named data sets.
        after: called with (which model, pictures done, pictures in all).

    Returns:
        For a run, change -> ``moved`` (mean square of an entry that the change does), ``missed`` (that is wrong after
        decoding), ``score`` (1 - missed / moved: 1 is perfect, 0 leaves pictures as they came; None where nothing moved), and
        with a judge ``kept_changed`` and ``kept``: of the pictures that it recognises when clean, the shares that it still
        does when changed, and when decoded (95 % by Wilson), ``kept`` also by class under ``classes``, and ``left_out``, how
        many pictures it was trained on. For a study, recipe -> the same as means over the repeats with 95 % intervals. And
        pictures to look at: recipe (or run) -> change -> uint8 ``(3, pictures, C, H, W)``, clean, changed, decoded.
    """
    other_data(path, data)
    kept: Kept = {}
    judging = None if judge is None else _judge(judge)
    if not (path / "study.json").is_file():
        model = model_of(path)
        one = _look(path, model, wanted, judging, data, root, kept, after)
        about = {"model": str(path), "judge": None if judge is None else str(judge), "data": data}
        return {**about, "changes": _summary(*one)}, {path.resolve().name: one[0].seen}
    each: dict[str, list[dict[str, Any]]] = {}
    seen: dict[str, Seen] = {}
    record = read_record(path)
    for recipe, _, folder in finished(record):
        model = model_of(folder)
        try:
            autoencoder(model, recipe)
        except AugendError:
            continue
        one = _look(folder, model, wanted, judging, data, root, kept, after)
        each.setdefault(recipe, []).append(_summary(*one))
        seen.setdefault(recipe, one[0].seen)
    if not each:
        raise AugendError(f"{path}: no finished trial has a network that gives pictures back")
    about = {"study": str(path), "judge": None if judge is None else str(judge), "data": data}
    return {**about, "recipes": {name: _gathered(trials) for name, trials in each.items()}}, seen


def _judge(path: Path) -> Judge:
    """A classifier, and the pictures it was trained on, where the run that it is of says so."""
    rows = (path if path.is_dir() else path.parent) / "predictions.npz"
    if not rows.is_file():
        return load(path), frozenset()
    known = read_rows(rows)
    return load(path), frozenset(shown_by(known["ids"][known["split"] == "train"].tolist()).tolist())


def _look(
    path: Path,
    model: Classifier,
    wanted: str,
    judging: Judge | None,
    data: str | None,
    root: str | None,
    kept: Kept,
    after: Progress | None,
) -> tuple[Decoded, NDArray[np.str_], tuple[str, ...], NDArray[np.bool_]]:
    """What was seen, the pictures it was seen on, the classes its labels count, and which pictures are new to the judge."""
    pictures, labels = pictures_of(path, model, data, root, kept)
    classes, shows = model.classes, shown_by(list(pictures.ids))
    judge, trained_on = judging or (None, frozenset())
    fresh = np.array([one not in trained_on for one in shows.tolist()])
    if judge is not None:
        if not fresh.any():
            raise AugendError(f"--judge: it was trained on every picture of {path}; train it on others")
        missing = [name for name in classes if name not in judge.classes]
        if missing:
            raise AugendError(
                f"--judge: class {missing[0]!r} of {path} is none of the judge's; train it on the same classes"
            )
        labels = labels.new_tensor([judge.classes.index(name) for name in classes])[labels]
        classes = judge.classes
    chains = changing(changes(wanted, model.shape[0]), model.shape)
    found = decode(model, pictures, labels, chains, judge, told(after, path.name), what=str(path))
    return found, shows, classes, fresh


def _summary(
    found: Decoded, shows: NDArray[np.str_], classes: tuple[str, ...], fresh: NDArray[np.bool_]
) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for name, moved in found.moved.items():
        away, left = float(moved.mean()), float(found.missed[name].mean())
        out[name] = {"moved": away, "missed": left, "score": 1 - left / away if away else None, "pictures": len(moved)}
        if not found.judged:
            continue
        known = recognised(found) & fresh
        out[name]["left_out"] = int((~fresh).sum())
        for key, kind in (("kept_changed", "changed"), ("kept", "decoded")):
            right = (found.judged[f"{kind}/{name}"] == found.labels).astype(np.float64)
            out[name][key] = share_of(right[known], shows[known])
            if key == "kept":
                out[name]["classes"] = {
                    called: share_of(right[here], shows[here])
                    for number, called in enumerate(classes)
                    if (here := known & (found.labels == number)).any()
                }
    return out


def _gathered(trials: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Means over repeats, each value as mean, low and high."""

    def over(name: str, *keys: str) -> Any:
        values = []
        for one in trials:
            value: Any = one[name]
            for key in keys:
                value = None if value is None else value.get(key)
            value = value["mean"] if isinstance(value, dict) else value
            if value is not None:
                values.append(float(value))
        return said(mean_of(values))

    out: dict[str, dict[str, Any]] = {}
    for name, first in trials[0].items():
        out[name] = {key: over(name, key) for key in first if key not in ("classes", "pictures", "left_out")}
        out[name]["repeats"] = len(trials)
        if "left_out" in first:
            out[name]["left_out"] = sum(one[name]["left_out"] for one in trials)
        if "classes" in first:
            out[name]["classes"] = {called: over(name, "classes", called) for called in first["classes"]}
    return out
