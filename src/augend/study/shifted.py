"""Trained models on test pictures that are changed in a fixed way: one run, or every trial of a study."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from augend.address import Address
from augend.augment import build
from augend.augment.chain import Chain
from augend.contract import AugendError
from augend.data import load as load_data
from augend.data.pictures import Pictures, Split
from augend.evaluate.kept import keep
from augend.evaluate.kept import kept as kept_arrays
from augend.evaluate.load import Classifier, load
from augend.evaluate.shifts import SHIFTS, chosen, look, shifting, summary, variation
from augend.evaluate.threats import PIECES
from augend.names import load_plugin
from augend.randomness import Draws
from augend.runner.folder import RunFolder
from augend.runner.job import Job, Kept, load_splits
from augend.study.evidence import Evidence, Scored, Trial, finished, read_record, shown_by
from augend.study.lineage import source_of
from augend.study.origin import origin_of
from augend.study.statistics import mean_of, said

__all__ = [
    "Progress",
    "Variation",
    "answered",
    "features_of_views",
    "model_of",
    "other_data",
    "pictures_of",
    "shift_trial",
    "shifted",
    "source_of",
    "told",
]

Progress = Callable[[str, int, int], None]
Shown = tuple[Pictures, torch.Tensor]
Variation = dict[str, dict[str, float]]


def shifted(
    path: Path, shifts: str, *, data: str | None = None, root: str | None = None, after: Progress | None = None
) -> dict[str, Any]:
    """How a model's accuracy, predictions and features move with its test pictures.

    Args:
        path: a run's folder, a model file (with `data`), or a study's folder: then all its finished trials.
        shifts: ``all``, or names of `augend.evaluate.shifts.SHIFTS` separated by commas.
        data: another data set's test pictures; its classes must be the model's.
        root: folder of named data sets.
        after: called with (which model, pictures done, pictures in all).

    Returns:
        For a run: `shifts` (accuracy and paired change with intervals over the pictures) and `variation` between every two
        sets. For a study: recipe -> shift -> the mean accuracy over its repeats, and its paired difference from the
        reference's, with the 95 % intervals of every study; variation with intervals over the repeats alone.
    """
    other_data(path, data)
    if (path / "study.json").is_file():
        return _study(path, shifts, data, root, after)
    model = model_of(path)
    names = chosen(shifts, model.shape[0])
    shown = pictures_of(path, model, data, root, {})
    found = _one(model, shown, names, told(after, str(path)))
    return {"model": str(path), "data": data, **found}


def _one(model: Classifier, shown: Shown, names: list[str], after: Callable[[int, int], None] | None) -> dict[str, Any]:
    looks = look(model, *shown, shifting(names, model.shape), after)
    return {"shifts": summary(looks), "variation": variation(looks)}


def model_of(path: Path) -> Classifier:
    """The model of a run (its plugins come first), or of a file."""
    if (path / "run.json").is_file():
        for plugin in Job.from_json(RunFolder(path).about()["job"]).plugins:
            load_plugin(plugin)
    return load(path)


def other_data(path: Path, data: str | None, piece: str = "test") -> bool:
    """Refuse data that a run or study was trained on, or another cut of them: only its own split knows which of them are test
    pictures. Where a data set comes with its test set, that is nobody's to train on, but for models of ``--refit all``.

    Returns:
        Whether `data` are the pictures it was trained on, of which the test set alone may be shown.
    """
    if data is None:
        return False
    folder = path if path.is_dir() else path.parent
    own, fixed = "", False
    if (folder / "study.json").is_file():
        record = read_record(folder)
        own, fixed = str(record.raw["request"].get("data")), record.fixed_test
    elif (folder / "run.json").is_file():
        about = RunFolder(folder).about()
        own, fixed = str(about["job"].get("data")), bool(about["data"].get("main", {}).get("fixed_test"))
    if source_of(own) != source_of(data):
        return False
    if not fixed or piece != "test" or origin_of(path).trained_on == "all":
        instead = "leave --data out" if folder == path else f"name {folder} and leave --data out"
        raise AugendError(
            f"--data {data}: {path} was trained on its pictures; {instead}, and it is shown its own "
            f"{PIECES.get(piece, piece)} pictures"
        )
    return True


def pictures_of(
    path: Path, model: Classifier, data: str | None, root: str | None, kept: Kept, piece: str = "test"
) -> Shown:
    """The test pictures (or another piece) of a model's data or of `data`, and their labels as its class numbers."""
    if data is not None:
        split = load_data(data, root=root, size=max(model.shape[1:]))
    elif (path / "run.json").is_file():
        if piece == "test" and origin_of(path).trained_on == "all":
            raise AugendError(
                f"{path}: it was trained on its test pictures as well (--refit all); give --data of other pictures"
            )
        about = RunFolder(path).about()
        job = Job.from_json(about["job"])
        split = load_splits(dataclasses.replace(job, root=root or job.root), kept=kept)["main"]
        before = about["data"].get("main", {}).get("ids_digest")
        if before is not None and split.record()["ids_digest"] != before:
            raise AugendError(
                f"{path}: the pictures of {job.data} have changed since it was trained: which are its {piece} pictures is "
                "not known; restore them, or name other data: --data"
            )
    else:
        raise AugendError(
            f"{path}: no run, so its test pictures are not known; name data to judge a model file: --data"
        )
    return _labelled(split, piece, model, data or str(path))


def _labelled(split: Split, piece: str, model: Classifier, what: str) -> Shown:
    unknown = [name for name in split.classes if name not in model.classes]
    if unknown:
        raise AugendError(f"{what}: class {unknown[0]!r} is none of the model's")
    if tuple(split.shape) != tuple(model.shape):
        raise AugendError(
            f"{what}: pictures are {' x '.join(map(str, split.shape))}, the model takes {' x '.join(map(str, model.shape))}"
        )
    pictures: Pictures = getattr(split, piece)
    if not len(pictures):
        raise AugendError(f"{what}: there are no {piece} pictures")
    own = torch.tensor([model.classes.index(name) for name in split.classes])
    return pictures, own[pictures.labels]


def _study(path: Path, shifts: str, data: str | None, root: str | None, after: Progress | None) -> dict[str, Any]:
    record = read_record(path)
    if data is not None:  # one set of pictures for all repeats
        record = dataclasses.replace(record, fixed_test=True)
    kept: Kept = {}
    trials: list[Trial] = []
    apart: dict[str, list[Variation]] = {}
    for recipe, repeat, folder in finished(record):
        splits, moved = shift_trial(folder, shifts, kept, data=data, root=root, after=after)
        trials.append(Trial(recipe, repeat, folder, splits, 0, {}))
        apart.setdefault(recipe, []).append(moved)
    if not trials:
        raise AugendError(f"{path}: no trial of this study is finished")
    return {
        "study": str(path),
        "data": data,
        "reference": record.reference,
        "recipes": _gathered(Evidence(record, trials), apart),
    }


def shift_trial(
    folder: Path,
    shifts: str,
    kept: Kept,
    *,
    data: str | None = None,
    root: str | None = None,
    after: Progress | None = None,
) -> tuple[dict[str, Scored], Variation]:
    """What a finished trial's model makes of its test pictures under shifts, and how far they move it.

    What was seen of a trial's own pictures is kept in its ``shifts.npz``, since a finished trial does not change.

    Returns:
        Each shift as a split, so that a study's own statistics apply: what repeats and pictures share is in the intervals.
        And `augend.evaluate.shifts.variation`.
    """
    file, about = folder / "shifts.npz", {"shifts": shifts, "known": {n: str(ops) for n, ops in SHIFTS.items()}}
    if data is None and (arrays := kept_arrays(file, about)) is not None:
        answers = {name.removeprefix("answers/"): one for name, one in arrays.items() if name.startswith("answers/")}
        before: Variation = json.loads(str(arrays["variation"]))
        return answered(arrays["ids"], arrays["labels"], answers), before
    model = model_of(folder)
    pictures, labels = pictures_of(folder, model, data, root, kept)
    said_to = told(after, folder.name)
    looks = look(model, pictures, labels, shifting(chosen(shifts, model.shape[0]), model.shape), said_to)
    answers, moved = {name: logits.argmax(1) for name, logits in looks.logits.items()}, variation(looks)
    if data is None:
        arrays = {f"answers/{name}": one for name, one in answers.items()}
        arrays |= {"ids": np.array(pictures.ids), "labels": looks.labels, "variation": np.array(json.dumps(moved))}
        keep(file, about, arrays)
    return answered(np.array(pictures.ids), looks.labels, answers), moved


def features_of_views(folder: Path, pictures: int, copies: int, kept: Kept) -> NDArray[np.float32] | None:
    """Features of a trial's first test pictures in several views each, cropped and with other colours where there are any:
    ``(pictures, copies, d)``, float32; None for a network without features.
    """
    model = model_of(folder)
    if "features" not in model.networks.stages(model.result).outputs:
        return None
    test, _ = pictures_of(folder, model, None, None, kept)
    names = ["crop", *(["colour"] if model.shape[0] == 3 else [])]
    chain = Chain([build(one) for name in names for one in SHIFTS[name]])
    rows = torch.arange(min(pictures, len(test))).repeat_interleave(copies)
    seen = test.fetch(rows[:, None])[0][:, 0]
    params = chain.draw(Draws(0, "views", keys=torch.arange(len(rows))), 0.0)
    with torch.no_grad():
        found = model.networks.tensor(Address(model.result, "features"), chain.apply(seen, params)).float()
    return found.flatten(1).view(-1, copies, found[0].numel()).numpy()


def answered(
    ids: NDArray[np.str_], labels: NDArray[np.int64], answers: Mapping[str, NDArray[np.int64]]
) -> dict[str, Scored]:
    """Answers under several conditions as splits, so that a study's own statistics apply."""
    shows, nothing = shown_by(ids.tolist()), np.zeros(len(ids))
    return {name: Scored(ids, shows, labels, one, nothing, 0.0) for name, one in answers.items()}


def told(after: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """What hears of pictures done by one model."""
    return None if after is None else lambda done, total: after(name, done, total)


def _gathered(evidence: Evidence, apart: dict[str, list[Variation]]) -> dict[str, Any]:
    reference, found = evidence.record.reference, {}
    for name in [recipe.name for recipe in evidence.record.recipes if recipe.name in apart]:
        pairs = apart[name]
        compared = name != reference and reference in apart
        first = evidence.trials[name, evidence.repeats(name)[0]]
        found[name] = {
            "repeats": len(pairs),
            "shifts": {
                shift: {
                    "accuracy": said(evidence.level(name, shift, "accuracy"), 0, 1),
                    "versus_reference": said(evidence.difference(name, reference, shift, "accuracy"), -1, 1)
                    if compared
                    else None,
                }
                for shift in first.splits
            },
            "variation": {
                pair: {kind: said(mean_of([one[pair][kind] for one in pairs])) for kind in kinds}
                for pair, kinds in pairs[0].items()
            },
        }
    return found
