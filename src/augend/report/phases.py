"""A plan in words: what each phase does, for the page of a study and the card of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from augend.address import Address, Slice
from augend.contract import Component
from augend.recipes.plan import Op, PhasePlan, Plan, TermPlan

__all__ = ["PhaseWords", "network_words", "phase_words"]


@dataclass(frozen=True)
class PhaseWords:
    """One phase, each answer a line of plain text.

    Attributes:
        steps: of the optimizer; None where that depends on when the phase gets no better.
        rows: pictures a step.
        epochs: how often every training picture is seen; None with `steps`, and for pictures of another set.
        sees: what the pictures become.
        moves: which weights.
        minimises: the terms of the loss.
        optimizer: word, rate and schedule.
    """

    name: str
    steps: int | None
    rows: int
    epochs: float | None
    order: str
    sees: str
    moves: str
    minimises: str
    optimizer: str

    @property
    def length(self) -> str:
        """Steps, rows and epochs together."""
        if self.steps == 0:
            return "solved for at once"
        if self.steps is None:
            return f"until it gets no better, {self.rows} pictures a step"
        epochs = "" if self.epochs is None else f" ({self.epochs:.3g} epochs)"
        return f"{self.steps:,} steps of {self.rows} pictures{epochs}"


def phase_words(plan: Plan, pictures: int, steps: Sequence[int | None] = ()) -> list[PhaseWords]:
    """Every phase of a plan in words.

    Args:
        pictures: training pictures of the main role.
        steps: how many steps each phase took, where that is known.
    """
    taken = [*steps, *([None] * len(plan.phases))]
    return [_phase(plan, phase, pictures, done) for phase, done in zip(plan.phases, taken, strict=False)]


def network_words(result: Mapping[str, Any]) -> list[str]:
    """The networks of a finished run, a sentence each: size, work a row, and what a learned augmentation is worth.

    Args:
        result: as in ``result.json``.
    """
    said = []
    for name, size in result.get("networks", {}).items():
        line = (
            f"{name}: {size['parameters']:,} parameters ({size['bytes'] / 1e6:.3g} MB), {size['macs'] / 1e6:,.3g} million "
            "multiply-adds a row"
        )
        scored = result.get("augmenters", {}).get(name)
        if scored is not None:
            score = (
                "nothing moves"
                if scored["score"] is None
                else f"{scored['score']:.2f} (1 is perfect, 0 changes nothing)"
            )
            line += f"; on {scored['pictures']:,} held-out pictures it scores {score}, cosine {scored['cosine']:.3f}"
        said.append(line)
    return said


def _phase(plan: Plan, phase: PhasePlan, pictures: int, done: int | None) -> PhaseWords:
    steps = phase.steps if done is None else done
    alone = len(plan.networks) == 1
    data = "" if phase.data == "main" else f"pictures of {plan.roles.get(phase.data, phase.data)}; "
    size = "" if phase.size is None else f"at {phase.size} pixels; "
    views = phase.views.items()
    seen = [(f"{view}: " if len(phase.views) > 1 else "") + _ops(ops) for view, ops in views]
    start = "".join(f"; {name} begins as {source}" for name, source in phase.start.items())
    average = "" if phase.average is None else f"; weights averaged ({phase.average:g})"
    optimizer = f"{_component(phase.optimizer, skip=('weight_decay',))}, {phase.schedule.word}{average}"
    kept = "" if phase.keep == "last" else f"; the best {phase.keep} is kept"
    return PhaseWords(
        name=phase.name,
        steps=steps,
        rows=phase.rows,
        epochs=None if steps is None or phase.data != "main" else steps * phase.rows / max(1, pictures),
        order=_component(phase.order),
        sees=data + size + "; ".join(seen),
        moves=", ".join(_slice(part, alone) for part in phase.train) + start,
        minimises=" + ".join(_term(term, plan) for term in phase.terms),
        optimizer=(optimizer if phase.fit is None else f"a closed form: {_component(phase.fit)}") + kept,
    )


def _component(component: Component, skip: Sequence[str] = ()) -> str:
    options = [f"{key} {_value(value)}" for key, value in component.options.items() if key not in skip]
    return f"{component.word} ({', '.join(options)})" if options else component.word


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return " to ".join(map(_value, value)) if len(value) == 2 else ", ".join(map(_value, value))
    return str(value)


def _ops(ops: Sequence[Op]) -> str:
    if not ops:
        return "as they are"
    return ", ".join(_component(op.component) + ("" if op.at is None else f" at {op.at}") for op in ops)


def _slice(part: Slice, alone: bool) -> str:
    of = "" if alone else f" of {part.network}"
    if "classify" in (part.first, part.only):
        return f"the classifier{of}"
    if part.only:
        return f"{part.only}{of}"
    if part.first is None and part.last is None:
        return "all weights" if alone else f"all of {part.network}"
    if part.last == "classify":
        return f"{part.first} and above{of}, not the classifier" if part.first else f"all{of} but the classifier"
    if part.last:
        return f"{part.first} up to {part.last}{of}" if part.first else f"below {part.last}{of}"
    return f"{part.first} and above{of}"


def _term(term: TermPlan, plan: Plan) -> str:
    weight = "" if term.weight == 1 else f"{term.weight:g} × "
    default = len(plan.networks) == 1 and all(_plain(address) for address in (*term.of, *term.to))
    of = "" if default else f" of {', '.join(map(_where, term.of))}"
    to = f" to {', '.join(map(_where, term.to))}" if term.to else ""
    return f"{weight}{_component(term.component)}{of}{to}"


def _plain(address: Address) -> bool:
    return not address.tensor and address.view in (None, "x")


def _where(address: Address) -> str:
    return str(Address(address.network, address.tensor, None if address.view == "x" else address.view))
