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
from augend.recipes.plan import PhasePlan, TermPlan
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
                raise place.at("augment").error(
                    f"{op.component.word} needs several pictures a row, so it acts on pixels, not at {op.at}"
                )
            found[view] = Address("input") if op.at is None else op.at
    return found


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
