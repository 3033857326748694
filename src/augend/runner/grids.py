"""What each phase will show the network, as a picture: originals in the first column, drawn versions beside them; a row
that is mixed with another shows which."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from augend.augment import build
from augend.augment.chain import Chain
from augend.augment.grid import grid
from augend.data.pictures import Pictures, Split
from augend.randomness import Draws
from augend.recipes.plan import Plan
from augend.runner.folder import RunFolder

__all__ = ["write_grids"]

ROWS, COLUMNS = 4, 7


def write_grids(plan: Plan, splits: Mapping[str, Split], folder: RunFolder, seed: int) -> None:
    """Write ``grids/PHASE-VIEW.png`` for every view that changes pixels (augmentations inside networks aside)."""
    from PIL import Image

    for phase in plan.phases:
        shown = _rows(splits[phase.data])
        if not len(shown):
            continue
        if phase.size is not None:
            shown = shown.resized(phase.size)
        for view, ops in phase.views.items():
            chain = Chain([build(one.component) for one in ops if one.at is None], shown.shape[1:])
            draws = Draws(seed, phase.name, 0, torch.arange(len(shown))).child(view)
            image = grid(shown.pixels[:].cpu(), chain, draws, COLUMNS, whole=shown.kept[:].cpu())
            array = image.permute(1, 2, 0).numpy()
            target = folder.path / "grids"
            target.mkdir(exist_ok=True)
            Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(target / f"{phase.name}-{view}.png")


def _rows(split: Split) -> Pictures:
    """The first training pictures of as many classes as there are rows."""
    labels = split.train.labels.tolist()
    first = sorted({label: number for number, label in reversed(list(enumerate(labels)))}.values())
    return split.train.take((first + [n for n in range(len(labels)) if n not in first[:ROWS]])[:ROWS])
