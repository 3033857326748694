"""The plots of a report: drawn once with matplotlib, kept as PNG and SVG, embedded as SVG.

Colours are Okabe and Ito's, told apart by colour-blind readers, and every recipe has a marker of its own as well. All
figures are 4.6 inches wide: on a phone they shrink little, on a screen two stand side by side. Places are set by hand
in inches, since matplotlib's layout engines draw everything twice more.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "curves", "draw", "draw_all", "place"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#8C6D1F")
MARKERS = "osD^vPX*"
PARTS = {
    "step": ("training steps", "#0072B2"),
    "augment": ("augmentation", "#E69F00"),
    "data": ("reading data", "#56B4E9"),
    "order": ("ordering", "#CC79A7"),
    "cache": ("filling caches", "#009E73"),
    "evaluation": ("evaluation (not charged)", "#BBBBBB"),
}
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a class may be called "$5"
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "axes.edgecolor": "#888888",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "savefig.facecolor": "white",
}
WIDTH = 4.6


def draw_all(results: dict[str, Any], folder: Path) -> dict[str, str]:
    """Draw every plot that the results allow into `folder` as NAME.png and NAME.svg; name -> SVG for a page."""
    plots: dict[str, Draw] = {
        "cost": lambda figure: _cost(figure, results),
        "steps": lambda figure: curves(figure, results, "steps"),
        "seconds": lambda figure: curves(figure, results, "seconds"),
        "parts": lambda figure: _parts(figure, results),
        "calibration": lambda figure: _calibration(figure, results),
        "confusion": lambda figure: _confusion(figure, results),
    }
    return draw(plots, folder)


Draw = Callable[["Figure"], bool]


def draw(plots: Mapping[str, Draw], folder: Path) -> dict[str, str]:
    """Draw plots by name in the house's style into `folder` as NAME.png and NAME.svg; name -> SVG for a page.

    A plot that has nothing to show answers False and is left out.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, str] = {}
    with mpl.rc_context({**STYLE, "svg.hashsalt": "augend"}), warnings.catch_warnings():
        # a class in a script that the bundled font lacks: boxes in the PNG, right on the page with the browser's fonts
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for name, one in plots.items():
            figure = Figure()
            FigureCanvasAgg(figure)
            if not one(figure):
                continue
            figure.savefig(folder / f"{name}.png", dpi=120)
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None})
            (folder / f"{name}.svg").write_text(text.getvalue(), encoding="utf-8")
            made[name] = _inline(text.getvalue(), name)
    return made


def _inline(svg: str, name: str) -> str:
    """An SVG file as an element of a page: no prolog, no metadata, ids of its own, as wide as its place."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    return re.sub(r'^<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)


def _looks(results: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Recipe -> colour, marker; the same in every plot."""
    return {
        name: (COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
        for i, name in enumerate(results["recipes"])
    }


def _score(results: dict[str, Any]) -> str:
    return "balanced accuracy" if results["metric"] == "balanced_accuracy" else "accuracy"


def _cost(figure: Figure, results: dict[str, Any]) -> bool:
    """Test accuracy with its interval against training seconds; the front: what no recipe beats at less cost."""
    from matplotlib.ticker import LogLocator, NullFormatter

    points = {
        name: (recipe["cost"]["seconds"], recipe["test"])
        for name, recipe in results["recipes"].items()
        if recipe["cost"]["seconds"] and recipe["test"]
    }
    if not points:
        return False
    axes = figure.subplots()
    looks = _looks(results)
    for name, (seconds, test) in points.items():
        colour, marker = looks[name]
        mean = 100 * test["mean"]
        if test["low"] is not None:
            axes.plot([seconds, seconds], [100 * test["low"], 100 * test["high"]], color=colour, alpha=0.45, lw=2)
        axes.plot([seconds], [mean], marker, color=colour, ms=7, label=name)
    front: list[tuple[float, float]] = []
    for seconds, test in sorted(points.values(), key=lambda p: (p[0], -p[1]["mean"])):
        if not front or 100 * test["mean"] > front[-1][1]:
            front.append((seconds, 100 * test["mean"]))
    xs, ys = zip(*front, strict=True)
    axes.step(xs, ys, where="post", color="#888888", lw=1, ls="--", zorder=0, label="best for the cost")
    every = [seconds for seconds, _ in points.values()]
    if max(every) > 5 * min(every):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")  # the usual one writes mathtext
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.12 * max(every))
    axes.set_xlabel("training seconds (median of the repeats)")
    axes.set_ylabel(f"test {_score(results)}, %")
    place(figure, axes)
    return True


def place(figure: Figure, axes: Axes, height: float = 2.2, left: float = 0.55) -> None:
    """Put the axes (`height` and `left` in inches) above a legend of two columns in a figure as tall as needed."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [_short(label, 32) for label in labels]
    legend = 0.19 * math.ceil(len(labels) / 2)
    total = 0.12 + height + 0.46 + legend
    figure.set_size_inches(WIDTH, total)
    axes.set_position((left / WIDTH, (legend + 0.46) / total, (WIDTH - left - 0.12) / WIDTH, height / total))
    if labels:
        figure.legend(handles, labels, loc="lower center", ncols=2, borderaxespad=0.2, borderpad=0.1, labelspacing=0.25)


def _short(text: str, most: int) -> str:
    """At most so many characters, cut in the middle: names of a family differ at their ends."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - 1 - most // 2) :]}"


def curves(figure: Figure, results: dict[str, Any], along: str) -> bool:
    """Validation accuracy: mean over the repeats, a band from the least to the most, phase ends as bars."""
    looks = _looks(results)
    axes = figure.subplots()
    drawn = False
    for name, recipe in results["recipes"].items():
        curve = recipe["curve"]
        if len(curve["steps"]) < 2:
            continue
        drawn = True
        colour, marker = looks[name]
        xs = np.array(curve[along], dtype=float)
        low, mean, high = (100 * np.array(curve[key], dtype=float) for key in ("low", "mean", "high"))
        axes.fill_between(xs, low, high, color=colour, alpha=0.12, lw=0)
        axes.plot(xs, mean, color=colour, lw=1.5, marker=marker, ms=3.5, markevery=max(1, len(xs) // 8), label=name)
        ends = [phase["end"] for phase in curve["phases"][:-1]]
        places = np.interp(ends, curve["steps"], xs)
        axes.plot(places, np.interp(places, xs, mean), "|", color=colour, ms=16, mew=1.5)
    if not drawn:
        return False
    lows = [100 * v for r in results["recipes"].values() for v in r["curve"]["mean"][len(r["curve"]["mean"]) // 4 :]]
    axes.set_ylim(bottom=max(0.0, min(lows) - 5))
    axes.set_xlabel("training steps" if along == "steps" else "seconds (median of the repeats)")
    axes.set_ylabel("validation accuracy, %")
    place(figure, axes)
    return True


def _parts(figure: Figure, results: dict[str, Any]) -> bool:
    """Where the seconds of a trial went, one bar a recipe; evaluation is drawn but not charged."""
    names = [name for name, recipe in results["recipes"].items() if recipe["cost"]["seconds"]]
    if not names:
        return False
    axes = figure.subplots()
    labels = [_short(name, 26) for name in names]
    starts = np.zeros(len(names))
    keys = [*PARTS, *sorted({k for n in names for k in results["recipes"][n]["cost"]["parts"]} - set(PARTS))]
    for key in keys:
        widths = np.array([results["recipes"][n]["cost"]["parts"].get(key) or 0.0 for n in names])
        if widths.sum() == 0:
            continue
        part, colour = PARTS.get(key, (key, "#8C6D1F"))
        axes.barh(range(len(names)), widths, left=starts, color=colour, label=part, height=0.66)
        starts += widths
    axes.set_yticks(range(len(names)), labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("seconds a trial (median of the repeats)")
    longest = max(len(name) for name in labels)
    place(figure, axes, 0.15 + 0.31 * len(names), 0.2 + 0.068 * longest)
    return True


def _calibration(figure: Figure, results: dict[str, Any]) -> bool:
    """Share right against stated confidence, bins with at least 1 % of the test pictures."""
    shown = {name: recipe for name, recipe in results["recipes"].items() if "calibration" in recipe}
    if not shown:
        return False
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="#AAAAAA", lw=1, ls="--")
    looks, least = _looks(results), 100.0
    for name, recipe in shown.items():
        bins = recipe["calibration"]
        count = np.array(bins["count"], dtype=float)
        kept = count >= max(1.0, 0.01 * count.sum())
        xs, ys = (100 * np.array(bins[key], dtype=float)[kept] for key in ("confidence", "accuracy"))
        colour, marker = looks[name]
        axes.plot(xs, ys, color=colour, marker=marker, ms=4, lw=1.3, label=name)
        least = min([least, *xs])
    axes.set_xlim(max(0, least - 8), 101)
    axes.set_ylim(0, 101)
    axes.set_xlabel("how sure it said it was, %")
    axes.set_ylabel("how often it was right, %")
    place(figure, axes)
    return True


def _confusion(figure: Figure, results: dict[str, Any]) -> bool:
    """Confusions of the advised recipe as shares of the true class; only up to 25 classes."""
    advised, classes = results["advised"], results["classes"]
    if advised is None or len(classes) > 25:
        return False
    counts = np.array(advised["confusion"], dtype=float)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    names = [_short(name, 14) for name in classes]
    longest = max(len(name) for name in names)
    axes.set_xticks(range(len(names)), names, rotation=0 if longest <= 2 else 90)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    size = 8.0 if len(names) <= 12 else 5.5
    for row, column in np.argwhere(shares >= 0.5):
        colour = "white" if shares[row, column] > 55 else "#222222"
        text = f"{shares[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    margin = 0.35 + 0.075 * longest
    below = 0.45 if longest <= 2 else margin
    side = WIDTH - margin - 0.1
    total = side + below + 0.1
    figure.set_size_inches(WIDTH, total)
    axes.set_position((margin / WIDTH, below / total, side / WIDTH, side / total))
    return True
