"""A resolved procedure: what the runner runs, with nothing left to look up. Written to `plan.json` before anything runs.

`augend.recipes.resolve` makes a `Plan` from a recipe, settings, parameters and the sizes of the data; the runner, the ledger
and the report read it. Everything is a plain dataclass of JSON values, so `Plan.from_json(plan.to_json()) == plan`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from augend.address import Address, Slice
from augend.contract import Component

__all__ = ["Duration", "MonitorPlan", "NetworkPlan", "Op", "PhasePlan", "Plan", "Plateau", "TermPlan"]

SCHEMA = 1


@dataclass(frozen=True)
class Plateau:
    """Ends a phase when what is watched has made no new best for `patience` epochs of the phase's data."""

    watch: str = "train/loss"
    patience: int = 10
    min_delta: float = 0.0


@dataclass(frozen=True)
class Duration:
    """How long a phase lasts, as written: `2000step`, `10epoch`, `50%` of the budget, `2share`, or a plateau with a cap.

    `amount` is the number written (50 for ``50%``). For a plateau, `unit` and `amount` are those of its `at most`.
    """

    unit: Literal["step", "epoch", "percent", "share"]
    amount: float
    plateau: Plateau | None = None


@dataclass(frozen=True)
class Op:
    """One augmentation of a view; `at` is the tensor it acts on (None: the pixels)."""

    component: Component
    at: Address | None = None


@dataclass(frozen=True)
class TermPlan:
    """One term of an objective. `name` is unique in its phase and is what metrics call it.

    `of` is complete: an address for each view and network the term compares or averages over, views always named.
    """

    name: str
    component: Component
    weight: float
    of: tuple[Address, ...]
    to: tuple[Address, ...] = ()


@dataclass(frozen=True)
class NetworkPlan:
    """A network: what builds it, what it starts from (None: pixels), which role's classes it answers, its weights' file."""

    model: Component
    input: Address | None = None
    classes: str = "main"
    weights: str | None = None


@dataclass(frozen=True)
class PhasePlan:
    """One phase. `steps` is None only while it depends on how an earlier plateau phase ends.

    Attributes:
        data: role whose training pictures are seen.
        rows: rows of a step over all ranks.
        size: side in pixels that this phase trains at, None for the data's own.
        views: view name -> its augmentations in order; ``{"x": ()}`` is one plain view.
        train: the weights that move; the rest is frozen.
        start: network -> weights to copy from, before the first step.
        segment: number of the optimizer that serves this phase (phases that share one have the same number).
        optimizer: word and options, learning rate resolved to a number.
        schedule: learning-rate schedule of the *segment*.
        keep: "last", or the metric whose best epoch is kept ("valid/accuracy").
        cache: "auto", True, False or the number of views of a bank.
        clip: largest gradient norm, or None.
        average: decay of averaged weights (None: none), restarted with each segment.
    """

    name: str
    data: str
    rows: int
    order: Component
    views: Mapping[str, tuple[Op, ...]]
    terms: tuple[TermPlan, ...]
    train: tuple[Slice, ...]
    duration: Duration
    steps: int | None
    segment: int
    optimizer: Component
    schedule: Component
    size: int | None = None
    start: Mapping[str, Slice] = field(default_factory=dict)
    keep: str = "last"
    cache: Literal["auto"] | bool | int = "auto"
    fit: Component | None = None
    clip: float | None = None
    average: float | None = None


@dataclass(frozen=True)
class MonitorPlan:
    """What is looked at and not trained: every `every` steps the terms of `phase` on one fixed batch of validation
    pictures, and for each slice of `norms` the sum of its tensors' L2 norms."""

    every: int
    phase: PhasePlan
    norms: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A whole procedure, resolved.

    Attributes:
        recipe: its name; `title`: its plain title ("freeze, then augment").
        result: networks that are evaluated and exported; the first is the headline.
        roles: data role -> the name or path of its data set.
        hold: piece that is cut from the main training pictures -> share (float) or number (int) of them.
        budget: steps of all phases together (None while a plateau phase has no budget to fit in).
        epochs: where the budget was given as whole epochs, how many.
        monitor: what is looked at beside training, or None.
    """

    recipe: str
    title: str
    networks: Mapping[str, NetworkPlan]
    result: tuple[str, ...]
    roles: Mapping[str, str]
    phases: tuple[PhasePlan, ...]
    budget: int | None
    monitor: MonitorPlan | None = None
    hold: Mapping[str, float | int] = field(default_factory=dict)
    epochs: int | None = None
    schema: int = SCHEMA

    def phase(self, name: str) -> PhasePlan:
        """The phase of that name."""
        return next(phase for phase in self.phases if phase.name == name)

    def to_json(self) -> str:
        """JSON text; addresses and slices as a recipe writes them."""
        return json.dumps(_plain(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote."""
        return _plan(json.loads(text))


def _plain(value: Any) -> Any:
    if isinstance(value, Address | Slice):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _component(raw: dict[str, Any]) -> Component:
    return Component(raw["word"], raw["options"])


def _address(raw: str | None) -> Address | None:
    return None if raw is None else Address.parse(raw)


def _phase(raw: dict[str, Any]) -> PhasePlan:
    plateau = raw["duration"]["plateau"]
    changed = {
        "order": _component(raw["order"]),
        "views": {
            view: tuple(Op(_component(op["component"]), _address(op["at"])) for op in ops)
            for view, ops in raw["views"].items()
        },
        "terms": tuple(
            TermPlan(
                term["name"],
                _component(term["component"]),
                term["weight"],
                tuple(map(Address.parse, term["of"])),
                tuple(map(Address.parse, term["to"])),
            )
            for term in raw["terms"]
        ),
        "train": tuple(map(Slice.parse, raw["train"])),
        "duration": Duration(**{**raw["duration"], "plateau": plateau and Plateau(**plateau)}),
        "optimizer": _component(raw["optimizer"]),
        "schedule": _component(raw["schedule"]),
        "start": {name: Slice.parse(text) for name, text in raw["start"].items()},
        "fit": raw["fit"] and _component(raw["fit"]),
    }
    return PhasePlan(**{**raw, **changed})


def _monitor(raw: dict[str, Any] | None) -> MonitorPlan | None:
    if raw is None:
        return None
    return MonitorPlan(raw["every"], _phase(raw["phase"]), tuple(map(Slice.parse, raw["norms"])))


def _plan(raw: dict[str, Any]) -> Plan:
    networks = {
        name: NetworkPlan(_component(net["model"]), _address(net["input"]), net["classes"], net["weights"])
        for name, net in raw["networks"].items()
    }
    return Plan(
        **{
            **raw,
            "networks": networks,
            "result": tuple(raw["result"]),
            "phases": tuple(map(_phase, raw["phases"])),
            "monitor": _monitor(raw.get("monitor")),
        }
    )
