"""The plots of a report: drawn once with matplotlib, kept as PNG and SVG, embedded as SVG.

Colours are Okabe and Ito's, told apart by colour-blind readers, and every recipe has a marker of its own as well. All
figures are 4.2 inches wide: on a phone they shrink little, on a screen two stand side by side. Places are set by hand
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

__all__ = ["COLOURS", "EDGE", "GRID", "INK", "WIDTH", "curves", "draw", "draw_all", "looks", "place", "short"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#767676", "#8C6D1F")
INK, GRID, EDGE = "#1D1D1F", "#E4E4E6", "#8A8A90"  # on a page they follow its colours, light or dark
MARKERS = "osD^vPX*"
PARTS = {
    "step": ("training steps", "#0072B2"),
    "augment": ("augmentation", "#E69F00"),
    "data": ("reading data", "#56B4E9"),
    "order": ("ordering", "#CC79A7"),
    "cache": ("filling caches", "#009E73"),
    "bank": ("embeddings, kept", "#117733"),
    "decoding": ("decoding files", "#767676"),
    "tuning": ("tuning the rate", "#8C6D1F"),
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
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.edgecolor": EDGE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": EDGE,
    "ytick.color": EDGE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "savefig.facecolor": "white",
}
WIDTH = 4.2


def draw_all(results: dict[str, Any], folder: Path) -> dict[str, str]:
    """Draw every plot that the results allow into `folder` as NAME.png and NAME.svg; name -> SVG for a page."""
    from augend.report.answers import calibration, confusion

    plots: dict[str, Draw] = {
        "cost": lambda figure: _cost(figure, results),
        "steps": lambda figure: curves(figure, results, "steps"),
        "seconds": lambda figure: curves(figure, results, "seconds"),
        "parts": lambda figure: _parts(figure, results),
        "calibration": lambda figure: calibration(figure, results),
        "confusion": lambda figure: confusion(figure, results),
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
    for colour, name_of in ((INK, "ink"), (GRID, "line"), (EDGE, "soft"), ("#ffffff", "paper")):
        svg = re.sub(rf"(fill|stroke): {colour}\b", rf"\1: var(--{name_of})", svg, flags=re.IGNORECASE)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    return re.sub(r'^<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)


def looks(results: dict[str, Any]) -> dict[str, tuple[str, str]]:
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
    look = looks(results)
    for name, (seconds, test) in points.items():
        colour, marker = look[name]
        mean = 100 * test["mean"]
        if test["low"] is not None:
            axes.plot([seconds, seconds], [100 * test["low"], 100 * test["high"]], color=colour, alpha=0.45, lw=2)
        axes.plot([seconds], [mean], marker, color=colour, ms=7, label=name)
    front: list[tuple[float, float]] = []
    for seconds, test in sorted(points.values(), key=lambda p: (p[0], -p[1]["mean"])):
        if not front or 100 * test["mean"] > front[-1][1]:
            front.append((seconds, 100 * test["mean"]))
    every = [seconds for seconds, _ in points.values()]
    if max(every) > 5 * min(every):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")  # the usual one writes mathtext
        axes.xaxis.set_minor_formatter(NullFormatter())
        right = 1.25 * max(every)
    else:
        right = 1.12 * max(every)
        axes.set_xlim(0, right)
    front.append((right, front[-1][1]))
    xs, ys = zip(*front, strict=True)
    axes.step(xs, ys, where="post", color=EDGE, lw=1.2, ls="--", zorder=0, label="the best for its cost")
    means = [100 * test["mean"] for _, test in points.values()]
    low, high = axes.get_ylim()  # an interval of two repeats may be all there is; the points shall stay apart
    axes.set_ylim(max(low, min(means) - 15), min(high, max(means) + 15, 101))
    axes.set_xlabel("training seconds (median of the repeats)")
    axes.set_ylabel(f"test {_score(results)}, %")
    place(figure, axes)
    return True


def place(figure: Figure, axes: Axes, height: float = 2.2, left: float = 0.55) -> None:
    """Put the axes (`height` and `left`, the least, in inches) above a legend in a figure as tall as needed."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [short(label, 44) for label in labels]
    columns = 2 if max(map(len, labels), default=0) <= 24 else 1
    legend = 0.06 + 0.153 * math.ceil(len(labels) / columns)
    total = 0.12 + height + 0.46 + legend
    figure.set_size_inches(WIDTH, total)
    for _ in range(2):  # and again where numbers along the axis are so long that its name would leave the figure
        axes.set_position((left / WIDTH, (legend + 0.46) / total, (WIDTH - left - 0.12) / WIDTH, height / total))
        figure.draw_without_rendering()
        bounds = axes.get_tightbbox()
        left += 0 if bounds is None else max(0.0, 0.04 - bounds.x0 / figure.dpi)
    if labels:
        look = {"borderaxespad": 0.2, "borderpad": 0.1, "labelspacing": 0.25}
        figure.legend(handles, labels, loc="lower center", ncols=columns, **look)


def short(text: str, most: int) -> str:
    """At most so many characters, cut in the middle: names of a family differ at their ends."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - 1 - most // 2) :]}"


def curves(figure: Figure, results: dict[str, Any], along: str) -> bool:
    """Validation accuracy: mean over the repeats, a band from the least to the most, phase ends as bars."""
    look = looks(results)
    axes = figure.subplots()
    drawn = False
    for name, recipe in results["recipes"].items():
        curve = recipe["curve"]
        if len(curve["steps"]) < 2:
            continue
        drawn = True
        colour, marker = look[name]
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
    labels = [short(name, 26) for name in names]
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
    axes.set_xlabel("seconds a trial, median")
    longest = max(len(name) for name in labels)
    place(figure, axes, 0.15 + 0.31 * len(names), 0.26 + 0.07 * longest)
    return True
