"""Autoencoders on changed pictures, of one run or of every trial of a study: is a change undone, does the label stay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from augend.contract import AugendError
from augend.evaluate.decoded import Decoded, autoencoder, changes, changing, decode, recognised
from augend.evaluate.load import Classifier, load
from augend.runner.folder import RunFolder
from augend.runner.job import Job, Kept
from augend.study.attacked import share_of
from augend.study.evidence import finished, read_record, read_rows, shown_by
from augend.study.origin import origin_of, read_plan
from augend.study.shifted import Progress, model_of, other_data, pictures_of, source_of, told
from augend.study.statistics import mean_of, said

__all__ = ["decoded"]

Seen = dict[str, Tensor]
GIVEN_BACK = {"", "logits", "picture"}  # tensors that are pictures; the result is one of them


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
        decoding), ``constant`` (that were wrong with one picture for all, the mean of the clean ones), ``score``
        (1 - missed / moved: 1 is perfect, 0 leaves pictures as they came; None where nothing moved or
        something is not finite), and with a judge ``kept_changed`` and ``kept``: of the pictures that it recognises when
        clean, the shares that it still does when changed, and when decoded (95 % by Wilson), ``kept`` also by class under
        ``classes``, and ``left_out``, how many pictures it was trained on (None: nobody knows). For a study, recipe -> the
        same as means over the repeats with 95 % intervals. And pictures to look at: recipe (or run) -> change -> uint8
        ``(3, pictures, C, H, W)``, clean, changed, decoded.
    """
    other_data(path, data)
    kept: Kept = {}
    judging = None if judge is None else _Judge.of(judge)
    about = {"judge": None if judge is None else str(judge), "data": data}
    if not (path / "study.json").is_file():
        model = model_of(path)
        if not _learned(path, autoencoder(model, str(path))):
            raise AugendError(
                f"{path}: network {autoencoder(model, str(path))!r} was never trained to give pictures back; train one with "
                "--recipe denoise-then-classify"
            )
        look = _look(path, model, wanted, judging, data, root, kept, after)
        return {"model": str(path), **about, "changes": _summary(look)}, {path.resolve().name: look.found.seen}
    each: dict[str, list[dict[str, Any]]] = {}
    seen: dict[str, Seen] = {}
    for recipe, _, folder in finished(read_record(path)):
        model = model_of(folder)
        try:
            name = autoencoder(model, recipe)
        except AugendError:
            continue
        if not _learned(folder, name):  # a control, whose decoder stayed as it was drawn
            continue
        look = _look(folder, model, wanted, judging, data, root, kept, after)
        each.setdefault(recipe, []).append(_summary(look))
        seen.setdefault(recipe, look.found.seen)
    if not each:
        raise AugendError(f"{path}: no finished trial has a network that learned to give pictures back")
    return {"study": str(path), **about, "recipes": {name: _gathered(trials) for name, trials in each.items()}}, seen


def _learned(run: Path, name: str) -> bool:
    """Whether a run trained a network to give pictures back, or began with one that could; where nothing is known, yes."""
    plan = read_plan(run if run.is_dir() else run.parent)
    if plan is None or plan.networks[name].weights is not None:
        return True
    for phase in plan.phases:
        if name not in {part.network for part in phase.train} and "all" not in {part.network for part in phase.train}:
            continue
        asked = {one.tensor for term in phase.terms for one in term.of if one.network == name}
        if phase.fit is not None or asked & GIVEN_BACK:
            return True
    return False


@dataclass(frozen=True)
class _Judge:
    """A classifier, and the pictures it was trained on (None: nobody says), of which data."""

    model: Classifier
    trained_on: frozenset[str] | None
    source: str | None

    @classmethod
    def of(cls, path: Path) -> _Judge:
        """From a run's or a study's folder, or a model file in one."""
        run = origin_of(path).run
        if run is None or not (run / "predictions.npz").is_file():
            return cls(load(path), None, None)
        rows, job = read_rows(run / "predictions.npz"), Job.from_json(RunFolder(run).about()["job"])
        shows = shown_by(rows["ids"][rows["split"] == "train"].tolist())
        return cls(load(path), frozenset(shows.tolist()), source_of(job.data))


@dataclass(frozen=True)
class _Looked:
    """What was seen, of which pictures, how many classes its labels count, and which pictures are new to the judge (None:
    nobody knows)."""

    found: Decoded
    shows: NDArray[np.str_]
    classes: tuple[str, ...]
    fresh: NDArray[np.bool_] | None


def _look(
    path: Path,
    model: Classifier,
    wanted: str,
    judge: _Judge | None,
    data: str | None,
    root: str | None,
    kept: Kept,
    after: Progress | None,
) -> _Looked:
    pictures, labels = pictures_of(path, model, data, root, kept)
    classes, shows = model.classes, shown_by(list(pictures.ids))
    fresh: NDArray[np.bool_] | None = None
    if judge is not None:
        if judge.trained_on is not None:
            asked = data or Job.from_json(RunFolder(path).about()["job"]).data
            same = source_of(asked) == judge.source  # names of other data mean other pictures
            fresh = np.array([not same or one not in judge.trained_on for one in shows.tolist()])
            if not fresh.any():
                raise AugendError(f"--judge: it was trained on every picture of {path}; train it on others")
        missing = [name for name in classes if name not in judge.model.classes]
        if missing:
            raise AugendError(
                f"--judge: class {missing[0]!r} of {path} is none of the judge's; train it on the same classes"
            )
        labels = labels.new_tensor([judge.model.classes.index(name) for name in classes])[labels]
        classes = judge.model.classes
    chains = changing(changes(wanted, model.shape[0]), model.shape)
    said_to = told(after, path.name)
    judging = None if judge is None else judge.model
    found = decode(model, pictures, labels, chains, judging, said_to, what=str(path))
    return _Looked(found, shows, classes, fresh)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _summary(look: _Looked) -> dict[str, dict[str, Any]]:
    found, shows = look.found, look.shows
    out: dict[str, dict[str, Any]] = {}
    for name, moved in found.moved.items():
        away, left = float(moved.mean()), _finite(float(found.missed[name].mean()))
        score = 1 - left / away if away and left is not None else None
        out[name] = {"moved": away, "missed": left, "constant": found.constant, "score": score, "pictures": len(moved)}
        if not found.judged:
            continue
        known = recognised(found) if look.fresh is None else recognised(found) & look.fresh
        out[name]["left_out"] = None if look.fresh is None else int((~look.fresh).sum())
        for key, kind in (("kept_changed", "changed"), ("kept", "decoded")):
            right = (found.judged[f"{kind}/{name}"] == found.labels).astype(np.float64)
            out[name][key] = _share(right, known, shows)
            if key == "kept":
                out[name]["classes"] = {
                    called: _share(right, here, shows)
                    for number, called in enumerate(look.classes)
                    if (here := known & (found.labels == number)).any()
                }
    return out


def _share(right: NDArray[np.float64], here: NDArray[np.bool_], shows: NDArray[np.str_]) -> dict[str, Any] | None:
    """Of the pictures here, the share that is right, and how many they are (``of``)."""
    found = share_of(right[here], shows[here])
    return None if found is None else {**found, "of": int(here.sum())}


def _gathered(trials: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Means over repeats, each value as mean, low and high; a share is not believed surer than one picture of it."""

    def over(name: str, *keys: str) -> Any:
        values, fewest = [], math.inf
        for one in trials:
            value: Any = one[name]
            for key in keys:
                value = None if value is None else value.get(key)
            if isinstance(value, dict):
                value, fewest = value["mean"], min(fewest, value["of"])
            if value is not None:
                values.append(float(value))
        if math.isfinite(fewest):
            return said(mean_of(values, 1 / fewest), 0, 1)
        return said(mean_of(values))

    out: dict[str, dict[str, Any]] = {}
    for name, first in trials[0].items():
        out[name] = {key: over(name, key) for key in first if key not in ("classes", "pictures", "left_out")}
        out[name]["repeats"] = len(trials)
        if "left_out" in first:  # a judge is one for all trials
            known = [one[name]["left_out"] for one in trials]
            out[name]["left_out"] = None if None in known else max(known)
        if "classes" in first:
            called = dict.fromkeys(called for one in trials for called in one[name]["classes"])
            out[name]["classes"] = {one: over(name, "classes", one) for one in called}
    return out
