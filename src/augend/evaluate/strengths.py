"""Augmentations of every kind at a few strengths, as recipes would use them: what `augend sensitivity` looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from augend.evaluate.shifts import picked

__all__ = ["Way", "ways"]


COLOURED = frozenset({"saturation", "hue", "grayscale"})  # that change nothing on grey pictures


@dataclass(frozen=True)
class Way:
    """One augmentation at one strength.

    Attributes:
        kind: what is done, ``rotate``.
        strength: how much, in the units that `said` names; 0 where there is nothing to grade.
        said: for people, ``rotate, up to 30 degrees``.
        shown: as a recipe writes it, always done (a flip: to every picture).
    """

    kind: str
    strength: float
    said: str
    shown: Mapping[str, Any]

    @property
    def name(self) -> str:
        """``rotate-30``; ``hflip``."""
        return f"{self.kind}-{self.strength:g}" if self.strength else self.kind


def _way(kind: str, strength: float, said: str, shown: Mapping[str, Any]) -> Way:
    return Way(kind, strength, said, MappingProxyType(dict(shown)))


def ways(shape: tuple[int, ...], kinds: str = "all") -> dict[str, Way]:
    """Name -> augmentation, for pictures of a shape; of each kind from weak to strong.

    Args:
        shape: ``(channels, height, width)``; shifts are 1/16, 1/8 and 1/4 of the shorter side, in whole pixels.
        kinds: ``all``, or some separated by commas. Grey pictures have no colour to change.

    Example:
        >>> list(ways((1, 28, 28), "hflip,crop"))
        ['hflip', 'crop-2', 'crop-4', 'crop-7']
    """
    every = _all(shape)
    possible = list(dict.fromkeys(way.kind for way in every))
    named = picked("--kinds", kinds, possible, COLOURED)
    return {way.name: way for way in every if way.kind in named}


def _all(shape: tuple[int, ...]) -> list[Way]:
    side = min(shape[1:])
    found = [
        _way("hflip", 0, "left and right exchanged", {"hflip": 1.0}),
        _way("vflip", 0, "top and bottom exchanged", {"vflip": 1.0}),
        *(_way("rotate", d, f"turned by up to {d} degrees", {"rotate": {"degrees": d}}) for d in (10, 30, 60)),
        _way("turn", 90, "a quarter turn either way", {"rotations": {"angles": [-90, 90]}}),
        _way("turn", 180, "upside down", {"rotations": {"angles": [180]}}),
    ]
    moves = dict.fromkeys(max(1, math.ceil(side / part)) for part in (16, 8, 4))
    found += [
        _way("crop", n, f"moved by up to {n} pixel{'s' if n > 1 else ''}", {"crop": {"padding": n}}) for n in moves
    ]
    for lost in (0.3, 0.6, 0.9):
        least = round(1 - lost, 2)
        said = f"a part of {100 * least:.0f} to 100 % of the area, enlarged"
        found.append(_way("resized-crop", lost, said, {"resized-crop": {"scale": [least, 1.0]}}))
    for most in (0.1, 0.3):
        said = f"a box of 2 to {100 * most:.0f} % of the area black"
        found.append(_way("erase", most, said, {"erase": {"p": 1.0, "scale": [0.02, most]}}))
    for kind in ("brightness", "contrast", "saturation"):
        if kind == "saturation" and shape[0] != 3:
            continue
        for by in (0.2, 0.4, 0.8):
            found.append(_way(kind, by, f"{kind} times {max(0, 1 - by):g} to {1 + by:g}", {kind: {"strength": by}}))
    if shape[0] == 3:
        turns = (0.05, 0.1, 0.5)
        found += [_way("hue", by, f"hue by up to {by:g} of a turn", {"hue": {"strength": by}}) for by in turns]
        found.append(_way("grayscale", 0, "no colour", {"grayscale": 1.0}))
    found += [_way("noise", by, f"noise of {by:g} of the range", {"noise": {"sigma": by}}) for by in (0.05, 0.1, 0.2)]
    return found
