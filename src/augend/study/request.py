"""What is asked of a study, and a study as it lies in its folder."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augend.contract import AugendError
from augend.recipes.language import compose, reaching
from augend.recipes.library import load
from augend.runner.folder import RunFolder
from augend.runner.job import Job
from augend.study.evidence import given_alike, trial_name
from augend.study.trials import state_of

__all__ = ["DIGITS", "Request", "Study", "seconds_of"]

DIGITS = "tilted-digits"
EQUAL = ("steps", "seconds", "flops")
REFIT = ("train", "trainval", "all")
_UNITS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600, "d": 86400}


def seconds_of(text: str, option: str = "--time") -> float:
    """A length of time in seconds.

    >>> seconds_of("90s"), seconds_of("1.5h")
    (90.0, 5400.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z]+)", text.strip())
    if match is None or match[2] not in _UNITS or float(match[1]) <= 0:
        raise AugendError(f"{option} is {text!r}; write a length of time as 90s, 30min or 2h")
    return float(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Request:
    """What was asked of a study; an existing study keeps its own, and only `repeats` may grow.

    Attributes:
        recipes: names, FILE or FILE:NAME; empty: by regime. `reference`: likewise.
        budget: of one trial; `time`: of the whole command. One of them, or neither.
        equal: what all recipes cost alike: "steps", "seconds" or "flops" of the reference.
        tune: learning rates tried a recipe.
        refit: what the study's model is trained on: "train" (repeat 0's own), "trainval", "all".
        regime: "pretrained", "scratch", or "auto": by the data and the weights that can be had.
        settings: a name or a file; "auto": "pretrained" or "good-practice", by regime.
        weights: a file of weights that every recipe starts from.
        overrides: reach the recipes that have such a phase or parameter; some recipe must.
        budgets: name of a recipe -> a budget of its own.
        fewer: name of a recipe -> repeats, where it shall have fewer.
        starts: name of a recipe -> files of weights, of which repeat r starts from number r.
        fraction, false_labels: of the training pictures, see `augend.runner.job.Job`.
        poorer: name of a recipe -> "fraction" and "false_labels" of its own.
        leaks: see `augend.runner.job.Job`.
        own: name of a recipe -> overrides for it alone.
    """

    data: str = DIGITS
    recipes: tuple[str, ...] = ()
    reference: str = ""
    repeats: int = 5
    budget: str | None = None
    time: str | None = None
    equal: str | None = None
    tune: int = 0
    refit: str = "trainval"
    settings: str = "auto"
    regime: str = "auto"
    model: str | None = None
    weights: str | None = None
    seed: int = 0
    root: str | None = None
    size: int | None = None
    group: str | None = None
    fit: str = "crop"
    overrides: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    margin: float = 0.01
    precision: str = "auto"
    metric: str = "auto"
    budgets: Mapping[str, str] = field(default_factory=dict)
    fewer: Mapping[str, int] = field(default_factory=dict)
    starts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fraction: float = 1.0
    false_labels: float = 0.0
    poorer: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    leaks: bool = False
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise AugendError(f"--repeats is {self.repeats}; it must be 1 or more")
        if self.time is not None and self.budget is not None:
            raise AugendError("--time is for the whole command and --budget for one trial; give one of them")
        if self.time is not None:
            seconds_of(self.time)
        if self.equal not in (None, *EQUAL):
            raise AugendError(f"--equal is {self.equal!r}; it is one of {', '.join(EQUAL)}")
        if self.refit not in REFIT:
            raise AugendError(f"--refit is {self.refit!r}; it is one of {', '.join(REFIT)}")
        if not 0 < self.margin < 1:  # nor "not a number"
            raise AugendError(f"--margin is {100 * self.margin:g}; it is a number of points above 0 and below 100")
        if self.tune < 0 or self.tune in (1, 2):
            raise AugendError(f"--tune is {self.tune}; it is a number of learning rates, 3 or more (or 0)")

    @property
    def alike(self) -> str:
        """What all recipes are given alike: "steps", "seconds" or "flops"."""
        return given_alike(self.equal, self.time)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Request:
        """The request that `to_json` wrote."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        return cls(**values)

    def _reaching(self, recipe: str, others: Sequence[str]) -> tuple[str, ...]:
        """The overrides whose phase or parameter this recipe has; with one recipe all of them."""
        if not self.overrides or len(others) < 2:
            return self.overrides
        return reaching(self.overrides, compose(load(recipe)), [compose(load(other)) for other in others])

    def job(
        self,
        recipe: str,
        repeat: int,
        *,
        overrides: tuple[str, ...] = (),
        refit: str = "train",
        others: Sequence[str] | None = None,
    ) -> Job:
        """The job of one trial: a repeat has one seed and one split for all recipes, so differences are paired.

        Args:
            recipe: as a command names it: a name, FILE or FILE:NAME.
            overrides: of this recipe alone (a learning rate that was tuned).
            refit: which pictures are trained on, see `Job`.
            others: all recipes of the study where they lie now; default: as they were typed.
        """
        name = load(recipe).name if self.budgets or self.starts or self.poorer or self.own else ""
        starts = self.starts.get(name)
        weights = starts[repeat] if starts else self.weights
        return Job(
            data=self.data,
            recipe=recipe,
            settings="good-practice" if self.settings == "auto" else self.settings,
            overrides=(
                *self._reaching(recipe, self.recipes if others is None else others),
                *self.own.get(name, ()),
                *overrides,
            ),
            params={} if weights is None else {"weights": weights},
            model=self.model,
            budget=self.budgets.get(name, self.budget),
            seed=self.seed,
            repeat=repeat,
            root=self.root,
            size=self.size,
            group=self.group,
            fit=self.fit,
            plugins=self.plugins,
            refit=refit,
            leaks=self.leaks,
            **{"fraction": self.fraction, "false_labels": self.false_labels, **self.poorer.get(name, {})},
        )


@dataclass
class Study:
    """A study's folder, its record, and the trials that are still to run.

    `held` keeps its folder for this process (`augend.study.held`) while the study is at hand and has not been run.
    """

    path: Path
    request: Request
    record: dict[str, Any]
    held: RunFolder | None = field(default=None, repr=False, compare=False)

    @property
    def names(self) -> list[str]:
        """All trials, repeat by repeat, so that the first table is complete as early as possible."""
        most = {recipe["name"]: self.repeats_of(recipe["name"]) for recipe in self.record["recipes"]}
        return [trial_name(name, r) for r in range(self.request.repeats) for name, n in most.items() if r < n]

    def repeats_of(self, recipe: str) -> int:
        """How many repeats a recipe has: those of the study, or its own where it shall have fewer."""
        fewer = next(one.get("repeats") for one in self.record["recipes"] if one["name"] == recipe)
        return min(self.request.repeats, fewer or self.request.repeats)

    @property
    def pending(self) -> list[str]:
        """The trials that are not finished."""
        return [name for name in self.names if state_of(self.path / "trials" / name) != "finished"]

    @property
    def files(self) -> dict[str, str]:
        """Name of a recipe -> how a command names it."""
        return {recipe["name"]: recipe["file"] for recipe in self.record["recipes"]}

    def job(self, recipe: str, repeat: int, refit: str = "train") -> Job:
        """The job of a trial of this study, its recipe's tuned learning rate included."""
        tuned = self.record.get("tuned", {}).get(recipe, {}).get("override")
        files = self.files
        own = (tuned,) if tuned else ()
        return self.request.job(files[recipe], repeat, overrides=own, refit=refit, others=tuple(files.values()))
