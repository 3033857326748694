"""Mixtures that cannot work, refused without running. Stages are checked when networks exist, by the runner."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from augend import names
from augend.address import Address, Slice
from augend.contract import AugendError
from augend.recipes.components import copies
from augend.recipes.plan import NetworkPlan, Op, PhasePlan, TermPlan
from augend.recipes.reading import Place

if TYPE_CHECKING:
    from augend.augment import Chain

__all__ = ["check_address", "check_phase", "in_order", "referred", "upstream"]

_LAST = "classify"
_NETWORK_OPTIONS = ("network", "residual_of")  # of augmentations: the network (or its tensor) that they use


def check_address(address: Address, networks: Mapping[str, object], views: Sequence[str], place: Place) -> None:
    """An address names a declared network and a view of its phase."""
    if address.network == "input":
        if address.tensor:
            raise place.error(f"{address} names a tensor of the input; write input or input@VIEW")
    elif address.network not in networks:
        raise place.unknown(address.network, [*networks, "input"], "network")
    if address.view is not None and address.view not in views:
        raise place.unknown(address.view, views, "view")


def referred(ops: Sequence[Op]) -> Iterator[tuple[str, Address]]:
    """(option, address) for each network that the augmentations of a view use or act on."""
    for op in ops:
        if op.at is not None:
            yield "at", op.at
        for option in _NETWORK_OPTIONS:
            if option in op.component.options:
                yield option, Address.parse(str(op.component.options[option]))


def upstream(address: Address, networks: Mapping[str, NetworkPlan]) -> list[Address]:
    """The address and those that it is computed from, down to the pixels, which are left out."""
    found: list[Address] = []
    here: Address | None = address
    while here is not None and here.network != "input":
        found.append(here)
        here = networks[here.network].input
    return found


def in_order(networks: Mapping[str, NetworkPlan], place: Place) -> dict[str, NetworkPlan]:
    """The networks, each after the one that its input comes from; a circle is an error."""
    found: dict[str, NetworkPlan] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise place.at(f"networks.{name}.input").error(f"goes in a circle: {' -> '.join([*path, name])}")
        source = networks[name].input
        if source is not None and source.network != "input":
            add(source.network, (*path, name))
        found.setdefault(name, networks[name])

    for name in networks:
        add(name, ())
    return found


def check_phase(phase: PhasePlan, networks: Mapping[str, NetworkPlan], place: Place) -> None:
    """Refuses terms that cannot move a weight, weights that nothing moves, terms with too few or too many tensors."""
    moving = _sliced(phase.train, networks)
    moved: set[str] = set()
    for term in phase.terms:
        inside = place.at("objective").at(term.name)
        _check_tensors(term, inside)
        reached = [one for address in term.of for one in upstream(address, networks)]
        touched = {one.network for one in reached if any(_touches(part, one) for part in moving)}
        if term.weight and not touched:
            raise inside.error(
                f"no gradient of {', '.join(map(str, term.of))} reaches a weight that moves "
                f"(train: {', '.join(map(str, phase.train))})"
            )
        moved |= touched
    for part in moving:
        if phase.fit is None and part.network not in moved:
            raise place.at("train").error(f"{part} gets no gradient: no term reaches network {part.network!r}")
    if phase.duration.plateau is not None and phase.schedule.word not in ("constant", "on-plateau"):
        raise place.at("until").error(
            f"ends at a plateau, so its schedule must be constant or on-plateau, found {phase.schedule.word!r}"
        )
    _check_views(phase, place)


def _sliced(train: Sequence[Slice], networks: Mapping[str, NetworkPlan]) -> list[Slice]:
    return [part for one in train for part in ([Slice(name) for name in networks] if one.network == "all" else [one])]


def _touches(part: Slice, tensor: Address) -> bool:
    """Whether a tensor depends on the weights of a slice, as far as names tell (the order of stages is not known)."""
    if part.network != tensor.network:
        return False
    begins = part.first or part.only
    if tensor.tensor.startswith(":"):
        return begins not in (tensor.tensor[1:], _LAST)
    return not (tensor.tensor == "features" and begins == _LAST)


def _check_tensors(term: TermPlan, place: Place) -> None:
    made = names.lookup("objective", term.component.word)
    doubled = [str(one) for one in term.of if term.of.count(one) > 1]
    if doubled:
        raise place.error(f"names {doubled[0]} twice")
    if getattr(made, "joint", False) and len(term.of) < 2:
        raise place.error(
            f"compares tensors with one another, but of names {', '.join(map(str, term.of))} alone; "
            "give it a second network or a second view"
        )
    wanted = inspect.signature(getattr(made, "forward", made)).parameters.get("to")
    if wanted is not None and wanted.default is inspect.Parameter.empty and not term.to:
        raise place.error("to is missing: the address of the tensor to match")
    if wanted is None and term.to:
        raise place.error(f"takes no to, found {', '.join(map(str, term.to))}")


def _chain(ops: Sequence[Op], place: Place) -> Chain:
    from augend.augment import chain  # loads torch, which listing recipes does without

    try:
        return chain([op.component for op in ops if op.at is None])
    except AugendError as error:
        raise place.error(error) from None


def _coupled(term: TermPlan) -> bool:
    return bool(getattr(names.lookup("objective", term.component.word), "coupled", False))


def _check_views(phase: PhasePlan, place: Place) -> None:
    """Exact caches need a finite augmentation, copies of a picture that many outcomes, and mixed rows have no one id."""
    wanted = copies(phase.order)
    for view, ops in phase.views.items():
        chained = _chain(ops, place.at("augment"))
        count = chained.variants
        if phase.cache is True and count is None:
            raise place.at("cache").error(
                f"true needs a finite augmentation, and view {view!r} has infinitely many outcomes; "
                "write {views: 8} for a bank of 8 draws a picture, or auto"
            )
        if wanted > 1 and count is not None and count < wanted:
            raise place.at("order").error(
                f"asks for {wanted} copies of a picture, but the augmentation of view {view!r} has {count} "
                f"outcome{'s' * (count != 1)}; use a richer one"
            )
        if chained.mixing is None:
            continue
        by_id = [term.name for term in phase.terms if _coupled(term)]
        if by_id or wanted > 1:
            raise place.at("objective" if by_id else "order").error(
                f"{by_id[0] if by_id else phase.order.word} needs one picture a row, and view {view!r} mixes several"
            )
        if phase.duration.plateau is not None and chained.sources(0.0) != chained.sources(1.0):
            raise place.at("until").error(
                f"ends at a plateau, so how far it has come is not known, and view {view!r} changes with progress; "
                "write a duration without a plateau"
            )
