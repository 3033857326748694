"""Trained models under attack: one run, or every trial of a study."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from augend.contract import AugendError
from augend.data.pictures import Pictures
from augend.data.splits import stratified
from augend.evaluate.attacked import Looked, look
from augend.evaluate.kept import keep
from augend.evaluate.kept import kept as kept_arrays
from augend.evaluate.load import Classifier
from augend.evaluate.threats import ADAPTIVE, BARE, BLIND, CLEAN, PIECES, Asked, Condition, conditions, procedure
from augend.randomness import Draws
from augend.runner.hardware import default_accelerator
from augend.runner.job import Kept
from augend.study.evidence import Evidence, Record, Scored, Trial, finished, read_record
from augend.study.shifted import Progress, answered, model_of, other_data, pictures_of, told
from augend.study.statistics import mean_of, said

__all__ = [
    "ATTACKED",
    "above",
    "attack_trials",
    "attacked",
    "blind_of",
    "columns",
    "record_of",
    "share_of",
    "shown_of",
    "told_of",
]

VERSION = 2  # of how attacks go about it: kept answers of another are made again
ATTACKED = "attacked:"  # and a condition: a split of a table's trials, as the finished models see it
Level = dict[str, Any]
Looks = tuple[dict[str, Scored], float | None]


def attacked(
    path: Path, wanted: Asked, *, data: str | None = None, root: str | None = None, after: Progress | None = None
) -> dict[str, Any]:
    """How accurate a model stays under attack, and through test-time sums.

    Args:
        path: a run's folder, a model file (with `data`), or a study's folder: then all its finished trials.
        wanted: what `augend.evaluate.threats.asked` made of the command's words.
        data: another data set's test (and, for sums, training) pictures; its classes must be the model's.
        root: folder of named data sets.
        after: called with (which model, pictures done under all conditions, pictures in all).

    Returns:
        `models`: name -> ``repeats`` and `conditions`, each with its attack, budget (``eps``, ``said``), threat model,
        procedure, ``accuracy``, ``success`` (of the pictures that the same system gets right when clean, the share that is
        wrong), ``versus_reference`` and, of adaptive attacks, ``over_bare`` (paired), each as mean, low and high: for a run
        intervals over the pictures (Wilson; differences: by their spread), for a study those of its own statistics (success:
        over the repeats alone); ``blind``: of the pictures that are
        right when clean, the share without a gradient, where attacks by gradients see nothing; ``notes``: see `above`.
        `asked`: what all numbers depend on.
    """
    other_data(path, data, wanted.on)
    about = {"data": data, "asked": wanted.common}
    if (path / "study.json").is_file():
        record = record_of(path, wanted, data)
        trials, shares = _trials(path, record, wanted, data, root, after)
        evidence = Evidence(record, trials)
        models = {one.name: _recipe(evidence, one.name, wanted, shares[one.name]) for one in evidence.recipes}
        pictures = len(next(iter(trials[0].splits.values())).ids)
        return {"study": str(path), "reference": record.reference, **about, "pictures": pictures, "models": models}
    splits, share = _attacked_run(path, wanted, {}, data, root, after)
    pictures = len(next(iter(splits.values())).ids)
    model: dict[str, Any] = {
        "repeats": 1,
        "share_of_draws": share,
        "blind": blind_of(splits) if wanted.attacks else None,
        "conditions": [
            {
                **_about(one, wanted),
                "accuracy": share_of(splits[one.name].right, splits[one.name].shows),
                "success": None if one.attack == CLEAN else share_of(*_fallen(splits, one)),
                "versus_reference": None,
                "over_bare": _paired(splits[one.name], splits[one.bare]) if one.threat == ADAPTIVE else None,
            }
            for one in conditions(wanted)
        ],
    }
    model["notes"] = above(model["conditions"])
    name = path.resolve().name
    return {"model": str(path), "reference": None, **about, "pictures": pictures, "models": {name: model}}


def above(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the adaptive attack leaves separably more right than the attack on the bare model: a line each.

    Separably: by the paired difference ``over_bare`` where a condition has one, or else by intervals that do not overlap.
    Whoever goes through the sums can leave them out of account, so that much is no proof that sums defend.
    """
    accuracy = {(one["attack"], one["said"], one["threat"]): one["accuracy"] for one in found}
    lines = []
    for one in found:
        through, alone = one["accuracy"], accuracy.get((one["attack"], one["said"], BARE))
        if one["threat"] != ADAPTIVE or through is None or alone is None:
            continue
        paired = one.get("over_bare")
        low, least = (through["low"], alone["high"]) if paired is None else (paired["low"], 0.0)
        if None not in (low, least) and low > least:
            lines.append(
                f"{one['attack']} {one['said']}: {100 * through['mean']:.1f} % withstand the adaptive attack, "
                f"{100 * alone['mean']:.1f} % that on the bare model: sums defend, or the attack through them is too weak; "
                "raise samples, steps, restarts, or take --known"
            )
    return lines


def record_of(path: Path, wanted: Asked, data: str | None) -> Record:
    """A study's record, which says whether all repeats are shown the same pictures."""
    record = read_record(path)
    one = data is not None or (record.fixed_test and wanted.on == "test")
    return dataclasses.replace(record, fixed_test=one)


def _trials(
    path: Path, record: Record, wanted: Asked, data: str | None, root: str | None, after: Progress | None
) -> tuple[list[Trial], dict[str, list[float | None]]]:
    kept: Kept = {}
    trials: list[Trial] = []
    shares: dict[str, list[float | None]] = {}
    for recipe, repeat, folder in finished(record):
        splits, share = _attacked_run(folder, wanted, kept, data, root, after)
        trials.append(Trial(recipe, repeat, folder, splits, 0, {}))
        shares.setdefault(recipe, []).append(share)
    if not trials:
        raise AugendError(f"{path}: no trial of this study is finished")
    return trials, shares


def columns(wanted: Asked) -> dict[str, str]:
    """Split -> what a table calls it, for every condition."""
    return {ATTACKED + one.name: one.name for one in conditions(wanted)}


def attack_trials(trials: Sequence[Trial], wanted: Asked, after: Progress | None = None) -> None:
    """Put what finished models make of attacked test pictures among their splits."""
    kept: Kept = {}
    for trial in sorted(trials, key=lambda one: one.repeat):  # those of a repeat share their data
        splits, _ = _attacked_run(trial.folder, wanted, kept, None, None, after)
        trial.splits.update({ATTACKED + name: one for name, one in splits.items()})


def _attacked_run(
    folder: Path, wanted: Asked, kept: Kept, data: str | None, root: str | None, after: Progress | None
) -> Looks:
    """A finished run's answers; those about its own pictures are kept in ``attacks-*.npz``: it does not change."""
    name = folder.resolve().name
    if data is not None or not folder.is_dir():
        return _looked(folder, wanted, kept, data, root, told(after, name))
    what = json.dumps({"version": VERSION, **wanted.common}, sort_keys=True)
    digest = hashlib.sha256(what.encode()).hexdigest()[:12]  # answers to other options are kept beside these
    file = folder / f"attacks-{digest}.npz"
    names = [one.name for one in conditions(wanted)] + [BLIND] * bool(wanted.attacks)
    before = kept_arrays(file, {"asked": wanted.common}) or {}
    answers = {name.removeprefix("answers/"): one for name, one in before.items() if name.startswith("answers/")}
    if set(names) - set(answers):
        splits, new = _looked(folder, wanted, kept, data, root, told(after, name), stored=answers)
        one = next(iter(splits.values()))
        answers |= {name: scored.answers for name, scored in splits.items()}
        share = before.get("share", np.array(math.nan)) if new is None else np.array(new)
        before = {"ids": one.ids, "labels": one.labels, "share": share}
        keep(file, {"asked": wanted.common}, before | {f"answers/{name}": found for name, found in answers.items()})
    used = float(before["share"])
    scored_by = answered(before["ids"], before["labels"], {name: answers[name] for name in names})
    return scored_by, None if math.isnan(used) else used


def _looked(
    path: Path,
    wanted: Asked,
    kept: Kept,
    data: str | None,
    root: str | None,
    after: Callable[[int, int], None] | None,
    stored: Mapping[str, object] | None = None,
) -> Looks:
    model, pictures, labels, partners = shown_of(path, wanted, kept, data, root)
    references, classes = (None, None) if partners is None else partners
    looked: Looked = look(
        model,
        pictures,
        labels,
        wanted,
        references,
        classes=classes,
        kept=stored or (),
        device=default_accelerator(),
        after=after,
    )
    return answered(np.array(pictures.ids), labels.cpu().numpy(), looked.answers), looked.share


def shown_of(
    path: Path, wanted: Asked, kept: Kept, data: str | None, root: str | None
) -> tuple[Classifier, Pictures, Tensor, tuple[Tensor, Tensor] | None]:
    """A trained model, the pictures that it is shown, their labels, and the training pictures that sums draw from, with
    theirs in numbers of the model."""
    model = model_of(path)
    pictures, labels = _subset(*pictures_of(path, model, data, root, kept, wanted.on), wanted.pictures)
    partners = None
    if wanted.sums is not None:
        train, classes = _subset(*pictures_of(path, model, data, root, kept, "train"), wanted.sums.references)
        partners = train.pixels[:], classes
    return model, pictures, labels, partners


def _subset(pictures: Pictures, labels: Tensor, count: int | None) -> tuple[Pictures, Tensor]:
    """A fixed stratified part of the pictures; the same for every model that has them."""
    if count is None or count >= len(pictures):
        return pictures, labels
    (rows,) = stratified(labels, (count,), Draws(0, "attacked"), what="--pictures")
    return pictures.take(rows), labels[rows.to(labels.device)]


def _about(one: Condition, wanted: Asked) -> dict[str, Any]:
    return {**one._asdict(), "procedure": procedure(one, wanted)}


def _fallen(splits: Mapping[str, Scored], one: Condition) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Of the pictures that are right when clean: 1 where the attack succeeds; and what they show."""
    clean = splits[one.before].right == 1
    return 1 - splits[one.name].right[clean], splits[one.name].shows[clean]


def _recipe(evidence: Evidence, name: str, wanted: Asked, shares: Sequence[float | None]) -> dict[str, Any]:
    reference = evidence.record.reference
    compared = name != reference and bool(evidence.repeats(name, reference))
    known = [share for share in shares if share is not None]
    seen = [evidence.trials[name, r].splits for r in evidence.repeats(name)]
    levels = [
        {
            **_about(one, wanted),
            "accuracy": said(evidence.level(name, one.name, "accuracy"), 0, 1),
            "success": None if one.attack == CLEAN else _success(seen, one),
            "versus_reference": said(evidence.difference(name, reference, one.name, "accuracy"), -1, 1)
            if compared
            else None,
            "over_bare": _over_bare(evidence, name, one),
        }
        for one in conditions(wanted)
    ]
    return {
        "repeats": len(seen),
        "share_of_draws": float(np.mean(known)) if known else None,
        "blind": float(np.mean([blind_of(one) for one in seen])) if wanted.attacks else None,
        "conditions": levels,
        "notes": above(levels),
    }


def _over_bare(evidence: Evidence, name: str, one: Condition, before: str = "") -> Level | None:
    """What of a recipe withstands an attack through the sums over what withstands that on the bare model, paired."""
    if one.threat != ADAPTIVE:
        return None
    return said(evidence.difference(name, name, before + one.name, "accuracy", than=before + one.bare), -1, 1)


def _paired(one: Scored, other: Scored) -> Level | None:
    """How many more pictures are right in the one than in the other, with its 95 % interval; copies are one picture."""
    differences = one.right - other.right
    if one.pictures < 2:
        return None
    mean, half = float(differences.mean()), 1.96 * float(differences.std(ddof=1)) / math.sqrt(one.pictures)
    return {"mean": mean, "low": max(-1.0, mean - half), "high": min(1.0, mean + half), "repeats": 1}


def _success(seen: Sequence[Mapping[str, Scored]], one: Condition) -> Level | None:
    """Of what is right when clean, the share on which an attack succeeds, over a recipe's repeats."""
    some = [wrong for wrong in (_fallen(splits, one)[0] for splits in seen) if len(wrong)]
    floor = 1 / min(map(len, some)) if some else 0.0
    return said(mean_of([float(wrong.mean()) for wrong in some], floor), 0, 1)


def told_of(evidence: Evidence, wanted: Asked) -> dict[str, Any]:
    """How the rows of a table were attacked (`attack_trials`), and what the columns do not say of them.

    Returns:
        ``pictures``, ``of``, ``asked``; ``procedures``: attacked column -> how; ``rows``: name -> ``blind``, ``notes`` and
        ``success`` by column, as of `attacked`.
    """
    some = conditions(wanted)
    rows: dict[str, Any] = {}
    pictures = 0
    for recipe in evidence.recipes:
        trials = [evidence.trials[recipe.name, r] for r in evidence.repeats(recipe.name)]
        seen = [
            {name.removeprefix(ATTACKED): one for name, one in trial.splits.items() if name.startswith(ATTACKED)}
            for trial in trials
        ]
        if not seen:
            continue
        pictures = len(next(iter(seen[0].values())).ids)
        levels = [
            {
                **one._asdict(),
                "accuracy": said(evidence.level(recipe.name, ATTACKED + one.name, "accuracy"), 0, 1),
                "over_bare": _over_bare(evidence, recipe.name, one, ATTACKED),
            }
            for one in some
        ]
        rows[recipe.name] = {
            "blind": float(np.mean([blind_of(one) for one in seen])) if wanted.attacks else None,
            "notes": above(levels),
            "success": {one.name: _success(seen, one) for one in some if one.attack != CLEAN},
        }
    return {
        "pictures": pictures,
        "of": PIECES[wanted.on],
        "asked": wanted.common,
        "procedures": {one.name: procedure(one, wanted) for one in some if one.attack != CLEAN},
        "rows": rows,
    }


def blind_of(splits: Mapping[str, Scored]) -> float:
    """Of the pictures that are right when clean, the share at which the bare model's gradient is 0 in every pixel."""
    right = splits[conditions(Asked())[0].name].right == 1
    return float(splits[BLIND].answers[right].mean()) if right.any() else 0.0


def share_of(values: NDArray[np.float64], shows: NDArray[Any]) -> Level | None:
    """A share of pictures with its 95 % interval by Wilson, which is right at 0 and 1 too; None of no pictures.

    `shows`: which picture each row shows, as in `Scored`: copies of a picture are no more pictures.
    """
    if not len(values):
        return None
    count, mean, z = len(np.unique(shows)), float(values.mean()), 1.96
    middle = (mean + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return {"mean": mean, "low": max(0.0, middle - half), "high": min(1.0, middle + half), "repeats": 1}
