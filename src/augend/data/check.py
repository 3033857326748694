"""What there is to know about pictures of one's own before anything is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from augend.contract import AugendError
from augend.data.cache import Progress
from augend.data.decode import package_for, suffixes
from augend.data.looked import Looked, listed, look_at
from augend.data.own import draw, remarks
from augend.data.pictures import Split

__all__ = ["BALANCED_ABOVE", "inspected"]

SCHEMA = 1
BALANCED_ABOVE = 3.0  # times that the largest class may be the smallest before balanced accuracy decides


def inspected(
    path: str | Path,
    size: int = 64,
    *,
    group: str | None = None,
    traits: frozenset[str] | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Split | None]:
    """Everything about a folder or a table, as JSON values, and its split where there can be one.

    Args:
        path, size, group, traits, cache, progress: as `augend.data.own.own`. The pictures are decoded for it, and found in
            the cache by what comes next at the same size.

    Returns:
        ``usable``, and ``problem``, the line that training would stop with; ``classes``, ``sizes``, ``unreadable``,
        ``alike`` (sets of copies and near-duplicates, those of several labels first), ``bursts``, ``imbalance``, ``split``,
        ``traits``, ``notes``. With a problem in the folder's or table's form there is nothing but that.
    """
    report: dict[str, Any] = {"schema": SCHEMA, "path": str(path), "usable": False, "problem": None}
    try:
        listing = listed(path, group)
        looked = look_at(listing, size, cache=cache, progress=progress)
        report |= _seen(looked)
        listing.check(listing.counts())
        looked.check()
        split = draw(looked, traits=traits, memory=0)  # nothing needs to come into memory
    except AugendError as error:
        return report | {"problem": str(error)}, None
    counts = {piece: len(pictures) for piece, pictures in split.pieces().items()}
    kind = "redrawn" if listing.alone else "validation redrawn" if listing.carved else "fixed"
    return report | {"usable": True, "split": {"kind": kind, **counts}, "traits": sorted(split.traits)}, split


def _seen(looked: Looked) -> dict[str, Any]:
    listing, found = looked.listing, looked.found
    counts, readable = listing.counts(), listing.counts(looked.entries)
    independent = looked.independent()
    main = listing.main
    classes = [
        {
            "name": name,
            **{piece: counts[piece][name] for piece in counts},
            "readable": readable[main][name] if main in readable else 0,
            "independent": independent.get(name, 0),
            "too_small": independent.get(name, 0) < listing.least,
        }
        for name in sorted({entry.label for entry in listing.entries})
    ]
    order = np.argsort(found.sizes.prod(1), kind="stable")
    named = {"smallest": 0, "median": len(order) // 2, "largest": -1}
    return {
        "pictures": len(listing.entries),
        "readable": len(looked.entries),
        "pieces": {listing.places[piece]: sum(by_class.values()) for piece, by_class in counts.items()},
        "classes": classes,
        "least": listing.least,
        "sizes": {name: found.sizes[order[place]].tolist() for name, place in named.items()} if len(order) else None,
        "unreadable": _unreadable(found.unreadable),
        **_belonging(looked),
        "imbalance": _imbalance(readable.get(main, {})),
        "notes": remarks(looked),
    }


def _unreadable(files: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for suffix, count in suffixes(files):
        first = next(name for name in files if suffixes([name])[0][0] == suffix)
        rows.append(
            {
                "suffix": suffix,
                "files": count,
                "first": first,
                "reason": files[first],
                "package": package_for(suffix),
            }
        )
    return rows


def _belonging(looked: Looked) -> dict[str, Any]:
    entries, joined, digests = looked.entries, looked.joined, np.array(looked.found.digests)
    sets: list[dict[str, Any]] = []
    for members in joined.sets:
        labels = sorted({entries[i].label for i in members})
        exact = len(np.unique(digests[members])) == 1
        sets.append({"files": [entries[i].file for i in members], "labels": labels, "exact": exact})
    sets.sort(key=lambda one: (len(one["labels"]) == 1, not one["exact"]))  # stable: then the largest first
    named = {entry.group for entry in entries} - {None}
    return {
        "copies": joined.copies,
        "near_duplicates": joined.alike,
        "alike": sets,
        "bursts": [[entries[i].file for i in members] for members in joined.bursts],
        "groups": len(named),
    }


def _imbalance(counts: dict[str, int]) -> dict[str, Any] | None:
    if len(counts) < 2:
        return None
    largest, smallest = (pick(sorted(counts), key=counts.__getitem__) for pick in (max, min))
    ratio = counts[largest] / counts[smallest]
    metric = "balanced accuracy" if ratio > BALANCED_ABOVE else "accuracy"
    return {"largest": largest, "smallest": smallest, "ratio": ratio, "metric": metric}
