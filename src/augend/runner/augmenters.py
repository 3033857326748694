"""Networks that learn to augment a tensor (Omega) or to undo an augmentation (a denoising VAE): how well they do it on
held-out pictures, and what they get wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from augend.address import Address
from augend.augment.colour import Noise
from augend.augment.embedding import EmbeddingAugmenter, work_into
from augend.augment.grid import of_all_classes
from augend.augment.pairs import Scales
from augend.contract import AugendError
from augend.models.small import Omega
from augend.recipes.terms import augmenting, undoing
from augend.runner.assembly import Scene
from augend.runner.grids import ROWS, write_undone
from augend.stages.networks import Networks
from augend.stages.shelf import Placed

if TYPE_CHECKING:
    from augend.runner.keeper import Keeper

__all__ = ["bind_residuals", "score_augmenters", "standardise", "standardising", "work_in", "worked_in"]


DRAWS = 3  # of each picture that is shown


def bind_residuals(scene: Scene, scored: Mapping[str, Any]) -> None:
    """Give noise that is as large as a network's mistakes that size."""
    chains = [*scene.chains.values(), *(chain for views in scene.inner.values() for chain in views.values())]
    for op in (op for chain in chains for op in chain.ops):
        if isinstance(op, Noise) and op.residual_of in scored:
            op.sigma = math.sqrt(scored[op.residual_of]["squared"])


def standardising(scene: Scene) -> list[tuple[Address, Address]]:
    """(of, to) of the networks that a phase teaches by steps to augment, and that want standardised pairs."""
    networks = scene.phase.networks
    pairs = augmenting(scene.spec, networks.inputs) if scene.spec.fit is None else []
    return [
        (of, to)
        for of, to in pairs
        if getattr(networks.stages(of.network).get_submodule("model"), "standardise", False)
    ]


def standardise(scene: Scene) -> None:
    """Standardise what such networks learn from, in the caches of this phase alone, by the scales of all its pairs."""
    pairs = standardising(scene)
    raw: dict[tuple[str, str, str], Tensor] = {}
    roles: dict[tuple[str, str, str], str] = {}  # "" of what enters, or the network that a target is of
    for of, to in pairs:
        banks = scene.banks.get(to.network, {}).get(to.tensor, {})
        for view, role in ((str(of.view), ""), (str(to.view), of.network)):
            if view not in banks:
                raise _unstandardised(scene, of.network, "have to be frozen and cached; write cache: {views: 4} there")
            key, bank = (to.network, to.tensor, view), banks[view]
            raw[key] = bank.resident(scene.pictures.labels.device) if isinstance(bank, Placed) else bank
            if roles.setdefault(key, role) != role:
                raise _unstandardised(
                    scene, of.network, f"are another's in view {view!r}; give it a phase or a view of its own"
                )
    for reader, address in _read(scene, pairs):
        if (address.network, address.tensor, str(address.view)) in roles:
            raise _unstandardised(
                scene, pairs[0][0].network, f"{reader} takes as they come; give it a phase of its own"
            )
    for of, to in pairs:
        entering, leaving = ((to.network, to.tensor, str(view)) for view in (of.view, to.view))
        scales = scene.scales[of.network] = Scales(raw[entering], raw[leaving])
        banks = scene.banks[to.network][to.tensor]
        banks[str(of.view)], banks[str(to.view)] = scales.entering(raw[entering]), scales.leaving(raw[leaving])


def _read(scene: Scene, pairs: list[tuple[Address, Address]]) -> Iterator[tuple[str, Address]]:
    """Who beside the pairs reads which tensors in a phase: terms, and networks that start from another's."""
    for term in scene.spec.terms:
        to = term.to or (None,) * len(term.of)
        for pair in zip(term.of, to, strict=True) if len(to) == len(term.of) else ():
            if pair not in pairs:
                yield from ((f"the term {term.name!r}", address) for address in pair if address is not None)
    taught = {of.network for of, _ in pairs}
    for route in scene.phase.routes:
        taken = scene.phase.networks.inputs[route.name]
        if taken is not None and route.name not in taught:
            yield from ((f"network {route.name!r}", taken.at(view)) for view in route.views)


def _unstandardised(scene: Scene, network: str, why: str) -> AugendError:
    return AugendError(
        f"phase {scene.spec.name!r}: network {network!r} learns from standardised embeddings, which {why}, or say "
        f"networks: {{{network}: {{model: {{omega: {{standardise: false}}}}}}}}"
    )


def work_in(scene: Scene) -> None:
    """At the end of a phase: networks that learned from standardised pairs take embeddings as they come from now on."""
    for name, scales in scene.scales.items():
        work_into(scene.phase.networks.stages(name), scales)
    scene.scales.clear()


@contextlib.contextmanager
def worked_in(scene: Scene | None) -> Iterator[None]:
    """Such networks as they will be, for somebody who looks at them in the middle of a phase; afterwards as they were."""
    held = {} if scene is None else {name: scene.phase.networks.stages(name) for name in scene.scales}
    before = {name: {key: t.clone() for key, t in network.state_dict().items()} for name, network in held.items()}
    for name, network in held.items():
        assert scene is not None
        work_into(network, scene.scales[name])
    try:
        yield
    finally:
        for name, network in held.items():
            network.load_state_dict(before[name])


def score_augmenters(scene: Scene, keeper: Keeper) -> None:
    """At the end of a phase: the score of each network that learned to augment, on the validation pictures of its data.

    Every view is drawn once a picture. Kept are ``score`` (1 minus the normalised error, see `EmbeddingAugmenter.score`; None
    where nothing moved), ``cosine``, and mean squares of an entry: ``squared`` of what is wrong, ``moved`` of what the
    augmentation does. Charged as evaluation. The network is left as ``NAME.safetensors`` in the run's folder.

    A network that learned to undo an augmentation of pictures is scored likewise: against leaving them as they came.
    """
    inputs = keeper.networks.inputs
    found = [*augmenting(scene.spec, inputs), *undoing(scene.spec, inputs)]
    pictures = keeper.splits[scene.spec.data].valid
    if not found or not len(pictures):
        return
    keeper.ledger.lap("step")
    keeper.networks.eval()
    held = dataclasses.replace(scene, pictures=pictures)
    for of, to in found:
        values = _score(held, of, to, keeper)
        if keeper.fabric.world_size > 1:
            values = keeper.fabric.broadcast(values)
        keeper.at.augmenters[of.network] = values
        where = {"phase": scene.spec.name, "step": keeper.at.step, "global_step": keeper.at.global_step}
        line = {"kind": "augmenter", **where, "network": of.network, **values}
        if keeper.fabric.is_global_zero:
            keeper.folder.line(line)
            _left(scene, keeper, of, to)
            if to.network == "input":
                _show(held, of, to, keeper)
        keeper.listen("augmenter", line)
    keeper.networks.only(list(scene.spec.train))
    keeper.ledger.lap("evaluation")


def _left(scene: Scene, keeper: Keeper, of: Address, to: Address) -> None:
    """Leave what a phase taught as a file that `EmbeddingAugmenter.load` and other recipes read, without its pictures."""
    network = keeper.networks.stages(of.network)
    model = getattr(network, "model", None)
    if not isinstance(model, Omega):
        return
    backbone = keeper.networks.stages(to.network)
    made = EmbeddingAugmenter(
        model.hidden, batch=scene.spec.rows, standardise=model.standardise, seed=keeper.seed, name=of.network
    )
    made.network_, made.n_features_in_, made.steps_ = network, model.width, keeper.at.step
    made.save(
        keeper.folder.path / f"{of.network}.safetensors",
        augmentation=scene.chains[str(to.view)].describe(),
        backbone=backbone.get_submodule("model") if hasattr(backbone, "model") else backbone,
    )


def _show(scene: Scene, of: Address, to: Address, keeper: Keeper) -> None:
    """Some of the held-out pictures, augmented and given back, as a picture in the run's folder."""
    numbers = torch.tensor(of_all_classes(scene.pictures.labels.tolist(), ROWS))
    network = keeper.networks.stages(of.network)

    def shown(address: Address, draw: int) -> Tensor:
        return scene.shown(str(address.view), numbers, torch.full_like(numbers, draw), keeper.seed, bank=True)

    augmented = [shown(of, draw) for draw in range(DRAWS)]
    with torch.no_grad(), keeper.hardware.autocast():
        undone = [network(x, frozenset({of.tensor}))[of.tensor] for x in augmented]
    write_undone(keeper.folder, scene.spec.name, shown(to, 0), augmented, undone)


def _score(scene: Scene, of: Address, to: Address, keeper: Keeper) -> dict[str, Any]:
    networks: Networks = keeper.networks
    taken = networks.inputs[of.network]
    missed, moved, cosine, entries = 0.0, 0.0, 0.0, 0
    for numbers in torch.split(torch.arange(len(scene.pictures)), scene.spec.rows):
        zeros = torch.zeros_like(numbers)
        shown = [scene.shown(str(a.view), numbers, zeros, keeper.seed, bank=True) for a in (of, to)]
        with torch.no_grad(), keeper.hardware.autocast():
            z = shown[0] if taken is None else networks.tensor(taken, shown[0])
            target = shown[1] if to.network == "input" else networks.tensor(to, shown[1])
            made = networks.stages(of.network)(z, frozenset({of.tensor}))[of.tensor]
        z, target, made = (part.flatten(1).double() for part in (z, target, made))
        missed += float((made - target).square().sum())
        moved += float((z - target).square().sum())
        cosine += float(functional.cosine_similarity(made, target, eps=1e-30).sum())
        entries += z.numel()
    return {
        "score": 1.0 - missed / moved if moved else None,
        "cosine": cosine / len(scene.pictures),
        "squared": missed / entries,
        "moved": moved / entries,
        "pictures": len(scene.pictures),
    }
