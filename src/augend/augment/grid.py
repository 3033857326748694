"""A picture of what an augmentation does, for reports and the eye."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from augend.augment.chain import Chain
from augend.randomness import Draws

__all__ = ["grid", "of_all_classes", "tiled"]

GAP = 2  # white pixels around every picture


def grid(
    pictures: Tensor,
    chain: Chain,
    draws: Draws,
    columns: int,
    progress: float = 0.0,
    *,
    whole: Tensor | None = None,
) -> Tensor:
    """Pictures beside their augmented versions, one line each.

    Args:
        pictures: uint8 ``(n, C, H, W)``. If the chain mixes, a line's partners are the pictures that follow.
        chain: the augmentations of a view.
        draws: where the numbers come from; column j uses its child "column j", row i the key i.
        columns: augmented versions beside the original.
        progress: of the phase, 0 .. 1, for strengths that follow it.
        whole: the same pictures with a margin around them, for a chain that reaches into it.

    Returns:
        uint8 ``(C, n (H + 2) + 2, (columns + 1) (W + 2) + 2)``.
    """
    count = len(pictures)
    sources = chain.sources(progress)
    partners = (torch.arange(count)[:, None] + torch.arange(sources)) % max(count, 1)
    given = whole if whole is not None and chain.reaches else pictures
    x = given.index_select(0, partners.flatten().to(pictures.device))
    parts = sources if chain.pairing is None else torch.arange(count, device=pictures.device).roll(-1)
    targets = torch.zeros(len(x), 1, device=pictures.device)
    shown = [pictures]
    for column in range(columns):
        params = chain.draw(draws.child(f"column {column}").rows(torch.arange(count)), progress)
        made = chain.apply(x, params) if chain.mixing is None else chain.mixed(x, targets, params, parts)[0]
        shown.append(made.mul(255).round_().clamp_(0, 255).to(torch.uint8))
    return tiled(torch.stack(shown, 1))


def of_all_classes(labels: Sequence[int], count: int) -> list[int]:
    """Numbers of `count` pictures to look at: the first of as many classes as that.

    >>> of_all_classes([0, 0, 0, 1, 2, 1], 4)
    [0, 3, 4, 1]
    """
    first = sorted({label: number for number, label in reversed(list(enumerate(labels)))}.values())
    return (first + [n for n in range(len(labels)) if n not in first[:count]])[:count]


def tiled(tiles: Tensor) -> Tensor:
    """Pictures uint8 ``(lines, columns, C, H, W)`` as one, two white pixels between them: uint8 ``(C, height, width)``.

    >>> tiled(torch.zeros(2, 3, 1, 8, 8, dtype=torch.uint8)).shape
    torch.Size([1, 22, 32])
    """
    lines, columns, channels, height, width = tiles.shape
    tiles = torch.nn.functional.pad(tiles, (0, GAP, 0, GAP), value=255)
    page = tiles.permute(2, 0, 3, 1, 4).reshape(channels, lines * (height + GAP), columns * (width + GAP))
    return torch.nn.functional.pad(page, (GAP, 0, GAP, 0), value=255)
