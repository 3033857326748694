"""The perfect-ordering network judged fast: on digits two thirds of all 3 x 3 windows are blank, and their answer is one.

The network (two 2 x 2 convolutions, each with ReLU and batch norm, the mean over all places, a linear layer) answers a place
by the 3 x 3 pixels that it sees, so blank windows are computed once for all pictures. Batch norm is folded into what follows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from augend.order.every import Copies

__all__ = ["WindowJudge"]

SIDE, TILE, EPS = 3, 4096, 1e-5


class WindowJudge:
    """Mean cross-entropy and share right of copies of the network, as `augend.order.judge_copies` gives them.

    Args:
        x: float32 ``(n, 1, h, w)``, normalised; the smallest value is the background's.
        y: int64 ``(n,)``.

    Cost:
        On 2,048 zeros and ones a third of the network's multiply-adds; bench/ordering.py times it.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        windows = x.unfold(2, SIDE, 1).unfold(3, SIDE, 1).reshape(len(x), -1, SIDE * SIDE)
        self._blank = x.min()
        shown = (windows != self._blank).any(2)
        self._rows, self._counts = windows[shown], shown.sum(1)
        self._owner = torch.arange(len(x)).repeat_interleave(self._counts)
        self._places, self._labels = windows.shape[1], y

    def __call__(self, copies: Copies) -> tuple[Tensor, Tensor]:
        """float32 ``(copies,)`` each: nats, and a share in [0, 1]."""
        losses, right = torch.zeros(len(copies)), torch.zeros(len(copies))
        with torch.no_grad():
            for number in range(len(copies)):
                named = {**copies.weights, **copies.buffers}
                logits = self._logits({name: value[number] for name, value in named.items()})
                losses[number] = functional.cross_entropy(logits, self._labels)
                right[number] = (logits.argmax(1) == self._labels).float().mean()
        return losses, right

    def _logits(self, p: Mapping[str, Tensor]) -> Tensor:
        scales = [p[f"{n}.weight"] / (p[f"{n}.running_var"] + EPS).sqrt() for n in (2, 5)]
        moves = [p[f"{n}.bias"] - p[f"{n}.running_mean"] * s for n, s in zip((2, 5), scales, strict=True)]
        first, second = p["0.weight"], p["3.weight"]
        narrow, wide = len(first), len(second)
        spread = torch.zeros(SIDE, SIDE, 4, narrow)  # the four places of the first convolution in a window
        for number, (a, b) in enumerate((a, b) for a in (0, 1) for b in (0, 1)):
            spread[a : a + 2, b : b + 2, number] = first[:, 0].permute(1, 2, 0)
        spread = spread.reshape(SIDE * SIDE, 4 * narrow)
        biases = p["0.bias"].repeat(4)
        folded = (second * scales[0][None, :, None, None]).permute(2, 3, 1, 0).reshape(4 * narrow, wide).contiguous()
        moved = p["3.bias"] + (second * moves[0][None, :, None, None]).sum((1, 2, 3))

        def answered(rows: Tensor) -> Tensor:
            return torch.addmm(moved, torch.addmm(biases, rows, spread).relu_(), folded).relu_()

        sums = torch.zeros(len(self._counts), wide)
        for begin in range(0, len(self._rows), TILE):
            part = slice(begin, begin + TILE)
            sums.index_add_(0, self._owner[part], answered(self._rows[part]))
        blank = answered(self._blank.expand(1, SIDE * SIDE))
        mean = (sums + (self._places - self._counts)[:, None] * blank) / self._places
        return (mean * scales[1] + moves[1]) @ p["8.weight"].T + p["8.bias"]
