"""A phase's cache: when its frozen part is worth computing once, and computing it as the steps would."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from augend.contract import AugendError
from augend.runner.assembly import Scene
from augend.runner.outputs import Route
from augend.stages.cache import fill

__all__ = ["fill_banks", "worth_caching"]


def worth_caching(scene: Scene, steps: int, limit_bytes: int) -> list[Route]:
    """The networks whose frozen part is to be cached in this phase.

    `cache: auto` says yes when the cache is exact (a finite augmentation), is asked more often than it costs to fill, and
    fits; `true` insists; a number of views makes a bank of that many draws a picture.
    """
    spec = scene.spec
    if spec.cache is False:
        return []
    insisted = spec.cache is not True and spec.cache != "auto"
    candidates = [
        route
        for route in scene.phase.routes
        if scene.phase.networks.inputs[route.name] is None and route.cut is not None and not _acted_inside(scene, route)
    ]
    infinite = [view for view, chain in scene.chains.items() if chain.variants is None]
    if spec.cache is True and (infinite or not candidates):
        why = f"view {infinite[0]!r} has infinitely many outcomes" if infinite else "nothing is frozen"
        raise AugendError(f"phase {spec.name!r}: cache is true, but {why}; use cache: {{views: 8}} or auto")
    if insisted or spec.cache is True:
        return candidates
    if infinite:
        return []
    found = []
    for route in candidates:
        variants = sum(scene.chains[view].variants or 1 for view in route.views)
        asked = steps * spec.rows * len(route.views)
        total = len(scene.pictures) * variants
        if asked > total and total * _bytes_a_row(scene, route) <= limit_bytes:
            found.append(route)
    return found


def _acted_inside(scene: Scene, route: Route) -> bool:
    network = scene.phase.networks.stages(route.name)
    assert route.cut is not None
    until = network.position(route.cut)
    return any(
        address.network == route.name
        and network.position(address.tensor) < until
        and address.tensor not in route.frozen_wants
        for address in scene.phase.deferred
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
) -> dict[str, int]:
    """Fill the banks of the chosen networks; returns how many rows went through each.

    Args:
        forward: runs the frozen part as a step would (same precision): pixels -> wanted tensors.
        after: called with (rows done, rows in all).
    """
    spec = scene.spec
    views_a_picture = spec.cache if isinstance(spec.cache, int) and not isinstance(spec.cache, bool) else None
    passed: dict[str, int] = {}
    begun = 0
    for route in chosen:
        banks: dict[str, dict[str, Tensor]] = {}
        size = spec.rows * len(route.views)  # the shape of a step's forward, so that the bits are a step's bits
        for view in route.views:
            chain = scene.chains[view]
            variants = views_a_picture or chain.variants
            assert variants is not None
            total = len(scene.pictures) * variants

            def compute(
                rows: Tensor, view: str = view, variants: int = variants, route: Route = route
            ) -> dict[str, Tensor]:
                picture, variant = rows // variants, rows % variants
                return forward(route, scene.shown(view, picture, variant, seed, bank=views_a_picture is not None))

            done = begun

            def said(rows: int, done: int = done, total: int = total) -> None:
                if after is not None:
                    after(done + rows, done + total)

            for tensor, bank in fill(compute, total, size, said).items():
                banks.setdefault(tensor, {})[view] = bank
            begun += total
            passed[route.name] = passed.get(route.name, 0) + total
            if views_a_picture:
                scene.bank_views[view] = views_a_picture
        scene.banks[route.name] = banks
    return passed
