"""Every random number as a pure function of (seed, stream, step, row, column).

Nothing here has hidden state, so a resumed run, another number of workers and another number of ranks draw the same
numbers. Per-row numbers come from splitmix64 (Steele, Lea and Flood 2014) in numpy: 22 to 52 us a batch, where one
`torch.Generator` a row would cost 370 us, and one generator a batch would not be a function of the row.
"""

from __future__ import annotations

import functools
import hashlib
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Draws", "seed_default_generators", "stream_key", "undisturbed"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1


def _splitmix64(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _splitmix64_int(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


@functools.lru_cache(maxsize=65536)
def _text_key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def stream_key(seed: int, *names: str | int) -> int:
    """A 64-bit key for a named stream: any difference in seed or names gives unrelated numbers.

    >>> stream_key(0, "plain", "order") != stream_key(0, "order", "plain")
    True
    """
    return _text_key("/".join([str(seed), *(str(name) for name in names)]))


def seed_default_generators(key: int) -> None:
    """Seed torch's default generators, which dropout and stochastic depth draw from (3 us; `torch.manual_seed` 109 us)."""
    key &= 0x7FFF_FFFF_FFFF_FFFF
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for generator in torch.cuda.default_generators:
            generator.manual_seed(key)


def undisturbed() -> AbstractContextManager[object]:
    """A block after which torch's default generators are where they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return torch.random.fork_rng(devices=devices)


class Draws:
    """The random numbers of one step, one independent row of them for each row of the batch.

    Args:
        seed: the run's seed.
        stream: what the numbers are for; the runner uses the phase's *name*, so equal phases of two recipes agree.
        step: step within the phase.
        keys: int64 ``(rows,)``, the global row numbers this rank holds (picture numbers when a bank is filled). An int n
            stands for rows 0 .. n - 1.

    Example:
        >>> whole, part = Draws(0, "plain", 3, 8), Draws(0, "plain", 3, torch.tensor([4, 5]))
        >>> torch.equal(whole.uniform(2)[4:6], part.uniform(2))
        True
    """

    def __init__(
        self, seed: int, stream: str, step: int = 0, keys: Tensor | int = 1, *, _key: int | None = None
    ) -> None:
        self._keys = keys
        self._key = (
            _key if _key is not None else _splitmix64_int((stream_key(seed, stream) + step * int(_GOLDEN)) & _MASK)
        )

    @property
    def keys(self) -> Tensor:
        """int64 ``(rows,)``: which rows these are."""
        if isinstance(self._keys, int):
            self._keys = torch.arange(self._keys)
        return self._keys

    @property
    def key(self) -> int:
        """The 64-bit key of this step and stream (the same on every rank)."""
        return self._key

    def child(self, name: str) -> Draws:
        """An independent stream for a view, an operation in a chain, an order. The same name gives the same numbers."""
        return Draws(0, "", keys=self._keys, _key=_splitmix64_int(self._key ^ _text_key(name)))

    def rows(self, keys: Tensor) -> Draws:
        """The same stream for other rows."""
        return Draws(0, "", keys=keys, _key=self._key)

    def _bits(self, n: int) -> NDArray[np.uint64]:
        rows = self.keys.numpy().astype(np.uint64)
        with np.errstate(over="ignore"):
            row_key = _splitmix64(np.uint64(self._key) + (rows + np.uint64(1)) * _GOLDEN)
            columns = np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN
            return _splitmix64(row_key[:, None] + columns[None, :])

    def uniform(self, n: int = 1, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 ``(rows, n)``, uniform in [low, high); every value of [0, 1) is a multiple of 2^-24."""
        u = torch.from_numpy((self._bits(n) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))
        return u if low == 0.0 and high == 1.0 else u * (high - low) + low

    def integers(self, high: int | Tensor, n: int = 1) -> Tensor:
        """int64 ``(rows, n)``, uniform in 0 .. high - 1 (bias below 2^-30 for high up to 2^23); int64 ``(rows, 1)``: each row
        has its own `high`."""
        above = high.numpy() if isinstance(high, Tensor) else high
        bits = self._bits(n) >> np.uint64(11)
        return torch.from_numpy(np.minimum((bits * 2.0**-53 * above).astype(np.int64), above - 1))

    def bernoulli(self, p: float, n: int = 1) -> Tensor:
        """bool ``(rows, n)``, True with probability p."""
        return self.uniform(n) < p

    def normal(self, n: int = 1) -> Tensor:
        """float32 ``(rows, n)``, standard normal (inverse transform)."""
        values: Tensor = torch.special.ndtri(self.uniform(n).double() + 2.0**-25)
        return values.float()

    def permutation(self, size: int) -> Tensor:
        """int64 ``(rows, size)``: an independent permutation of 0 .. size - 1 for each row."""
        return torch.from_numpy(np.argsort(self._bits(size), axis=1, kind="stable"))

    def beta(self, a: float, b: float, n: int = 1) -> Tensor:
        """float32 ``(rows, n)``, Beta(a, b) by inverse transform."""
        from scipy.special import betaincinv

        u = self.uniform(n).numpy().astype(np.float64) + 2.0**-25
        values: NDArray[Any] = betaincinv(a, b, u)
        return torch.from_numpy(values.astype(np.float32))

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """One seeded generator for the whole global batch: for orders, per-pixel noise, foreign transforms.

        What is drawn from it is not a function of the row; on several ranks draw the global batch and take your rows.
        """
        generator = torch.Generator(device)
        generator.manual_seed(self._key & 0x7FFF_FFFF_FFFF_FFFF)
        return generator
