"""What augmentations of embeddings share that are learned from pairs: what they take and refuse, how they are scored.

Row i of `Z` embeds a picture, and row i of `Z_aug` the same picture, augmented.
"""
# ruff: noqa: N803  (Z is the embedding paper's letter, a capital as scikit-learn's X)

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from augend.augment.base import checked
from augend.augment.network import Apply
from augend.contract import AugendError
from augend.randomness import Draws

__all__ = ["PairAugmenter", "Rows", "Scales", "blocks"]

Rows = Tensor | NDArray[Any]
_Kind = TypeVar("_Kind", Tensor, NDArray[Any])

BLOCK = 8192  # rows worked on at once
STEADY = 1e-5  # an entry whose deviation is below this part of its size says nothing
SEEDS = 1 << 24


class PairAugmenter(ABC):
    """Base of `EmbeddingAugmenter` and its controls, so that they stand beside it wherever it stands."""

    n_features_in_: int

    def fit(self, Z: Rows, Z_aug: Rows) -> Self:
        """Learn from pairs; a second call begins anew.

        Args:
            Z: embeddings of pictures, floats ``(n, d)``, finite: a tensor on any device, or an array. Worked on as float32.
            Z_aug: embeddings of the same pictures, augmented, in the same order.

        Raises:
            AugendError: no rows, unequal shapes, values that are not finite, or what is no table of floats.
        """
        z, zg = self._pair("fit", Z, Z_aug)
        self._learn(z, zg)
        self.n_features_in_ = z.shape[1]
        return self

    def transform(self, Z: _Kind) -> _Kind:
        """Every row augmented: ``(n, d)`` of the kind, dtype and device of `Z`, without a gradient."""
        z = self._known("transform", Z)
        return _alike(Z, self._transformed(z))

    def augment(self, Z: _Kind, p: float = 0.5, generator: torch.Generator | Draws | None = None) -> _Kind:
        """A copy in which each row is augmented with probability `p`, else left: what a head is trained on.

        Args:
            Z: ``(n, d)``, as for `transform`.
            p: probability, from 0 to 1. The paper is silent; a flip as it is usually drawn takes half of the rows.
            generator: what is drawn from: torch's, or `Draws` of n rows, of which `Apply.draw` would choose the same rows.
                Without one, torch's default generator, as in torch's own functions.

        Example:
            >>> import augend
            >>> z = torch.ones(4, 2)
            >>> moved = augend.NoiseAugmenter().fit(z, z + 1).augment(z, p=0.5, generator=Draws(0, "head", step=1, keys=4))
            >>> (moved == z).all(1).tolist()
            [True, False, False, False]
        """
        z = self._known("augment", Z)
        coin = Apply(type(self).__name__, checked(self._at("augment"), "p", p, 0, 1))
        if isinstance(generator, Draws):
            if len(generator.keys) != len(z):
                raise AugendError(
                    f"{self._at('augment')}: Draws of {len(generator.keys)} rows for {len(z)} rows of Z; give keys={len(z)}"
                )
            hits = coin.draw(generator, 0.0)
        else:
            hits = (_uniform(len(z), generator) < p).float()
        with torch.no_grad():
            coin.bind(lambda x: self._mapped(z, lambda: _seeds(len(z), generator)))
            return _alike(Z, coin.apply(_tensor(Z), hits))

    def score(self, Z: Rows, Z_aug: Rows) -> float:
        """1 - ||transform(Z) - Z_aug||^2 / ||Z - Z_aug||^2, both summed over all rows and entries, in float64.

        1 is perfect, 0 is the identity, below 0 is worse than doing nothing; nan where `Z` equals `Z_aug` in every entry:
        there is nothing to learn, and nothing to measure by. Where the augmentation moves rows further than they lie from
        their mean, that mean alone scores above 0; so read a score beside `RidgeAugmenter`'s, and of rows that were not
        fitted.

        Source: ours, 1 minus the normalised error. Unlike the embedding paper's squared error (Figure 3) it can be compared
        between networks whose embeddings differ in scale, or hardly change under the augmentation.
        """
        z, zg = self._pair("score", Z, Z_aug)
        made = self._transformed(self._known("score", z))
        missed, moved = 0.0, 0.0
        for x, out, target in blocks(z, made, zg):
            missed += float((out.double() - target).square().sum())
            moved += float((x.double() - target).square().sum())
        return 1.0 - missed / moved if moved else math.nan

    def cosine(self, Z: Rows, Z_aug: Rows) -> float:
        """Mean over rows of the cosine similarity of ``transform(Z)`` and `Z_aug`, from -1 to 1; a row of zeros counts 0."""
        z, zg = self._pair("cosine", Z, Z_aug)
        made = self._transformed(self._known("cosine", z))
        parts = (functional.cosine_similarity(a.double(), b.double(), eps=1e-30).sum() for a, b in blocks(made, zg))
        return sum(float(part) for part in parts) / len(z)

    # ------------------------------------------------------------------ what each has of its own

    @abstractmethod
    def _learn(self, z: Tensor, zg: Tensor) -> None:
        """Learn from float32 ``(n, d)`` that were checked."""

    @abstractmethod
    def _mapped(self, z: Tensor, seeds: Callable[[], Tensor]) -> Tensor:
        """Float32 ``(n, d)`` augmented, as floats; `seeds` draws ``(n, 2)`` whole numbers for those that need chance."""

    # ------------------------------------------------------------------ what is taken

    def _transformed(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self._mapped(z, lambda: Draws(0, type(self).__name__, keys=len(z)).integers(SEEDS, 2)).to(z.dtype)

    def _at(self, method: str) -> str:
        return f"{type(self).__name__}.{method}"

    def _pair(self, method: str, Z: Rows, Z_aug: Rows) -> tuple[Tensor, Tensor]:
        z, zg = _rows(self._at(method), "Z", Z), _rows(self._at(method), "Z_aug", Z_aug)
        if z.shape != zg.shape:
            raise AugendError(
                f"{self._at(method)}: Z is {tuple(z.shape)} and Z_aug {tuple(zg.shape)}; row i of both must embed one picture"
            )
        return z, zg.to(z.device)

    def _known(self, method: str, Z: Rows) -> Tensor:
        if not hasattr(self, "n_features_in_"):
            raise AugendError(f"{self._at(method)}: nothing is learned yet; call fit(Z, Z_aug) first")
        z = _rows(self._at(method), "Z", Z)
        if z.shape[1] != self.n_features_in_:
            raise AugendError(
                f"{self._at(method)}: Z has {z.shape[1]} entries a row, fitted were {self.n_features_in_}; "
                "give embeddings of the same network"
            )
        return z


class Scales:
    """Statistics of pairs ``(n, d)``, float64.

    Attributes:
        mean, inverse: of each entry of Z its mean, and 1 / its deviation; 0 where an entry is constant.
        target, size: the mean of each entry of Z_aug, and the deviation of all of them together.
    """

    def __init__(self, z: Tensor, zg: Tensor) -> None:
        self.mean, square = _moments(z)
        steady = square.sqrt() <= STEADY * (square + self.mean.square()).sqrt()
        self.inverse = torch.where(steady, 0.0, torch.where(steady, 1.0, square).rsqrt())
        self.target, square = _moments(zg)
        size = square.mean().sqrt()
        self.size = torch.where(size > 0, size, 1.0)

    def entering(self, z: Tensor) -> Tensor:
        """Embeddings with entries of mean 0 and deviation 1, float32."""
        return (z - self.mean.float()) * self.inverse.float()

    def leaving(self, zg: Tensor) -> Tensor:
        """Targets that are centred and divided by one number, float32."""
        return (zg - self.target.float()) / self.size.float()


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each, a block after the other, so that float64 copies stay small."""
    for begin in range(0, len(tensors[0]), BLOCK):
        yield tuple(tensor[begin : begin + BLOCK] for tensor in tensors)


def _moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and mean squared deviation of each entry."""
    zero = z.new_zeros(z.shape[1], dtype=torch.float64)
    mean = sum((part.double().sum(0) for (part,) in blocks(z)), zero) / len(z)
    return mean, sum(((part.double() - mean).square().sum(0) for (part,) in blocks(z)), zero) / len(z)


def _uniform(rows: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(rows, 1, generator=generator, device=None if generator is None else generator.device).cpu()


def _seeds(rows: int, generator: torch.Generator | Draws | None) -> Tensor:
    if isinstance(generator, Draws):
        return generator.child("noise").integers(SEEDS, 2)
    device = None if generator is None else generator.device
    return torch.randint(SEEDS, (rows, 2), generator=generator, device=device).cpu()


def _tensor(Z: Rows) -> Tensor:
    """A tensor as it is, an array as one that shares its memory where that may be written to."""
    if isinstance(Z, Tensor):
        return Z.detach()
    return torch.from_numpy(np.ascontiguousarray(Z if Z.flags.writeable else Z.copy()))


def _rows(where: str, name: str, Z: Any) -> Tensor:
    """Float32 ``(n, d)``, or one line that says why not."""
    allowed = Z.is_floating_point() if isinstance(Z, Tensor) else isinstance(Z, np.ndarray) and Z.dtype in _FLOATS
    if not allowed:
        what = f"of {Z.dtype}" if isinstance(Z, Tensor | np.ndarray) else f"a {type(Z).__name__}"
        raise AugendError(f"{where}: {name} is {what}; give a tensor or an array of floats (n, d)")
    if Z.ndim != 2 or 0 in Z.shape:
        raise AugendError(f"{where}: {name} is {tuple(Z.shape)}; give (n, d) with at least one row and one entry a row")
    rows = _tensor(Z).float().contiguous()
    bad = ~torch.isfinite(rows).all(1)
    if bool(bad.any()):
        raise AugendError(
            f"{where}: {name} has values that are not finite in {int(bad.sum())} of {len(rows)} rows, first in row "
            f"{int(bad.int().argmax())}; leave out these rows"
        )
    return rows


_FLOATS = (np.float16, np.float32, np.float64)


def _alike(Z: _Kind, made: Tensor) -> _Kind:
    """`made` in the kind, dtype and device of `Z`."""
    if isinstance(Z, Tensor):
        return made.to(Z.device, Z.dtype)
    return made.numpy().astype(Z.dtype)
