"""TrivialAugment (Müller and Hutter 2021): one operation a picture, of random kind and strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from augend import pixels
from augend.augment.base import Operation
from augend.randomness import Draws

__all__ = ["BINS", "OPS", "Trivial"]

BINS = 31

#: The operations of the Wide set in torchvision's order: name -> strengths of the 31 bins, and whether half are
#: negated.
OPS: dict[str, tuple[Tensor, bool]] = {
    "Identity": (torch.zeros(BINS), False),
    "ShearX": (torch.linspace(0, 0.99, BINS), True),
    "ShearY": (torch.linspace(0, 0.99, BINS), True),
    "TranslateX": (torch.linspace(0, 32, BINS), True),
    "TranslateY": (torch.linspace(0, 32, BINS), True),
    "Rotate": (torch.linspace(0, 135, BINS), True),
    "Brightness": (torch.linspace(0, 0.99, BINS), True),
    "Color": (torch.linspace(0, 0.99, BINS), True),
    "Contrast": (torch.linspace(0, 0.99, BINS), True),
    "Sharpness": (torch.linspace(0, 0.99, BINS), True),
    "Posterize": (8 - (torch.arange(BINS) / ((BINS - 1) / 6)).round(), False),
    "Solarize": (torch.linspace(1, 0, BINS), False),
    "AutoContrast": (torch.zeros(BINS), False),
    "Equalize": (torch.zeros(BINS), False),
}
_NUMBER = {name: number for number, name in enumerate(OPS)}
_FIRST_MOVE, _LAST_MOVE = _NUMBER["ShearX"], _NUMBER["Rotate"]

_COLOUR: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
    _NUMBER["Brightness"]: lambda x, by: pixels.brightness(x, 1 + by),
    _NUMBER["Color"]: lambda x, by: pixels.saturation(x, 1 + by),
    _NUMBER["Contrast"]: lambda x, by: pixels.contrast(x, 1 + by),
    _NUMBER["Sharpness"]: lambda x, by: pixels.sharpness(x, 1 + by),
    _NUMBER["Posterize"]: pixels.posterize,
    _NUMBER["Solarize"]: pixels.solarize,
    _NUMBER["AutoContrast"]: lambda x, by: pixels.autocontrast(x),
    _NUMBER["Equalize"]: lambda x, by: pixels.equalize(x),
}


def _moved(x: Tensor, number: Tensor, by: Tensor) -> Tensor:
    """Shears about the top left corner, moves by whole pixels, rotations about the middle; nearest pixel, outside 0."""

    def of(name: str) -> Tensor:
        return torch.where(number == _NUMBER[name], by, 0.0)

    shear = torch.rad2deg(torch.stack([of("ShearX"), of("ShearY")], 1).double().atan())
    moves = torch.stack([of("TranslateX"), of("TranslateY")], 1).trunc()
    corner = torch.tensor([-x.shape[-1] / 2, -x.shape[-2] / 2], device=by.device)
    centre = torch.where((number <= _NUMBER["ShearY"])[:, None], corner, 0.0)
    return pixels.warp(x, pixels.affine_matrices(of("Rotate"), moves, shear=shear, centre=centre), "nearest")


@dataclass(eq=False)
class Trivial(Operation):
    """TrivialAugmentWide: each row gets one of 14 operations at one of 31 strengths, torchvision's set and strengths.

    The rows are grouped by operation (all that move pixels in one group), so a batch costs at most nine calls. As in
    torchvision the strength of a shift is in pixels (up to 32) whatever the picture's size, and what comes from
    outside is black.

    Parameters: number of the operation (`OPS`), bin, sign (+1 or -1).
    """

    word: ClassVar[str] = "trivial"

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 3)``."""
        u = draws.uniform(3).double()
        number, size = (u[:, 0] * len(OPS)).floor(), (u[:, 1] * BINS).floor()
        return torch.stack([number, size, torch.where(u[:, 2] < 0.5, -1.0, 1.0)], 1).float()

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)`` in [0, 1]."""
        number, size = params[:, 0].long().cpu(), params[:, 1].long().cpu()
        table = torch.stack([strengths for strengths, _ in OPS.values()])
        signed = torch.tensor([sign for _, sign in OPS.values()])
        by = table[number, size]
        by = torch.where(signed[number], by * params[:, 2].cpu(), by)
        kind = torch.where((number >= _FIRST_MOVE) & (number <= _LAST_MOVE), _FIRST_MOVE, number)
        out = x.clone()
        for group in sorted(set(kind.tolist())):
            rows = (kind == group).nonzero()[:, 0]
            here = rows.to(x.device)
            if group == _FIRST_MOVE:
                out.index_copy_(0, here, _moved(x.index_select(0, here), number[rows], by[rows]))
            elif group in _COLOUR:
                out.index_copy_(0, here, _COLOUR[group](x.index_select(0, here), by[rows]))
        return out
