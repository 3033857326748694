"""Which augmentations the labels of a data set survive, and how far a model moves under them.

Accuracy that falls under an augmentation says one of two things: that the picture became another class (a 6 turned upside
down), or only that the network had never seen such pictures (a digit two pixels to the left). To tell them apart a study
trains networks on all the augmentations at once, half of the pictures or more left alone: a clean picture is then far
likelier than any augmented one that looks like it, so these networks, which know every augmentation, still call an
upside-down 6 a 9. What accuracy they lose under an augmentation is what the labels lose.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from augend.augment.chain import Chain
from augend.augment.oneof import as_chain
from augend.checkpoint import write_bytes, write_json
from augend.contract import AugendError
from augend.data.pictures import Pictures
from augend.evaluate.kept import keep
from augend.evaluate.kept import kept as kept_arrays
from augend.evaluate.load import Classifier
from augend.evaluate.shifts import ORIGINAL, apart, look, summary
from augend.evaluate.strengths import Way, ways
from augend.recipes.reading import dump
from augend.runner.folder import RunFolder
from augend.runner.job import Kept, load_splits
from augend.study import statistics
from augend.study.compare import open_study
from augend.study.evidence import Record, finished, one_set, read_json, read_record, shown_by
from augend.study.regime import settled
from augend.study.request import Request, Study
from augend.study.shifted import model_of, pictures_of
from augend.study.statistics import Estimate, said

__all__ = [
    "EACH",
    "LEFT_ALONE",
    "MARGIN",
    "Judged",
    "data_of",
    "gather",
    "judged",
    "open_sensitivity",
    "suggested",
    "verdict",
]

MARGIN = 0.05
"""Points of accuracy that an augmentation may cost."""
LEFT_ALONE = 0.5
"""Share of the training pictures that nothing is done to, at least."""
EACH = 0.1
"""Share that one augmentation is done to, at most: one that changes labels makes false ones, and few kinds many."""
FLIPPED = 0.5
"""Share of the pictures that a suggested set flips."""
KNOWN = 4
"""How many times the margin networks must know more than chance, before what they lose says anything."""
STEPS = "3000step"
"""Budget on the embedded digits, where half an hour would be more than is needed."""
HARMLESS, HARMFUL, UNCLEAR = "harmless", "harmful", "unclear"
After = Callable[[str, int, int], None]
Looked = dict[str, NDArray[Any]]


def open_sensitivity(
    out: Path,
    given: Mapping[str, Any],
    command: str,
    *,
    kinds: str | None = None,
    margin: float | None = None,
    run: Judged | None = None,
    **how: Any,
) -> Study:
    """The study of a data set's sensitivity, new or continued; its trials train on all augmentations at once.

    Args:
        given: fields of `Request`: data, repeats, budget or time, model, settings, …
        kinds: of augmentations, see `augend.evaluate.strengths.ways`; None: all.
        margin: points of accuracy that an augmentation may cost, as a share.
        run: that will be shown the same augmentations; one of other pictures is refused before anything is written.
        how: `begun`, `progress` and `timing`, as `open_study` takes them.
    """
    if margin is not None and not 0 < margin < 1:
        raise AugendError(f"--margin is {100 * margin:g}; it is a number of points above 0 and below 100")
    if (out / "study.json").is_file():
        before = read_json(out / "study.json").get("sensitivity")
        if before is None:
            raise AugendError(f"{out}: holds another kind of study; give another --out")
        asked_kinds = before["kinds"] if kinds is None else kinds
        if list(ways(tuple(before["shape"]), asked_kinds)) != list(ways(tuple(before["shape"]), before["kinds"])):
            raise AugendError(f"{out}: was made with --kinds {before['kinds']}; leave it out, or give another --out")
        if margin not in (None, before["margin"]):
            was = 100 * float(before["margin"])
            raise AugendError(f"{out}: was made with --margin {was:g}; leave it out, or give another --out")
        study = open_study(out, given, command, about={"sensitivity": before}, **how)
        _fitting(run, before["shape"], study.record["classes"], study.record["data"]["name"])
        return study
    asked = {key: value for key, value in given.items() if value is not None}
    if asked.get("data", "").partition(":")[0] == "digits" and not {"budget", "time"} & asked.keys():
        asked["budget"] = STEPS
    asked |= {"recipes": ("plain",), "reference": "plain", "refit": "train"}
    kept: Kept = {}
    request, _ = settled(Request(**asked), kept, how.get("progress"))  # the network decides the pictures' size
    split = load_splits(request.job("plain", 0), None, how.get("progress"), kept)["main"]
    _fitting(run, split.shape, split.classes, split.name)
    shape = split.shape
    every = [dict(way.shown) for way in ways(shape, kinds or "all").values()]
    share = round(min(1 - LEFT_ALONE, EACH * len(every)), 3)
    mixture = f"plain.augment={json.dumps([{'one-of': {'of': every, 'p': share}}])}"
    asked["overrides"] = (*asked.get("overrides", ()), mixture)
    about = {"kinds": kinds or "all", "margin": MARGIN if margin is None else margin, "shape": list(shape)}
    return open_study(out, asked, command, about={"sensitivity": about}, **how)


@dataclass(frozen=True)
class Judged:
    """A run whose model is to be shown its own validation pictures: it, they, and their labels."""

    path: Path
    model: Classifier
    pictures: Pictures
    labels: Tensor


def judged(run: Path) -> Judged:
    """A finished run by its folder."""
    if not (run / "run.json").is_file():
        raise AugendError(f"{run}: is no run's folder, so its validation pictures are not known; give one to --run")
    if RunFolder(run).read("run.json")["job"].get("refit", "train") != "train":
        raise AugendError(
            f"{run}: was trained on its validation pictures as well; give --run one of the study's trials"
        )
    model = model_of(run)
    pictures, labels = pictures_of(run, model, None, None, {}, "valid")
    return Judged(run, model, pictures, labels)


def _fitting(run: Judged | None, shape: Sequence[int], classes: Sequence[str], data: str) -> None:
    """Refuse a run whose pictures are not those that the study is about."""
    if run is None:
        return
    if tuple(run.model.shape) != tuple(shape):
        found, wanted = (" x ".join(map(str, one)) for one in (run.model.shape, shape))
        raise AugendError(f"{run.path}: its pictures are {found}, those of the study {wanted}; give it its own data")
    if list(run.model.classes) != list(classes):
        raise AugendError(f"{run.path}: has other classes than {data}; give it its own data")


def data_of(run: Path) -> dict[str, Any]:
    """The data that a run was trained on and how they are read, as fields of `Request`."""
    job = RunFolder(run).read("run.json")["job"]
    found = {key: job.get(key) for key in ("data", "size", "fit", "group", "root", "plugins")}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items() if value}


def gather(path: Path, run: Judged | None = None, after: After | None = None) -> dict[str, Any]:
    """What the finished trials say, as JSON values; written to ``sensitivity.json``, the suggestion to ``suggested.yaml``.

    Args:
        path: the study's folder.
        run: whose model is shown its own validation pictures under the same augmentations.
        after: called with (which model, pictures done, pictures in all).

    Returns:
        ``ways``: name -> ``change`` of the accuracy from that on clean pictures (mean, low, high: 95 % over the repeats,
        paired), ``kl`` (how far predictions move, nats), ``verdict``, and ``classes``: the same for each; with a run its
        ``model``: change (95 % over the pictures) and kl.
    """
    record = read_record(path)
    about = record.raw["sensitivity"]
    folders = [folder for _, _, folder in finished(record)]
    if not folders:
        raise AugendError(f"{path}: no trial of this study is finished; its trials' state.json say why")
    kept: Kept = {}
    known = ways(tuple(record.raw["sensitivity"]["shape"]), about["kinds"])
    seen = _Seen(record, [_looked(folder, known, kept, after) for folder in folders])
    trials = seen.trials
    margin, classes = float(about["margin"]), record.classes
    level = seen.level()
    chance = float(max(np.bincount(trials[0]["labels"], minlength=len(classes)) / len(trials[0]["labels"])))
    learned = bool(level.mean - chance >= KNOWN * margin and (level.interval or (0.0,))[0] > chance)
    found: dict[str, Any] = {}
    for name, way in known.items():
        of_class = {}
        for number, label in enumerate(classes):
            found_here = seen.change(name, number)
            sure = learned and _surely(found_here, margin, len(classes))
            word = verdict(found_here, margin) if learned else UNCLEAR
            of_class[label] = {**(said(found_here, -1, 1) or {}), "verdict": word, "surely": sure}
        change = seen.change(name)
        found[name] = {
            "kind": way.kind,
            "strength": way.strength,
            "said": way.said,
            "shown": dict(way.shown),
            "change": said(change, -1, 1),
            "kl": float(np.mean([one[f"kl/{name}"].mean() for one in trials])),
            "verdict": _of_all(verdict(change, margin), of_class, margin) if learned else UNCLEAR,
            "harmed": [label for label, one in of_class.items() if one["verdict"] == HARMFUL],
            "classes": of_class,
        }
    if run is not None:
        for name, one in _moved(run, known, after).items():
            found[name]["model"] = one
    result = {
        "schema": 1,
        "study": str(path),
        "run": None if run is None else str(run.path),
        "fixed": seen.fixed,
        "data": record.raw["data"],
        "classes": list(classes),
        "margin": margin,
        "learned": learned,
        "level": said(level, 0, 1),
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
    closed: set[str] = set()
    for one in found.values():  # of each kind from weak to strong: one that is not harmless ends the kind
        kind = f"turn-{one['strength']}" if one["kind"] == "turn" else one["kind"]
        if one["verdict"] != HARMLESS:
            closed.add(kind)
        elif kind not in closed:
            strongest[kind] = one
    good = strongest.values()
    flips = [{one["kind"]: FLIPPED} for one in good if one["kind"] in ("hflip", "vflip")]
    others = [dict(one["shown"]) for one in good if one["kind"] not in ("hflip", "vflip")]
    return [*flips, *([{"one-of": {"of": others, "p": 0.75}}] if others else [])]


@dataclass(frozen=True)
class _Seen:
    """What the networks of a study's repeats made of their validation pictures."""

    record: Record
    trials: list[Looked]

    @cached_property
    def fixed(self) -> bool:
        """Whether all repeats have the same validation pictures (a folder that brings its own)."""
        return one_set([trial["ids"] for trial in self.trials])

    def level(self) -> Estimate:
        """The accuracy on clean pictures."""
        return self._estimate([_right(trial, ORIGINAL) for trial in self.trials])

    def change(self, name: str, number: int | None = None) -> Estimate:
        """How much accuracy changes from the clean pictures to those under an augmentation; of one class, or of all."""
        return self._estimate([_right(trial, name) - _right(trial, ORIGINAL) for trial in self.trials], number)

    def _estimate(self, values: list[NDArray[np.float64]], number: int | None = None) -> Estimate:
        """The mean over repeats and pictures (of one class), with the variance that suits how the pictures were split."""
        rows = [np.flatnonzero((number is None) | (trial["labels"] == number)) for trial in self.trials]
        parts = [
            (value[row], trial["ids"][row])
            for value, row, trial in zip(values, rows, self.trials, strict=True)
            if len(row)
        ]
        if not parts:
            return Estimate(math.nan, 0, None, 0.0, 0.0, 1)
        evaluated = max(1, round(float(np.mean([len(part) for part, _ in parts]))))
        share = self.record.sizes["valid"] / self.record.sizes["train"]
        shared = None
        if share > 1 or self.fixed:
            shows = [shown_by(ids.tolist()) for _, ids in parts]
            shared = statistics.picture_variance(shows, [part for part, _ in parts])
        means = [float(part.mean()) for part, _ in parts]
        trained = max(evaluated, round(evaluated / share))
        return statistics.estimate(means, evaluated=evaluated, trained=trained, pictures=shared)


def _right(trial: Looked, name: str) -> NDArray[np.float64]:
    """1 where a trial's network is right under an augmentation, else 0."""
    found: NDArray[np.float64] = trial[f"right/{name}"].astype(np.float64)
    return found


def _surely(change: Estimate, margin: float, classes: int) -> bool:
    """Whether a class is harmed also when it is remembered that one of so many was looked for."""
    interval = change.interval_at(1 - (1 - statistics.LEVEL) / classes)
    return interval is not None and interval[1] < -margin


def _of_all(alone: str, classes: Mapping[str, Mapping[str, Any]], margin: float) -> str:
    """The verdict on an augmentation, by all pictures and by its classes: harmful where one surely is; not harmless where one
    looks harmed, or loses three margins on few pictures.
    """
    if alone == HARMFUL or any(one["surely"] for one in classes.values()):
        return HARMFUL
    suspect = [one for one in classes.values() if one["mean"] is not None and one["mean"] < -3 * margin]
    return UNCLEAR if suspect or any(one["verdict"] == HARMFUL for one in classes.values()) else alone


def _looked(folder: Path, known: Mapping[str, Way], kept: Kept, after: After | None) -> Looked:
    """What a trial's network makes of its validation pictures under every augmentation; kept in ``looks.npz``.

    ``ids``, ``labels``, and for each augmentation ``right/NAME`` (0 or 1) and ``kl/NAME`` (nats), ``(N,)`` each.
    """
    path, about = folder / "looks.npz", {name: dict(way.shown) for name, way in known.items()}
    if (before := kept_arrays(path, about)) is not None:
        return before
    model = model_of(folder)
    pictures, labels = pictures_of(folder, model, None, None, kept, "valid")
    say = None if after is None else (lambda done, total: after(folder.name, done, total))
    looks = look(model, pictures, labels, _chains(known, model.shape), say, keep_features=False)
    found: Looked = {"ids": np.array(pictures.ids), "labels": looks.labels}
    for name in looks.logits:
        found[f"right/{name}"] = looks.right(name).astype(np.uint8)
        found[f"kl/{name}"] = apart(looks, ORIGINAL, name)
    keep(path, about, found)
    return found


def _chains(known: Mapping[str, Way], shape: tuple[int, int, int]) -> dict[str, Chain]:
    return {ORIGINAL: Chain(), **{name: as_chain(dict(way.shown), shape[1:]) for name, way in known.items()}}


def _moved(run: Judged, known: Mapping[str, Way], after: After | None) -> dict[str, dict[str, Any]]:
    """How far a run's own model moves on its own validation pictures; intervals over the pictures."""
    say = None if after is None else (lambda done, total: after(str(run.path), done, total))
    looks = look(run.model, run.pictures, run.labels, _chains(known, run.model.shape), say, keep_features=False)
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
