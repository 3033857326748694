"""From a resolved plan to live objects: networks once a run, and for each phase its order, views, terms and cache.

Stands on the runner's floor; the runner itself only loops.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from augend.address import Address, Slice
from augend.augment import build as build_augment
from augend.augment.chain import Chain
from augend.augment.network import Apply
from augend.contract import AugendError, Augment, Batch, Component, Order, Picks
from augend.data.pictures import Pictures, Split
from augend.models import build as build_model
from augend.models.stages import Stages
from augend.names import lookup
from augend.pixels import to_float
from augend.randomness import Draws, stream_key
from augend.recipes.plan import PhasePlan, Plan
from augend.runner.outputs import Phase
from augend.stages.networks import Networks, stage_of

__all__ = ["Scene", "build_networks", "cuts", "stage"]


def build_networks(plan: Plan, splits: Mapping[str, Split], seed: int) -> Networks:
    """All networks of a plan, initialised as functions of (seed, network name).

    Args:
        splits: role -> data; a network answers the classes of its role.
    """
    pixels = splits["main"]
    networks: dict[str, Stages] = {}
    inputs: dict[str, Address | None] = {}
    for name in _ordered(plan):
        spec = plan.networks[name]
        inputs[name] = spec.input
        shape: tuple[int, ...] = pixels.shape
        if spec.input is not None:
            so_far = Networks(networks, inputs)
            so_far.eval()
            with torch.no_grad():
                shape = tuple(so_far.tensor(spec.input, torch.zeros(2, *pixels.shape)).shape[1:])
        here = cuts(plan, name)
        own = {"mean": pixels.mean, "std": pixels.std} if spec.input is None else {"mean": None, "std": None}
        networks[name] = build_model(
            spec.model,
            shape=shape,
            classes=len(splits[spec.classes].classes),
            cuts=here,
            weights=spec.weights,
            generator_seed=stream_key(seed, "network", name),
            **own,
        )
    built = Networks(networks, inputs)
    for phase in plan.phases:
        for part in (*phase.train, *phase.start.values()):
            part.covers(built.stages(part.network).names, f"phase {phase.name!r}")
    return built


def _ordered(plan: Plan) -> list[str]:
    """Networks so that each comes after the one that its input comes from."""
    done: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise AugendError(f"networks {' -> '.join([*path, name])}: each starts where the next ends")
        if name in done:
            return
        source = plan.networks[name].input
        if source is not None:
            visit(source.network, (*path, name))
        done.append(name)

    for name in plan.networks:
        visit(name, ())
    return done


def cuts(plan: Plan, name: str) -> tuple[str, ...]:
    """The stages of a network at which a plan starts, stops or listens."""
    found: set[str] = set()

    def hear(address: Address | None) -> None:
        if address is not None and address.network == name and address.tensor.startswith(":"):
            found.add(stage_of(address.tensor))

    for network in plan.networks.values():
        hear(network.input)
    for phase in plan.phases:
        for term in phase.terms:
            for address in (*term.of, *term.to):
                hear(address)
        for ops in phase.views.values():
            for op in ops:
                hear(op.at)
        for part in phase.train:
            if part.network == name:
                found |= {stage for stage in (part.first, part.only) if stage}
    return tuple(sorted(found))


@dataclass
class Scene:
    """The live objects of one phase."""

    spec: PhasePlan
    phase: Phase
    order: Order
    chains: dict[str, Chain]
    inner: dict[str, dict[str, Chain]]  # address -> view -> augmentations of that tensor
    pictures: Pictures
    moving: dict[str, nn.Parameter]
    variants: int | None
    banks: dict[str, dict[str, dict[str, Tensor]]] = field(default_factory=dict)  # network -> tensor -> view -> bank
    bank_views: dict[str, int] = field(default_factory=dict)  # view -> M, when a bank of M draws serves it
    channels_last: bool = False
    lap: Callable[[str], None] = field(default=lambda part: None)  # the ledger's clock

    def sources(self, progress: float) -> int:
        """Pictures a row."""
        return max(chain.sources(progress) for chain in self.chains.values())

    @functools.cached_property
    def sees_pixels(self) -> bool:
        """Whether a step needs pictures at all, or everything it starts from is cached (asked first when that is known)."""
        roots = [r for r in self.phase.routes if self.phase.networks.inputs[r.name] is None]
        asked = any(a.network == "input" for t in self.spec.terms for a in (*t.of, *t.to))
        return asked or any(route.name not in self.banks for route in roots)

    def batch(self, picks: Picks, draws: Draws, progress: float) -> Batch:
        """What a step sees: pictures fetched, every view drawn and applied. `draws` holds this rank's rows."""
        device = self.pictures.labels.device
        index = picks.index.to(device)
        first = index[:, 0]
        params = {
            view: self._drawn(view, chain, draws.child(view), progress, picks.copy)
            for view, chain in self.chains.items()
            if chain.ops or chain.mixing or view in self.bank_views
        }
        views: dict[str, Tensor] = {}
        if self.sees_pixels:
            pixels, labels = self.pictures.fetch(index)
            x = pixels.flatten(0, 1)
            targets = labels[:, 0]
            self.lap("data")
            for view, chain in self.chains.items():
                drawn = params.get(view)
                views[view], targets = self._view(chain, x, labels, drawn if drawn is None else drawn.to(device))
            self.lap("augment")
        else:
            targets = self.pictures.labels[first]
        deferred = {
            address: {
                view: chain.draw(draws.child(view).child(address), progress, picks.copy).to(device)
                for view, chain in by_view.items()
            }
            for address, by_view in self.inner.items()
        }
        cached = {
            network: {
                tensor: {view: bank[self._bank_rows(index, params.get(view), view)] for view, bank in by_view.items()}
                for tensor, by_view in tensors.items()
            }
            for network, tensors in self.banks.items()
        }
        weight = None if picks.weight is None else picks.weight.to(device)
        self.lap("data")
        return Batch(views, targets, first, weight, params, deferred, cached)

    def _drawn(self, view: str, chain: Chain, draws: Draws, progress: float, copy: Tensor | None) -> Tensor:
        if view in self.bank_views:
            return draws.integers(self.bank_views[view]).float()
        return chain.draw(draws, progress, copy)

    def shown(self, view: str, pictures: Tensor, variant: Tensor, seed: int, *, bank: bool) -> Tensor:
        """Pixels ``(rows, C, H, W)`` of pictures under a variant of a view (or the view's n-th draw of a bank)."""
        chain = self.chains[view]
        pixels, labels = self.pictures.fetch(pictures[:, None].to(self.pictures.labels.device))
        params: Tensor | None = None
        if not (chain.ops or chain.mixing):
            pass
        elif bank:
            drawn = torch.zeros(0)
            for number in sorted(set(variant.tolist())):
                here = variant == number
                draws = Draws(seed, f"{self.spec.name}/bank/{view}", number, pictures[here])
                part = chain.draw(draws, 0.0, None)
                drawn = part.new_zeros(len(pictures), part.shape[1]) if not drawn.numel() else drawn
                drawn[here] = part
            params = drawn
        else:
            params = chain.draw(Draws(seed, self.spec.name, keys=pictures), 0.0, variant)
        return self._view(chain, pixels.flatten(0, 1), labels, params if params is None else params.to(pixels.device))[
            0
        ]

    def _view(self, chain: Chain, x: Tensor, labels: Tensor, params: Tensor | None) -> tuple[Tensor, Tensor]:
        targets = labels[:, 0]
        if chain.mixing is not None and params is not None:
            return self._mixed(chain, x, labels, params)
        x = to_float(x) if params is None else chain.apply(x, params)
        if self.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, targets

    def _mixed(self, chain: Chain, x: Tensor, labels: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        assert chain.mixing is not None
        rows, sources = labels.shape
        own, mixing = chain.split(params, sources)
        x = chain.apply(x, own)
        mixed, targets = chain.mixing.mix(x.view(rows, sources, *x.shape[1:]), labels, mixing)
        if self.channels_last and mixed.ndim == 4:
            mixed = mixed.contiguous(memory_format=torch.channels_last)
        return mixed, targets

    def _bank_rows(self, index: Tensor, params: Tensor | None, view: str) -> Tensor:
        variants = self.bank_views.get(view) or self.chains[view].variants
        assert variants is not None
        return index[:, 0] if params is None else index[:, 0] * variants + params[:, 0].long().to(index.device)


def stage(
    spec: PhasePlan,
    networks: Networks,
    splits: Mapping[str, Split],
    *,
    seed: int,
    channels_last: bool = False,
    run: Callable[[str, Tensor], Tensor] | None = None,
) -> Scene:
    """Set the scene of a phase: `start:` is the runner's business, everything else that stands before the first step is here.

    Args:
        run: how an augmentation passes a tensor through a network; default: the network itself.
    """
    split = splits[spec.data]
    pictures = split.train if spec.size in (None, split.shape[-1]) else split.train.resized(spec.size)
    moving = networks.only(list(spec.train))
    chains: dict[str, Chain] = {}
    inner: dict[str, dict[str, Chain]] = {}
    for view, ops in spec.views.items():
        chains[view] = _chain(op.component for op in ops if op.at is None)
        for address in dict.fromkeys(op.at for op in ops if op.at is not None):
            chain = _chain(op.component for op in ops if op.at == address)
            for op in chain.ops:
                if isinstance(op, Apply):
                    op.bind(_through(networks, op.network, run))
            inner.setdefault(str(address), {})[view] = chain
    deferred: dict[Address, Mapping[str, Augment]] = {
        Address.parse(address): dict(by_view) for address, by_view in inner.items()
    }
    terms = {term.name: build_term(term.component) for term in spec.terms}
    phase = Phase(networks, spec, terms, deferred)
    order: Order = lookup("order", spec.order.word)(**spec.order.options)
    finite = [chain.variants for chain in chains.values()]
    variants = None if any(v is None for v in finite) else max(v for v in finite if v is not None)
    order.start(len(pictures), Draws(seed, f"{spec.name}/order"), None, variants)
    return Scene(spec, phase, order, chains, inner, pictures, moving, variants, channels_last=channels_last)


def _chain(components: Any) -> Chain:
    return Chain([build_augment(component) for component in components])


def _through(networks: Networks, name: str, run: Callable[[str, Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    if run is not None:
        return lambda x: run(name, x)
    return lambda x: networks.stages(name)(x, frozenset({""}))[""]


def build_term(component: Component) -> nn.Module:
    """A term with reduction "none"; a third party's class that hears `ids` compares rows unless it says otherwise."""
    made = lookup("objective", component.word)
    takes = inspect.signature(made).parameters
    term = made(**component.options, **({"reduction": "none"} if "reduction" in takes else {}))
    if not isinstance(term, nn.Module):
        raise AugendError(f"objective {component.word!r}: {made.__name__} is no nn.Module")
    if not hasattr(term, "coupled"):
        term.coupled = "ids" in inspect.signature(term.forward).parameters  # type: ignore[assignment]
    return term


def missing_gradients(moving: Mapping[str, nn.Parameter]) -> Sequence[str]:
    """Names of weights that should move and got no gradient."""
    return [name for name, parameter in moving.items() if parameter.grad is None]


def trains(spec: PhasePlan) -> str:
    """The slices of a phase as a reader writes them."""
    return ", ".join(str(part) for part in spec.train) or "nothing"


def slices_of(plan: Plan, segment: int) -> list[Slice]:
    """Everything that moves in some phase of an optimizer's life."""
    return [part for phase in plan.phases if phase.segment == segment for part in phase.train]
