"""Networks that learn to augment a tensor (Omega): how well they do it on held-out pictures, and what they get wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from augend.address import Address
from augend.augment.colour import Noise
from augend.recipes.terms import augmenting
from augend.runner.assembly import Scene
from augend.stages.networks import Networks

if TYPE_CHECKING:
    from augend.runner.keeper import Keeper

__all__ = ["bind_residuals", "score_augmenters"]


def bind_residuals(scene: Scene, scored: Mapping[str, Any]) -> None:
    """Give noise that is as large as a network's mistakes that size."""
    chains = [*scene.chains.values(), *(chain for views in scene.inner.values() for chain in views.values())]
    for op in (op for chain in chains for op in chain.ops):
        if isinstance(op, Noise) and op.residual_of in scored:
            op.sigma = math.sqrt(scored[op.residual_of]["squared"])


def score_augmenters(scene: Scene, keeper: Keeper) -> None:
    """At the end of a phase: the score of each network that learned to augment, on the validation pictures of its data.

    Every view is drawn once a picture. Kept are ``score`` (1 minus the normalised error, see `EmbeddingAugmenter.score`; None
    where nothing moved), ``cosine``, and mean squares of an entry: ``squared`` of what is wrong, ``moved`` of what the
    augmentation does. Charged as evaluation.
    """
    found = augmenting(scene.spec, keeper.networks.inputs)
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
        keeper.listen("augmenter", line)
    keeper.networks.only(list(scene.spec.train))
    keeper.ledger.lap("evaluation")


def _score(scene: Scene, of: Address, to: Address, keeper: Keeper) -> dict[str, Any]:
    networks: Networks = keeper.networks
    taken = networks.inputs[of.network]
    assert taken is not None
    missed, moved, cosine, entries = 0.0, 0.0, 0.0, 0
    for numbers in torch.split(torch.arange(len(scene.pictures)), scene.spec.rows):
        zeros = torch.zeros_like(numbers)
        shown = [scene.shown(str(a.view), numbers, zeros, keeper.seed, bank=True) for a in (of, to)]
        with torch.no_grad(), keeper.hardware.autocast():
            z, target = networks.tensor(taken, shown[0]), networks.tensor(to, shown[1])
            made = networks.stages(of.network)(z, frozenset({""}))[""]
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
