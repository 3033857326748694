"""Any transform of torchvision by its name."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import torch
from torch import Tensor

from augend.augment.base import Operation
from augend.contract import AugendError
from augend.names import nearest
from augend.randomness import Draws, seed_default_generators

__all__ = ["Torchvision"]


class Torchvision(Operation):
    """A transform of `torchvision.transforms.v2`, one call a row, so slower than what is built in.

    torchvision draws from torch's default generators; they are seeded with the row's own seed and put back
    afterwards, so the result is a function of (seed, row) like every other draw, and nothing else notices.

    Parameters: a seed of 48 bits, in two columns of whole numbers.

    Args:
        name: of a transform that takes one float picture and keeps its shape: ``RandomPerspective``.
        **options: the transform's own.

    Example:
        >>> blur = Torchvision("GaussianBlur", kernel_size=3)
        >>> x = torch.rand(2, 3, 8, 8)
        >>> blur.apply(x, blur.draw(Draws(0, "example", keys=2), 0.0)).shape
        torch.Size([2, 3, 8, 8])
    """

    word: ClassVar[str] = "torchvision"

    def __init__(self, name: str, **options: Any) -> None:
        from torchvision.transforms import v2

        super().__init__()
        names = sorted(
            key for key, value in vars(v2).items() if isinstance(value, type) and issubclass(value, v2.Transform)
        )
        if name not in names:
            hint = nearest(str(name), names) or "; see torchvision.transforms.v2"
            raise AugendError(f"torchvision: there is no transform {name!r}{hint}")
        self.name, self.options = name, options
        try:
            self._transform = getattr(v2, name)(**options)
        except (TypeError, ValueError, AttributeError) as error:
            raise AugendError(f"torchvision: {name}: {_line(error)}") from error

    def describe(self) -> str:
        """The word, the transform's name and its options as JSON."""
        return json.dumps({self.word: {"name": self.name, **self.options}}, sort_keys=True, default=repr)

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 2)``, whole numbers below 2^24."""
        return draws.integers(2**24, 2).float()

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)``; a transform may leave [0, 1] (Normalize does)."""
        seeds = params.double().cpu() @ torch.tensor([1.0, 2.0**24], dtype=torch.float64)
        rows = []
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            for row, seed in zip(x, seeds.long().tolist(), strict=True):
                seed_default_generators(seed)
                try:
                    out = self._transform(row)
                except (TypeError, ValueError, RuntimeError) as error:
                    raise AugendError(f"torchvision: {self.name} does not take this picture: {_line(error)}") from error
                if not isinstance(out, Tensor) or out.shape != row.shape:
                    found = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
                    raise AugendError(
                        f"torchvision: {self.name} must keep the picture's shape {list(row.shape)}, it made {found}"
                    )
                rows.append(out.to(x.dtype))
        return torch.stack(rows)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
