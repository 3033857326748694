"""What autoencoders made of changed pictures, as numbers with intervals: of one run, over repeats, and between two rows.

Everything here is a mean over pictures: a label is kept or not, and a score, which is a ratio of two means, is taken as the
mean of what each picture adds to it to first order. So the intervals are those of every study (`augend.study.statistics`):
they know what repeats and pictures share, and nothing is surer than one picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from augend.evaluate.decoded import Decoded, recognised
from augend.study.attacked import share_of
from augend.study.evidence import Evidence, Record
from augend.study.statistics import Estimate, mean_of, picture_variance, said

__all__ = ["GivenBack", "Known", "Looked", "OverPictures", "gathered", "over_repeats", "summary"]

SCORE, KEPT, KEPT_CHANGED = "score", "kept", "kept_changed"
SHARES = (KEPT, KEPT_CHANGED)
Asked = tuple[str, str | None]  # what is asked, and of which class (None: of all)


@dataclass(frozen=True)
class Known:
    """Of how many pictures the weights that an autoencoder began with had learned, which are new to the judge (None: there is
    no judge), and whether that is sure."""

    before: int = 0
    fresh: NDArray[np.bool_] | None = None
    sure: bool = True


@dataclass(frozen=True)
class Looked:
    """What was seen, of which pictures, the classes that its labels count, and what was known of the pictures before."""

    found: Decoded
    shows: NDArray[np.str_]
    classes: tuple[str, ...]
    known: Known = Known()


@dataclass(frozen=True)
class OverPictures:
    """What is a mean over pictures: what each adds, float64, and which picture each row shows, ``(n,)`` both."""

    added: NDArray[np.float64]
    shows: NDArray[np.str_]


@dataclass(frozen=True)
class GivenBack:
    """What the autoencoders of a table's rows made of changed pictures.

    Attributes:
        rows: row -> change -> `gathered`, with ``each``, repeat -> ``score``, ``kept_changed`` and ``kept``: JSON values.
        looks: row -> repeat -> what was seen.
        seen: row -> change -> pictures to look at, as `augend.evaluate.decoded.Decoded.seen`.
    """

    record: Record
    rows: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    looks: dict[str, dict[int, Looked]] = field(default_factory=dict)
    seen: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, record: Record, looks: Mapping[str, Mapping[int, Looked]], seen: Mapping[str, dict[str, Tensor]]
    ) -> GivenBack:
        """Of the looks at every row."""
        rows = {name: gathered(record, list(by_repeat.values())) for name, by_repeat in looks.items()}
        for name, by_repeat in looks.items():
            for repeat, look in by_repeat.items():
                for change, one in summary(look).items():
                    means = {key: one.get(key) and one[key]["mean"] for key in (SCORE, *SHARES)}
                    rows[name][change].setdefault("each", {})[str(repeat)] = means
        return cls(record, rows, {name: dict(by_repeat) for name, by_repeat in looks.items()}, dict(seen))

    def difference(self, better: str, than: str, of: str, change: str) -> Estimate | None:
        """The difference of what two rows' autoencoders give back, paired by repeat and picture.

        Args:
            better, than: rows; of one and the same, against pictures that are left changed.
            of: "undone", the score, or "kept", the share of labels.
        """
        key, left = (SCORE, None) if of == "undone" else (KEPT, KEPT_CHANGED)
        one, other = self.looks.get(better, {}), self.looks.get(than, {})
        differences = []
        for repeat in sorted(set(one) & set(other)):
            mine = over_pictures(one[repeat], change).get((key, None))
            beside = key if better != than else left  # pictures left changed score 0
            theirs = None if beside is None else over_pictures(other[repeat], change).get((beside, None))
            if mine is not None and (theirs is not None or beside is None) and len(mine.added):
                added = mine.added if theirs is None else mine.added - theirs.added
                differences.append(OverPictures(added, mine.shows))
        return estimated(self.record, differences)


def over_pictures(look: Looked, change: str) -> dict[Asked, OverPictures]:
    """What is asked under a change: how much of it is undone, ``score``, where it moved something and all is finite; of the
    pictures that count for the judge, whose labels are kept, when changed and when decoded (``kept_changed``, ``kept``), and
    of each class that has some, when decoded."""
    found, out = look.found, dict[Asked, OverPictures]()
    moved, missed = found.moved[change], found.missed[change]
    away = float(moved.mean())
    if away and np.isfinite(missed).all():
        left = float(missed.mean()) / away  # 1 - left is the score; what a picture adds, by the ratio's derivatives
        out[SCORE, None] = OverPictures(1 - left - (missed - left * moved) / away, look.shows)
    if not found.judged:
        return out
    labels = found.labels
    known = recognised(found) if look.known.fresh is None else recognised(found) & look.known.fresh
    for key, kind in ((KEPT_CHANGED, "changed"), (KEPT, "decoded")):
        right = (found.judged[f"{kind}/{change}"] == labels).astype(np.float64)
        out[key, None] = OverPictures(right[known], look.shows[known])
        for number, called in enumerate(look.classes if key == KEPT else ()):
            if (here := known & (labels == number)).any():
                out[key, called] = OverPictures(right[here], look.shows[here])
    return out


def summary(look: Looked) -> dict[str, dict[str, Any]]:
    """Of one run, change -> as `augend.study.decoded.decoded` says."""
    found, out = look.found, {}
    for name, moved in found.moved.items():
        left = float(found.missed[name].mean())
        one: dict[str, Any] = {"moved": float(moved.mean()), "missed": left if math.isfinite(left) else None}
        asked = over_pictures(look, name)
        score = asked.pop((SCORE, None), None)
        out[name] = {**one, "constant": found.constant, SCORE: score and _alone(score), "pictures": len(moved)}
        out[name]["learned_before"] = look.known.before
        if not found.judged:
            continue
        fresh = look.known.fresh
        out[name] |= {"left_out": 0 if fresh is None else int((~fresh).sum()), "sure": look.known.sure}
        out[name] |= _told({key: share_alone(share) for key, share in asked.items()}, look)
    return out


def gathered(record: Record, looks: Sequence[Looked]) -> dict[str, dict[str, Any]]:
    """Means over repeats, each value as mean, low and high."""
    each, out = [summary(look) for look in looks], {}
    for name, first in each[0].items():
        of_all = {key: [one[name][key] for one in each] for key in ("moved", "missed", "constant")}
        means = {key: said(mean_of([v for v in values if v is not None])) for key, values in of_all.items()}
        asked = [over_pictures(look, name) for look in looks]
        scores = [one.pop((SCORE, None)) for one in asked if (SCORE, None) in one]
        score = _alone(scores[0]) if len(scores) == 1 else said(estimated(record, scores))
        out[name] = {**means, SCORE: score, "repeats": len(looks)}
        out[name]["learned_before"] = max(one[name]["learned_before"] for one in each)
        if "left_out" not in first:
            continue
        out[name]["left_out"] = max(one[name]["left_out"] for one in each)
        out[name]["sure"] = all(one[name]["sure"] for one in each)
        keys = dict.fromkeys(key for one in asked for key in one)
        shares = {key: over_repeats(record, [one[key] for one in asked if key in one]) for key in keys}
        out[name] |= _told(shares, looks[0])
    return out


def _told(shares: Mapping[Asked, dict[str, Any] | None], look: Looked) -> dict[str, Any]:
    """Shares by what is asked, and under ``classes`` by class in the order of labels; None where no picture counts."""
    of_all = {key: share for (key, called), share in shares.items() if called is None}
    shown = [look.classes[number] for number in np.unique(look.found.labels)]
    return {**of_all, "classes": {called: shares.get((KEPT, called)) for called in shown}}


def _alone(score: OverPictures) -> dict[str, Any]:
    """A score of one run with its interval over the pictures."""
    mean, error = float(score.added.mean()), math.sqrt(picture_variance([score.shows], [score.added]))
    half = 1.96 * max(error, 1 / len(np.unique(score.shows)))
    return {"mean": mean, "low": mean - half, "high": mean + half, "repeats": 1}


def share_alone(share: OverPictures) -> dict[str, Any] | None:
    """A share with its interval over the pictures, and how many they are (``of``); None of no pictures."""
    found = share_of(share.added, share.shows)
    return None if found is None else {**found, "of": len(share.added)}


def over_repeats(record: Record, shares: Sequence[OverPictures]) -> dict[str, Any] | None:
    """The mean share over the repeats that have pictures; ``of``: how many the repeat has that has fewest."""
    some = [share for share in shares if len(share.added)]
    if len(some) < 2:
        return share_alone(some[0]) if some else None
    return {**(said(estimated(record, some), 0, 1) or {}), "of": min(len(share.added) for share in some)}


def estimated(record: Record, each: Sequence[OverPictures]) -> Estimate | None:
    """The mean over repeats with the interval of the study's own statistics; it is not surer than one picture of the repeat
    that has fewest. None of none."""
    if not each:
        return None
    some = sorted(each, key=lambda one: len(one.added))
    shows, added = [one.shows for one in some], [one.added for one in some]
    return Evidence(record, []).over_pictures(
        [float(one.mean()) for one in added], shows, added, fixed=record.fixed_test
    )
