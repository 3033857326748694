"""Stratified splits, drawn from a seed.

Two kinds of set, after what may honestly be concluded from them: one with a test set of its own keeps it, and each
repeat redraws validation from train; one without redraws train, validation and test (60, 20 and 20 %) with each
repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from augend.contract import AugendError
from augend.randomness import Draws

if TYPE_CHECKING:
    from augend.data.pictures import Pictures

__all__ = ["Amount", "limited", "stratified", "three_ways", "two_ways"]

#: A number of pictures (int), or a fraction of them (float between 0 and 1).
Amount = int | float


def _sizes(parts: Sequence[Amount | None], total: int, what: str) -> list[int]:
    sizes = [0] * len(parts)
    for i, part in enumerate(parts):
        if part is None:
            continue
        if isinstance(part, bool) or not isinstance(part, int | float) or part < 0 or (part >= 1 and part != int(part)):
            raise AugendError(f"{what}: found {part!r}; give a number of pictures, or a fraction between 0 and 1")
        # A fraction asks for something, so it never rounds to nothing.
        sizes[i] = int(part) if isinstance(part, int) or part >= 1 else (max(1, round(part * total)) if part else 0)
    if sum(sizes) > total:
        raise AugendError(f"{what}: {' + '.join(map(str, sizes))} pictures asked for, but there are only {total:,}")
    return [total - sum(sizes) if part is None else size for part, size in zip(parts, sizes, strict=True)]


def _share(have: list[int], size: int, later: int, lots: list[int]) -> list[int]:
    """How many pictures of each class go to a part of `size`: in proportion, at least one where each later part can
    also have one, at most what leaves the later parts one each. `lots` breaks ties between classes.
    """
    total = sum(have)
    quota = [n * size / total if total else 0.0 for n in have]
    share = [max(int(q), 1) if n > later else int(q) for q, n in zip(quota, have, strict=True)]
    room = [max(0, n - later) for n in have]
    share = [min(s, r) for s, r in zip(share, room, strict=True)]

    for _ in range(sum(share) - size):
        # The large classes make room for the rare ones; only with more classes than places do the rarest go without.
        served = (c for c in range(len(have)) if share[c])
        share[min(served, key=lambda c: (share[c] == 1, quota[c] - share[c], lots[c]))] -= 1
    missing = size - sum(share)
    for limit in (room, have):  # only when nothing else is left does a later part lose its last picture of a class
        while missing > 0:
            open_classes = sorted(
                (c for c in range(len(have)) if share[c] < limit[c]), key=lambda c: (share[c] - quota[c], lots[c])
            )
            if not open_classes:
                break
            for c in open_classes[:missing]:
                share[c] += 1
            missing = size - sum(share)
    return share


def stratified(
    labels: Tensor, parts: Sequence[Amount | None], draws: Draws, *, what: str = "split"
) -> tuple[Tensor, ...]:
    """Disjoint random parts in which every class has about the same share.

    The sizes are exact. Each class's number in a part is its proportional share rounded up or down, but at least one
    where the class has enough pictures for all parts; of a class with fewer, the first part (train) has one first,
    then the larger of the others. Parts may leave pictures over.

    Args:
        labels: int64 ``(N,)``.
        parts: for each part a number of pictures (int), a fraction of N (float), or None for what the others leave.
        draws: the split is a pure function of its key.
        what: named at the head of an error.

    Returns:
        One int64 tensor of picture numbers a part, ascending.

    Raises:
        AugendError: a part is negative, or the parts together are more than there is.

    Example:
        >>> train, test = stratified(torch.tensor([0, 0, 1, 1, 0, 0]), (None, 2), Draws(0, "example"))
        >>> len(train), len(test), len({*train.tolist(), *test.tolist()})
        (4, 2, 6)
    """
    labels = labels.cpu()
    sizes = _sizes(parts, len(labels), what)
    order = draws.permutation(len(labels))[0]
    classes, position = torch.unique(labels[order], return_inverse=True)
    queues = [order[position == c].tolist() for c in range(len(classes))]
    lots = draws.child("ties").permutation(len(classes))[0].tolist()

    # Who is served last loses least, since every earlier part leaves a picture for each part to come.
    serving = [*sorted((p for p in range(1, len(parts)) if sizes[p]), key=sizes.__getitem__), 0]
    result = [torch.empty(0, dtype=torch.int64)] * len(parts)
    for done, part in enumerate(serving):
        share = _share([len(queue) for queue in queues], sizes[part], len(serving) - 1 - done, lots)
        chosen: list[int] = []
        for queue, n in zip(queues, share, strict=True):
            chosen += queue[:n]
            del queue[:n]
        result[part] = torch.tensor(sorted(chosen), dtype=torch.int64)
    return tuple(result)


def limited(pictures: Pictures, count: Amount | None, seed: int, *, what: str) -> Pictures:
    """A stratified subset of a fixed piece (a test set), the same in every repeat; None: all of it."""
    if count is None:
        return pictures
    return pictures.take(stratified(pictures.labels, (count,), Draws(seed, "data/limit"), what=what)[0])


def two_ways(
    pool: Pictures, valid: Amount, train: int | None, seed: int, repeat: int, *, what: str
) -> tuple[Pictures, Pictures]:
    """Train and validation out of a set's own training pictures, redrawn with each repeat."""
    index = stratified(pool.labels, (train, valid), Draws(seed, "data/split", repeat), what=f"{what}: train + valid")
    return pool.take(index[0]), pool.take(index[1])


def three_ways(
    pool: Pictures, train: int | None, valid: Amount, test: Amount, seed: int, repeat: int, *, what: str
) -> tuple[Pictures, Pictures, Pictures]:
    """Train, validation and test out of a set without a test set of its own, redrawn with each repeat."""
    draws = Draws(seed, "data/split", repeat)
    index = stratified(pool.labels, (train, valid, test), draws, what=f"{what}: train + valid + test")
    return pool.take(index[0]), pool.take(index[1]), pool.take(index[2])
