"""Which tensors of a phase hold mixed rows, and what cannot be asked of them.

A view mixes its pictures, or one tensor inside a network; then everything computed from that holds mixed rows, and its
targets are mixed alike. Recipes are checked by names alone; the runner asks again when the order of stages is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from augend import names
from augend.address import Address
from augend.contract import AugendError, Mixing, Pairing
from augend.recipes.components import copies
from augend.recipes.plan import Op, PhasePlan, TermPlan
from augend.recipes.reading import Place

if TYPE_CHECKING:
    from augend.contract import Augment

__all__ = ["After", "by_name", "check_mixing", "mixed_at", "mixture"]

After = Callable[[str, str, str], bool]
"""(network, tensor, other): whether `other` is `tensor` or computed from it."""


def by_name(network: str, tensor: str, other: str) -> bool:
    """As far as names tell: a network's result and its features come after what enters a stage."""
    inside = tensor.startswith(":")
    return other == tensor or (other == "" and (inside or tensor == "features")) or (other == "features" and inside)


def mixed_at(phase: PhasePlan, place: Place) -> dict[str, Address]:
    """View -> the tensor that is mixed in it (``input`` for its pictures); a view may mix once."""
    from augend.augment import build  # loads torch, which listing recipes does without

    found: dict[str, Address] = {}
    for view, ops in phase.views.items():
        said: list[str] = []
        for op in ops:
            try:
                made: Augment | Mixing = build(op.component)
            except AugendError as error:
                raise place.at("augment").error(error) from None
            if not isinstance(made, Mixing):
                continue
            said.append(op.component.word)
            if len(said) > 1:
                raise place.at("augment").error(f"view {view!r} mixes rows twice ({', '.join(said)}); keep one")
            if op.at is not None and not isinstance(made, Pairing):
                _check_inside(phase, view, op, made, place.at("augment"))
            found[view] = Address("input") if op.at is None else op.at
    return found


def _check_inside(phase: PhasePlan, view: str, op: Op, made: Mixing, place: Place) -> None:
    """Several pictures a row enter the network and one row leaves the tensor where they are summed."""
    word, at = op.component.word, op.at
    if len(phase.views) > 1:
        raise place.error(
            f"view {view!r} has several pictures a row as far as {at} ({word}), so it must be the only view"
        )
    if made.sources(0.0) != made.sources(1.0):
        raise place.error(
            f"{word} at {at} must have as many pictures a row throughout the phase; leave `at` out, or give k a phase"
        )
    for other in phase.views[view]:
        if other.at not in (None, at):
            raise place.error(f"{word} at {at} leaves other augmentations inside no place but {at}, found {other.at}")


def _summed(phase: PhasePlan, mixed: Mapping[str, Address]) -> frozenset[str]:
    """The views whose rows have several pictures up to a tensor inside a network."""
    from augend.augment import build

    made = {
        view: [build(op.component) for op in phase.views[view]] for view, at in mixed.items() if at.network != "input"
    }
    return frozenset(
        v for v, ops in made.items() if any(isinstance(op, Mixing) and not isinstance(op, Pairing) for op in ops)
    )


def mixture(
    address: Address, mixed: Mapping[str, Address], inputs: Mapping[str, Address | None], after: After = by_name
) -> str:
    """What the rows of a tensor are mixed by: "" nothing; otherwise where, as an address with its view.

    Args:
        address: with its view.
        mixed: as `mixed_at` says.
        inputs: network -> the tensor that it starts from.
    """
    assert address.view is not None
    at = mixed.get(address.view)
    if at is None:
        return ""
    if at.network == "input":
        return str(at.at(address.view))
    here: Address | None = address
    while here is not None and here.network != "input":
        if here.network == at.network and after(at.network, at.tensor, here.tensor):
            return str(at.at(address.view))
        here = inputs[here.network]
    return ""


def check_mixing(
    phase: PhasePlan, inputs: Mapping[str, Address | None], place: Place, after: After | None = None
) -> dict[str, Address]:
    """Refuse what mixed rows cannot do; returns what `mixed_at` does.

    Args:
        after: given by the runner, which knows the order of stages; it also refuses a mixture that no term sees.
    """
    mixed = mixed_at(phase, place)
    if not mixed:
        return mixed
    view = next(iter(mixed))
    if phase.fit is not None:
        raise place.at("augment").error(f"a closed form needs one picture a row, and view {view!r} mixes several")
    if copies(phase.order) > 1:
        raise place.at("order").error(f"{phase.order.word} needs one picture a row, and view {view!r} mixes several")
    banked = [one for one, at in mixed.items() if at.network == "input"]
    if banked and phase.cache not in ("auto", False):
        raise place.at("cache").error(
            f"view {banked[0]!r} mixes pictures, which no cache can hold; mix what is cached, as "
            "{mixup: {alpha: 0.2, at: net.features}}, or leave cache out"
        )
    seen = {
        _check_term(term, mixed, inputs, after or by_name, place.at("objective").at(term.name)) for term in phase.terms
    }
    if after is not None:
        for one, at in mixed.items():
            if not any(str(at.at(one)) in tags for tags in seen):
                raise place.at("augment").error(f"no term sees what is mixed at {at}")
        several = _summed(phase, mixed)
        for term in phase.terms:
            for address in (*term.of, *term.to):
                if address.view in several and not mixture(address, mixed, inputs, after):
                    raise (
                        place.at("objective")
                        .at(term.name)
                        .error(
                            f"{address} has several pictures a row, which become one only at {mixed[str(address.view)]}"
                        )
                    )
    return mixed


def _check_term(
    term: TermPlan, mixed: Mapping[str, Address], inputs: Mapping[str, Address | None], after: After, place: Place
) -> frozenset[str]:
    made = names.lookup("objective", term.component.word)
    of = [mixture(address, mixed, inputs, after) for address in term.of]
    to = [mixture(address, mixed, inputs, after) for address in term.to]
    tags = frozenset(tag for tag in (*of, *to) if tag)
    if not tags:
        return tags
    where = min(tags)
    if getattr(made, "coupled", False):
        raise place.error(f"{term.component.word} needs one picture a row, and rows are mixed at {where}")
    if getattr(made, "labels", False) and not getattr(made, "soft", False):
        raise place.error(f"{term.component.word} takes one class a row, and rows are mixed at {where}")
    together = [set(of) | set(to)] if getattr(made, "joint", False) else [{a, b} for a, b in zip(of, to, strict=False)]
    for group in together:
        if len(group) > 1:
            both = " and ".join(sorted(tag or "nowhere" for tag in group))
            raise place.error(f"compares rows that are mixed differently ({both}); mix both sides in one place or none")
    return tags
