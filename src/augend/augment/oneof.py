"""One of several augmentations a picture."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from augend import names
from augend.augment import build
from augend.augment.base import Operation, checked
from augend.augment.chain import Chain
from augend.contract import AugendError, Augment, Component, Mixing
from augend.randomness import Draws

__all__ = ["OneOf", "as_chain"]


@dataclass(eq=False)
class OneOf(Operation):
    """Each row gets one of several augmentations, all equally likely; with probability 1 - `p` it is left as it is.

    The rows are grouped by what they get, so a batch costs at most one call for each. The numbers that an augmentation
    draws do not depend on which others stand beside it, only on its place.

    Parameters: what the row gets (0: nothing, 1: the first), then the columns of all augmentations side by side.

    Args:
        of: each a word with its options as a recipe writes them, or a list of such words that are applied in order.
        p: how likely any of them is.

    Example:
        >>> op, x = OneOf(["hflip", [{"crop": {"padding": 2}}, "vflip"]]), torch.rand(4, 3, 8, 8)
        >>> params = op.draw(Draws(0, "example", keys=4), 0.0)
        >>> params.shape, op.apply(x, params).shape
        (torch.Size([4, 5]), torch.Size([4, 3, 8, 8]))
    """

    word: ClassVar[str] = "one-of"
    of: Sequence[Any]
    p: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.of, str) or not isinstance(self.of, Sequence) or not self.of:
            raise AugendError(f"one-of: of must be a list of augmentations, found {self.of!r}")
        self.p = checked(self.word, "p", self.p, 0, 1)
        self._chains = [as_chain(one) for one in self.of]
        probe = Draws(0, "width", keys=1)
        self._widths = [chain.draw(probe, 0.0).shape[1] for chain in self._chains]

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, 1 + p)``."""
        which = draws.integers(len(self._chains)) + 1
        if self.p < 1:
            which = torch.where(draws.child("any").bernoulli(self.p), which, 0)
        own = [chain.draw(draws.child(str(place)), progress) for place, chain in enumerate(self._chains)]
        return torch.cat([which.float(), *own], 1)

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """float32 ``(rows, C, H, W)`` in [0, 1]."""
        which, out = params[:, 0].long(), x.clone()
        own = torch.split(params[:, 1:], self._widths, 1)
        for place in sorted(set(which.tolist()) - {0}):
            rows = (which == place).nonzero()[:, 0]
            here = rows.to(x.device)
            part = self._chains[place - 1].apply(x.index_select(0, here), own[place - 1].index_select(0, rows))
            out.index_copy_(0, here, part)
        return out


def as_chain(written: Any, size: tuple[int, int] | None = None) -> Chain:
    """An augmentation as a recipe writes it, or a list of such, built.

    >>> as_chain([{"crop": {"padding": 2}}, "hflip"]).describe()
    '[{"crop": {"padding": 2}}, {"hflip": {"p": 0.5}}]'
    """
    ops = written if isinstance(written, list | tuple) else [written]
    return Chain([_built(op) for op in ops], size)


def _built(written: Any) -> Augment:
    """An augmentation as a recipe writes it: a word, or one word with its options (by name, or the first one alone)."""
    if isinstance(written, Mapping) and len(written) == 1:
        ((word, given),) = written.items()
    else:
        word, given = written, {}
    if not isinstance(word, str) or word not in names.known("augment"):
        close = names.nearest(word, names.known("augment")) if isinstance(word, str) else ""
        raise AugendError(f"one-of: {written!r} is no augmentation{close}; write a word or {{word: {{option: value}}}}")
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        options = [
            name
            for name, one in names.options("augment", word).items()
            if one.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        if not options:
            raise AugendError(f"one-of: {word} takes no options, found {given!r}")
        given = {options[0]: given}
    made = build(Component(word, {str(name).replace("-", "_"): value for name, value in given.items()}))
    if isinstance(made, Mixing):
        raise AugendError(f"one-of: {word} mixes pictures; it must stand by itself at the end of the view")
    if "network" in names.options("augment", word):
        raise AugendError(f"one-of: {word} needs a network, which stands at the end of the view by itself")
    return made
