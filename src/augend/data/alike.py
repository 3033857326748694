"""Pictures that belong together: exact copies, near-duplicates, bursts, and groups that the user names.

Two pictures are near-duplicates when their perceptual hashes differ in at most 4 of 64 bits and their 32x32 greys by less
than 4 of 255 on average: hashes alone chain hundreds of unlike digits into one group. The hash is the classical one (64 low
frequencies of the discrete cosine transform of the greys, each above or below their median), with a basis of whole numbers,
so that it is the same on every machine. A burst is pictures of one folder that the camera took within 10 seconds of one
another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from augend.data.decode import GREYS

__all__ = ["Links", "Together", "Union", "find_links", "hashes", "near_pairs", "together"]

Index = NDArray[np.int64]

BITS = 4  # hashes may differ in so many bits
GREY = 4  # and greys by less than this on average, of 255
BURST_SECONDS = 10
CONTRAST = 4.0  # a standard deviation of greys below this leaves nothing to recognise a picture by

_VERSION = 1  # of what is found; another one leaves remembered links unread
BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))  # with 4 bits wrong in 5 bands, one of them is right
_PAIRS = 8192  # pairs compared at once


class Union:
    """Sets of numbers 0 .. n - 1 that are joined pair by pair; the smallest member names a set."""

    def __init__(self, n: int) -> None:
        self.parent = np.arange(n)

    def _root(self, i: int) -> int:
        while (up := int(self.parent[i])) != i:
            self.parent[i] = self.parent[up]
            i = up
        return i

    def join(self, pairs: Index) -> None:
        """Join the two of every pair, int64 ``(m, 2)``."""
        for a, b in pairs.tolist():
            low, high = sorted((self._root(a), self._root(b)))
            self.parent[high] = low

    def roots(self) -> Index:
        """int64 ``(n,)``: the name of each number's set."""
        while True:
            up = self.parent[self.parent]
            if np.array_equal(up, self.parent):
                return self.parent
            self.parent = up


def _basis() -> NDArray[np.float64]:
    """``(8, 32)``: cosines of frequencies 1 to 8, times 4096 and rounded, so that sums of them are exact in any order."""
    place, frequency = np.arange(GREYS), np.arange(1, 9)[:, None]
    return np.round(4096 * np.cos(np.pi * (2 * place + 1) * frequency / (2 * GREYS)))


def hashes(greys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The perceptual hash of each picture, uint64 ``(n,)``, of greys uint8 ``(n, 32, 32)``."""
    basis, found = _basis(), []
    for begin in range(0, len(greys), 4096):
        low = basis @ greys[begin : begin + 4096].astype(np.float64) @ basis.T
        flat = low.reshape(len(low), 64)
        bits = flat > np.median(flat, axis=1, keepdims=True)
        found.append(np.packbits(bits, axis=1).view(np.uint64)[:, 0])
    return np.concatenate([np.zeros(0, np.uint64), *found])


_ONES = np.array([bin(i).count("1") for i in range(1 << 16)], np.uint8)


def _apart(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """In how many bits hashes differ."""
    ones: NDArray[np.int64] = _ONES[(a ^ b).view(np.uint16).reshape(-1, 4)].sum(1, dtype=np.int64)
    return ones


def near_pairs(greys: NDArray[np.uint8], among: Index) -> Index:
    """Pairs of near-duplicates, int64 ``(m, 2)``: enough of them to join all that belong together.

    Candidates share one of five bands of their hashes, which every pair at distance 4 or less does. Pairs whose members are
    joined already are not looked at, so that a thousand pictures of one scene cost a thousand comparisons, not half a
    million.

    Args:
        greys: uint8 ``(n, 32, 32)``.
        among: numbers of the pictures to look at.
    """
    among = among[_contrast(greys[among]) >= CONTRAST]
    own, union, found = hashes(greys[among]), Union(len(among)), [np.zeros((0, 2), np.int64)]
    light = greys[among].sum((1, 2), dtype=np.int64)
    roots = union.roots()
    for shift, bits in BANDS:
        band = (own >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
        order = np.lexsort((light, own, band))  # alike ones are neighbours, and joined in the first rounds
        starts = np.flatnonzero(np.diff(band[order].astype(np.int64), prepend=-1))
        bucket = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
        end = np.append(starts[1:], len(order))[bucket] if len(order) else starts
        left, step = np.arange(len(order)), 1
        while True:
            if step & (step - 1) == 0 and len(order):  # buckets that have become one set need no more rounds
                inside = roots[order]
                one = np.minimum.reduceat(inside, starts) == np.maximum.reduceat(inside, starts)
                left = left[~one[bucket[left]]]
            left = left[left + step < end[left]]
            if not left.size:
                break
            a, b = order[left], order[left + step]
            differ = roots[a] != roots[b]
            a, b = a[differ], b[differ]
            close = _apart(own[a], own[b]) <= BITS
            same = _confirmed(greys, among[a[close]], among[b[close]])
            if same.any():
                pairs = np.stack((a[close][same], b[close][same]), 1)
                union.join(pairs)
                roots = union.roots()
                found.append(np.sort(among[pairs], axis=1))
            step += 1
    return np.concatenate(found)


def _contrast(greys: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Standard deviation of each picture's greys."""
    parts = [greys[begin : begin + 4096].std((1, 2)) for begin in range(0, len(greys), 4096)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _confirmed(greys: NDArray[np.uint8], a: Index, b: Index) -> NDArray[np.bool_]:
    parts = [np.zeros(0, bool)]
    for begin in range(0, len(a), _PAIRS):
        one, other = (greys[i[begin : begin + _PAIRS]].astype(np.int16) for i in (a, b))
        parts.append(np.abs(one - other).sum((1, 2), dtype=np.int64) < GREY * GREYS * GREYS)
    return np.concatenate(parts)


def _equal_pairs(digests: Sequence[str]) -> Index:
    """Each exact copy with the first picture that it is a copy of."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, i), i) for i, digest in enumerate(digests)]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _burst_pairs(taken: Sequence[int | None], files: Sequence[str]) -> Index:
    shots = zip(files, taken, strict=True)
    dated = sorted(
        (str(PurePosixPath(file).parent), when, i) for i, (file, when) in enumerate(shots) if when is not None
    )
    near = [
        (i, j)
        for (folder, when, i), (other, later, j) in pairwise(dated)
        if folder == other and later - when <= BURST_SECONDS
    ]
    return np.array(near, np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Links:
    """Pairs of picture numbers, int64 ``(m, 2)`` each: enough to join what belongs together."""

    copies: Index
    alike: Index
    bursts: Index


def find_links(
    greys: NDArray[np.uint8], digests: Sequence[str], taken: Sequence[int | None], files: Sequence[str]
) -> Links:
    """What belongs together by its looks and its time.

    Args:
        greys: uint8 ``(n, 32, 32)``.
        digests: equal for exact copies.
        taken: seconds at which each was taken, or None.
        files: their paths; a burst lies in one folder.
    """
    copies = _equal_pairs(digests)
    only = np.setdiff1d(np.arange(len(digests)), copies[:, 1])
    return Links(copies, near_pairs(greys, only), _burst_pairs(taken, files))


def remembered(folder: Path, digests: Sequence[str], taken: Sequence[int | None], files: Sequence[str]) -> Path:
    """Where the links of these pictures are kept."""
    digest = hashlib.blake2b(digest_size=12)
    for values in ((_VERSION, BITS, GREY, BURST_SECONDS, CONTRAST), digests, taken, files):
        digest.update(repr(values).encode())
    return folder / f"alike-{digest.hexdigest()}.npz"


@dataclass(frozen=True)
class Together:
    """Who belongs together, after what joined too much has been let go.

    Attributes:
        groups: int64 ``(n,)``, equal for pictures that belong together: the number of the first of them.
        copies, alike: how many pictures are an exact copy, or a near-duplicate, of an earlier one.
        sets: numbers of the pictures of each set of copies and near-duplicates, the largest set first.
        bursts: numbers of the pictures of each burst.
        unlike: sets that looks joined, so large that only the exact copies in them are kept together.
        endless: sets that time joined, so large that they are not.
        torn: pairs of exact copies under different labels, int64 ``(m, 2)``.
    """

    groups: Index
    copies: int
    alike: int
    sets: list[Index]
    bursts: list[Index]
    unlike: list[Index]
    endless: list[Index]
    torn: Index


def _sets(roots: Index) -> list[Index]:
    """Members of every set of two and more, the largest first."""
    _, name, count = np.unique(roots, return_inverse=True, return_counts=True)
    several = np.flatnonzero(count[name] > 1)
    order = several[np.argsort(name[several], kind="stable")]
    cuts = np.flatnonzero(np.diff(name[order])) + 1
    return sorted((part for part in np.split(order, cuts) if len(part)), key=lambda part: (-len(part), part[0]))


def _joined(n: int, *pairs: Index) -> Index:
    union = Union(n)
    for some in pairs:
        union.join(some)
    return union.roots()


def most_together(count: int) -> int:
    """How many pictures of a class of `count` may be joined by looks and time.

    5 %; in small classes a fifth, up to 10 pictures, since three shots of one scene are nothing odd there. At least three
    sets always remain, so that the class can be in every part of a split.
    """
    return max(count // 20, min(10, count // 5), 2) if count >= 5 else 1


def together(links: Links, labels: Index, given: Sequence[str | None] | None = None) -> Together:
    """Join what belongs together, by links and by groups that the user named.

    A set that holds more of a class than `most_together` allows is let go, since a chain or a plain background joined it: of
    one joined by looks only the exact copies stay together, of one joined by time its near-duplicates do. Exact copies and
    groups that the user named are never let go.

    Args:
        links: of all pictures.
        labels: class number of each, int64 ``(n,)``.
        given: for each picture the name of its group, or None for a picture on its own.
    """
    n = len(labels)
    most = np.array([most_together(count) for count in np.bincount(labels, minlength=1).tolist()])

    def too_large(sets: list[Index]) -> list[Index]:
        return [members for members in sets if (np.bincount(labels[members], minlength=len(most)) > most).any()]

    unlike = [
        members
        for members in too_large(_sets(_joined(n, links.copies, links.alike)))
        if np.isin(links.alike[:, 0], members).any()
    ]
    alike = _without(links.alike, unlike)
    endless = [
        members
        for members in too_large(_sets(_joined(n, links.copies, alike, links.bursts)))
        if np.isin(links.bursts[:, 0], members).any()
    ]
    bursts = _without(links.bursts, endless)
    first: dict[str, int] = {}
    named = [(first.setdefault(name, i), i) for i, name in enumerate(given or ()) if name is not None]
    looks = _joined(n, links.copies, alike)
    return Together(
        groups=_joined(n, links.copies, alike, bursts, np.array(named, np.int64).reshape(-1, 2)),
        copies=len(links.copies),
        alike=n - len(np.unique(looks)) - len(links.copies),
        sets=_sets(looks),
        bursts=_sets(_joined(n, bursts)),
        unlike=unlike,
        endless=endless,
        torn=links.copies[labels[links.copies[:, 0]] != labels[links.copies[:, 1]]],
    )


def _without(pairs: Index, sets: list[Index]) -> Index:
    gone = np.concatenate([np.zeros(0, np.int64), *sets])
    return pairs[~np.isin(pairs[:, 0], gone)]
