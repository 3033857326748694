"""Terms of an objective and the weights they reach: addresses completed with views, defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from augend import names
from augend.address import Address, Slice
from augend.contract import Component
from augend.recipes.checks import check_address, upstream
from augend.recipes.components import complete
from augend.recipes.plan import NetworkPlan, PhasePlan, TermPlan
from augend.recipes.reading import Place
from augend.recipes.words import TermWords

__all__ = ["augmenting", "check_residuals", "planned_term", "trained", "undoing"]


def planned_term(
    name: str,
    term: TermWords,
    views: Sequence[str],
    networks: Mapping[str, NetworkPlan],
    result: Sequence[str],
    smoothing: float,
    place: Place,
) -> TermPlan:
    """A term with all its addresses: one without a view is expanded over the views of the phase.

    Args:
        name: the term's.
        term: as written.
        views: of the phase.
        networks: all that are declared.
        result: networks that cross-entropy (binary, too) takes when `of` is not written.
        smoothing: the settings' label smoothing, for terms that have the option and do not say.
        place: where mistakes are.
    """
    component = complete("objective", term.component, place)
    if smoothing and "smoothing" in names.options("objective", component.word):
        component = Component(component.word, {"smoothing": smoothing, **component.options})
    of = term.of
    if of is None:
        if component.word not in ("cross-entropy", "binary-cross-entropy"):
            raise place.error("of is missing: the address of the tensor, such as net or net.features@a")
        of = tuple(Address(network) for network in result)
    for address in (*of, *term.to):
        check_address(address, networks, views, place)
    joint = bool(getattr(names.lookup("objective", component.word), "joint", False))
    bare = [address for address in of if address.view is None]
    if joint and len(views) > 1 and bare and len(of) > 1:
        raise place.error(f"{bare[0]} names no view, and the phase has {', '.join(views)}; write {bare[0]}@{views[0]}")
    full, to = _expanded(of, views), _expanded(term.to, views)
    if not joint and len(to) == 1:
        to = to * len(full)
    if not joint and to and len(to) != len(full):
        raise place.error(f"of names {len(full)} tensors and to names {len(to)}; allowed: as many, or one")
    return TermPlan(name, component, float(term.weight), full, to)


def trained(phase: PhasePlan, networks: Mapping[str, NetworkPlan]) -> tuple[Slice, ...]:
    """What a phase trains: as written (``all`` spelled out), or what its terms reach and no further.

    A term that ends at ``net.features`` reaches ``net[:classify]``.
    """
    if phase.train:
        spelled = [[Slice(name) for name in networks] if part == Slice("all") else [part] for part in phase.train]
        return tuple(dict.fromkeys(part for parts in spelled for part in parts))
    ends: dict[str, dict[str, None]] = {}
    for term in phase.terms:
        for tensor in (one for address in term.of for one in upstream(address, networks)):
            ends.setdefault(tensor.network, {})[tensor.tensor] = None
    return tuple(part for name in networks if name in ends for part in _up_to(name, list(ends[name])))


def augmenting(phase: PhasePlan, inputs: Mapping[str, Address | None]) -> list[tuple[Address, Address]]:
    """(of, to) where a phase teaches a network to give what it takes, of another view: ``omega@z`` to its input ``@zg``."""
    found = []
    for term in phase.terms:
        for of, to in zip(term.of, term.to, strict=True) if term.component.word == "match" else ():
            taken = inputs[of.network]
            if not of.tensor and taken is not None and (taken.network, taken.tensor) == (to.network, to.tensor):
                found.append((of, to))
    return found


def undoing(phase: PhasePlan, inputs: Mapping[str, Address | None]) -> list[tuple[Address, Address]]:
    """(of, to) where a phase teaches a network to give a picture back as another view shows it: ``vae.picture@noisy`` to
    ``input@clean``.
    """
    return [
        (Address(of.network, "picture", of.view), to)
        for term in phase.terms
        for of, to in (zip(term.of, term.to, strict=True) if term.component.word in ("bernoulli", "gaussian") else ())
        if to.network == "input" and inputs[of.network] is None and of.tensor in ("", "logits", "picture")
    ]


def check_residuals(phases: Sequence[PhasePlan], inputs: Mapping[str, Address | None], place: Place) -> None:
    """Noise as large as what a network gets wrong needs a phase before it in which that network learned."""
    learned: set[str] = set()
    for phase in phases:
        for ops in phase.views.values():
            for op in ops:
                asked = op.component.options.get("residual_of")
                if asked and asked not in learned:
                    raise (
                        place.inside(phase.name)
                        .at("augment")
                        .error(
                            f"noise as large as what network {asked!r} gets wrong, and no phase before teaches it to augment "
                            f"its input (objective: {{match: {{of: {asked}@VIEW, to: …@OTHER}}}})"
                        )
                    )
        learned |= {of.network for of, _ in augmenting(phase, inputs)}


def _expanded(addresses: Sequence[Address], views: Sequence[str]) -> tuple[Address, ...]:
    return tuple(
        address.at(view) for address in addresses for view in ([address.view] if address.view is not None else views)
    )


def _up_to(network: str, tensors: Sequence[str]) -> list[Slice]:
    """The weights that tensors of a network depend on: all of it for its result, otherwise the stages before."""
    if all(tensor == "features" or tensor.startswith(":") for tensor in tensors):
        if "features" in tensors:
            return [Slice(network, None, "classify")]
        return [Slice(network, None, tensor[1:]) for tensor in tensors]
    return [Slice(network)]
