"""What each phase will show the network, as a picture: originals in the first column, drawn versions beside them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from augend.augment import build
from augend.augment.chain import Chain
from augend.augment.grid import grid
from augend.data.pictures import Split
from augend.randomness import Draws
from augend.recipes.plan import Plan
from augend.runner.folder import RunFolder

__all__ = ["write_grids"]

ROWS, COLUMNS = 4, 7


def write_grids(plan: Plan, splits: Mapping[str, Split], folder: RunFolder, seed: int) -> None:
    """Write ``grids/PHASE-VIEW.png`` for every view that changes pixels (mixing and augmentations inside networks aside)."""
    from PIL import Image

    for phase in plan.phases:
        train = splits[phase.data].train
        if not len(train):
            continue
        for view, ops in phase.views.items():
            chain = Chain(
                [op for op in (build(one.component) for one in ops if one.at is None) if hasattr(op, "apply")]
            )
            draws = Draws(seed, phase.name, 0, torch.arange(ROWS)).child(view)
            image = grid(train.pixels[:ROWS].cpu(), chain, draws, COLUMNS)
            array = image.permute(1, 2, 0).numpy()
            target = folder.path / "grids"
            target.mkdir(exist_ok=True)
            Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(target / f"{phase.name}-{view}.png")
