"""Figures of finished models: accuracy along a row of settings, and what shifted test pictures do to them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augend.evaluate.shifts import ORIGINAL
from augend.report.plots import COLOURS, EDGE, INK, WIDTH, place, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracies", "draw_views", "levels", "variation", "views"]

MARKERS = "osD^vP"
PAIRS = 10  # of test sets; of more, only those with the original are drawn
PICTURES, COPIES = 14, 16  # of Figure 6 of the invariance paper


def levels(figure: Figure, study: Path, found: dict[str, Any], asked: dict[str, Any]) -> str:
    """Accuracy of rows along a row of settings, one line for each of `lines`, with 95 % intervals; the mean of `baseline`."""
    axes, split = figure.subplots(), found["headline"]
    numbers = all(isinstance(one, int | float) for one in asked["along"])
    drawn = 0
    for number, (label, rows) in enumerate(asked["lines"].items()):
        have = [
            (place_of, found["rows"][row]["levels"].get(split))
            for place_of, row in enumerate(rows)
            if row in found["rows"]
        ]
        shown = [(place_of, one) for place_of, one in have if one is not None and one["mean"] is not None]
        if not shown:
            continue
        drawn = max(drawn, *(one["repeats"] for _, one in shown))
        xs = [asked["along"][place_of] if numbers else place_of for place_of, _ in shown]
        ys = [100 * one["mean"] for _, one in shown]
        colour = COLOURS[number % len(COLOURS)]
        aside = (
            (number - (len(asked["lines"]) - 1) / 2) * 0.012 * (max(asked["along"]) if numbers else len(asked["along"]))
        )
        places = [x + aside for x in xs]  # so that intervals stand beside each other
        for x, (_, one) in zip(places, shown, strict=True):
            if one["low"] is not None:
                axes.plot([x, x], [100 * one["low"], 100 * one["high"]], color=colour, alpha=0.5, lw=2)
        axes.plot(places, ys, MARKERS[number % len(MARKERS)] + "-", color=colour, lw=1.2, ms=5, label=label)
    if not drawn:
        return ""
    base = found["rows"].get(asked.get("baseline", ""), {}).get("levels", {}).get(split)
    if base and base["mean"] is not None:
        axes.axhline(100 * base["mean"], color=EDGE, lw=1, ls="--", label=found["rows"][asked["baseline"]]["called"])
    axes.set_xticks(asked["along"] if numbers else range(len(asked["along"])), [str(one) for one in asked["along"]])
    axes.set_xlabel(asked["label"])
    axes.set_ylabel(f"accuracy, {found['columns'][split]}, %")
    place(figure, axes)
    return f"{asked['title']}: means of {drawn} seeds with 95 % intervals."


def variation(figure: Figure, study: Path, found: dict[str, Any], asked: dict[str, Any]) -> str:
    """How far predictions, and features, are apart between each pair of test sets; bars with 95 % intervals."""
    rows = [row for row in asked.get("rows", found["rows"]) if found["rows"].get(row, {}).get("variation")]
    if not rows:
        return ""
    pairs = list(found["rows"][rows[0]]["variation"])
    if len(pairs) > PAIRS:
        pairs = [pair for pair in pairs if ORIGINAL in pair.split(", ")]
    kinds = [kind for kind in ("kl", "features") if kind in found["rows"][rows[0]]["variation"][pairs[0]]]
    said = {"kl": "predictions, nats", "features": "features, distance"}
    panels: list[Axes] = list(np.atleast_1d(figure.subplots(1, len(kinds))))
    thick = 0.8 / len(rows)
    for axes, kind in zip(panels, kinds, strict=True):
        for number, row in enumerate(rows):
            values = [found["rows"][row]["variation"][pair][kind] for pair in pairs]
            ys = np.arange(len(pairs)) + (number - (len(rows) - 1) / 2) * thick
            axes.barh(ys, [one["mean"] for one in values], thick * 0.9, color=COLOURS[number % len(COLOURS)])
            for y, one in zip(ys, values, strict=True):
                if one["low"] is not None:
                    axes.plot([max(0.0, one["low"]), one["high"]], [y, y], color=INK, lw=0.9)
        axes.set_xlabel(said[kind])
        axes.set_yticks(range(len(pairs)), pairs if axes is panels[0] else [""] * len(pairs))
        axes.tick_params(labelsize=7.5)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
    height, legend = 0.2 + max(0.16 * len(rows), 0.2) * len(pairs), 0.08 + 0.16 * len(rows)
    left, below = 0.3 + 0.062 * max(map(len, pairs)), legend + 0.46
    total = height + below + 0.1
    figure.set_size_inches(WIDTH, total)
    first = (WIDTH - 0.1 - left - 0.15 * (len(kinds) - 1)) / len(kinds)
    for number, axes in enumerate(panels):
        axes.set_position(((left + number * (first + 0.15)) / WIDTH, below / total, first / WIDTH, height / total))
    handles = [_patch(COLOURS[number % len(COLOURS)]) for number in range(len(rows))]
    figure.legend(handles, [found["rows"][row]["called"] for row in rows], loc="lower center", borderaxespad=0.2)
    repeats = min(found["rows"][row]["repeats"] for row in rows)
    bars = "" if repeats < 2 else f", bars: 95 % intervals over {repeats} seeds"
    return (
        f"{asked['title']}: mean over the pictures of the divergence of predictions and the distance of features{bars}."
    )


def _patch(colour: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour)


def views(figure: Figure, study: Path, found: dict[str, Any], asked: dict[str, Any]) -> str:
    """t-SNE of the features of a few test pictures in several views each, one panel for the first model of each row."""
    folders = {
        found["rows"][row]["called"]: study / "trials" / f"{row}-r0" for row in asked["rows"] if row in found["rows"]
    }
    shares = draw_views(
        figure, {name: folder for name, folder in folders.items() if (folder / "result.json").is_file()}
    )
    if not shares:
        return ""
    apart = ", ".join(f"{share:.2f} ({name})" for name, share in shares.items())
    said = "How far views of a picture are apart over how far pictures are"
    return f"{asked['title']} (crops, other colours). {said}: {apart}."


def draw_views(figure: Figure, folders: dict[str, Path]) -> dict[str, float]:
    """One panel a run: t-SNE of features of its first test pictures. How far views are apart over how far pictures are."""
    from sklearn.manifold import TSNE

    from augend.runner.job import Kept
    from augend.study.shifted import features_of_views

    if not folders:
        return {}
    across = min(2, len(folders))
    down = math.ceil(len(folders) / across)
    panels: list[Axes] = list(np.atleast_1d(figure.subplots(down, across)).ravel())
    shares: dict[str, float] = {}
    kept: Kept = {}
    for axes, (name, folder) in zip(panels, folders.items(), strict=False):
        features = features_of_views(folder, PICTURES, COPIES, kept)
        if features is None:
            axes.set_axis_off()
            continue
        shares[name] = _within(features)
        flat = TSNE(perplexity=15, random_state=0, init="pca").fit_transform(features.reshape(-1, features.shape[-1]))
        for number, own in enumerate(flat.reshape(len(features), -1, 2)):
            axes.plot(*own.T, MARKERS[number // 7], color=COLOURS[number % 7], ms=2.6)
        axes.set_title(short(name, 30), fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in panels[len(folders) :]:
        axes.set_axis_off()
    height = 0.25 + down * (0.2 + (WIDTH - 0.2) / 2)
    figure.set_size_inches(WIDTH, height)
    figure.subplots_adjust(0.02, 0.03, 0.98, 1 - 0.25 / height, wspace=0.06, hspace=0.14)
    return shares


def accuracies(figure: Figure, rows: dict[str, dict[str, Any]]) -> bool:
    """Accuracy under each shift, a bar a row, with 95 % intervals. A row has ``called`` and ``shifts``."""
    axes = figure.subplots()
    shifts = list(next(iter(rows.values()))["shifts"])
    thick = 0.8 / len(rows)
    for number, row in enumerate(rows.values()):
        ys = np.arange(len(shifts)) + (number - (len(rows) - 1) / 2) * thick
        means = [100 * row["shifts"][shift]["mean"] for shift in shifts]
        axes.barh(ys, means, thick * 0.9, color=COLOURS[number % len(COLOURS)], label=row["called"])
        for y, shift in zip(ys, shifts, strict=True):
            one = row["shifts"][shift]
            if one["low"] is not None:
                axes.plot([100 * one["low"], 100 * one["high"]], [y, y], color=INK, lw=0.9)
    axes.set_yticks(range(len(shifts)), shifts)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy on the test pictures, %")
    place(figure, axes, 0.2 + max(0.13 * len(rows), 0.2) * len(shifts), 0.3 + 0.075 * max(map(len, shifts)))
    return True


def _within(features: Any) -> float:
    """Root mean square distance of views from their picture's mean, over that of the pictures' means from theirs."""
    middle = features.mean(axis=1)
    inside = float(((features - middle[:, None]) ** 2).sum(axis=2).mean())
    outside = float(((middle - middle.mean(axis=0)) ** 2).sum(axis=1).mean())
    return math.sqrt(inside / outside) if outside else math.nan
