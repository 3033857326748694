"""Forward once: every network runs once a step on its views concatenated, and terms are handed tensors at addresses.

`Phase` is the one module that is wrapped for several ranks, compiled and counted. Where a network's first stages are
frozen they run without a gradient, or not at all when their outputs are cached; augmentations that act on a tensor inside a
network (Omega on embeddings, mixup of feature maps) are applied where that tensor arises, and the targets of whatever is
computed from a mixed tensor are mixed with it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from augend.address import Address
from augend.augment.chain import Chain
from augend.augment.mix import soft_targets
from augend.contract import AugendError, Batch
from augend.models.stages import Stages
from augend.randomness import Draws
from augend.recipes.mixtures import mixture
from augend.recipes.plan import PhasePlan, TermPlan
from augend.stages.networks import Networks, stage_of

__all__ = ["Phase", "Route", "computed_from", "routes"]


@dataclass(frozen=True)
class Route:
    """A network's part in a phase.

    Attributes:
        views: the views it sees, in order; they are concatenated.
        wants: tensors that terms and later networks need.
        stops: tensors at which the forward pauses (the frozen cut, tensors with an augmentation of their own), in order.
        cut: the tensor up to which nothing moves: None when the first stage moves, "" when nothing does.
        frozen_wants: what the frozen part hands on, and so what a cache of it holds.
    """

    name: str
    views: tuple[str, ...]
    wants: frozenset[str]
    stops: tuple[str, ...]
    cut: str | None
    frozen_wants: frozenset[str]

    def keys(self, tensor: str) -> tuple[str, ...]:
        """The addresses of a tensor in every view, as text."""
        return _keys(self.name, tensor, self.views)


@functools.cache
def _keys(name: str, tensor: str, views: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(Address(name, tensor, view)) for view in views)


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
        cut = "" if moving is None else None if moving == network.names[0] else _entering(network, moving)
        acted = {address.tensor for address in acted_on if address.network == name}
        for tensor in acted:
            if network.position(tensor) == 0:
                raise AugendError(
                    f"phase {spec.name!r}, augment: {Address(name, tensor)} is what enters the network; to act on pixels, "
                    "leave `at` out"
                )
        stops = {tensor for tensor in {*acted, cut} if tensor and network.position(tensor) > 0}
        below = {t for t in wants if cut and network.position(t) < network.position(cut)}
        held = wants if cut == "" else frozenset({cut, *below}) if cut else frozenset()
        found.append(Route(name, views, wants, tuple(sorted(stops, key=network.position)), cut, frozenset(held)))
        source = networks.inputs[name]
        if source is not None:
            needs[source.network].setdefault(source.tensor, set()).update(views)
    return tuple(reversed(found))


def _entering(network: Stages, stage: str) -> str | None:
    """The tensor that enters a stage; None where a network has no name for it."""
    name = "features" if stage == "classify" and stage == network.names[-1] else f":{stage}"
    try:
        network.position(name)
    except AugendError:
        return None
    return name


def computed_from(networks: Networks, network: str, tensor: str, other: str) -> bool:
    """Whether `other` is `tensor` of the same network or comes after it; outputs beside the chain come from nothing."""
    stages = networks.stages(network)
    here = stages.position(tensor)
    return other == tensor or (here < len(stages.names) and stages.position(other) > here)


@dataclass(frozen=True)
class _Planned:
    """A term with all that does not change from step to step."""

    name: str
    term: nn.Module
    of: tuple[tuple[str, ...], ...]  # for each network, the keys of its views; joint terms: one group of all
    to: tuple[str, ...]
    joint: bool
    coupled: bool
    hears: tuple[str, ...]
    weight: float


def _planned(plan: TermPlan, term: nn.Module) -> _Planned:
    joint = bool(getattr(term, "joint", False))
    groups: dict[str, list[str]] = {}
    for address in plan.of:
        groups.setdefault("" if joint else address.network, []).append(str(address))
    takes = inspect.signature(term.forward).parameters
    return _Planned(
        plan.name,
        term,
        tuple(tuple(group) for group in groups.values()),
        tuple(map(str, plan.to)),
        joint,
        bool(getattr(term, "coupled", False)),
        tuple(word for word in ("targets", "ids", "draws") if word in takes),
        plan.weight,
    )


class Phase(nn.Module):
    """Networks, terms and routes of a phase: a batch in, each term's weighted loss out.

    Args:
        networks: all networks of the procedure, modes already set by `Networks.only`.
        spec: the resolved phase.
        terms: term name -> component built with reduction "none".
        deferred: address -> view -> augmentations of that tensor.
        classes: of the targets, for mixtures.
    """

    def __init__(
        self,
        networks: Networks,
        spec: PhasePlan,
        terms: Mapping[str, nn.Module],
        deferred: Mapping[Address, Mapping[str, Chain]] | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.networks = networks
        self.terms = nn.ModuleDict(dict(terms))
        self.deferred = dict(deferred or {})
        self.classes = classes
        self.routes = routes(networks, spec, frozenset(self.deferred))
        self.plans: tuple[TermPlan, ...] = spec.terms
        self.rows, self.ranks = spec.rows, 1
        self.draws: Draws | None = None  # of the step, whole batch: for terms that mine
        self.gather: Callable[[Tensor], Tensor] | None = None  # set on several ranks, for coupled terms
        self.hear_rows = False  # whether `row_loss` is wanted
        self.row_loss: Tensor | None = None  # detached, for orders that hear losses
        mixed = {
            view: address
            for address, chains in self.deferred.items()
            for view, chain in chains.items()
            if chain.mixing is not None
        }
        after = functools.partial(computed_from, networks)
        # term's tensor -> whose targets it has: those of the tensor that is mixed below it, or of its view
        self._targets_of = {
            str(one): mixture(one, mixed, networks.inputs, after) or one.view or ""
            for term in spec.terms
            for one in term.of
        }
        self._inputs = {view: str(Address("input", "", view)) for view in spec.views}
        self._sources = {
            route.name: [str((networks.inputs[route.name] or Address("input")).at(view)) for view in route.views]
            for route in self.routes
        }

    def train(self, mode: bool = True) -> Phase:
        """Modes are set by `Networks.only` alone."""
        return self

    @functools.cached_property
    def _terms(self) -> tuple[_Planned, ...]:
        return tuple(_planned(plan, self.terms[plan.name]) for plan in self.plans)

    def __deepcopy__(self, memo: dict[int, object]) -> Phase:
        # a copy has modules of its own, so what was planned with ours must not come along
        self.__dict__.pop("_terms", None)
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    @property
    def coupled(self) -> list[str]:
        """What compares or mixes rows with one another, in words: on several ranks these must hold equally many."""
        terms = [f"term {name!r}" for name, term in self.terms.items() if getattr(term, "coupled", False)]
        mixing = [a for a, chains in self.deferred.items() if any(chain.pairing for chain in chains.values())]
        return [*terms, *(f"mixing at {address}" for address in mixing)]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Term name -> weighted scalar; their sum is what is minimised."""
        soft = dict(batch.soft)
        try:
            at = self._tensors(batch, soft)
        except ValueError as error:  # torch's, of batch norm
            if "more than 1 value per channel" not in str(error):
                raise
            raise AugendError(
                "batches of one picture leave batch norm no mean to take; take batches of 2 or more"
            ) from error
        self.row_loss = None
        return {planned.name: self._loss(planned, at, soft, batch) for planned in self._terms}

    def tensors(self, batch: Batch) -> dict[str, Tensor]:
        """Every tensor that a term asks for, by address with its view, as a recipe writes it."""
        return self._tensors(batch, {})

    def _tensors(self, batch: Batch, soft: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same; leaves the targets of mixed tensors in `soft`, by their address with its view."""
        at: dict[str, Tensor] = {self._inputs[view]: x for view, x in batch.views.items()}
        for route in self.routes:
            for tensor, whole in self._run(route, batch, at, soft).items():
                keys = route.keys(tensor)
                if len(keys) == 1:
                    at[keys[0]] = whole
                else:
                    at.update(zip(keys, whole.chunk(len(keys)), strict=True))
        return at

    def _run(self, route: Route, batch: Batch, at: Mapping[str, Tensor], soft: dict[str, Tensor]) -> dict[str, Tensor]:
        network = self.networks.stages(route.name)
        cached = batch.cached.get(route.name)
        if cached is None:
            x = _joined([at[key] for key in self._sources[route.name]])
            if not route.stops and route.cut is None and not self.deferred:
                plain: dict[str, Tensor] = network(x, route.wants, None)
                return plain
        out: dict[str, Tensor] = {}
        start: str | None = None
        position = -1
        if cached is not None:
            for tensor, views in cached.items():
                out[tensor] = self._acted(route, tensor, _joined([views[view] for view in route.views]), batch, soft)
            if route.cut == "":
                return out
            assert route.cut is not None
            x, start, position = out[route.cut], stage_of(route.cut), network.position(route.cut)
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
                out[tensor] = self._acted(route, tensor, value, batch, soft)
            if stop:
                x, start, position = out[stop], stage_of(stop), here
        return out

    def _acted(self, route: Route, tensor: str, value: Tensor, batch: Batch, soft: dict[str, Tensor]) -> Tensor:
        address = Address(route.name, tensor)
        ops = self.deferred.get(address)
        if not ops:
            return value
        params = batch.deferred[str(address)]
        made = []
        for view, part in zip(route.views, value.chunk(len(route.views)), strict=True):
            chain = ops.get(view)
            if chain is None:
                made.append(part)
            elif chain.mixing is None:
                made.append(chain.apply(part, params[view]))
            else:
                mixed, soft[str(address.at(view))] = self._mixed(chain, part, params[view], address, view, batch)
                made.append(mixed)
        return _joined(made)

    def _mixed(
        self, chain: Chain, x: Tensor, params: Tensor, address: Address, view: str, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Rows made of what their pictures have become here; a gradient flows back to all of them.

        They are a row's own pictures, or it and its partner, which on several ranks another may hold.
        """
        assert chain.mixing is not None
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        if chain.pairing is None:
            classes = batch.parts[str(address)][view]
            mixed, targets = chain.mixed(x, soft_targets(classes.flatten(), self.classes), params, classes.shape[1])
            return mixed.contiguous(memory_format=torch.channels_last) if last else mixed, targets
        own, mixing = chain.split(params, 1)
        x, labels = chain.apply(x, own), batch.targets
        whole = [part if self.gather is None else self.gather(part) for part in (x, labels)]
        partners = batch.partners[str(address)][view] % len(whole[0])  # a rank's share is counted without gathering
        others, theirs = (part.index_select(0, partners) for part in whole)
        tables = [soft_targets(part, self.classes) for part in (labels, theirs)]
        mixed, targets = chain.mixing.mix((x, others), tables, mixing)
        return mixed.contiguous(memory_format=torch.channels_last) if last else mixed, targets

    def _loss(self, planned: _Planned, at: Mapping[str, Tensor], soft: Mapping[str, Tensor], batch: Batch) -> Tensor:
        term = planned.term
        gather = self.gather if planned.coupled else None
        targets, ids = batch.targets, batch.ids
        if gather is not None:
            targets, ids = gather(targets), gather(ids)
            at = {key: gather(at[key]) for key in (*itertools.chain(*planned.of), *planned.to)}
        offered = {"ids": ids, "draws": self.draws}
        extra = {word: offered[word] for word in planned.hears if word != "targets"}

        def told(key: str) -> dict[str, Any]:
            if "targets" not in planned.hears:
                return extra
            return {"targets": soft.get(self._targets_of[key], targets), **extra}

        to = [at[key] for key in planned.to]
        if planned.joint:
            rows = term(*(at[key] for key in planned.of[0]), *to, **told(planned.of[0][0]))
        else:
            beside = iter(to) if len(to) > 1 else itertools.repeat(to[0]) if to else None
            sums = []
            for group in planned.of:
                parts = [term(at[key], *([next(beside)] if beside else ()), **told(key)) for key in group]
                sums.append(parts[0] if len(parts) == 1 else sum(parts[1:], parts[0]) / len(parts))
            rows = sums[0] if len(sums) == 1 else sum(sums[1:], sums[0])
        if rows.ndim == 0:
            raise AugendError(
                f"term {planned.name!r} returned a scalar inside a recipe; it must return one value a row, (rows,)"
            )
        if self.hear_rows and not planned.coupled:
            heard = rows.detach() * planned.weight  # a row's own loss, however much the row counts
            self.row_loss = heard if self.row_loss is None else self.row_loss + heard
        if batch.weight is not None and gather is None:
            rows = rows * batch.weight
        # ranks may hold unequal parts of the batch, and gradients are averaged over ranks
        share = (1 if gather is not None else self.ranks) / self.rows
        loss: Tensor = rows.mean() if self.ranks == 1 else rows.sum() * share
        return loss if planned.weight == 1.0 else loss * planned.weight


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
