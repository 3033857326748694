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
from augend.augment.mix import places, soft_targets, with_partners
from augend.augment.network import Apply
from augend.augment.pairs import Scales
from augend.contract import AugendError, Batch, Component, Order, Picks, Taken
from augend.data.pictures import Pictures, Split
from augend.data.rows import centred
from augend.models import build as build_model
from augend.models.stages import Stages
from augend.names import lookup
from augend.pixels import to_float
from augend.randomness import Draws, stream_key
from augend.recipes.checks import referred
from augend.recipes.mixtures import check_mixing
from augend.recipes.plan import PhasePlan, Plan
from augend.recipes.reading import Place
from augend.runner.outputs import Phase, computed_from
from augend.runner.sight import Sight, order_of
from augend.stages.networks import Networks, stage_of
from augend.stages.shelf import Placed

__all__ = ["Scene", "bind", "build_networks", "cuts", "stage"]


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
        if phase.size is not None:
            _check_size(phase, plan, built, splits[phase.data])
    return built


def _check_size(phase: PhasePlan, plan: Plan, networks: Networks, split: Split) -> None:
    """A network that cannot take a phase's pictures is refused before anything is trained."""
    assert phase.size is not None
    shape = split.train.take([0]).resized(phase.size).shape
    networks.eval()
    asked = [address for term in phase.terms for address in (*term.of, *term.to)]
    asked += [Address(part.network) for part in phase.train if phase.fit is not None]
    asked += [one for ops in phase.views.values() for option, one in referred(ops) if option == "network"]
    for address in asked:
        if address.network == "input":
            continue
        try:
            with torch.no_grad():
                networks.tensor(address, torch.zeros(2, *shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            word = plan.networks[address.network].model.word
            raise AugendError(
                f"phase {phase.name!r}, size: network {address.network!r} ({word}) cannot take pictures of {shape[1]} x "
                f"{shape[2]} instead of {split.shape[1]} x {split.shape[2]}; leave size out, or use a network that pools "
                "whatever it is given, such as small, preresnet or resnet18"
            ) from error


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
    banks: dict[str, dict[str, dict[str, Tensor | Placed]]] = field(
        default_factory=dict
    )  # network -> tensor -> view -> bank
    bank_views: dict[str, int] = field(default_factory=dict)  # view -> M, when a bank of M draws serves it
    scales: dict[str, Scales] = field(default_factory=dict)  # network -> what its pairs were standardised by
    channels_last: bool = False
    lap: Callable[[str], None] = field(default=lambda part: None)  # the ledger's clock
    sight: Sight | None = None  # how the order sees the networks, where it asks

    def sources(self, progress: float) -> int:
        """Pictures a row."""
        inside = (chain for by_view in self.inner.values() for chain in by_view.values())
        return max(chain.sources(progress) for chain in (*self.chains.values(), *inside))

    @functools.cached_property
    def entering(self) -> int:
        """Pictures a row that enter a network: several where they are summed inside it; then there is one view."""
        inside = [chain for by_view in self.inner.values() for chain in by_view.values()]
        return max([c.sources(0.0) for c in inside if c.mixing is not None and c.pairing is None], default=1)

    @functools.cached_property
    def sees_pixels(self) -> bool:
        """Whether a step needs pictures at all, or everything it starts from is cached (asked first when that is known)."""
        roots = [r for r in self.phase.routes if self.phase.networks.inputs[r.name] is None]
        asked = any(a.network == "input" for t in self.spec.terms for a in (*t.of, *t.to))
        return asked or any(route.name not in self.banks for route in roots)

    @functools.cached_property
    def reaches(self) -> bool:
        """Whether some view crops out of the margin around the pictures."""
        return self.pictures.margin and any(chain.reaches for chain in self.chains.values())

    def picks(self, step: int, draws: Draws, progress: float) -> Picks:
        """What the order chooses for a step; `draws` are those of the whole batch."""
        if self.sight is not None:
            self.sight.at(draws, progress)
        return self.order.next(step, self.spec.rows, self.sources(progress), progress)

    def tell(self, picks: Picks) -> None:
        """Let the order hear of a step what it asks for, once its gradients are there."""
        if not self.order.hears:
            return
        gradient = None
        if "gradient" in self.order.hears:
            gradient = torch.cat([p.grad.flatten().float() for p in self.moving.values() if p.grad is not None])
        self.order.feedback(picks, loss=self.phase.row_loss, gradient=gradient)

    def adopt(self, taken: Taken) -> Mapping[str, Tensor]:
        """Make a step that the order has tried the step: its gradients, running statistics and terms."""
        for name, parameter in self.phase.named_parameters():
            if name in taken.gradients:
                parameter.grad = taken.gradients[name]
        buffers = dict(self.phase.named_buffers())
        for name, value in taken.buffers.items():
            buffers[name].copy_(value)
        return taken.losses.terms

    def batch(self, picks: Picks, draws: Draws, progress: float) -> Batch:
        """What a step sees: pictures fetched, every view drawn and applied.

        Args:
            picks: of the whole batch.
            draws: of the rows that are wanted, by their numbers in the batch: all, or a rank's part.
        """
        device = self.pictures.labels.device
        rows, total = draws.keys, len(picks.index)
        whole = len(rows) == total
        copy, weight = (part if whole or part is None else part[rows] for part in (picks.copy, picks.weight))
        partners = {v: c.pairing.partners(rows, total) for v, c in self.chains.items() if c.pairing is not None}
        fetched = rows if whole else with_partners(rows, partners.values())
        index = (picks.index if whole else picks.index[fetched]).to(device)
        params = {
            view: self._drawn(
                view, chain, draws.child(view).rows(fetched if view in partners else rows), progress, copy
            )
            for view, chain in self.chains.items()
            if chain.ops or chain.mixing or view in self.bank_views
        }
        views: dict[str, Tensor] = {}
        soft: dict[str, Tensor] = {}
        targets = self.pictures.labels[index[: len(rows), 0]]
        if self.sees_pixels:
            pixels, labels = self.pictures.fetch(index, whole=self.reaches)
            self.lap("data")
            for view, chain in self.chains.items():
                drawn = params.get(view)
                drawn = drawn if drawn is None else drawn.to(device)
                if chain.mixing is None:
                    several = pixels[: len(rows), : self.entering].flatten(0, 1)
                    views[view] = self._view(chain, several, self._each(drawn))
                    continue
                assert drawn is not None
                parts: Tensor | int = chain.sources(progress)
                if view in partners:
                    parts = (partners[view] if whole else places(fetched, partners[view])).to(device)
                views[view], soft[view] = self._mixed(chain, pixels, labels, len(rows), parts, drawn)
            self.lap("augment")
        deferred = {
            address: {
                view: chain.draw(draws.child(view).child(address), progress, copy).to(device)
                for view, chain in by_view.items()
            }
            for address, by_view in self.inner.items()
        }
        inside = {
            address: {
                view: chain.pairing.partners(rows, total).to(device)
                for view, chain in by_view.items()
                if chain.pairing is not None
            }
            for address, by_view in self.inner.items()
        }
        entered = index[: len(rows), : self.entering]
        classes = {
            address: dict.fromkeys(by_view, self.pictures.labels[entered])
            for address, by_view in self.inner.items()
            if any(chain.mixing is not None and chain.pairing is None for chain in by_view.values())
        }
        cached = {
            network: {
                tensor: {
                    view: bank[self._bank_rows(entered.flatten(), self._each(params.get(view)), view)]
                    for view, bank in by_view.items()
                }
                for tensor, by_view in tensors.items()
            }
            for network, tensors in self.banks.items()
        }
        weight = None if weight is None else weight.to(device)
        self.lap("data")
        shown = {view: drawn[: len(rows)] for view, drawn in params.items()}
        return Batch(
            views,
            targets,
            index[: len(rows), 0],
            weight,
            shown,
            soft=soft,
            deferred=deferred,
            partners=inside,
            parts=classes,
            cached=cached,
        )

    def _drawn(self, view: str, chain: Chain, draws: Draws, progress: float, copy: Tensor | None) -> Tensor:
        """Of each row's pictures that enter the network, side by side; the first one's are as if it were alone."""
        found = []
        for source in range(self.entering):
            own = draws.child(f"source {source}") if source else draws
            if view in self.bank_views:
                found.append(own.integers(self.bank_views[view]).float())
            else:
                found.append(chain.draw(own, progress, copy))
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def _each(self, params: Tensor | None) -> Tensor | None:
        """Parameters of rows as those of the single pictures that enter the network."""
        if params is None or self.entering == 1:
            return params
        return params.reshape(len(params) * self.entering, -1)

    def shown(self, view: str, pictures: Tensor, variant: Tensor, seed: int, *, bank: bool) -> Tensor:
        """Pixels ``(rows, C, H, W)`` of pictures under a variant of a view (or the view's n-th draw of a bank)."""
        chain = self.chains[view]
        pixels, _ = self.pictures.fetch(pictures[:, None].to(self.pictures.labels.device), whole=self.reaches)
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
        return self._view(chain, pixels[:, 0], params if params is None else params.to(pixels.device))

    def _view(self, chain: Chain, x: Tensor, params: Tensor | None) -> Tensor:
        x = self._seen(chain, x)
        return self.laid_out(to_float(x) if params is None else chain.apply(x, params))

    def _seen(self, chain: Chain, x: Tensor) -> Tensor:
        """What a view is given: pictures with their margin, or their middle."""
        return centred(x, self.pictures.shape[1:]) if self.reaches and not chain.reaches else x

    def _mixed(
        self, chain: Chain, pixels: Tensor, labels: Tensor, rows: int, parts: Tensor | int, params: Tensor
    ) -> tuple[Tensor, Tensor]:
        if isinstance(parts, int):
            pixels, labels = pixels[:rows, :parts], labels[:rows, :parts]
        else:
            pixels, labels = pixels[:, :1], labels[:, :1]
        table = soft_targets(labels.flatten(), self.phase.classes)
        mixed, targets = chain.mixed(self._seen(chain, pixels.flatten(0, 1)), table, params, parts)
        return self.laid_out(mixed), targets

    def laid_out(self, x: Tensor) -> Tensor:
        """Pictures in the run's memory format."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.ndim == 4 else x

    def _bank_rows(self, pictures: Tensor, params: Tensor | None, view: str) -> Tensor:
        variants = self.bank_views.get(view) or self.chains[view].variants
        assert variants is not None
        return pictures if params is None else pictures * variants + params[:, 0].long().to(pictures.device)


def stage(
    spec: PhasePlan,
    networks: Networks,
    splits: Mapping[str, Split],
    *,
    seed: int,
    channels_last: bool = False,
) -> Scene:
    """Set the scene of a phase: `start:` is the runner's business, all else that stands before the first step is here."""
    split = splits[spec.data]
    pictures = split.train if spec.size is None else split.train.resized(spec.size)
    moving = networks.only(list(spec.train))
    chains: dict[str, Chain] = {}
    inner: dict[str, dict[str, Chain]] = {}
    for view, ops in spec.views.items():
        chains[view] = _chain((op.component for op in ops if op.at is None), pictures.shape[1:])
        bind(chains[view], networks)
        for address in dict.fromkeys(op.at for op in ops if op.at is not None):
            chain = _chain(op.component for op in ops if op.at == address)
            bind(chain, networks)
            inner.setdefault(str(address), {})[view] = chain
    check_mixing(spec, networks.inputs, Place(f"phase {spec.name!r}"), functools.partial(computed_from, networks))
    deferred = {Address.parse(address): by_view for address, by_view in inner.items()}
    terms = {term.name: build_term(term.component) for term in spec.terms}
    phase = Phase(networks, spec, terms, deferred, classes=len(split.classes))
    order: Order = order_of(spec, pictures)
    finite = [chain.variants for chain in chains.values()]
    variants = None if any(v is None for v in finite) else max(v for v in finite if v is not None)
    scene = Scene(spec, phase, order, chains, inner, pictures, moving, variants, channels_last=channels_last)
    if getattr(order, "sees", False):
        held = split.held.get("external")
        scene.sight = Sight(scene, held if held is None or spec.size is None else held.resized(spec.size))
    phase.hear_rows = scene.sight is not None or "loss" in order.hears
    order.start(len(pictures), Draws(seed, f"{spec.name}/order"), scene.sight, variants)
    return scene


def _chain(components: Any, size: tuple[int, int] | None = None) -> Chain:
    return Chain([build_augment(component) for component in components], size)


def bind(chain: Chain, networks: Networks) -> None:
    """Tell augmentations by a network which one that is."""
    for op in chain.ops:
        if isinstance(op, Apply):
            op.bind(_through(networks.stages(op.address.network), op.address.tensor))


def _through(network: Stages, tensor: str) -> Callable[[Tensor], Tensor]:
    network.position(tensor)  # a tensor that is none is refused before anything runs

    def run(x: Tensor) -> Tensor:
        found: dict[str, Tensor] = network(x, frozenset({tensor}))
        return found[tensor]

    return run


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
    return [part for phase in plan.phases if phase.segment == segment and phase.fit is None for part in phase.train]
