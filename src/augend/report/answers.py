"""Plots of the answers themselves: whether stated probabilities hold, and what is taken for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from augend.report.plots import COLOURS, EDGE, GRID, INK, WIDTH, looks, place, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TABLE_CLASSES", "calibration", "confusion"]

TABLE_CLASSES = 20  # with more the most frequent confusions are listed instead


def calibration(figure: Figure, results: dict[str, Any]) -> bool:
    """Share right against stated confidence, bins with at least 1 % of the test pictures; the error in the legend."""
    shown = {name: recipe for name, recipe in results["recipes"].items() if "calibration" in recipe}
    if not shown:
        return False
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color=EDGE, lw=1, ls="--")
    look, least = looks(results), 100.0
    for name, recipe in shown.items():
        bins = recipe["calibration"]
        count = np.array(bins["count"], dtype=float)
        kept = count >= max(1.0, 0.01 * count.sum())
        xs, ys = (100 * np.array(bins[key], dtype=float)[kept] for key in ("confidence", "accuracy"))
        colour, marker = look[name]
        label = f"{short(name, 22)}, off by {100 * recipe['calibration_error']:.1f}"
        axes.plot(xs, ys, color=colour, marker=marker, ms=4, lw=1.3, label=label)
        least = min([least, *xs])
    axes.set_xlim(max(0, least - 8), 101)
    axes.set_ylim(0, 102)
    axes.set_xlabel("how sure it said it was, %")
    axes.set_ylabel("how often it was right, %")
    place(figure, axes)
    return True


def confusion(figure: Figure, results: dict[str, Any]) -> bool:
    """Confusions of the advised recipe as shares of the true class, for at most `TABLE_CLASSES` classes."""
    from matplotlib.patches import Rectangle

    advised, classes = results["advised"], results["classes"]
    if advised is None or len(classes) > TABLE_CLASSES:
        return False
    counts = np.array(advised["confusion"], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    size = 8.0 if len(classes) <= 12 else 6.0
    for row, column in np.argwhere(shares >= 0.005):
        share = float(shares[row, column])
        colour = COLOURS[0] if row == column else COLOURS[1]
        deep = 0.12 + 0.88 * share
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, alpha=deep, lw=0))
        ink = "#FEFEFE" if deep > 0.55 else INK
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=size)
    names = [short(name, 14) for name in classes]
    longest = max(len(name) for name in names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(range(len(names)), names, rotation=0 if longest <= 2 else 90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=9.0 if len(classes) <= 12 else 7.0)
    axes.grid(visible=False)
    for place_of in range(1, len(names)):  # lines between the cells
        axes.axhline(place_of - 0.5, color=GRID, lw=0.7)
        axes.axvline(place_of - 0.5, color=GRID, lw=0.7)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    margin = 0.35 + (0.075 if len(classes) <= 12 else 0.06) * longest
    below = 0.45 if longest <= 2 else margin
    side = min(WIDTH - margin - 0.1, 0.4 + 0.55 * len(names))
    total = side + below + 0.1
    figure.set_size_inches(WIDTH, total)
    axes.set_position((margin / WIDTH, below / total, side / WIDTH, side / total))
    return True
