"""Forward once: every network runs once a step on its views concatenated, and terms are handed tensors at addresses.

`Phase` is the one module that is wrapped for several ranks, compiled and counted. Where a network's first stages are
frozen they run without a gradient, or not at all when their outputs are cached; augmentations that act on a tensor inside a
network (Omega on embeddings, sums of feature maps) are applied where that tensor arises.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from augend.address import Address
from augend.contract import AugendError, Augment, Batch
from augend.randomness import Draws
from augend.recipes.plan import PhasePlan, TermPlan
from augend.stages.networks import Networks, stage_of

__all__ = ["Phase", "Route", "routes"]


@dataclass(frozen=True)
class Route:
    """A network's part in a phase.

    Attributes:
        views: the views it sees, in order; they are concatenated.
        wants: tensors that terms and later networks need.
        stops: tensors at which the forward pauses (the frozen cut, tensors with an augmentation of their own), in order.
        cut: the tensor up to which nothing moves: None when the first stage moves, "" when nothing does.
    """

    name: str
    views: tuple[str, ...]
    wants: frozenset[str]
    stops: tuple[str, ...]
    cut: str | None

    @property
    def frozen_wants(self) -> frozenset[str]:
        """What the frozen part hands on: what a cache of it holds."""
        return self.wants if self.cut == "" else frozenset({self.cut}) if self.cut else frozenset()


def routes(networks: Networks, spec: PhasePlan, acted_on: frozenset[Address]) -> tuple[Route, ...]:
    """What each network computes in a phase, in the order they run.

    Args:
        acted_on: tensors (without view) that an augmentation of the phase acts on.
    """
    needs: dict[str, dict[str, set[str]]] = {name: {} for name in networks}
    for term in spec.terms:
        for address in (*term.of, *term.to):
            if address.network != "input":
                assert address.view is not None
                needs[address.network].setdefault(address.tensor, set()).add(address.view)
    found: list[Route] = []
    for name in reversed(list(networks)):
        if not needs[name]:
            continue
        network = networks.stages(name)
        views = tuple(view for view in spec.views if any(view in seen for seen in needs[name].values()))
        wants = frozenset(needs[name])
        for tensor in wants:
            network.position(tensor)  # an unknown tensor or stage is refused here, before anything runs
        moving = networks.first_moving(name)
        cut = "" if moving is None else None if moving == network.names[0] else _entering(network.names, moving)
        acted = {address.tensor for address in acted_on if address.network == name}
        stops = {tensor for tensor in {*acted, cut} if tensor and network.position(tensor) > 0}
        found.append(Route(name, views, wants, tuple(sorted(stops, key=network.position)), cut))
        source = networks.inputs[name]
        if source is not None:
            needs[source.network].setdefault(source.tensor, set()).update(views)
    return tuple(reversed(found))


def _entering(names: tuple[str, ...], stage: str) -> str:
    return "features" if stage == "classify" and stage == names[-1] else f":{stage}"


class Phase(nn.Module):
    """Networks, terms and routes of a phase: a batch in, each term's weighted loss out.

    Args:
        networks: all networks of the procedure, modes already set by `Networks.only`.
        spec: the resolved phase.
        terms: term name -> component built with reduction "none".
        deferred: address -> view -> augmentations of that tensor.
    """

    def __init__(
        self,
        networks: Networks,
        spec: PhasePlan,
        terms: Mapping[str, nn.Module],
        deferred: Mapping[Address, Mapping[str, Augment]] | None = None,
    ) -> None:
        super().__init__()
        self.networks = networks
        self.terms = nn.ModuleDict(dict(terms))
        self.plans: tuple[TermPlan, ...] = spec.terms
        self.hears = {
            name: [word for word in ("targets", "ids", "draws") if word in inspect.signature(term.forward).parameters]
            for name, term in terms.items()
        }
        self.deferred = dict(deferred or {})
        self.routes = routes(networks, spec, frozenset(self.deferred))
        self.rows, self.ranks = spec.rows, 1
        self.draws: Draws | None = None  # of the step, whole batch: for terms that mine
        self.gather: Callable[[Tensor], Tensor] | None = None  # set on several ranks, for coupled terms
        self.row_loss: Tensor | None = None  # detached, for orders that hear losses

    def train(self, mode: bool = True) -> Phase:
        """Modes are set by `Networks.only` alone."""
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Term name -> weighted scalar; their sum is what is minimised."""
        at = self.tensors(batch)
        losses = {plan.name: self._loss(plan, at, batch) for plan in self.plans}
        heard = [rows.detach() for rows, _ in losses.values() if rows.ndim == 1]
        self.row_loss = sum(heard[1:], heard[0]) if heard else None
        return {name: loss for name, (_, loss) in losses.items()}

    def tensors(self, batch: Batch) -> dict[Address, Tensor]:
        """Every tensor that a term asks for, by address with its view."""
        at: dict[Address, Tensor] = {Address("input", "", view): x for view, x in batch.views.items()}
        for route in self.routes:
            source = self.networks.inputs[route.name]
            for tensor, whole in self._run(route, source, batch, at).items():
                for view, part in zip(route.views, whole.chunk(len(route.views)), strict=True):
                    at[Address(route.name, tensor, view)] = part
        return at

    def _run(
        self, route: Route, source: Address | None, batch: Batch, at: Mapping[Address, Tensor]
    ) -> dict[str, Tensor]:
        network = self.networks.stages(route.name)
        out: dict[str, Tensor] = {}
        start: str | None = None
        x: Tensor | None = None
        position = -1
        cached = batch.cached.get(route.name)
        if cached is not None:
            for tensor, views in cached.items():
                whole = _joined([views[view] for view in route.views])
                out[tensor] = self._acted(route, tensor, whole, batch)
            if route.cut == "":
                return out
            assert route.cut is not None
            x, start, position = out[route.cut], stage_of(route.cut), network.position(route.cut)
        else:
            sources = [at[(source or Address("input")).at(view)] for view in route.views]
            x = _joined(sources)
        frozen_until = -1 if route.cut is None else network.position(route.cut)
        for stop in (*route.stops, ""):
            here = network.position(stop)
            if here <= position:
                continue
            wants = frozenset(t for t in route.wants if position < network.position(t) <= here)
            if stop:
                wants |= {stop}
            elif not wants:
                break
            quiet = here <= frozen_until and not x.requires_grad
            with torch.no_grad() if quiet else contextlib.nullcontext():
                got = network(x, wants, start)
            for tensor, value in got.items():
                out[tensor] = self._acted(route, tensor, value, batch)
            if stop:
                x, start, position = out[stop], stage_of(stop), here
        return out

    def _acted(self, route: Route, tensor: str, value: Tensor, batch: Batch) -> Tensor:
        address = Address(route.name, tensor)
        ops = self.deferred.get(address)
        if not ops:
            return value
        params = batch.deferred[str(address)]
        parts = value.chunk(len(route.views))
        return _joined([ops[v].apply(p, params[v]) if v in ops else p for v, p in zip(route.views, parts, strict=True)])

    def _loss(self, plan: TermPlan, at: Mapping[Address, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        term = self.terms[plan.name]
        coupled = bool(getattr(term, "coupled", False))
        shared = coupled and self.gather is not None
        of, to = [at[a] for a in plan.of], [at[a] for a in plan.to]
        targets, ids = batch.targets, batch.ids
        if shared:
            assert self.gather is not None
            of, to = [self.gather(t) for t in of], [self.gather(t) for t in to]
            targets, ids = self.gather(targets), self.gather(ids)
        offered = {"targets": targets, "ids": ids, "draws": self.draws}
        extra = {name: offered[name] for name in self.hears[plan.name]}
        if getattr(term, "joint", False):
            rows = term(*of, *to, **extra)
        else:
            views: dict[str, list[Tensor]] = {}
            for number, (address, tensor) in enumerate(zip(plan.of, of, strict=True)):
                beside = to if len(to) < 2 else [to[number]]
                views.setdefault(address.network, []).append(term(tensor, *beside, **extra))
            sums = [sum(rows[1:], rows[0]) / len(rows) for rows in views.values()]
            rows = sum(sums[1:], sums[0])
        if rows.ndim == 0:
            raise AugendError(
                f"term {plan.name!r} returned a scalar inside a recipe; with reduction='none' it returns (rows,)"
            )
        if batch.weight is not None and not shared:
            rows = rows * batch.weight
        scale = plan.weight / self.rows * (1 if shared else self.ranks)
        return rows, rows.sum() * scale


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
