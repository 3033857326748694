"""Mixtures that cannot work, refused without running. Stages are checked when networks exist, by the runner."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from augend import names
from augend.address import Address, Slice
from augend.contract import AugendError, Component
from augend.recipes.components import copies
from augend.recipes.durations import sources_of
from augend.recipes.mixtures import check_mixing
from augend.recipes.plan import NetworkPlan, Op, PhasePlan, TermPlan
from augend.recipes.reading import Place

if TYPE_CHECKING:
    from augend.augment import Chain

__all__ = ["asked", "check_address", "check_phase", "check_teacher", "in_order", "referred", "upstream"]

_LAST = "classify"
_TAUGHT = ("by-score", "by-delta")  # orders that may ask a network of the recipe
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


def asked(order: Component) -> list[Address]:
    """The network that an order asks for scores, if any."""
    teacher = order.options.get("teacher") if order.word in _TAUGHT else None
    return [] if teacher is None else [Address.parse(str(teacher))]


def check_teacher(teacher: Address, networks: Mapping[str, NetworkPlan], data: str, place: Place) -> None:
    """What an order asks is a declared network, for its answers, which are classes of the pictures that it orders."""
    if teacher.network not in networks:
        raise place.unknown(teacher.network, networks, "network")
    if teacher.tensor or teacher.view:
        raise place.error(f"a teacher is asked for its answers; write {teacher.network}, found {teacher}")
    if networks[teacher.network].classes != data:
        raise place.error(
            f"network {teacher.network!r} answers the classes of role {networks[teacher.network].classes!r}, and the "
            f"pictures are those of {data!r}"
        )


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


def check_phase(phase: PhasePlan, networks: Mapping[str, NetworkPlan], place: Place, size: int) -> None:
    """Refuses terms that cannot move a weight, weights that nothing moves, terms with too few or too many tensors, and rows
    of more pictures than the `size` that there are to train on.
    """
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
    _check_applied(phase, networks, moving, place.at("augment"))
    _check_views(phase, place)
    _check_order(phase, place)
    most = max(sources_of(phase)(progress) for progress in (0.0, 1.0))
    if most > size:
        raise place.at("augment").error(f"a row is made of {most} pictures, and there are {size} to train on")
    if phase.fit is not None:
        _check_fit(phase, phase.fit, networks, place)
    check_mixing(phase, {name: network.input for name, network in networks.items()}, place)


def _check_applied(
    phase: PhasePlan, networks: Mapping[str, NetworkPlan], moving: Sequence[Slice], place: Place
) -> None:
    """Networks that make pictures of pictures stand still meanwhile, and take pictures."""
    for op in (op for ops in phase.views.values() for op in ops if op.component.word == "apply"):
        address = Address.parse(str(op.component.options.get("network", "")))
        if op.at is not None:
            continue
        if address.network in {part.network for part in moving}:
            raise place.error(
                f"apply: network {address.network!r} moves in this phase, and its pictures are made before each step; give "
                "it a phase of its own before, or name the tensor it acts on (at)"
            )
        if (source := networks[address.network].input) is not None:
            raise place.error(
                f"apply: network {address.network!r} takes {source}, and what is augmented here are pictures; name the "
                "tensor it acts on (at)"
            )


def _check_order(phase: PhasePlan, place: Place) -> None:
    """Orders of single pictures cannot fill rows of several; batches that are cut beforehand keep their size."""
    order = names.lookup("order", phase.order.word)(**phase.order.options)
    first, last = (sources_of(phase)(progress) for progress in (0.0, 1.0))
    if getattr(order, "single", False) and max(first, last) > 1:
        raise place.at("order").error(
            f"{phase.order.word} chooses single pictures, and a row here is made of {max(first, last)}; choose batches, such "
            "as by-loss with item: batch"
        )
    if getattr(order, "cuts", False) and first != last:
        raise place.at("order").error(
            f"{phase.order.word} cuts an epoch into batches of one size, and a row here is made of {first} pictures at first "
            f"and of {last} at last; use by-loss, which draws its batches as it goes"
        )


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
    takes = inspect.signature(getattr(made, "forward", made)).parameters
    if getattr(made, "joint", False) and not any(one.kind is one.VAR_POSITIONAL for one in takes.values()):
        named = [name for name, one in takes.items() if one.kind is one.POSITIONAL_OR_KEYWORD][1:]
        if len(named) != len(term.of):
            raise place.error(f"takes {len(named)} tensors ({', '.join(named)}), found {', '.join(map(str, term.of))}")
    wanted = takes.get("to")
    if wanted is not None and wanted.default is inspect.Parameter.empty and not term.to:
        raise place.error("to is missing: the address of the tensor to match")
    if wanted is None and term.to:
        raise place.error(f"takes no to, found {', '.join(map(str, term.to))}")


def _check_fit(phase: PhasePlan, fit: Component, networks: Mapping[str, NetworkPlan], place: Place) -> None:
    """A closed form minimises one thing, for one slice, over rows that can be counted."""
    if len(phase.train) != 1:
        raise place.at("train").error(f"{fit.word} fits one slice, found {', '.join(map(str, phase.train))}")
    network = phase.train[0].network
    minimised = names.lookup("fit", fit.word).minimises
    for term in phase.terms if minimised is not None else ():
        if (term.component.word, term.component.options) != (minimised, {}) or {
            (one.network, one.tensor) for one in term.of
        } != {(network, "")}:
            raise place.at("objective").error(
                f"{fit.word} minimises {minimised} of {network} alone, as it is; "
                + (
                    f"leave objective out, or write {{{minimised}: {{of: {network}}}}}"
                    if minimised == "cross-entropy"
                    else f"write {{{minimised}: {{of: {network}@VIEW, to: …@OTHER}}}}"
                )
            )
    if minimised == "cross-entropy" and networks[network].classes != phase.data:
        raise place.at("data").error(
            f"network {network!r} answers the classes of role {networks[network].classes!r}, found {phase.data!r}"
        )
    if phase.cache is False:
        raise place.at("cache").error(
            "false asks for pictures in every step, and a closed form takes none; leave it out"
        )
    for view, ops in phase.views.items():
        inside = [op for op in ops if op.at is not None]
        if inside:
            raise place.at("augment").error(
                f"{fit.word} fits what enters {phase.train[0]} as it is, "
                f"and {inside[0].component.word} acts at {inside[0].at}"
            )
        chained = _chain(ops, place.at("augment"))
        if phase.cache in ("auto", True) and chained.mixing is None and chained.variants is None:
            raise place.at("augment").error(
                f"view {view!r} has infinitely many outcomes, and a closed form sees every one once; "
                "write cache: {views: 8} for 8 draws a picture"
            )


def _chain(ops: Sequence[Op], place: Place) -> Chain:
    from augend.augment import chain  # loads torch, which listing recipes does without

    try:
        return chain([op.component for op in ops if op.at is None])
    except AugendError as error:
        raise place.error(error) from None


def _check_views(phase: PhasePlan, place: Place) -> None:
    """Exact caches need a finite augmentation, and copies of a picture that many outcomes."""
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
        if phase.duration.plateau is not None and chained.sources(0.0) != chained.sources(1.0):
            raise place.at("until").error(
                f"ends at a plateau, so how far it has come is not known, and view {view!r} changes with progress; "
                "write a duration without a plateau"
            )
