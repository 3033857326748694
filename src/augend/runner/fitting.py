"""A phase with `fit`: what enters a layer is computed once for every picture, then the layer is solved for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from augend.address import Address, Slice
from augend.augment.chain import Chain
from augend.augment.embedding_controls import RidgeAugmenter
from augend.contract import AugendError
from augend.cost import count_flops
from augend.models.vae import PrincipalComponents
from augend.names import lookup
from augend.recipes.plan import PhasePlan, Plan
from augend.runner.assembly import Scene
from augend.runner.augmenters import score_augmenters
from augend.runner.banks import Filling, fill_bank
from augend.runner.charge import applied_to_one
from augend.runner.lending import Lending
from augend.stages.fit import Logistic, Tried
from augend.stages.networks import Networks
from augend.stages.pca import Pca
from augend.stages.shelf import Placed

if TYPE_CHECKING:
    from augend.runner.keeper import Keeper

__all__ = ["Embedder", "check_fits", "fit_phase", "fitted_layer"]


class Embedder(nn.Module):
    """Pixels -> a tensor, flattened to ``(rows, d)``, through all networks that it is computed by."""

    def __init__(self, networks: Networks, address: Address) -> None:
        super().__init__()
        self.networks, self.address = networks, address

    @classmethod
    def entering(cls, networks: Networks, part: Slice) -> Embedder:
        """Pixels -> what enters the layer that a phase fits."""
        stage = networks.stages(part.network).names[-1]
        return cls(networks, Address(part.network, "features" if stage == "classify" else f":{stage}"))

    def forward(self, pixels: Tensor) -> Tensor:
        """``(rows, C, H, W)`` in [0, 1] -> ``(rows, d)``."""
        return self.networks.tensor(self.address, pixels).flatten(1)


def check_fits(plan: Plan, networks: Networks, pictures: Mapping[str, int]) -> None:
    """Refuse a closed form of what is not one linear layer, or of too few pictures, before anything is trained.

    Args:
        pictures: data role -> how many it has to train on.
    """
    for spec in plan.phases:
        if spec.fit is None:
            continue
        layer = fitted_layer(networks, spec)
        rows, found = pictures[spec.data] * len(spec.views), layer.out_features
        if lookup("fit", spec.fit.word) is Pca and rows < found:
            raise AugendError(
                f"phase {spec.name!r}: {found} principal components need as many pictures, and there are {rows}; ask for "
                f"fewer, as --set latent={rows}"
            )


def fitted_layer(networks: Networks, spec: PhasePlan) -> nn.Linear:
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


class _Solution(Protocol):
    """What a closed form learns, for features as they came."""

    coef_: Tensor
    intercept_: Tensor
    penalty_: float
    loss_: float
    flops_: int


def fit_phase(scene: Scene, keeper: Keeper) -> None:
    """Run a phase without steps: embed, solve, put the weights in place, and leave a checkpoint at the next phase's door.

    A kill on the way loses the phase alone: it begins anew and ends in the same bits. Charged are a pass of every picture in
    every view through what lies below the layer, of the validation pictures too when they choose the penalty (seconds:
    ``cache``), and the matrix products of the solution (seconds: ``step``).
    """
    spec, ledger = scene.spec, keeper.ledger
    assert spec.fit is not None
    layer = fitted_layer(keeper.networks, spec)
    method: Logistic | RidgeAugmenter | Pca = lookup("fit", spec.fit.word)(**spec.fit.options)
    keeper.networks.eval()
    keeper.enter()
    keeper.first_look()
    filling = Filling(Lending.of(keeper))
    if isinstance(method, Logistic):
        features, about = _fit_classes(method, scene, keeper, layer.out_features, filling)
    elif isinstance(method, Pca):
        features, about = _fit_alone(method, scene, keeper, layer.out_features, filling)
    else:
        features, about = _fit_pairs(method, scene, keeper, filling)
    solved: _Solution = method
    weight, bias = solved.coef_, solved.intercept_
    if keeper.fabric.world_size > 1:  # every rank has solved it; last bits may differ between devices
        weight, bias = keeper.fabric.broadcast(weight), keeper.fabric.broadcast(bias)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        network = keeper.networks.stages(spec.train[0].network)
        if isinstance(method, Pca) and isinstance(network, PrincipalComponents):
            network.middle.copy_(method.middle_)
    ledger.lap("step")
    ledger.charge(rows=len(features), pictures=len(features), flops=solved.flops_)
    filling.charge(ledger)
    keeper.fitted(
        {
            "fit": spec.fit.word,
            "penalty": solved.penalty_,
            "loss": solved.loss_,
            "rows": len(features),
            "features": features.shape[1],
            **about,
        }
    )
    score_augmenters(scene, keeper)
    keeper.finish()


def _fit_classes(
    method: Logistic, scene: Scene, keeper: Keeper, classes: int, filling: Filling
) -> tuple[Tensor, dict[str, Any]]:
    """Solve for a classifier; the features, and what is said of the solution beside the rest."""
    spec = scene.spec
    embed = Embedder.entering(keeper.networks, spec.train[0])
    parts = [_embedded(scene, str(address.view), embed, keeper, filling) for address in spec.terms[0].of]
    features = _checked(torch.cat(parts) if len(parts) > 1 else parts[0], spec)
    labels = torch.cat([scene.pictures.labels.repeat_interleave(len(p) // len(scene.pictures)) for p in parts])
    valid = None
    if method.validates:
        pictures = keeper.splits[spec.data].valid
        plain = dataclasses.replace(
            scene, spec=dataclasses.replace(spec, cache="auto"), pictures=pictures, chains={"x": Chain([])}
        )
        valid = (_embedded(plain, "x", embed, keeper, filling), pictures.labels)

    def after(tried: Tried) -> None:
        keeper.listen("fitting", {"phase": spec.name, **dataclasses.asdict(tried)})
        _stop_if_asked(keeper)

    method.fit(features, labels, classes=classes, valid=valid, after=after)
    return features, {
        "products": method.products_,
        "converged": method.converged_,
        "tried": [dataclasses.astuple(tried) for tried in method.path_],
    }


def _fit_pairs(method: RidgeAugmenter, scene: Scene, keeper: Keeper, filling: Filling) -> tuple[Tensor, dict[str, Any]]:
    """Solve for a map between two tensors of the same pictures, of one view each or of several."""
    spec = scene.spec
    entering = Embedder.entering(keeper.networks, spec.train[0])
    pairs: list[tuple[Tensor, Tensor]] = []
    for of, to in zip(spec.terms[0].of, spec.terms[0].to, strict=True):
        one = _embedded(scene, str(of.view), entering, keeper, filling)
        other = _embedded(scene, str(to.view), Embedder(keeper.networks, to), keeper, filling)
        if len(other) % len(one):
            raise AugendError(
                f"phase {spec.name!r}: view {of.view!r} has {len(one) // len(scene.pictures)} outcomes a picture and "
                f"{to.view!r} {len(other) // len(scene.pictures)}, so they make no pairs; write {of.view}: none"
            )
        pairs.append((one.repeat_interleave(len(other) // len(one), 0), other))
    features, targets = (_checked(torch.cat(side), spec) for side in zip(*pairs, strict=True))
    method.fit(features, targets)
    _stop_if_asked(keeper)
    return features, {"products": 2, "converged": True, "tried": []}


def _fit_alone(
    method: Pca, scene: Scene, keeper: Keeper, components: int, filling: Filling
) -> tuple[Tensor, dict[str, Any]]:
    """Solve for a map of what enters, whatever the labels."""
    network = scene.spec.train[0].network
    if not isinstance(keeper.networks.stages(network), PrincipalComponents):
        raise AugendError(
            f"phase {scene.spec.name!r}: pca gives principal components, and network {network!r} is none of them; give it "
            "the model pca"
        )
    embed = Embedder.entering(keeper.networks, scene.spec.train[0])
    parts = [_embedded(scene, view, embed, keeper, filling) for view in scene.spec.views]
    features = _checked(torch.cat(parts) if len(parts) > 1 else parts[0], scene.spec)
    method.fit(features, components)
    _stop_if_asked(keeper)
    return features, {"products": 2, "converged": True, "tried": []}


def _checked(features: Tensor, spec: PhasePlan) -> Tensor:
    if not bool(torch.isfinite(features).all()):
        raise AugendError(
            f"phase {spec.name!r}: what enters {spec.train[0]} is not finite; use other weights, or precision 32-true"
        )
    return features


def _embedded(scene: Scene, view: str, embed: Embedder, keeper: Keeper, filling: Filling) -> Tensor:
    """A bank of a view's embeddings; `filling` takes note of what it costs."""
    rows = scene.spec.rows

    def forward(pixels: Tensor) -> dict[str, Tensor]:
        with keeper.hardware.autocast():
            return {"": embed(pixels)}

    def after(done: int, total: int) -> None:
        keeper.listen("cache", {"phase": scene.spec.name, "done": done, "total": total})
        _stop_if_asked(keeper)

    bank = torch.zeros(0, 0)
    if len(scene.pictures):
        wanted = {"": embed.address}
        found = fill_bank(scene, view, forward, wanted, size=rows, seed=keeper.seed, after=after, filling=filling)[""]
        bank = found.resident(scene.pictures.labels.device) if isinstance(found, Placed) else found
    one = count_flops(embed, torch.zeros(rows, *scene.pictures.pixels.shape[1:]), backward=False).total
    filling.forward += -(-len(bank) // rows)
    filling.flops += round(one * len(bank) / rows) + len(bank) * applied_to_one(scene, view)
    keeper.ledger.restart()  # charged with the phase, when it is done
    return bank


def _stop_if_asked(keeper: Keeper) -> None:
    if keeper.stopping():
        keeper.ledger.restart()  # the phase begins anew: seconds lost to a stop are not charged
        keeper.pause()
