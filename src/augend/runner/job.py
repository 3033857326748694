"""From what a person asked for to a run: data, recipe, settings, overrides, seed and machine, kept so that a run resumes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augend.contract import AugendError
from augend.data import load as load_data
from augend.data.cache import Progress
from augend.data.pictures import Split
from augend.names import load_plugin
from augend.recipes.plan import Plan
from augend.runner.assembly import build_networks
from augend.runner.fitting import check_fits
from augend.runner.folder import RunFolder
from augend.runner.grids import write_grids
from augend.runner.hardware import Hardware, describe, main_rank, program
from augend.runner.keeper import Listener, silent
from augend.runner.loop import run
from augend.runner.sight import check_orders

if TYPE_CHECKING:
    from augend.recipes.resolve import Asked

__all__ = ["Job", "Kept", "check_plan", "join", "load_splits", "resolve_job", "resume", "start"]


DEFAULT_BUDGET = "30epoch"


@dataclass(frozen=True)
class Job:
    """All that decides a run, as plain values; written to ``run.json``.

    Attributes:
        data: a word or a folder, what is trained on (other roles are parameters of the recipe).
        recipe: a name or a file.
        settings: a name or a file; what recipes share.
        overrides: ``tune.until=2000step``, ``optimizer.lr=3e-4``.
        params: values of the recipe's ``$words``.
        model: a model word, a timm name, ``torchvision:NAME``, or None for the data's default.
        budget: a duration, or None for the settings', or else 30 epochs.
        seed, repeat: the repeat redraws splits and, by seed + repeat, everything else.
        root: folder of named data sets (default: AUGEND_DATA).
        size: side in pixels of a folder's pictures.
        group: which pictures of a folder belong together, see `augend.data.load`.
        fit: how a folder's pictures become squares: "crop" or "pad".
        plugins: files that register components.
        refit: "train", or what a study's last model is trained on: "trainval" (validation pictures too) or "all".
        fraction: of the training pictures that are used; `false_labels`: probability for a training label to be drawn
            anew from all classes. See `augend.data.pictures.Split.poorer`.
        leaks: pictures that a recipe holds out are the test pictures, as in a paper's published code. For `augend reproduce`
            alone, which says so.
    """

    data: str
    recipe: str
    settings: str = "good-practice"
    overrides: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    budget: str | None = None
    seed: int = 0
    repeat: int = 0
    root: str | None = None
    size: int | None = None
    group: str | None = None
    plugins: tuple[str, ...] = ()
    refit: str = "train"
    fit: str = "crop"
    fraction: float = 1.0
    false_labels: float = 0.0
    leaks: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "overrides": list(self.overrides), "plugins": list(self.plugins)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Job:
        """The job that `to_json` wrote."""
        return cls(**{**raw, "overrides": tuple(raw["overrides"]), "plugins": tuple(raw["plugins"])})


Kept = dict[tuple[Any, ...], Split]
"""Data sets that were read, by all that they depend on; whoever holds it decides how long."""


def load_splits(
    job: Job,
    asked: Asked | Plan | None = None,
    progress: Progress | None = None,
    kept: Kept | None = None,
) -> dict[str, Split]:
    """The data of every role that the recipe uses.

    Args:
        asked: what these are; of a begun run its plan, so that the recipe's file is needed no more.
        progress: called with (files done, files in all) while a folder is decoded.
        kept: sets that need not be read again; what is read is put there. Roles that name one set share it. One repeat's
            sets make room for the next one's.
    """
    from augend.recipes.resolve import asked_data

    asked = asked or asked_data(
        job.recipe,
        data=job.data,
        model=job.model or "auto",
        overrides=job.overrides,
        params=job.params,
        settings=job.settings,
    )
    words = asked.roles
    kept = {} if kept is None else kept

    def read(text: str) -> Split:
        how = (
            (job.group, job.fit) if text == words["main"] else (None, "crop")
        )  # other sets are no folder of these groups
        key = (text, job.root, job.seed, job.repeat, job.size, *how)
        if key not in kept:
            for other in [one for one in kept if one[3] != job.repeat]:
                del kept[other]
            kept[key] = load_data(
                text,
                root=job.root,
                seed=job.seed,
                repeat=job.repeat,
                size=job.size,
                group=how[0],
                fit=how[1],
                progress=progress,
            )
        return kept[key]

    splits = {role: read(text) for role, text in words.items()}
    main = _trained_on(splits["main"], job)
    if job.leaks and asked.hold:
        main = dataclasses.replace(main, held=dict.fromkeys(asked.hold, main.test))
    elif asked.hold:
        main = main.hold(asked.hold)
    return {**splits, "main": main}


def _trained_on(split: Split, job: Job) -> Split:
    if (job.fraction, job.false_labels) != (1.0, 0.0):
        split = split.poorer(job.fraction, job.false_labels)
    return widened(split, job.refit)  # what is added keeps its pictures and labels


def widened(split: Split, refit: str) -> Split:
    """The split with validation pictures ("trainval"), or validation and test pictures ("all"), among those of training.

    Validation and test stay as they are: what they say of such a model means little, and is not reported.
    """
    more = {"train": (), "trainval": (split.valid,), "all": (split.valid, split.test)}[refit]
    train = split.train
    for part in more:
        train = train.joined(part)
    return dataclasses.replace(split, train=train) if more else split


def default_model(split: Split, pictures: int) -> str:
    """The network that is trained from scratch where none is named: by size and number of the pictures."""
    if split.name.split(":")[0] in ("digits", "tilted-digits", "mnist", "mnist-tilt"):
        return "figure1"
    return "small" if pictures < 5000 or max(split.shape[1:]) > 48 else "preresnet"


def _whole(split: Split, job: Job) -> int:
    """Training pictures as the study has them, whatever this recipe holds out of them and a last model gets beside them:
    all recipes have one network, one batch and one budget.
    """
    more = {"train": 0, "trainval": len(split.valid), "all": len(split.valid) + len(split.test)}[job.refit]
    held = 0 if job.leaks else sum(len(part) for part in split.held.values())
    return len(split.train) + held - more


def resolve_job(job: Job, splits: Mapping[str, Split]) -> Plan:
    """Look everything up: the plan that the runner runs."""
    from augend.contract import Component
    from augend.models import build, default_split
    from augend.recipes import resolve

    main = splits["main"]
    whole = _whole(main, job)
    word = job.model or default_model(main, whole)
    stages = build(Component(word), shape=main.shape, classes=len(main.classes), generator_seed=0)
    return resolve(
        job.recipe,
        job.settings,
        overrides=job.overrides,
        params=job.params,
        sizes={role: len(split.train) for role, split in splits.items()},
        whole=whole,
        traits={role: split.traits for role, split in splits.items()},
        split=default_split(stages),
        budget=job.budget,
        fallback=DEFAULT_BUDGET,
        side=min(main.shape[1:]),
        model=word,
        data=job.data,
    )


def check_plan(plan: Plan, splits: Mapping[str, Split]) -> None:
    """Refuse, before anything is written, what can only be seen on the networks: weights, sizes, slices, closed forms."""
    check_fits(plan, build_networks(plan, splits, 0), {role: len(split.train) for role, split in splits.items()})
    check_orders(plan, splits)


def start(
    job: Job,
    folder: RunFolder,
    hardware: Hardware,
    *,
    plan: Plan | None = None,
    splits: Mapping[str, Split] | None = None,
    command: str = "",
    listen: Listener = silent,
    wait: float = 0.0,
) -> dict[str, Any]:
    """Begin a run in a folder that holds none."""
    from augend.recipes import resolved_words
    from augend.recipes.reading import dump

    if not main_rank():
        return join(folder.path, splits)
    folder.create()
    folder.lock(wait)
    try:
        if folder.exists:
            raise AugendError(f"{folder.path}: there is a run already; continue it with: augend resume {folder.quoted}")
        splits = load_splits(job) if splits is None else splits
        plan = resolve_job(job, splits) if plan is None else plan
        check_plan(plan, splits)
        folder.write("plan.json", plan.to_json())
        words = resolved_words(job.recipe, job.settings, overrides=job.overrides, params=job.params)
        folder.write("recipe.yaml", dump(words))
        folder.write("environment.json", {**describe(), **program(), "command": command, **hardware.to_json()})
        write_grids(plan, splits, folder, job.seed + job.repeat)
        record = {role: split.record() for role, split in splits.items()}
        folder.write("run.json", {"job": job.to_json(), "hardware": hardware.to_json(), "data": record})
        os.environ["AUGEND_RUN"] = str(folder.path)  # for the other ranks, which run the same script
        return run(plan, splits, folder, seed=job.seed + job.repeat, hardware=hardware, listen=listen)
    finally:
        folder.unlock()


def join(path: str | Path, splits: Mapping[str, Split] | None = None) -> dict[str, Any]:
    """Take part in a run that the main rank has begun, as another rank of it."""
    folder = RunFolder(path)
    asked = folder.read("run.json")
    job = Job.from_json(asked["job"])
    for plugin in job.plugins:
        load_plugin(plugin)
    plan = Plan.from_json((folder.path / "plan.json").read_text(encoding="utf-8"))
    splits = load_splits(job, plan) if splits is None else splits
    return run(plan, splits, folder, seed=job.seed + job.repeat, hardware=Hardware(**asked["hardware"]))


def resume(
    path: str | Path, *, listen: Listener = silent, wait: float = 0.0, splits: Mapping[str, Split] | None = None
) -> dict[str, Any]:
    """Continue a run to its end; a finished run is left as it is.

    Precision, memory format and threads are the run's own again; another build or processor is said, because then the last
    bits may differ.
    """
    if not main_rank():
        return join(path, splits)
    folder = RunFolder(path)
    asked = folder.read("run.json")
    os.environ["AUGEND_RUN"] = str(folder.path)
    if folder.done:
        result: dict[str, Any] = folder.read("result.json")
        return result
    folder.lock(wait)
    try:
        job = Job.from_json(asked["job"])
        for plugin in job.plugins:
            load_plugin(plugin)
        before, now = folder.read("environment.json"), describe()
        for key in ("torch", "processor", "capability", "gpu"):
            if before.get(key) != now[key]:
                listen("note", {"text": f"{key} was {before.get(key)!r} and is {now[key]!r}: the last bits may differ"})
        plan = Plan.from_json((folder.path / "plan.json").read_text(encoding="utf-8"))
        splits = load_splits(job, plan) if splits is None else splits
        for role, split in splits.items():
            if split.record()["digest"] != asked["data"][role]["digest"]:
                raise AugendError(
                    f"{folder.path}: the pictures of role {role!r} have changed since the run began; "
                    "restore them or start a new run"
                )
        hardware = Hardware(**asked["hardware"])
        return run(plan, splits, folder, seed=job.seed + job.repeat, hardware=hardware, listen=listen)
    finally:
        folder.unlock()
