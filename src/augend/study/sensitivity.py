"""Which augmentations the labels of a data set survive, and how far a model moves under them.

Accuracy that falls under an augmentation says one of two things: that the picture became another class (a 6 turned upside
down), or only that the network had never seen such pictures (a digit two pixels to the left). To tell them apart a study
trains networks on all the augmentations at once, half of the pictures left alone: a clean picture is then far likelier than
any augmented one that looks like it, so these networks, which know every augmentation, still call an upside-down 6 a 9.
What accuracy they lose under an augmentation is what the labels lose.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augend.augment.chain import Chain
from augend.augment.oneof import as_chain
from augend.checkpoint import write_bytes, write_json
from augend.contract import AugendError
from augend.evaluate.load import load
from augend.evaluate.shifts import ORIGINAL, apart, look, summary
from augend.evaluate.strengths import Way, ways
from augend.recipes.reading import dump
from augend.runner.folder import RunFolder
from augend.runner.job import Kept, load_splits
from augend.study import statistics
from augend.study.compare import open_study
from augend.study.evidence import FINISHED, Record, read_json, read_record
from augend.study.request import Request, Study
from augend.study.shifted import pictures_of
from augend.study.statistics import Estimate

__all__ = ["LEFT_ALONE", "MARGIN", "data_of", "gather", "open_sensitivity", "suggested", "verdict"]

MARGIN = 0.05
"""Points of accuracy that an augmentation may cost."""
LEFT_ALONE = 0.5
"""Share of the training pictures that nothing is done to."""
STEPS = "3000step"
"""Budget on the embedded digits, where half an hour would be more than is needed."""
HARMLESS, HARMFUL, UNCLEAR = "harmless", "harmful", "unclear"
After = Callable[[str, int, int], None]


def open_sensitivity(
    out: Path,
    given: Mapping[str, Any],
    command: str,
    *,
    kinds: str | None = None,
    margin: float | None = None,
    **how: Any,
) -> Study:
    """The study of a data set's sensitivity, new or continued; its trials train on all augmentations at once.

    Args:
        given: fields of `Request`: data, repeats, budget or time, model, settings, …
        kinds: of augmentations, see `augend.evaluate.strengths.ways`; None: all.
        margin: points of accuracy that an augmentation may cost, as a share.
        how: `begun` and `progress`, as `open_study` takes them.
    """
    if margin is not None and not 0 < margin < 1:
        raise AugendError(f"--margin is {100 * margin:g}; it is a number of points above 0 and below 100")
    if (out / "study.json").is_file():
        before = read_json(out / "study.json").get("sensitivity")
        if before is None:
            raise AugendError(f"{out}: holds another kind of study; give another --out")
        for option, old, new in (("--kinds", before["kinds"], kinds), ("--margin", before["margin"], margin)):
            if new is not None and new != old:
                raise AugendError(f"{out}: was made with {option} {old}; leave {option} out, or give another --out")
        return open_study(out, given, command, **how)
    asked = {key: value for key, value in given.items() if value is not None}
    if asked.get("data", "").partition(":")[0] == "digits" and not {"budget", "time"} & asked.keys():
        asked["budget"] = STEPS
    kept: Kept = {}
    shape = load_splits(Request(**{**asked, "recipes": ("plain",)}).job("plain", 0), kept=kept)["main"].shape
    every = [dict(way.shown) for way in ways(tuple(shape), kinds or "all").values()]
    mixture = f"plain.augment={json.dumps([{'one-of': {'of': every, 'p': 1 - LEFT_ALONE}}])}"
    asked["overrides"] = (*asked.get("overrides", ()), mixture)
    study = open_study(out, {**asked, "recipes": ("plain",), "reference": "plain", "refit": "train"}, command, **how)
    study.record["sensitivity"] = {
        "kinds": kinds or "all",
        "margin": MARGIN if margin is None else margin,
        "shape": list(shape),
    }
    write_json(out / "study.json", study.record)
    return study


def data_of(run: Path) -> str:
    """The data that a run was trained on, as a command names it."""
    return str(RunFolder(run).read("run.json")["job"]["data"])


def gather(path: Path, run: Path | None = None, after: After | None = None) -> dict[str, Any]:
    """What the finished trials say, as JSON values; written to ``sensitivity.json``, the suggestion to ``suggested.yaml``.

    Args:
        path: the study's folder.
        run: a run whose model is shown its own validation pictures under the same augmentations.
        after: called with (which model, pictures done, pictures in all).

    Returns:
        ``ways``: name -> ``change`` of the accuracy from that on clean pictures (mean, low, high: 95 % over the repeats,
        paired), ``kl`` (how far predictions move, nats), ``verdict``, and ``classes``: the same for each; with a run its
        ``model``: change (95 % over the pictures) and kl.
    """
    record = read_record(path)
    about = record.raw["sensitivity"]
    folders = [
        folder
        for repeat in range(record.repeats)
        if (folder := path / "trials" / f"plain-r{repeat}").is_dir()
        and read_json(folder / "state.json").get("state") == FINISHED
    ]
    if not folders:
        raise AugendError(f"{path}: no trial of this study is finished")
    kept: Kept = {}
    known = ways(tuple(record.raw["sensitivity"]["shape"]), about["kinds"])
    trials = [_looked(folder, known, kept, after) for folder in folders]
    margin, classes = float(about["margin"]), record.classes
    level = _estimate(record, [_right(one, ORIGINAL).mean() for one in trials], [len(one["labels"]) for one in trials])
    chance = max(np.bincount(trials[0]["labels"], minlength=len(classes)) / len(trials[0]["labels"]))
    learned = bool(level.mean > chance + margin)
    found: dict[str, Any] = {}
    for name, way in known.items():
        of_class = {}
        for number, label in enumerate(classes):
            change = _change(record, trials, name, number)
            of_class[label] = {**said(change), "verdict": verdict(change, margin) if learned else UNCLEAR}
        change = _change(record, trials, name)
        alone = verdict(change, margin) if learned else UNCLEAR
        harmed = [label for label, one in of_class.items() if one["verdict"] == HARMFUL]
        found[name] = {
            "kind": way.kind,
            "strength": way.strength,
            "said": way.said,
            "used": dict(way.used),
            "change": said(change),
            "kl": float(np.mean([one[f"kl/{name}"].mean() for one in trials])),
            "verdict": HARMFUL if harmed else alone,
            "harmed": harmed,
            "classes": of_class,
        }
    if run is not None:
        for name, one in _moved(run, known, after).items():
            found[name]["model"] = one
    result = {
        "schema": 1,
        "study": str(path),
        "run": None if run is None else str(run),
        "data": record.raw["data"],
        "classes": list(classes),
        "margin": margin,
        "learned": learned,
        "level": said(level),
        "repeats": len(trials),
        "wanted": record.repeats,
        "ways": found,
        "suggested": suggested(found),
        "command": record.raw["command"],
        "hardware": record.raw["hardware"],
        "environment": record.raw["environment"],
    }
    write_json(path / "sensitivity.json", result)
    write_bytes(path / "suggested.yaml", _yaml(result).encode())
    return result


def verdict(change: Estimate, margin: float) -> str:
    """ "harmless" where the whole interval of a change lies above -margin, "harmful" where it lies below, else "unclear".

    >>> verdict(statistics.estimate([-0.01, -0.02, 0.0], evaluated=400, trained=1200), 0.05)
    'harmless'
    """
    if change.interval is None:
        return UNCLEAR
    low, high = change.interval
    return HARMLESS if low > -margin else HARMFUL if high < -margin else UNCLEAR


def suggested(found: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """A set of augmentations for `pixels`: harmless flips, then for three pictures in four the strongest harmless way of
    one other kind. Each was tested by itself; a moved and enlarged picture was not, so one of them is drawn.
    """
    strongest: dict[str, Mapping[str, Any]] = {}
    for one in found.values():  # of each kind from weak to strong: one that is not harmless ends the kind
        kind = f"turn-{one['strength']}" if one["kind"] == "turn" else one["kind"]
        if one["verdict"] != HARMLESS:
            strongest.setdefault(kind, {})
        elif strongest.get(kind, one):
            strongest[kind] = one
    good = [one for one in strongest.values() if one]
    flips = [dict(one["used"]) for one in good if one["kind"] in ("hflip", "vflip")]
    others = [dict(one["used"]) for one in good if one["kind"] not in ("hflip", "vflip")]
    return [*flips, *([{"one-of": {"of": others, "p": 0.75}}] if others else [])]


def said(found: Estimate) -> dict[str, Any]:
    """An estimate as JSON; shares and their differences lie between -1 and 1."""
    low, high = found.interval or (None, None)
    mean = None if math.isnan(found.mean) else found.mean
    return {
        "mean": mean,
        "low": None if low is None else max(-1.0, low),
        "high": None if high is None else min(1.0, high),
    }


def _right(trial: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float64]:
    """1 where a trial's network is right under an augmentation, else 0."""
    found: NDArray[np.float64] = trial[f"right/{name}"].astype(np.float64)
    return found


def _change(record: Record, trials: list[dict[str, NDArray[Any]]], name: str, number: int | None = None) -> Estimate:
    """How much accuracy changes from the clean pictures to those under an augmentation; of one class, or of all."""
    values, counts = [], []
    for trial in trials:
        rows = slice(None) if number is None else trial["labels"] == number
        difference = (_right(trial, name) - _right(trial, ORIGINAL))[rows]
        if len(difference):
            values.append(float(difference.mean()))
            counts.append(len(difference))
    return _estimate(record, values, counts)


def _estimate(record: Record, values: list[Any], counts: list[int]) -> Estimate:
    """The mean over the repeats; validation pictures are drawn anew for each, out of those that are trained on."""
    if not values:
        return Estimate(float("nan"), 0, None, 0.0, 0.0, 1)
    ratio = min(1.0, record.sizes["valid"] / record.sizes["train"])
    least = max(1, round(float(np.mean(counts))))
    return statistics.estimate(values, evaluated=least, trained=max(least, round(least / ratio)))


def _looked(folder: Path, known: Mapping[str, Way], kept: Kept, after: After | None) -> dict[str, NDArray[Any]]:
    """What a trial's network makes of its validation pictures under every augmentation; kept in ``looks.npz``.

    ``labels``, and for each augmentation ``right/NAME`` (0 or 1) and ``kl/NAME`` (nats), ``(N,)`` each.
    """
    path = folder / "looks.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    model = load(folder)
    pictures, labels = pictures_of(folder, model, None, None, kept, "valid")
    say = None if after is None else (lambda done, total: after(folder.name, done, total))
    looks = look(model, pictures, labels, _chains(known, model.shape), say, keep_features=False)
    found: dict[str, NDArray[Any]] = {"labels": looks.labels}
    for name in looks.logits:
        found[f"right/{name}"] = looks.right(name).astype(np.uint8)
        found[f"kl/{name}"] = apart(looks, ORIGINAL, name)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **found)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())
    return found


def _chains(known: Mapping[str, Way], shape: tuple[int, int, int]) -> dict[str, Chain]:
    return {ORIGINAL: Chain(), **{name: as_chain(dict(way.shown), shape[1:]) for name, way in known.items()}}


def _moved(run: Path, known: Mapping[str, Way], after: After | None) -> dict[str, dict[str, Any]]:
    """How far a run's own model moves on its own validation pictures; intervals over the pictures."""
    model = load(run)
    pictures, labels = pictures_of(run, model, None, None, {}, "valid")
    say = None if after is None else (lambda done, total: after(str(run), done, total))
    looks = look(model, pictures, labels, _chains(known, model.shape), say, keep_features=False)
    found = summary(looks)
    return {
        name: {
            "change": {"mean": one["change"], "low": one["low"], "high": one["high"]},
            "accuracy": one["accuracy"],
            "kl": float(apart(looks, ORIGINAL, name).mean()),
        }
        for name, one in found.items()
        if name != ORIGINAL
    }


def _yaml(result: Mapping[str, Any]) -> str:
    """The suggested set as a file that ``--augment`` takes."""
    sets = result["suggested"]
    about = f"# Augmentations that the labels survive, by `augend sensitivity` ({result['repeats']} repeats).\n"
    if not sets:
        about += "# It found none that is harmless.\n"
    return about + dump({"pixels": sets})
