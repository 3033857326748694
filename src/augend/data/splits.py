"""Stratified splits, drawn from a seed.

Two kinds of set, after what may honestly be concluded from them: one with a test set of its own keeps it, and each
repeat redraws validation from train; one without redraws train, validation and test (60, 20 and 20 %) with each
repeat. Pictures that belong together (copies, a burst, a patient) are a group, and a group never crosses a split.
"""

from __future__ import annotations

import math
from collections import Counter
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


def _wanted(have: list[int], sizes: Sequence[int], serving: Sequence[int], lots: list[int]) -> list[list[int]]:
    """For each part how many pictures of each class it gets, were every picture on its own."""
    want = [[0] * len(have) for _ in sizes]
    for done, part in enumerate(serving):
        want[part] = _share(have, sizes[part], len(serving) - 1 - done, lots)
        have = [n - w for n, w in zip(have, want[part], strict=True)]
    return want


class _Groups:
    """Deals out groups of two and more, whole, largest first; then says how the pictures on their own fill the parts.

    Args:
        queues: picture numbers by class; what is dealt out is removed from them.
        want: pictures of each class for each part, changed to what is left for the pictures on their own.
        groups: group number of every picture.
        serving: the parts that take any, train (0) last.
    """

    def __init__(self, queues: list[list[int]], want: list[list[int]], groups: list[int], serving: list[int]) -> None:
        self.queues, self.want, self.serving = queues, want, serving
        # What no part asked for is a part too, so that groups go unused in proportion.
        unused = [len(queue) - sum(taken) for queue, *taken in zip(queues, *want, strict=True)]
        self.need = [*(list(part) for part in want), unused]
        self.total = [list(part) for part in self.need]
        self.places = [*serving, len(want)] if any(unused) else list(serving)
        first = [part for part in (0, *sorted(serving, key=lambda p: -sum(want[p]))) if part in serving]
        self.lacking = [[p for p in dict.fromkeys(first) if want[p][c]] for c in range(len(queues))]
        self.members: dict[int, list[tuple[int, int]]] = {}
        for c, queue in enumerate(queues):
            for picture in queue:
                self.members.setdefault(groups[picture], []).append((picture, c))
        self.left = Counter(c for unit in self.members.values() for c in {c for _, c in unit})

    def deal(self, draws: Draws) -> list[list[int]]:
        """Picture numbers of the groups that each part gets."""
        units = sorted((sorted(unit) for unit in self.members.values() if len(unit) > 1), key=lambda unit: unit[0])
        dealt: list[list[int]] = [[] for _ in self.want]
        if not units:
            return dealt
        *lots, turn = draws.rows(torch.arange(len(units))).uniform(len(self.places) + 1).double().T.tolist()
        for i in sorted(range(len(units)), key=lambda i: (-len(units[i]), turn[i])):
            counts = Counter(c for _, c in units[i])
            chance = {p: lot[i] for p, lot in zip(self.places, lots, strict=True)}
            part = min(self.places, key=lambda p: self._against(p, counts, chance[p]))
            for c, n in counts.items():
                self.need[part][c] -= n
                self.left[c] -= 1
                if part in self.lacking[c]:
                    self.lacking[c].remove(part)
            if part < len(dealt):
                dealt[part] += [picture for picture, _ in units[i]]
        away = {picture for unit in units for picture, _ in unit}
        for c, queue in enumerate(self.queues):
            queue[:] = [picture for picture in queue if picture not in away]
            self._fill(c, len(queue))
        return dealt

    def _against(self, part: int, counts: Counter[int], chance: float) -> tuple[float, ...]:
        """What speaks against this part, the weightiest first: a class would miss another part; too many; filled already."""
        due = sum(part in self.lacking[c][: self.left[c]] for c in counts if self.left[c] <= len(self.lacking[c]))
        need = self.need[part]
        over = sum(max(0, n - max(0, need[c])) for c, n in counts.items())
        empty = sum(n * max(0, need[c]) / max(1, self.total[part][c]) for c, n in counts.items())
        # Of parts that are equally empty each is drawn with a chance in proportion to its size.
        return -due, over, -empty, -math.log(max(chance, 1e-9)) / max(1, sum(self.total[part]))

    def _fill(self, c: int, count: int) -> None:
        """What each part gets of the `count` pictures of class c that are on their own."""
        need = {p: max(0, self.need[p][c]) for p in self.places}
        for _ in range(sum(need.values()) - count):  # another part got more than it wanted
            # What nobody asked for gives first, then the largest; a part that has none of the class gives its last one last.
            giving = [p for p in need if need[p]]
            give = max(giving, key=lambda p: (p == len(self.want), need[p] > (p in self.lacking[c]), need[p]))
            need[give] -= 1
        for p in self.serving:
            self.want[p][c] = need[p]


def stratified(
    labels: Tensor,
    parts: Sequence[Amount | None],
    draws: Draws,
    *,
    what: str = "split",
    groups: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Disjoint random parts in which every class has about the same share.

    The sizes are exact. Each class's number in a part is its proportional share rounded up or down, but at least one
    where the class has enough pictures for all parts; of a class with fewer, the first part (train) has one first,
    then the larger of the others. Parts may leave pictures over.

    With groups, each lies in one part (or is left over) as a whole, so that sizes and shares are as near to the same
    numbers as the groups allow; a class that lies in enough groups is in every part. Groups of one picture each give
    the very same split as no groups.

    Args:
        labels: int64 ``(N,)``.
        parts: for each part a number of pictures (int), a fraction of N (float), or None for what the others leave.
        draws: the split is a pure function of its key.
        what: named at the head of an error.
        groups: int64 ``(N,)``, equal for pictures that belong together.

    Returns:
        One int64 tensor of picture numbers a part, ascending.

    Raises:
        AugendError: a part is negative, or the parts together are more than there is.

    Example:
        >>> train, test = stratified(torch.tensor([0, 0, 1, 1, 0, 0]), (None, 2), Draws(0, "example"))
        >>> len(train), len(test), len({*train.tolist(), *test.tolist()})
        (4, 2, 6)
        >>> pairs = torch.tensor([0, 0, 1, 1, 2, 2])
        >>> [p.tolist() for p in stratified(torch.zeros(6), (None, 2), Draws(0, "example"), groups=pairs)]
        [[0, 1, 4, 5], [2, 3]]
    """
    labels = labels.cpu()
    sizes = _sizes(parts, len(labels), what)
    order = draws.permutation(len(labels))[0]
    classes, position = torch.unique(labels[order], return_inverse=True)
    queues = [order[position == c].tolist() for c in range(len(classes))]
    lots = draws.child("ties").permutation(len(classes))[0].tolist()

    # Who is served last loses least, since every earlier part leaves a picture for each part to come.
    serving = [*sorted((p for p in range(1, len(parts)) if sizes[p]), key=sizes.__getitem__), 0]
    want = _wanted([len(queue) for queue in queues], sizes, serving, lots)
    result: list[list[int]] = [[] for _ in parts]
    if groups is not None:
        result = _Groups(queues, want, groups.tolist(), serving).deal(draws.child("groups"))
    for part in serving:
        for queue, n in zip(queues, want[part], strict=True):
            result[part] += queue[:n]
            del queue[:n]
    return tuple(torch.tensor(sorted(chosen), dtype=torch.int64) for chosen in result)


def limited(pictures: Pictures, count: Amount | None, seed: int, *, what: str) -> Pictures:
    """A stratified subset of a fixed piece (a test set), the same in every repeat; None: all of it."""
    if count is None:
        return pictures
    return pictures.take(stratified(pictures.labels, (count,), Draws(seed, "data/limit"), what=what)[0])


def two_ways(
    pool: Pictures, valid: Amount, train: int | None, seed: int, repeat: int, *, what: str
) -> tuple[Pictures, Pictures]:
    """Train and validation out of a set's own training pictures, redrawn with each repeat; groups stay together."""
    draws, what = Draws(seed, "data/split", repeat), f"{what}: train + valid"
    index = stratified(pool.labels, (train, valid), draws, what=what, groups=pool.groups)
    return pool.take(index[0]), pool.take(index[1])


def three_ways(
    pool: Pictures, train: int | None, valid: Amount, test: Amount, seed: int, repeat: int, *, what: str
) -> tuple[Pictures, Pictures, Pictures]:
    """Train, validation and test out of a set without a test set, redrawn with each repeat; groups stay together."""
    draws = Draws(seed, "data/split", repeat)
    what = f"{what}: train + valid + test"
    index = stratified(pool.labels, (train, valid, test), draws, what=what, groups=pool.groups)
    return pool.take(index[0]), pool.take(index[1]), pool.take(index[2])
