"""Groups of copies: P pictures, K differently augmented copies of each, as triplets need them."""

from __future__ import annotations

import torch

from augend.contract import AugendError, Picks, Probe
from augend.order.shuffle import Shuffle
from augend.randomness import Draws

__all__ = ["Groups"]


class Groups(Shuffle):
    """P x K batches: floor(rows / copies) pictures of the epoch, `copies` rows of each, next to one another.

    With a finite augmentation the copies of a picture show different variants, drawn without replacement; with an
    infinite one each row draws its own parameters. (Factoring, section 3.2: relaxed batch-hard batches of 16 x 3.)

    Args:
        copies: K, rows of one picture (2 or more).

    Example:
        >>> order = Groups(copies=3)
        >>> order.start(10, Draws(0, "embed/order"), None, variants=5)
        >>> picks = order.next(0, rows=6, sources=1, progress=0.0)
        >>> picks.index[:3].unique().numel(), picks.copy[:3].unique().numel()
        (1, 3)
    """

    def __init__(self, copies: int = 3) -> None:
        if copies < 2:
            raise AugendError(f"groups: copies is {copies}; a group needs 2 or more")
        self.copies = copies

    def start(self, size: int, draws: Draws, probe: Probe | None = None, variants: int | None = None) -> None:
        """Begin at the first epoch; `variants` is the number of outcomes of the augmentation, None when infinite."""
        if variants is not None and variants < self.copies:
            raise AugendError(
                f"groups: {self.copies} copies of a picture were asked for, but the augmentation has {variants} "
                f"outcome{'s' * (variants != 1)}; use a richer augmentation or copies: {max(variants, 2)}"
            )
        super().start(size, draws, probe, variants)
        self._draws, self._variants = draws, variants

    def next(self, step: int, rows: int, sources: int = 1, progress: float = 0.0) -> Picks:
        """The next groups; `rows` must be a multiple of `copies` (a resolved plan sees to it)."""
        if rows % self.copies or sources != 1:
            raise AugendError(f"groups: {rows} rows of {sources} pictures are no whole groups of {self.copies} copies")
        pictures = rows // self.copies
        index = super().next(step, pictures, 1, progress).index.repeat_interleave(self.copies, dim=0)
        if self._variants is None:
            return Picks(index)
        draws = self._draws.child(f"copies/{step}").rows(torch.arange(pictures))
        return Picks(index, copy=draws.permutation(self._variants)[:, : self.copies].reshape(-1))
