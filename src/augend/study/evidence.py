"""What the finished trials of a study folder say: predictions read once, reduced to right and wrong, paired by repeat.

Every number of a study starts here, from `trials/ID/predictions.npz` and `study.json`; seconds and FLOPs come from the
ledgers. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from augend.checkpoint import read_arrays
from augend.contract import AugendError
from augend.evaluate import metrics
from augend.study import statistics
from augend.study.statistics import Estimate

__all__ = [
    "Evidence",
    "Metric",
    "Recipe",
    "Record",
    "Scored",
    "Trial",
    "finished",
    "given_alike",
    "one_set",
    "read_record",
    "read_rows",
    "read_trials",
    "trial_name",
]

Metric = Literal["accuracy", "balanced_accuracy"]
ORDINARY = frozenset({"plain", "augmented", "probe", "finetune"})
FINISHED = "finished"
_COPY = re.compile(r"@[+-]\d+$")  # how `augend.data.tilt.copies` names rotated copies


@dataclass(frozen=True)
class Recipe:
    """One compared recipe: `special` ones are what a study is about; the others are what everybody does anyway.

    `repeats` is how many it shall have.
    """

    name: str
    title: str
    phases: int
    special: bool
    repeats: int = 0

    @property
    def label(self) -> str:
        """Plain title before the code: ``freeze, then augment (aug-ft)``; the code alone where they are the same."""
        return self.name if self.title in ("", self.name) else f"{self.title} ({self.name})"


@dataclass(frozen=True)
class Record:
    """What `study.json` says that the numbers depend on; `raw` is all of it. `margin` is a share: 0.01 is one point."""

    folder: Path
    recipes: tuple[Recipe, ...]
    reference: str
    repeats: int
    margin: float
    metric: Metric
    sizes: dict[str, int]
    fixed_test: bool
    classes: tuple[str, ...]
    raw: dict[str, Any]

    @property
    def alike(self) -> str:
        """What all recipes were given alike: "steps", "seconds" or "flops"."""
        request = self.raw.get("request", {})
        return given_alike(request.get("equal"), request.get("time"))

    def recipe(self, name: str) -> Recipe:
        """The recipe of that name."""
        return next(recipe for recipe in self.recipes if recipe.name == name)


def given_alike(equal: str | None, time: str | None) -> str:
    """What all recipes of a study are given alike, by ``--equal`` and ``--time``."""
    return equal or ("seconds" if time is not None else "steps")


@dataclass(frozen=True)
class Scored:
    """One trial's pictures of one split, by id: int64 labels and answers, confidence in [0, 1], mean nll in nats.

    `shows` says which picture a row shows: its id, without the angle where it is a rotated copy (``digits/0001@-15``).
    """

    ids: NDArray[np.str_]
    shows: NDArray[np.str_]
    labels: NDArray[np.int64]
    answers: NDArray[np.int64]
    confidence: NDArray[np.float64]
    nll: float

    @cached_property
    def pictures(self) -> int:
        """How many pictures are shown: rotated copies of one are no sample of several."""
        return len(np.unique(self.shows))

    @property
    def right(self) -> NDArray[np.float64]:
        """1 where the answer is right, else 0."""
        result: NDArray[np.float64] = (self.answers == self.labels).astype(np.float64)
        return result

    def score(self, metric: Metric) -> float:
        """Accuracy, or the mean of the class accuracies over classes that have pictures."""
        if metric == "accuracy":
            return float(self.right.mean())
        count = np.bincount(self.labels)
        present = count > 0
        return float((np.bincount(self.labels, weights=self.right)[present] / count[present]).mean())


@dataclass(frozen=True)
class Trial:
    """A finished trial: its folder, its scored splits (``valid``, ``test``, ``shifted:NAME``) and its ledger."""

    recipe: str
    repeat: int
    folder: Path
    splits: dict[str, Scored]
    largest: int
    ledger: dict[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AugendError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise AugendError(f"{path}: holds no JSON object")
    return value


def read_record(study: Path) -> Record:
    """`study.json` of a study folder."""
    path = study / "study.json"
    if not path.is_file():
        raise AugendError(
            f"{study} is no study (no study.json there); start one with: augend compare DATA --out {shlex.quote(str(study))}"
        )
    raw = read_json(path)
    try:
        recipes = tuple(
            Recipe(
                name=r["name"],
                title=r.get("title") or r["name"],
                phases=int(r["phases"]),
                special=bool(r.get("special", r["name"] not in ORDINARY)),
                repeats=min(int(raw["repeats"]), r.get("repeats") or int(raw["repeats"])),
            )
            for r in raw["recipes"]
        )
        record = Record(
            folder=study,
            recipes=recipes,
            reference=raw["reference"],
            repeats=int(raw["repeats"]),
            margin=float(raw["margin"]),
            metric="balanced_accuracy" if raw["metric"].startswith("balanced") else "accuracy",
            sizes={split: int(raw[f"n_{split}"]) for split in ("train", "valid", "test")},
            fixed_test=bool(raw["fixed_test"]),
            classes=tuple(map(str, raw["classes"])),
            raw=raw,
        )
    except KeyError as error:
        raise AugendError(f"{path}: the key {error} is missing") from error
    if record.reference not in {recipe.name for recipe in recipes}:
        raise AugendError(f"{path}: the reference {record.reference!r} is none of the recipes")
    return record


def read_rows(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a predictions.npz: ids ``(N,)``, labels ``(N,)``, probabilities ``(N, C)``, split ``(N,)``."""
    try:
        rows = read_arrays(path, ("ids", "labels", "probabilities", "split"))
    except AugendError as error:
        raise AugendError(f"{error}, so it is no table of predictions; run this trial again") from error
    if len({len(rows[name]) for name in rows}) != 1 or rows["probabilities"].ndim != 2:
        raise AugendError(f"{path}: its arrays do not fit together; run this trial again")
    return rows


def one_set(ids: Sequence[NDArray[np.str_]]) -> bool:
    """Whether several repeats, by the ids of each, have the same pictures, as where a folder brings its own validation."""
    first = set(ids[0].tolist())
    return len(ids) > 1 and all(len(other) == len(ids[0]) and set(other.tolist()) == first for other in ids[1:])


def shown_by(ids: Sequence[str]) -> NDArray[np.str_]:
    """Which picture each row shows: its id, without the angle where it is a rotated copy."""
    return np.array([_COPY.sub("", name) for name in ids])


def _scored(rows: dict[str, NDArray[Any]], split: str) -> Scored:
    chosen = np.flatnonzero(rows["split"] == split)
    chosen = chosen[np.argsort(rows["ids"][chosen], kind="stable")]
    labels, shown = rows["labels"][chosen].astype(np.int64), rows["probabilities"][chosen]
    ids = rows["ids"][chosen]
    return Scored(
        ids,
        shown_by(ids.tolist()),
        labels,
        metrics.predicted(shown),
        np.nan_to_num(shown.max(axis=1).astype(np.float64), nan=0.0),
        metrics.nll(labels, shown),
    )


def trial_name(recipe: str, repeat: int) -> str:
    """Folder name of a trial."""
    return f"{recipe}-r{repeat}"


def finished(record: Record) -> list[tuple[str, int, Path]]:
    """Recipe, repeat and folder of every finished trial; those of a repeat together, since they share their data."""
    found = []
    for repeat in range(record.repeats):
        for recipe in record.recipes:
            folder = record.folder / "trials" / trial_name(recipe.name, repeat)
            state = folder / "state.json"
            if repeat < recipe.repeats and state.is_file() and read_json(state).get("state") == FINISHED:
                found.append((recipe.name, repeat, folder))
    return found


def read_trials(
    record: Record, *, test: bool, peers: bool = False, only: Sequence[tuple[str, int, Path]] | None = None
) -> list[Trial]:
    """The finished trials, by repeat and recipe. With ``test=False`` no row of a test set is looked at.

    Args:
        peers: also what further networks of a run predict, their splits named as ``peer/test``.
        only: what `finished` said before, so that none is read that has ended since.
    """
    trials = []
    for recipe, repeat, folder in finished(record) if only is None else only:
        if not (folder / "predictions.npz").is_file():
            continue
        rows = read_rows(folder / "predictions.npz")
        wanted = [str(s) for s in np.unique(rows["split"]) if s != "train" and (test or s == "valid")]
        if "valid" not in wanted:
            raise AugendError(f"{folder}: its predictions have no validation pictures, and recipes are chosen on them")
        ledger = read_json(folder / "ledger.json") if (folder / "ledger.json").is_file() else {}
        trained = rows["labels"][rows["split"] == "train"].astype(np.int64)
        largest = int(np.bincount(trained).argmax()) if len(trained) else 0
        splits = {s: _scored(rows, s) for s in wanted}
        for path in sorted(folder.glob("predictions-*.npz")) if peers else ():
            peer, theirs = path.stem.removeprefix("predictions-"), read_rows(path)
            splits |= {f"{peer}/{s}": _scored(theirs, s) for s in wanted}
        trials.append(Trial(recipe, repeat, folder, splits, largest, ledger))
    return trials


class Evidence:
    """Levels and paired differences of finished trials, with the variance that suits how their pictures were split.

    Args:
        record: the study's record.
        trials: finished trials; recipes may have different repeats, and a difference uses those that both have.
    """

    def __init__(self, record: Record, trials: Sequence[Trial]) -> None:
        self.record = record
        self.trials = {(trial.recipe, trial.repeat): trial for trial in trials}

    def repeats(self, *names: str) -> list[int]:
        """The repeats that all these recipes have finished."""
        return [r for r in range(self.record.repeats) if all((name, r) in self.trials for name in names)]

    @property
    def recipes(self) -> list[Recipe]:
        """The recipes with at least one finished trial, in the study's order."""
        return [recipe for recipe in self.record.recipes if self.repeats(recipe.name)]

    @property
    def splits(self) -> list[str]:
        """The splits that every finished trial has: valid, test, then the shifted ones by name."""
        common = set.intersection(*(set(t.splits) for t in self.trials.values())) if self.trials else set()
        return sorted(common, key=lambda s: (s != "valid", s != "test", s))

    def scores(self, name: str, split: str, metric: Metric | None = None) -> list[float]:
        """One score for each finished repeat."""
        kind = metric or self.record.metric
        return [self.trials[name, r].splits[split].score(kind) for r in self.repeats(name)]

    def level(self, name: str, split: str, metric: Metric | None = None) -> Estimate:
        """The mean score of a recipe."""
        parts = [self.trials[name, r].splits[split] for r in self.repeats(name)]
        kind = metric or self.record.metric
        return self._estimate([part.score(kind) for part in parts], parts, [part.right for part in parts], split, kind)

    def difference(
        self, name: str, other: str, split: str, metric: Metric | None = None, *, than: str | None = None
    ) -> Estimate | None:
        """The mean paired difference `name` minus `other` over the repeats that both have; None where there is none.

        Args:
            than: the split of `other`, if it is not the same; both show the same pictures.
        """
        kind = metric or self.record.metric
        values, parts, pictures = [], [], []
        for r in self.repeats(name, other):
            mine, theirs = self.trials[name, r].splits[split], self.trials[other, r].splits[than or split]
            if not np.array_equal(mine.ids, theirs.ids):
                raise AugendError(
                    f"trials {name}-r{r} and {other}-r{r} have other {split} pictures; run one of them again"
                )
            values.append(mine.score(kind) - theirs.score(kind))
            parts.append(mine)
            pictures.append(mine.right - theirs.right)
        return self._estimate(values, parts, pictures, split, kind) if values else None

    def _estimate(
        self, values: list[float], parts: list[Scored], pictures: list[NDArray[np.float64]], split: str, kind: Metric
    ) -> Estimate:
        fixed = self._fixed(split) or one_set([part.ids for part in parts])
        labels = [part.labels for part in parts] if kind == "balanced_accuracy" else None
        return self.over_pictures(values, [part.shows for part in parts], pictures, labels, fixed=fixed)

    def over_pictures(
        self,
        values: Sequence[float],
        shows: Sequence[NDArray[np.str_]],
        pictures: Sequence[NDArray[np.float64]],
        labels: Sequence[NDArray[np.int64]] | None = None,
        *,
        fixed: bool,
    ) -> Estimate:
        """The mean of one value a repeat, each a mean over pictures.

        Args:
            values: one a repeat.
            shows: which picture each row shows, ``(m,)`` a repeat.
            pictures: what each row adds to the value, ``(m,)`` a repeat.
            labels: classes, ``(m,)`` a repeat, where values are means of class means.
            fixed: all repeats have one set of pictures; if not, it is looked at whether they have.
        """
        evaluated, trained = len(np.unique(shows[0])), self.record.sizes["train"]
        one = fixed or one_set(shows) or evaluated > trained
        shared = statistics.picture_variance(shows, pictures, labels) if one else None
        return statistics.estimate(values, evaluated=evaluated, trained=trained, pictures=shared)

    def _fixed(self, split: str) -> bool:
        """Whether it is known without looking that all repeats are evaluated on one set of pictures."""
        return split.rpartition("/")[2] != "valid" and self.record.fixed_test

    def above_constant(self, name: str, split: str = "valid") -> Estimate:
        """The mean score of a recipe minus that of always answering the largest training class."""
        trials = [self.trials[name, r] for r in self.repeats(name)]
        parts = [trial.splits[split] for trial in trials]
        always = [
            replace(part, answers=np.full_like(part.labels, t.largest)) for part, t in zip(parts, trials, strict=True)
        ]
        kind = self.record.metric
        values = [a.score(kind) - b.score(kind) for a, b in zip(parts, always, strict=True)]
        pictures = [a.right - b.right for a, b in zip(parts, always, strict=True)]
        return self._estimate(values, parts, pictures, split, kind)

    def largest(self) -> str:
        """The name of the largest training class (of the first finished trial)."""
        return self.record.classes[next(iter(self.trials.values())).largest]
