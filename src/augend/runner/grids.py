"""What each phase will show the network, as a picture: originals in the first column, drawn versions beside them; a row
that is mixed with another shows which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from augend.augment import build
from augend.augment.chain import Chain
from augend.augment.grid import grid, of_all_classes, tiled
from augend.augment.network import Apply
from augend.data.pictures import Pictures, Split
from augend.randomness import Draws
from augend.recipes.plan import Plan
from augend.runner.assembly import bind, build_networks
from augend.runner.folder import RunFolder
from augend.stages.networks import Networks

__all__ = ["ROWS", "write_grids", "write_undone"]

ROWS, COLUMNS = 4, 7


def write_grids(plan: Plan, splits: Mapping[str, Split], folder: RunFolder, seed: int) -> None:
    """Write ``grids/PHASE-VIEW.png`` for every view that changes pixels (augmentations inside networks aside)."""
    networks: Networks | None = None  # built for the first view that applies one, once for all
    for phase in plan.phases:
        shown = _rows(splits[phase.data])
        if not len(shown):
            continue
        if phase.size is not None:
            shown = shown.resized(phase.size)
        for view, ops in phase.views.items():
            made = [op for op in (build(one.component) for one in ops if one.at is None) if _ready(op, plan)]
            chain = Chain(made, shown.shape[1:])
            if any(isinstance(op, Apply) for op in made):
                if networks is None:
                    networks = build_networks(plan, splits, seed)
                    networks.eval()
                bind(chain, networks)
            draws = Draws(seed, phase.name, 0, torch.arange(len(shown))).child(view)
            image = grid(shown.pixels[:].cpu(), chain, draws, COLUMNS, whole=shown.kept[:].cpu())
            _save(image, folder, f"{phase.name}-{view}")


def write_undone(
    folder: RunFolder, phase: str, clean: Tensor, augmented: Sequence[Tensor], undone: Sequence[Tensor]
) -> None:
    """Write ``grids/PHASE-undone.png``: pictures, then augmented and given back by a network, as often as there are draws.

    Args:
        clean: floats ``(rows, C, H, W)`` in [0, 1].
        augmented, undone: the same of each draw.
    """
    columns = [clean, *(part for pair in zip(augmented, undone, strict=True) for part in pair)]
    tiles = torch.stack([part.float().cpu().mul(255).round().clamp(0, 255).to(torch.uint8) for part in columns], 1)
    _save(tiled(tiles), folder, f"{phase}-undone")


def _ready(op: object, plan: Plan) -> bool:
    """Whether what an augmentation does can be shown before the run: not that of a network that is yet to learn."""
    return not isinstance(op, Apply) or plan.networks[op.address.network].weights is not None


def _save(image: Tensor, folder: RunFolder, name: str) -> None:
    from PIL import Image

    array = image.permute(1, 2, 0).numpy()
    target = folder.path / "grids"
    target.mkdir(exist_ok=True)
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(target / f"{name}.png")


def _rows(split: Split) -> Pictures:
    """The first training pictures of as many classes as there are rows."""
    return split.train.take(of_all_classes(split.train.labels.tolist(), ROWS))
