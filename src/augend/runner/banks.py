"""A phase's cache: when its frozen part is worth computing once, and computing it as the steps would."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from augend.address import Address
from augend.contract import AugendError
from augend.cost import Ledger
from augend.runner.assembly import Scene
from augend.runner.augmenters import standardising
from augend.runner.lending import CACHE_BYTES, MOST_BYTES, Lending, vectors
from augend.runner.outputs import Route
from augend.stages.bank import fill
from augend.stages.shelf import Placed

__all__ = ["Filling", "drawn_views", "fill_bank", "fill_banks", "worth_caching"]


@dataclass
class Filling:
    """What filling the banks of a phase has cost; charged when all of it is done, so that a stop in between charges nothing.

    Attributes:
        lending: where embeddings are found and left; None: nowhere.
        seconds: of rows that stay in memory (``cache``), and those that the rows of a shelf take, whoever computed them
            (``bank``).
        forward, flops: passes of a network over a batch, and all that they cost.
    """

    lending: Lending | None = None
    seconds: dict[str, float] = field(default_factory=lambda: {"cache": 0.0, "bank": 0.0})
    forward: int = 0
    flops: int = 0

    def charge(self, ledger: Ledger) -> None:
        """Charge all of it; what the clock has counted meanwhile is forgotten."""
        for part, seconds in self.seconds.items():
            ledger.spend(part, seconds)
        ledger.charge(forward=self.forward, flops=self.flops)
        ledger.restart()


def drawn_views(scene: Scene, view: str) -> int | None:
    """How many draws a picture a phase keeps of a view (``cache: {views: 8}``); None where all of its outcomes are kept: they
    are no more than that, or no number was written.
    """
    most = scene.spec.cache
    if not isinstance(most, int) or isinstance(most, bool):
        return None
    variants = scene.chains[view].variants
    return most if variants is None or variants > most else None


def worth_caching(scene: Scene, steps: int, *, shared: bool = True) -> list[Route]:
    """The networks whose frozen part is to be cached in this phase.

    `cache: auto` says yes when the cache is exact (a finite augmentation), is asked more often than it costs to fill, and is
    at most `CACHE_BYTES`, or `MOST_BYTES` of embeddings where these can lie on the disk (`shared`); `true` insists; a number
    of views makes a bank of that many draws a picture, or of all outcomes where they are as few.
    """
    spec = scene.spec
    if spec.cache is False:
        return []
    insisted = spec.cache is not True and (spec.cache != "auto" or bool(standardising(scene)))
    candidates = [
        route
        for route in scene.phase.routes
        if scene.phase.networks.inputs[route.name] is None
        and route.cut is not None
        and not route.frozen_wants & scene.phase.networks.stages(route.name).random
        and not _acted_inside(scene, route)
    ]
    infinite = [view for view, chain in scene.chains.items() if chain.variants is None]
    if spec.cache is True and (infinite or not candidates):
        why = f"view {infinite[0]!r} has infinitely many outcomes" if infinite else "nothing is frozen"
        raise AugendError(f"phase {spec.name!r}: cache is true, but {why}; use cache: {{views: 8}} or auto")
    if spec.cache == "auto" and infinite:
        return []
    if insisted or spec.cache is True:
        return candidates
    found = []
    for route in candidates:
        variants = sum(scene.chains[view].variants or 1 for view in route.views)
        asked = steps * spec.rows * scene.entering * len(route.views)
        total, row = len(scene.pictures) * variants, _a_row(scene, route)
        limit = MOST_BYTES if shared and vectors(row) else CACHE_BYTES
        if asked > total and total * _bytes(row) <= limit:
            found.append(route)
    return found


def _acted_inside(scene: Scene, route: Route) -> bool:
    network = scene.phase.networks.stages(route.name)
    return any(
        address.network == route.name and network.position(address.tensor) < network.position(wanted)
        for address in scene.phase.deferred
        for wanted in route.frozen_wants
    )


def _a_row(scene: Scene, route: Route) -> dict[str, Tensor]:
    """What the frozen part of a network gives for one picture."""
    network = scene.phase.networks.stages(route.name)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    with torch.no_grad():
        pixels = torch.zeros(1, *scene.pictures.pixels.shape[1:], device=device)
        found: dict[str, Tensor] = network(pixels, route.frozen_wants, None)
    return found


def _bytes(values: Mapping[str, Tensor]) -> int:
    """Of a row."""
    return sum(value[0].numel() * value.element_size() for value in values.values())


def fill_banks(
    scene: Scene,
    chosen: list[Route],
    *,
    seed: int,
    forward: Callable[[Route, Tensor], dict[str, Tensor]],
    after: Callable[[int, int], None] | None = None,
    filling: Filling | None = None,
) -> dict[str, dict[str, int]]:
    """Fill the banks of the chosen networks; returns how many rows of each view went through each.

    Args:
        forward: runs the frozen part as a step would (same precision): pixels -> wanted tensors.
        after: called with (rows done, rows in all).
        filling: see `fill_bank`.
    """
    passed: dict[str, dict[str, int]] = {}
    begun = 0
    for route in chosen:
        banks: dict[str, dict[str, Tensor | Placed]] = {}
        # the shape of a step's forward, so that the bits are a step's bits
        size = scene.spec.rows * scene.entering * len(route.views)
        for view in route.views:

            def said(rows: int, total: int, begun: int = begun) -> None:
                if after is not None:
                    after(begun + rows, begun + total)

            found = fill_bank(
                scene,
                view,
                functools.partial(forward, route),
                {tensor: Address(route.name, tensor) for tensor in route.frozen_wants},
                size=size,
                seed=seed,
                after=said,
                filling=filling,
                beside=len(route.views),
            )
            for tensor, bank in found.items():
                banks.setdefault(tensor, {})[view] = bank
            total = len(next(iter(found.values())))
            begun += total
            passed.setdefault(route.name, {})[view] = total
            if (drawn := drawn_views(scene, view)) is not None:
                scene.bank_views[view] = drawn
        scene.banks[route.name] = banks
    return passed


def fill_bank(
    scene: Scene,
    view: str,
    forward: Callable[[Tensor], dict[str, Tensor]],
    wanted: Mapping[str, Address],
    *,
    size: int,
    seed: int,
    after: Callable[[int, int], None] | None = None,
    filling: Filling | None = None,
    beside: int = 1,
) -> dict[str, Tensor | Placed]:
    """What `forward` makes of every training picture under every variant of a view, or every draw of its bank.

    Args:
        forward: pixels ``(size, C, H, W)`` -> name -> ``(size, ...)``.
        wanted: the tensor that each name is.
        size: rows a forward.
        after: called with (rows done, rows in all).
        filling: takes note of the seconds; embeddings of a finite view are found and left where it says, if they take long.
        beside: banks as large as this that the phase has.

    Returns:
        Name -> ``(pictures * variants, ...)``; row ``i`` is picture ``i // variants``.
    """
    drawn = drawn_views(scene, view)
    variants = drawn or scene.chains[view].variants
    assert variants is not None
    total = len(scene.pictures) * variants
    told = None if after is None else lambda done: after(done, total)
    filling = Filling() if filling is None else filling

    def show(rows: Tensor) -> Tensor:
        return scene.shown(view, rows // variants, rows % variants, seed, bank=drawn is not None)

    timed: list[dict[str, Tensor]] = []  # the first chunk, once it has shown how long a chunk takes

    def compute(rows: Tensor) -> dict[str, Tensor]:
        return timed.pop() if timed else forward(show(rows))

    begun = time.perf_counter()
    if filling.lending is not None and drawn is None and total > size:  # draws are a run's own, never found again
        with torch.no_grad():
            first = forward(show(torch.arange(size)))
        _wait()
        timed.append(first)
        taken = time.perf_counter() - begun
        large = beside * total * _bytes(first) > CACHE_BYTES
        if filling.lending.wants(first, beside * total, taken * total / size):
            found = filling.lending.filled(scene.phase.networks, wanted, show, forward, total, size, first, told)
            if found is not None:
                filling.seconds["bank"] += found[1]
                device = scene.pictures.labels.device
                return {name: one if large else one.resident(device) for name, one in found[0].items()}
        if large and vectors(first) and scene.spec.cache == "auto":
            raise AugendError(
                f"phase {scene.spec.name!r}: its embeddings need {beside * total * _bytes(first) / 1e9:.2g} GB, which "
                f"{filling.lending.folder} cannot take; make room, name another folder (AUGEND_CACHE), or write cache: false"
            )
        begun = time.perf_counter() - taken  # what a shelf tried in vain is nobody's
    resident = fill(compute, total, size, told)
    _wait()
    filling.seconds["cache"] += time.perf_counter() - begun
    return dict(resident)


def _wait() -> None:
    """Let a GPU finish, so that the clock tells the truth."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
