"""Which pictures a model has learned from: those of the run that trained it, and of every run whose weights it began with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from augend.data.pictures import Split
from augend.names import known as known_names
from augend.recipes.plan import Plan
from augend.runner.folder import RunFolder
from augend.runner.job import Job, load_splits
from augend.study.evidence import read_rows, shown_by
from augend.study.origin import origin_of, read_plan
from augend.study.request import Request

__all__ = ["Learned", "began_with", "learned", "learned_before", "source_of", "weights_know"]

REFIT = {"train": ("train",), "trainval": ("train", "valid"), "all": ("train", "valid", "test")}
SAID = {"valid": "validation", "test": "test"}


def source_of(data: str) -> str:
    """The data set or the folder that words of data are about, whatever part of it; tilted digits are digits.

    >>> source_of("digits:train=200,valid=50"), source_of("tilted-digits")
    ('digits', 'digits')
    """
    word = data.partition(":")[0]
    if word in known_names("data"):
        return word.removeprefix("tilted-").removesuffix("-tilt")
    return str(Path(data).resolve())


@dataclass(frozen=True)
class Learned:
    """What is known of the pictures that a model has learned from.

    Attributes:
        runs: folders of the runs that trained it, its own and those whose weights it began with.
        pictures: of which data (`source_of`) -> which of them.
        whole: whether that is all; weights that no run here has made may have learned from anything.
    """

    runs: frozenset[Path] = frozenset()
    pictures: Mapping[str, frozenset[str]] = field(default_factory=dict)
    whole: bool = True

    def among(self, data: str, shows: Sequence[str]) -> NDArray[np.bool_]:
        """Which of these pictures of `data` it has learned from, as far as that is known: ``(n,)``."""
        own = self.pictures.get(source_of(data), frozenset())
        return np.array([one in own for one in shows], bool)

    def sure(self, data: str) -> bool:
        """Whether it can have learned from no other picture of `data`. Other named sets hold other pictures; a folder may be
        a copy of another."""
        asked, named = source_of(data), {source_of(word) for word in known_names("data")}
        return self.whole and all(one == asked or {one, asked} <= named for one in self.pictures)

    def joined(self, other: Learned) -> Learned:
        """What both have learned from."""
        sources = {**self.pictures, **other.pictures}
        pictures = {one: self.pictures.get(one, frozenset()) | other.pictures.get(one, frozenset()) for one in sources}
        return Learned(self.runs | other.runs, pictures, self.whole and other.whole)


def learned(path: str | Path) -> Learned:
    """Of the model that `augend.load` would load from here: a run's or a study's folder, or a file in one."""
    return _of(path, frozenset())


def began_with(plan: Plan) -> Learned:
    """Of all weights that a plan's networks begin with."""
    return _before(plan, frozenset())


def _of(path: str | Path, followed: frozenset[Path]) -> Learned:
    run = origin_of(path).run
    if run is None:
        return Learned(whole=False)
    run = run.resolve()
    if run in followed:
        return Learned()
    plan = read_plan(run)
    before = Learned(whole=False) if plan is None else _before(plan, followed | {run})
    if not (run / "predictions.npz").is_file():
        return before.joined(Learned(frozenset({run}), whole=False))
    rows, job = read_rows(run / "predictions.npz"), Job.from_json(RunFolder(run).about()["job"])
    shows = shown_by(rows["ids"][np.isin(rows["split"], REFIT[job.refit])].tolist())
    roles = {} if plan is None else {role: word for role, word in plan.roles.items() if role != "main"}
    alone = all(source_of(word) == source_of(job.data) for word in roles.values())
    own = Learned(frozenset({run}), {source_of(job.data): frozenset(shows.tolist())}, alone)
    return own.joined(before)


def _before(plan: Plan, followed: frozenset[Path]) -> Learned:
    found = Learned()
    for network in plan.networks.values():
        if network.weights is not None:
            found = found.joined(_of(network.weights, followed))
    return found


def learned_before(data: str, begins: Iterable[tuple[Learned, Split]]) -> list[str]:
    """What is to be said where weights have learned from pictures that are held out now; nothing where none have.

    Args:
        data: what is trained on.
        begins: of each run that is to begin, what its weights have learned from, and its split.
    """
    most = dict.fromkeys(SAID, (0, 0))
    for found, split in begins:
        for piece in SAID:
            held = shown_by(list(split.pieces()[piece].ids)).tolist()
            most[piece] = max(most[piece], (int(found.among(data, held).sum()), len(held)))
    told = [f"{n} of {of} {SAID[piece]} pictures" for piece, (n, of) in most.items() if n]
    if not told:
        return []
    return [
        f"THE WEIGHTS that training begins with have already LEARNED FROM HELD-OUT PICTURES, {' and '.join(told)}, so what "
        "is measured on these is too good; train the weights on other pictures, or with the same --seed, to see the truth"
    ]


def weights_know(request: Request, plans: Mapping[str, Plan], main: Split) -> list[str]:
    """`learned_before` of a study's recipes, over all of its repeats, whose held-out pictures differ.

    Args:
        plans: by how a command names the recipe, of repeat 0; `main`: what repeat 0 has.
    """
    begins = {recipe: _weights_of(request, recipe, plan) for recipe, plan in plans.items()}
    known: dict[str, Learned] = {}
    for files in begins.values():
        known |= {file: learned(file) for of_repeat in files for file in of_repeat if file not in known}
    if not any(source_of(request.data) in one.pictures for one in known.values()):
        return []
    splits = {0: main}
    for repeat in range(1, request.repeats):
        if not main.fixed_test or len(main.valid):
            word = dataclasses.replace(request, poorer={}).job(next(iter(plans)), repeat)
            splits[repeat] = load_splits(word)["main"]
    return learned_before(
        request.data,
        (
            (known[file], splits.get(repeat, main))
            for files in begins.values()
            for repeat, of_repeat in enumerate(files)
            for file in of_repeat
        ),
    )


def _weights_of(request: Request, recipe: str, plan: Plan) -> list[list[str]]:
    """The files that a recipe begins with, by repeat: where each repeat has weights of its own, these."""
    files = [str(network.weights) for network in plan.networks.values() if network.weights is not None]
    own = [str(request.job(recipe, repeat).params.get("weights")) for repeat in range(request.repeats)]
    return [[mine if file == own[0] else file for file in files] for mine in own]
