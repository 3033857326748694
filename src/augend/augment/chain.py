"""Several augmentations in a row, as one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from augend import pixels
from augend.augment.base import describe, dictated
from augend.contract import AugendError, Augment, Mixing, Pairing
from augend.randomness import Draws

__all__ = ["Chain"]

_EXACT = 2**24  # whole numbers that float32 holds


def _name(op: Augment | Mixing) -> str:
    return str(getattr(op, "word", "") or type(op).__name__)


class Chain:
    """An augmentation made of several, applied in order.

    Each operation draws from its own stream, named by its position and word, so an operation added at the end changes
    no earlier draw. If all are finite so is the chain: its one column is the variant number, in which the first
    operation's variant counts singly, the second's times the variants of the first, and so on; variant 0 is the
    identity where each operation has one. Otherwise the operations' columns stand side by side, and `copy` has no
    meaning. An empty chain is the identity.

    One mixing operation (several pictures become one row) may stand last; it is not part of `apply`. For such a chain

        params = chain.draw(draws, progress)                        # of each row and its k pictures
        x, targets = chain.mixed(x, targets, params, k)             # k = chain.sources(progress); (rows * k, ...) both

    and where it pairs rows of the batch, ``chain.mixed(x, targets, params, partners)``, see there.

    Attributes:
        ops: the operations on single pictures, in order.
        mixing: the mixing operation, or None.
        pairing: the mixing operation if it pairs rows of the batch, or None.
        variants: number of outcomes when finite, else None.
        reaches: whether `apply` takes pictures with a margin around `size`, out of which its first crop is cut; flips may
            stand before it. Otherwise the middle must be given.

    Example:
        >>> from augend.augment.geometry import HFlip, Rotations
        >>> chain = Chain([HFlip(), Rotations()])
        >>> chain.variants, chain.draw(Draws(0, "example", keys=3), 0.0).shape
        (10, torch.Size([3, 1]))
    """

    moves = False

    def __init__(self, ops: Sequence[Augment | Mixing] = (), size: tuple[int, int] | None = None) -> None:
        mixing = [op for op in ops if isinstance(op, Mixing)]
        if len(mixing) > 1:
            raise AugendError(f"a view can mix pictures only once, found {', '.join(map(_name, mixing))}; keep one")
        if mixing and ops[-1] is not mixing[0]:
            raise AugendError(f"{_name(mixing[0])} mixes pictures, so it must be the last augmentation of its view")
        self.mixing: Mixing | None = mixing[0] if mixing else None
        self.pairing: Pairing | None = self.mixing if isinstance(self.mixing, Pairing) else None
        self.ops: tuple[Augment, ...] = tuple(op for op in ops if not isinstance(op, Mixing))
        first = next((op for op in self.ops if not getattr(op, "mirrors", False)), None)
        self.size, self.reaches = size, size is not None and first is not None and getattr(first, "cuts", False)
        self._cutting = first if self.reaches else None
        self._names = [f"{position}:{_name(op)}" for position, op in enumerate(ops)]
        counts = [op.variants for op in self.ops]
        finite = math.prod(count for count in counts if count is not None)
        self.variants: int | None = None if mixing or None in counts or finite > _EXACT else finite
        probe = Draws(0, "width", keys=1)
        self._widths = [0 if self.variants is not None else op.draw(probe, 0.0).shape[1] for op in self.ops]

    def sources(self, progress: float) -> int:
        """Pictures a row: 1, or what the mixing operation asks for."""
        return 1 if self.mixing is None else self.mixing.sources(progress)

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        """float32 ``(rows, p)``; `copy` int64 ``(rows,)`` dictates the variant of a finite chain.

        With mixing, first the parameters of each of the k pictures of a row, then those of the mixing. The first
        picture's are what the same chain without mixing would draw.
        """
        rows = len(draws.keys)
        if self.variants is not None:
            if copy is not None:
                return dictated(copy, self.variants, rows, "chain")
            number, radix = torch.zeros(rows, 1), 1
            for name, op in zip(self._names, self.ops, strict=True):
                number += op.draw(draws.child(name), progress) * radix
                radix *= op.variants or 1
            return number
        if self.mixing is None:
            return self._columns(draws, progress)
        own = [
            self._columns(draws.child(f"source {source}") if source else draws, progress)
            for source in range(self.sources(progress))
        ]
        return torch.cat([*own, self.mixing.draw(draws.child(self._names[-1]), progress)], 1)

    def _columns(self, draws: Draws, progress: float) -> Tensor:
        drawn = [op.draw(draws.child(name), progress) for name, op in zip(self._names, self.ops, strict=False)]
        return torch.cat(drawn, 1) if drawn else torch.zeros(len(draws.keys), 0)

    def split(self, params: Tensor, sources: int) -> tuple[Tensor, Tensor]:
        """Of a chain with mixing: parameters of the single pictures ``(rows * sources, p)``, and of the mixing."""
        width = sum(self._widths)
        return params[:, : sources * width].reshape(len(params) * sources, width), params[:, sources * width :]

    def mixed(self, x: Tensor, targets: Tensor, params: Tensor, parts: Tensor | int) -> tuple[Tensor, Tensor]:
        """Every picture augmented by itself, then mixed: ``(rows, ...)`` and ``(rows, classes)``.

        Args:
            x: ``(pictures, ...)``, uint8 or float, as `apply` takes them.
            targets: float ``(pictures, classes)``.
            params: what `draw` returned.
            parts: how many pictures a row has, which then lie one row after the other; or, of a chain that pairs, where
                the partner of each row stands among the pictures, int64 ``(rows,)``. Then the pictures may be more than
                the rows (on a rank, partners of other ranks come after its own), and `params` are those of every picture.
        """
        assert self.mixing is not None
        if isinstance(parts, int):
            own, mixing = self.split(params, parts)
            x = self._mixable(x, own)
            sides = [part.reshape(-1, parts, *part.shape[1:]).unbind(1) for part in (x, targets)]
            return self.mixing.mix(sides[0], sides[1], mixing)
        own, mixing = self.split(params, 1)
        x, rows = self._mixable(x, own), len(parts)
        pairs = [(part[:rows], part.index_select(0, parts)) for part in (x, targets)]
        return self.mixing.mix(pairs[0], pairs[1], mixing[:rows])

    def _mixable(self, x: Tensor, params: Tensor) -> Tensor:
        """Pictures as the mixing operation takes them: uint8 where nothing made floats of them and it adds integers."""
        x = self._applied(x, params)
        return x if getattr(self.mixing, "integers", False) else pixels.to_float(x)

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """All operations on single pictures, in order.

        Args:
            x: float ``(rows, ...)``; uint8 pictures are taken too and become float32 in [0, 1] as late as possible,
                which gives the same bits in less time.
            params: what `draw` returned, on any device.
        """
        return pixels.to_float(self._applied(x, params))

    def _applied(self, x: Tensor, params: Tensor) -> Tensor:
        """The same; uint8 where every operation only moved pixels."""
        parts: Sequence[Tensor]
        if self.variants is None:
            parts = torch.split(params, self._widths, 1) if self.ops else []
        else:
            number, parts = params[:, 0].long(), []
            for op in self.ops:
                count = op.variants or 1
                parts = [*parts, (number % count).to(params.dtype)[:, None]]
                number = number // count
        for op, part in zip(self.ops, parts, strict=True):
            x = x if getattr(op, "moves", False) else pixels.to_float(x)
            # only the built-in crop knows a size, and only the chain knows that it is the first
            x = op.apply(x, part, self.size) if op is self._cutting else op.apply(x, part)  # type: ignore[call-arg]
        return x

    def describe(self) -> str:
        """The operations' descriptions as a JSON list, equal for equal chains: part of the keys of caches."""
        every = [*self.ops, *([self.mixing] if self.mixing is not None else [])]
        return json.dumps([json.loads(describe(op)) for op in every], sort_keys=True)
