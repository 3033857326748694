"""Autoencoders on changed pictures, of one run or of every trial of a study: is a change undone, does the label stay."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from augend.contract import AugendError
from augend.evaluate.decoded import CHANGES, Decoded, autoencoder, changes, changing, decode
from augend.evaluate.kept import keep
from augend.evaluate.kept import kept as kept_arrays
from augend.evaluate.load import Classifier
from augend.models.pretrained import digest_of
from augend.models.stages import Stages
from augend.recipes.plan import PhasePlan, Plan
from augend.runner.folder import RunFolder
from augend.runner.job import Job, Kept
from augend.study.evidence import Record, Trial, finished, read_record, shown_by
from augend.study.given_back import GivenBack, Known, Looked, gathered, summary
from augend.study.lineage import Learned, began_with, learned
from augend.study.origin import origin_of, read_plan
from augend.study.shifted import Progress, model_of, other_data, pictures_of, told

__all__ = ["decoded", "decoded_rows"]

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
        judge: a run or model file of a classifier of the same classes, that knows nothing of the autoencoder: not the run
            itself, nor a model of the study, nor one that began with their weights. Pictures that it has learned from, as
            its run and those whose weights it began with say, are left out of its shares.
        data: another data set's test pictures.
        root: folder of named data sets.
        after: called with (which model, pictures done, pictures in all).

    Returns:
        For a run, change -> ``moved`` (mean square of an entry that the change does), ``missed`` (that is wrong after
        decoding), ``constant`` (that were wrong with one picture for all, the mean of the clean ones), ``score``
        (1 - missed / moved with its interval: 1 is perfect, 0 leaves pictures as they came; None where nothing moved or
        something is not finite), and with a judge ``kept_changed`` and ``kept``: of the pictures that it recognises when
        clean, the shares that it still does when changed, and when decoded (95 % by Wilson), ``kept`` also by class under
        ``classes``, each with ``of``, how many pictures it is a share of (of a study: in the repeat that has fewest), and
        ``left_out``, how many pictures it was trained on (None: nobody knows). For a study, recipe -> the same as means
        over the repeats with 95 % intervals, those of scores and shares as all intervals of the study, over
        the pictures as well (one repeat: over these alone). And pictures to look at: recipe (or run) -> change -> uint8
        ``(3, pictures, C, H, W)``, clean, changed, decoded.

    Raises:
        AugendError: there is no network that learned to give pictures back, the judge is not independent or has other
            classes, pictures that the model was trained on are all there is, or a change is unknown.
    """
    other_data(path, data)
    kept: Kept = {}
    judging = None if judge is None else _Judge.of(judge, path)
    about = {"judge": None if judge is None else str(judge), "data": data}
    if not (path / "study.json").is_file():
        model = model_of(path)
        name = autoencoder(model, str(path))
        if not _learned(path, name, model.networks.stages(name)):
            raise AugendError(
                f"{path}: network {name!r} was never trained to give pictures back, or some of it has learned something else "
                "since; train one with --recipe denoise-then-classify"
            )
        look = _look(path, model, wanted, judging, data, root, kept, after)
        return {"model": str(path), **about, "changes": summary(look)}, {path.resolve().name: look.found.seen}
    record = read_record(path)
    if data is not None:  # one set of pictures for all repeats
        record = dataclasses.replace(record, fixed_test=True)
    runs = [(recipe, repeat, folder, judging) for recipe, repeat, folder in finished(record)]
    each, seen = _of_trials(runs, wanted, data, root, kept, after)
    if not each:
        raise AugendError(f"{path}: no finished trial has a network that learned to give pictures back")
    recipes = {name: gathered(record, list(looks.values())) for name, looks in each.items()}
    return {"study": str(path), **about, "recipes": recipes}, seen


def decoded_rows(
    record: Record, trials: Sequence[Trial], wanted: str, judge: str, after: Progress | None = None
) -> GivenBack:
    """What the autoencoders of a table's rows make of changed test pictures, judged by a row of the same repeat.

    Args:
        wanted: as of `decoded`.
        judge: a row whose model is a classifier of its own; it learned from the pictures that the autoencoders did.
    """
    judges = {trial.repeat: trial.folder for trial in trials if trial.recipe == judge}
    judging: dict[int, _Judge] = {}
    runs: list[tuple[str, int, Path, _Judge | None]] = []
    for trial in sorted(trials, key=lambda one: one.repeat):  # those of a repeat share their data and their judge
        if trial.recipe == judge or trial.repeat not in judges:
            continue
        if trial.repeat not in judging:
            judging[trial.repeat] = _Judge.of(judges[trial.repeat], trial.folder)
        runs.append((trial.recipe, trial.repeat, trial.folder, judging[trial.repeat]))
    each, seen = _of_trials(runs, wanted, None, None, {}, after)
    return GivenBack.of(record, each, seen)


def _of_trials(
    runs: Sequence[tuple[str, int, Path, _Judge | None]],
    wanted: str,
    data: str | None,
    root: str | None,
    kept: Kept,
    after: Progress | None,
) -> tuple[dict[str, dict[int, Looked]], dict[str, Seen]]:
    """Recipe -> repeat -> what its autoencoder makes of pictures, of those that have one that learned to give them back."""
    each: dict[str, dict[int, Looked]] = {}
    seen: dict[str, Seen] = {}
    for recipe, repeat, folder, judging in runs:
        model = model_of(folder)
        try:
            name = autoencoder(model, recipe)
        except AugendError:
            continue
        if not _learned(folder, name, model.networks.stages(name)):  # a control, whose decoder stayed as it was drawn
            continue
        look = _look(folder, model, wanted, judging, data, root, kept, after)
        each.setdefault(recipe, {})[repeat] = look
        seen.setdefault(recipe, look.found.seen)
    return each, seen


def _learned(run: Path, name: str, network: Stages, followed: frozenset[Path] = frozenset()) -> bool:
    """Whether a run left a network whose parts learned to give pictures back together; where nothing is known, yes.

    What moved some of its weights last must have asked for pictures: an encoder that learns labels leaves its decoder behind.
    Weights from a file are followed to the run that left them; running statistics that moved alone are no weights.
    """
    folder = (run if run.is_dir() else run.parent).resolve()
    plan = None if folder in followed else read_plan(folder)
    if plan is None:
        return True
    near = {name, *(phase.start[name].network for phase in plan.phases if name in phase.start)}
    able = {one: _began(plan, one, network, followed | {folder}) for one in near}
    for phase in plan.phases:
        if name in phase.start:
            start = phase.start[name]
            able[name] = able[start.network] and str(start) == start.network
        for one in near:
            if _moves(phase, one, network):
                asked = {term.tensor for terms in phase.terms for term in terms.of if term.network == one}
                able[one] = bool(asked & GIVEN_BACK) or (phase.fit is not None and phase.fit.word == "pca")
    return able[name]


def _began(plan: Plan, name: str, network: Stages, followed: frozenset[Path]) -> bool:
    """Whether a network could give pictures back before the first phase, by its file; one whose origin is not known could."""
    file = plan.networks[name].weights
    if file is None:
        return False
    run = origin_of(file).run
    before = None if run is None else read_plan(run)
    if run is None or before is None:
        return True
    word = plan.networks[name].model.word
    like = [one for one, spec in before.networks.items() if spec.model.word == word]
    source = name if name in like else next(iter(like), None)
    return source is None or _learned(run, source, network, followed)


def _moves(phase: PhasePlan, name: str, network: Stages) -> bool:
    """Whether a phase trains weights of a network."""
    if phase.steps == 0 and phase.fit is None:
        return False
    for part in phase.train:
        if part.network == "all":
            return True
        if part.network == name and any(network.parameters_of(stage) for stage in part.covers(network.names)):
            return True
    return False


@dataclass(frozen=True)
class _Judge:
    """A classifier, and what is known of the pictures that it has learned from.

    `answers`: what it called changed pictures so far, by their names, how they were changed, and that: autoencoders that are
    shown the same need not ask again.
    """

    model: Classifier
    digest: str
    learned: Learned
    answers: dict[tuple[Any, ...], dict[str, NDArray[np.int64]]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, judged: Path) -> _Judge:
        """From a run's or a study's folder, or a model file in one.

        Args:
            judged: the run or study whose autoencoders it is asked about, which it must know nothing of.
        """
        run, its = origin_of(path).run, learned(path)
        study = (judged / "study.json").is_file()
        here = {one for one in its.runs if one.parent.parent == judged.resolve()}
        if own := here if study else its.runs & learned(judged).runs:
            itself = here if study else {(origin_of(judged).run or judged).resolve()}
            what = "is one of the models that" if study else "is the run that"
            if run is None or run.resolve() not in itself:
                what = f"shares weights, those of {min(own)}, with what"
            raise AugendError(
                f"--judge {path}: it {what} it would judge; name a classifier that was trained by itself, as the run of "
                "--recipe augmented"
            )
        at = run if run is not None and path.is_dir() else path
        return cls(model_of(at), digest_of(at / "model.safetensors" if at.is_dir() else at), its)


def _known(shows: NDArray[np.str_], path: Path, judge: _Judge | None, data: str | None) -> Known:
    """What autoencoder and judge have learned of a run's test pictures, or of those of `data`."""
    plan = read_plan(path)
    asked = data or Job.from_json(RunFolder(path).about()["job"]).data
    before = 0 if plan is None else int(began_with(plan).among(asked, shows.tolist()).sum())
    if judge is None:
        return Known(before)
    fresh = ~judge.learned.among(asked, shows.tolist())
    if not fresh.any():
        raise AugendError(f"--judge: it was trained on every picture of {path}; train it on others")
    return Known(before, fresh, judge.learned.sure(asked))


def _look(
    path: Path,
    model: Classifier,
    wanted: str,
    judge: _Judge | None,
    data: str | None,
    root: str | None,
    kept: Kept,
    after: Progress | None,
) -> Looked:
    names = changes(wanted, model.shape[0])
    judging = None if judge is None else judge.model
    classes = model.classes if judging is None else judging.classes
    if missing := [name for name in model.classes if name not in classes]:
        raise AugendError(
            f"--judge: class {missing[0]!r} of {path} is none of the judge's; train it on the same classes"
        )
    about = {"changes": [str(CHANGES.get(one, one)) for one in names], "judge": None if judge is None else judge.digest}
    asked = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]  # other questions are kept beside this one
    file = path / f"decoded-{asked}.npz" if data is None and path.is_dir() else None  # a finished run does not change
    before = None if file is None else kept_arrays(file, about)
    if before is not None:
        shows = shown_by(before.pop("ids").tolist())
        return Looked(Decoded.of(before), shows, classes, _known(shows, path, judge, data))
    pictures, labels = pictures_of(path, model, data, root, kept)
    shows = shown_by(list(pictures.ids))
    known = _known(shows, path, judge, data)
    labels = labels.new_tensor([classes.index(name) for name in model.classes])[labels]
    answers = {} if judge is None else judge.answers.setdefault((data, model.shape, *names, *pictures.ids), {})
    found = decode(
        model,
        pictures,
        labels,
        changing(names, model.shape),
        judging,
        told(after, path.name),
        answers=answers,
        what=str(path),
    )
    answers |= {key: one for key, one in found.judged.items() if key.startswith("changed/")}
    if file is not None:
        keep(file, about, {"ids": np.array(pictures.ids), **found.arrays()})
    return Looked(found, shows, classes, known)
