"""What a step costs: FLOPs counted once for each distinct phase and shape, on meta copies, then multiplied by steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augend.address import Address
from augend.augment.network import Apply
from augend.contract import Batch, Picks
from augend.cost import Flops, count_flops
from augend.models.stages import Stages
from augend.order.scoring import Passes
from augend.runner.assembly import Scene
from augend.runner.outputs import Route
from augend.runner.sight import teacher_of
from augend.stages.networks import Networks

__all__ = ["StepCost", "applied_flops", "applied_to_one", "filling_flops", "step_cost"]

_COUNTED: dict[str, Flops] = {}  # a study's trials share their phases, so a process counts each shape once


@dataclass(frozen=True)
class StepCost:
    """Cost of one step over all ranks: passes through networks, and FLOPs (one multiply-add is 2).

    Attributes:
        forward, backward: passes of the batch.
        counted: FLOPs of its forward and of its backward.
        applied: FLOPs of the networks that its pictures were passed through as an augmentation.
        copies: rows that show the same picture.
        rows: of the batch.
        held: FLOPs of one held-out picture's forward, where an order scores on such.
        taught: FLOPs of one picture's forward through the teacher that an order asks.
    """

    forward: int
    backward: int
    counted: Flops
    applied: int
    copies: int
    rows: int
    held: int = 0
    taught: int = 0

    @property
    def flops(self) -> int:
        """Of the step itself."""
        return self.counted.total + self.applied

    def scores(self, passes: Passes) -> float:
        """FLOPs of what an order computes for its scores."""
        own = self.counted.forward * passes.forward + self.counted.backward * passes.backward
        return own + self.held * passes.held

    def charged(self, scene: Scene, picks: Picks, progress: float) -> dict[str, int]:
        """Passes and FLOPs of a step that was taken, what the order computed for its scores included.

        A step that the order had tried was computed then, and is not charged twice.
        """
        sight, applied = scene.sight, applied_flops(scene, progress)
        if sight is None:
            flops = self.counted.total + applied
            return {"forward": self.forward, "backward": self.backward, "flops": flops}
        looked, own = sight.looked, picks.taken is None
        seen = (looked.forward, looked.backward, looked.made)
        forward, backward, made = (rows / self.rows + own for rows in seen)
        passes = Passes(forward, backward, looked.held, made)
        others = looked.held + looked.taught
        return {
            "forward": round(self.forward * passes.forward + others / self.rows),
            "backward": round(self.backward * passes.backward),
            # A batch is augmented once, however often it runs.
            "flops": round(self.scores(passes) + applied * passes.made) + self.taught * looked.taught,
        }

    def pictures(self, picks: Picks) -> int:
        """Pictures a step sees: rows x sources, or the distinct pictures of groups."""
        return picks.index.numel() // self.copies


class Through(torch.nn.Module):
    """A tensor through a network, for some of its own."""

    def __init__(self, network: Stages, wants: frozenset[str]) -> None:
        super().__init__()
        self.network, self.wants = network, wants

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """What enters -> what is wanted, by name."""
        return self.network(x, self.wants)  # type: ignore[no-any-return]


class Asked(torch.nn.Module):
    """Pixels to a network's answers, through those that it stands on."""

    def __init__(self, networks: Networks, name: str) -> None:
        super().__init__()
        self.networks, self.name = networks, name

    def forward(self, x: Tensor) -> Tensor:
        """Float pixels -> logits."""
        return self.networks.tensor(Address(self.name), x)


def step_cost(scene: Scene, batch: Batch, progress: float = 0.0) -> StepCost:
    """The cost of a step of this phase; `batch` is this rank's part of one, seen at this `progress`."""
    phase = scene.phase
    shapes = {view: tuple(x.shape) for view, x in batch.views.items()}
    banks = {n: {t: {v: tuple(x.shape) for v, x in b.items()} for t, b in ts.items()} for n, ts in batch.cached.items()}
    described = {name: str(network) for name, network in phase.networks.items()}
    key = repr((described, scene.spec.terms, scene.spec.views, scene.spec.train, shapes, banks, scene.spec.rows))
    if key not in _COUNTED:
        gather, phase.gather = phase.gather, None
        try:
            _COUNTED[key] = count_flops(phase, _full(batch), backward=True)
        finally:
            phase.gather = gather
    moving = sum(phase.networks.first_moving(route.name) is not None for route in phase.routes)
    run = sum(not (route.name in scene.banks and route.cut == "") for route in phase.routes)
    share = scene.spec.rows / len(batch.ids)
    counted = Flops(round(_COUNTED[key].forward * share), round(_COUNTED[key].backward * share))
    copies = getattr(scene.order, "copies", 1)
    applied = applied_flops(scene, progress)
    others = _held_flops(scene), _taught_flops(scene)
    return StepCost(run, moving, counted, applied, copies, scene.spec.rows, *others)


def applied_flops(scene: Scene, progress: float) -> int:
    """FLOPs of networks that the pictures of a step are passed through as an augmentation; none where they are cached."""
    if not scene.sees_pixels:
        return 0
    found = 0
    for view, chain in scene.chains.items():
        each = scene.entering if chain.mixing is None else 1 if chain.pairing is not None else chain.sources(progress)
        found += scene.spec.rows * each * applied_to_one(scene, view)
    return found


def applied_to_one(scene: Scene, view: str) -> int:
    """FLOPs of the networks that a view passes a picture through."""
    found = 0
    for op in scene.chains[view].ops:
        if not isinstance(op, Apply):
            continue
        network = scene.phase.networks.stages(op.address.network)
        key = repr(("applied", op.network, str(network), scene.pictures.shape))
        if key not in _COUNTED:
            whole = Through(network, frozenset({op.address.tensor}))
            _COUNTED[key] = count_flops(whole, torch.zeros(1, *scene.pictures.shape), backward=False)
        found += _COUNTED[key].forward
    return found


def _held_flops(scene: Scene) -> int:
    """FLOPs of one held-out picture's forward."""
    if scene.sight is None or not scene.sight.held:
        return 0
    outside = scene.sight.outside
    key = repr(("held", {name: str(network) for name, network in outside.networks.items()}, scene.pictures.shape))
    if key not in _COUNTED:
        _COUNTED[key] = count_flops(outside, scene.sight.external(torch.zeros(1, dtype=torch.int64)), backward=False)
    return _COUNTED[key].forward


def _taught_flops(scene: Scene) -> int:
    """FLOPs of one picture's forward through the teacher of an order, whatever it stands on."""
    teacher = teacher_of(scene.order)
    if teacher is None:
        return 0
    networks = scene.phase.networks
    described = {name: str(networks.stages(name)) for name in networks.reached([teacher])}
    key = repr(("taught", teacher, described, scene.pictures.shape))
    if key not in _COUNTED:
        two = torch.zeros(2, *scene.pictures.shape)  # a batch norm that is trained takes no fewer
        _COUNTED[key] = count_flops(Asked(networks, teacher), two, backward=False)
    return _COUNTED[key].forward // 2


def _full(batch: Batch) -> Batch:
    """Cached tensors in the weights' own precision: under mixed precision they are bf16, which counting cannot multiply."""
    cached = {n: {t: {v: x.float() for v, x in b.items()} for t, b in ts.items()} for n, ts in batch.cached.items()}
    return dataclasses.replace(batch, cached=cached)


def network_sizes(networks: Networks, shape: tuple[int, ...], result: Sequence[str] = ()) -> dict[str, dict[str, int]]:
    """What each network needs: `parameters`, `bytes` of weights and running statistics, `macs` of a row's forward.

    Args:
        shape: ``(C, H, W)`` of the pictures. MACs are multiply-adds of convolutions and matrix products, half of the FLOPs.
        result: networks whose results are wanted; of others that feed one, MACs are counted as far as it takes.
    """
    fed: dict[str, set[str]] = {name: {""} for name in result}
    for taken in networks.inputs.values():
        if taken is not None:
            fed.setdefault(taken.network, set()).add(taken.tensor)

    found: dict[str, dict[str, int]] = {}
    networks.eval()
    device = next((p.device for p in networks.parameters()), torch.device("cpu"))
    for name, network in networks.items():
        taken = networks.inputs[name]
        key = repr((name, str(network), taken, shape, sorted(fed.get(name, ()))))
        if key not in _COUNTED:
            with torch.no_grad():
                x = torch.zeros(1, *shape, device=device)
                x = x if taken is None else networks.tensor(taken, x)
            through = Through(networks.stages(name), frozenset(fed.get(name, {""})))
            _COUNTED[key] = count_flops(through, x, backward=False)
        weights = [*network.parameters(), *network.buffers()]
        found[name] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "bytes": sum(t.numel() * t.element_size() for t in weights),
            "macs": _COUNTED[key].forward // 2,
        }
    return found


def filling_flops(scene: Scene, route: Route, rows: Mapping[str, int]) -> int:
    """FLOPs of so many pictures of each view through the frozen part of a network, and through what augments them."""
    frozen = Through(scene.phase.networks.stages(route.name), route.frozen_wants)
    pixels = torch.zeros(scene.spec.rows, *scene.pictures.pixels.shape[1:])
    passed = count_flops(frozen, pixels, backward=False).total * sum(rows.values()) / scene.spec.rows
    return round(passed) + sum(count * applied_to_one(scene, view) for view, count in rows.items())
