"""A phase's cache: when its frozen part is worth computing once, and computing it as the steps would."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor

from augend.address import Address
from augend.contract import AugendError
from augend.cost import Ledger
from augend.runner.assembly import Scene
from augend.runner.augmenters import standardising
from augend.runner.lending import CACHE_BYTES, ROW_BYTES, Lending
from augend.runner.outputs import Route
from augend.stages.bank import fill
from augend.stages.shelf import Placed

__all__ = ["drawn_views", "fill_bank", "fill_banks", "worth_caching"]


def drawn_views(scene: Scene, view: str) -> int | None:
    """How many draws a picture a phase keeps of a view (``cache: {views: 8}``); None where all of its outcomes are kept: they
    are no more than that, or no number was written.
    """
    most = scene.spec.cache
    if not isinstance(most, int) or isinstance(most, bool):
        return None
    variants = scene.chains[view].variants
    return most if variants is None or variants > most else None


def worth_caching(scene: Scene, steps: int, limit_bytes: int = CACHE_BYTES, disk_bytes: int = 0) -> list[Route]:
    """The networks whose frozen part is to be cached in this phase.

    `cache: auto` says yes when the cache is exact (a finite augmentation), is asked more often than it costs to fill, and
    fits in memory, or on the disk where its rows are short; `true` insists; a number of views makes a bank of that many
    draws a picture, or of all outcomes where they are as few.
    """
    spec = scene.spec
    if spec.cache is False:
        return []
    insisted = spec.cache is not True and (spec.cache != "auto" or bool(standardising(scene)))
    candidates = [
        route
        for route in scene.phase.routes
        if scene.phase.networks.inputs[route.name] is None and route.cut is not None and not _acted_inside(scene, route)
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
        asked = steps * spec.rows * len(route.views)
        total, each = len(scene.pictures) * variants, _bytes_a_row(scene, route)
        if asked > total and total * each <= (max(limit_bytes, disk_bytes) if each <= ROW_BYTES else limit_bytes):
            found.append(route)
    return found


def _acted_inside(scene: Scene, route: Route) -> bool:
    network = scene.phase.networks.stages(route.name)
    return any(
        address.network == route.name and network.position(address.tensor) < network.position(wanted)
        for address in scene.phase.deferred
        for wanted in route.frozen_wants
    )


def _bytes_a_row(scene: Scene, route: Route) -> int:
    network = scene.phase.networks.stages(route.name)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    with torch.no_grad():
        pixels = torch.zeros(1, *scene.pictures.pixels.shape[1:], device=device)
        out = network(pixels, route.frozen_wants, None)
    return sum(value.numel() * value.element_size() for value in out.values())


def fill_banks(
    scene: Scene,
    chosen: list[Route],
    *,
    seed: int,
    forward: Callable[[Route, Tensor], dict[str, Tensor]],
    after: Callable[[int, int], None] | None = None,
    ledger: Ledger | None = None,
    lending: Lending | None = None,
) -> dict[str, int]:
    """Fill the banks of the chosen networks; returns how many rows went through each.

    Args:
        forward: runs the frozen part as a step would (same precision): pixels -> wanted tensors.
        after: called with (rows done, rows in all).
        ledger, lending: see `fill_bank`.
    """
    passed: dict[str, int] = {}
    begun = 0
    for route in chosen:
        banks: dict[str, dict[str, Tensor | Placed]] = {}
        size = scene.spec.rows * len(route.views)  # the shape of a step's forward, so that the bits are a step's bits
        wanted = [Address(route.name, tensor) for tensor in sorted(route.frozen_wants)]
        for view in route.views:

            def said(rows: int, total: int, begun: int = begun) -> None:
                if after is not None:
                    after(begun + rows, begun + total)

            found = fill_bank(
                scene,
                view,
                functools.partial(forward, route),
                wanted,
                size=size,
                seed=seed,
                after=said,
                ledger=ledger,
                lending=lending,
            )
            for tensor, bank in found.items():
                banks.setdefault(tensor, {})[view] = bank
            total = len(next(iter(found.values())))
            begun += total
            passed[route.name] = passed.get(route.name, 0) + total
            if (drawn := drawn_views(scene, view)) is not None:
                scene.bank_views[view] = drawn
        scene.banks[route.name] = banks
    return passed


def fill_bank(
    scene: Scene,
    view: str,
    forward: Callable[[Tensor], dict[str, Tensor]],
    wanted: list[Address],
    *,
    size: int,
    seed: int,
    after: Callable[[int, int], None] | None = None,
    ledger: Ledger | None = None,
    lending: Lending | None = None,
) -> dict[str, Tensor | Placed]:
    """What `forward` makes of every training picture under every variant of a view, or every draw of its bank.

    Args:
        forward: pixels ``(size, C, H, W)`` -> name -> ``(size, ...)``.
        wanted: the tensors that these are.
        size: rows a forward.
        after: called with (rows done, rows in all).
        ledger: charged with the seconds: those spent here (``cache``), or those that the rows of a shelf take, whoever
            computed them (``bank``).
        lending: where rows are kept for others if they are short and take long.

    Returns:
        Name -> ``(pictures * variants, ...)``; row ``i`` is picture ``i // variants``.
    """
    drawn = drawn_views(scene, view)
    variants = drawn or scene.chains[view].variants
    assert variants is not None
    total = len(scene.pictures) * variants
    told = None if after is None else lambda done: after(done, total)

    def show(rows: Tensor) -> Tensor:
        return scene.shown(view, rows // variants, rows % variants, seed, bank=drawn is not None)

    timed: list[dict[str, Tensor]] = []  # the first chunk, once it has shown how long a chunk takes

    def compute(rows: Tensor) -> dict[str, Tensor]:
        return timed.pop() if timed else forward(show(rows))

    if ledger is not None:
        ledger.restart()
    if lending is not None and total > size:
        begun = time.perf_counter()
        with torch.no_grad():
            timed.append(forward(show(torch.arange(size))))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        each = sum(value[0].numel() * value.element_size() for value in timed[0].values())
        if lending.wants(each, total * each, (time.perf_counter() - begun) * total / size):
            shelf = lending.shelf(scene.phase.networks, wanted, size)
            if shelf is not None:
                with shelf:
                    placed = shelf.fill(show, forward, total, size, told)
                if ledger is not None:
                    ledger.restart()
                    ledger.spend("bank", shelf.seconds)
                large = total * each > CACHE_BYTES
                device = scene.pictures.labels.device
                return {name: one if large else one.resident(device) for name, one in placed.items()}
    found = fill(compute, total, size, told)
    if ledger is not None:
        ledger.lap("cache")
    return dict(found)
