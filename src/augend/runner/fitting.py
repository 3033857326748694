"""A phase with `fit`: what enters a layer is computed once for every picture, then the layer is solved for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from augend.address import Address, Slice
from augend.augment.chain import Chain
from augend.contract import AugendError
from augend.cost import count_flops
from augend.names import lookup
from augend.recipes.plan import PhasePlan, Plan
from augend.runner.assembly import Scene
from augend.runner.banks import fill_bank
from augend.stages.fit import Logistic, Tried
from augend.stages.networks import Networks

if TYPE_CHECKING:
    from augend.runner.keeper import Keeper

__all__ = ["Embedder", "check_fits", "fit_phase"]


class Embedder(nn.Module):
    """Pixels -> what enters the layer that a phase fits, flattened to ``(rows, d)``, through all networks below it."""

    def __init__(self, networks: Networks, part: Slice) -> None:
        super().__init__()
        self.networks = networks
        stage = networks.stages(part.network).names[-1]
        self.address = Address(part.network, "features" if stage == "classify" else f":{stage}")

    def forward(self, pixels: Tensor) -> Tensor:
        """``(rows, C, H, W)`` in [0, 1] -> ``(rows, d)``."""
        return self.networks.tensor(self.address, pixels).flatten(1)


def check_fits(plan: Plan, networks: Networks) -> None:
    """Refuse a closed form of what is not one linear layer, before anything is trained."""
    for spec in plan.phases:
        if spec.fit is not None:
            _layer(networks, spec)


def _layer(networks: Networks, spec: PhasePlan) -> nn.Linear:
    """The linear layer that a phase fits."""
    part = spec.train[0]
    network = networks.stages(part.network)

    def layers(stage: str) -> list[nn.Module]:
        leaves = [m for module in network.modules_of(stage) for m in module.modules() if not [*m.children()]]
        return [m for m in leaves if not isinstance(m, nn.Dropout | nn.Identity)]

    last = network.names[-1]
    inside = layers(last)
    if len(inside) != 1 or not isinstance(inside[0], nn.Linear) or inside[0].bias is None:
        found = ", ".join(type(m).__name__ for m in inside) or "nothing"
        raise AugendError(
            f"phase {spec.name!r}: a closed form gives the weights of one linear layer with a bias (dropout may come before "
            f"it), and stage {last!r} of network {part.network!r} is {found}; train it by steps, without fit"
        )
    if part.covers(network.names) != (last,):
        raise AugendError(
            f"phase {spec.name!r}: a closed form gives the weights of one linear layer, and {part} is more than that; "
            f'write train: "{part.network}[{last}:]"'
        )
    return inside[0]


def fit_phase(scene: Scene, keeper: Keeper) -> None:
    """Run a phase without steps: embed, solve, put the weights in place, and leave a checkpoint at the next phase's door.

    A kill on the way loses the phase alone: it begins anew and ends in the same bits. Charged are a pass of every picture in
    every view through what lies below the layer, of the validation pictures too when they choose the penalty (seconds:
    ``cache``), and the matrix products of the solution (seconds: ``step``).
    """
    spec, ledger = scene.spec, keeper.ledger
    assert spec.fit is not None
    layer = _layer(keeper.networks, spec)
    method: Logistic = lookup("fit", spec.fit.word)(**spec.fit.options)
    keeper.networks.eval()
    keeper.enter()
    views = [str(address.view) for address in spec.terms[0].of]
    parts = [_embedded(scene, view, keeper) for view in views]
    features = torch.cat(parts) if len(parts) > 1 else parts[0]
    labels = torch.cat([scene.pictures.labels.repeat_interleave(len(p) // len(scene.pictures)) for p in parts])
    valid = None
    if method.validates:
        pictures = keeper.splits[spec.data].valid
        plain = dataclasses.replace(
            scene, spec=dataclasses.replace(spec, cache="auto"), pictures=pictures, chains={"x": Chain([])}
        )
        valid = (_embedded(plain, "x", keeper), pictures.labels)
    ledger.charge(rows=len(labels), pictures=len(labels))
    if not bool(torch.isfinite(features).all()):
        raise AugendError(
            f"phase {spec.name!r}: what enters {spec.train[0]} is not finite; use other weights, or precision 32-true"
        )

    def after(tried: Tried) -> None:
        keeper.listen("fitting", {"phase": spec.name, **dataclasses.asdict(tried)})
        _stop_if_asked(keeper)

    method.fit(features, labels, classes=layer.out_features, valid=valid, after=after)
    weight, bias = method.coef_, method.intercept_
    if keeper.fabric.world_size > 1:  # every rank has solved it; last bits may differ between devices
        weight, bias = keeper.fabric.broadcast(weight), keeper.fabric.broadcast(bias)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    ledger.lap("step")
    ledger.charge(flops=method.flops_)
    keeper.fitted(
        {
            "fit": spec.fit.word,
            "penalty": method.penalty_,
            "loss": method.loss_,
            "rows": len(labels),
            "features": features.shape[1],
            "products": method.products_,
            "converged": method.converged_,
            "tried": [dataclasses.astuple(tried) for tried in method.path_],
        }
    )
    keeper.finish()


def _embedded(scene: Scene, view: str, keeper: Keeper) -> Tensor:
    """A bank of a view's embeddings, charged."""
    rows, ledger = scene.spec.rows, keeper.ledger
    embed = Embedder(keeper.networks, scene.spec.train[0])

    def forward(pixels: Tensor) -> dict[str, Tensor]:
        with keeper.hardware.autocast():
            return {"": embed(pixels)}

    def after(done: int, total: int) -> None:
        keeper.listen("cache", {"phase": scene.spec.name, "done": done, "total": total})
        _stop_if_asked(keeper)

    ledger.restart()
    found = fill_bank(scene, view, forward, size=rows, seed=keeper.seed, after=after) if len(scene.pictures) else {}
    bank = found.get("", torch.zeros(0, 0))
    ledger.lap("cache")
    one = count_flops(embed, torch.zeros(rows, *scene.pictures.pixels.shape[1:]), backward=False).total
    ledger.charge(forward=-(-len(bank) // rows), flops=round(one * len(bank) / rows))
    ledger.restart()  # counting is not training
    return bank


def _stop_if_asked(keeper: Keeper) -> None:
    if keeper.stopping():
        keeper.ledger.restart()  # the phase begins anew: seconds lost to a stop are not charged
        keeper.pause()
