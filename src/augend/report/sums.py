"""The figures of chapter 3 of the procedures paper: summed pictures, coefficients over time, how much error is gone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from augend.report.plots import COLOURS, EDGE, MARKERS, WIDTH, place, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["coefficients", "errors", "summed"]

ACROSS = 6  # rows that are shown of each number of pictures


def errors(figure: Figure, study: Path, found: dict[str, Any], asked: dict[str, Any]) -> str:
    """How much of the reference's error each row takes away, in per cent, beside what the paper prints."""
    base, split = found["rows"][found["reference"]], found["headline"]
    level = base["levels"].get(split)
    shown = [
        (found["rows"][row], found["rows"][row]["versus_reference"].get(split))
        for row in asked["rows"]
        if row in found["rows"]
    ]
    have = [(row, one) for row, one in shown if one is not None and one["mean"] is not None]
    if level is None or level["mean"] is None or level["mean"] >= 1 or not have:
        return ""
    axes, wrong = figure.subplots(), 1 - level["mean"]
    labelled = False
    for place_of, (row, one) in enumerate(reversed(have)):
        if one["low"] is not None:
            ends = [100 * one["low"] / wrong, 100 * one["high"] / wrong]
            axes.plot(ends, [place_of, place_of], color=COLOURS[0], alpha=0.5, lw=2)
        axes.plot(100 * one["mean"] / wrong, place_of, MARKERS[0], color=COLOURS[0], ms=5)
        if row["printed"] is not None and base["printed"] is not None:
            gone = 100 * (row["printed"] - base["printed"]) / (1 - base["printed"])
            label = None if labelled else "printed"
            axes.plot(gone, place_of, MARKERS[1], color=COLOURS[1], ms=5, mfc="none", label=label)
            labelled = True
    axes.axvline(0, color=EDGE, lw=1)
    names = [short(row["called"], 28) for row, _ in reversed(have)]
    axes.set_yticks(range(len(have)), names)
    axes.set_ylim(-0.6, len(have) - 0.4)
    axes.set_xlabel(f"of the error of {base['called']} gone, %")
    place(figure, axes, height=0.3 * len(have) + 0.3, left=0.25 + 0.068 * max(map(len, names)))
    seeds = min(one["repeats"] for _, one in have)
    return (
        f"{asked['title']}: the paired difference over the reference's error ({100 * wrong:.1f} %), at least {seeds} seeds, "
        "95 % intervals of the difference."
    )


def summed(figure: Figure, study: Path, found: dict[str, Any], asked: dict[str, Any]) -> str:
    """The first training pictures of the study's data, summed by one, two, four and eight."""
    from augend.augment.sums import SumAugmentation
    from augend.runner.folder import RunFolder
    from augend.runner.job import Job, load_splits

    trials = sorted(path for path in (study / "trials").iterdir() if (path / "run.json").is_file())
    if not trials:
        return ""
    split = load_splits(Job.from_json(RunFolder(trials[0]).read("run.json")["job"]))["main"]
    counts = [k for k in asked["of"] if k * ACROSS <= len(split.train)]
    grid = figure.subplots(len(counts), ACROSS, squeeze=False)
    for axes_of, k in zip(grid, counts, strict=True):
        pictures, _ = split.train.fetch(torch.arange(k * ACROSS)[:, None])
        labels = split.train.labels[: k * ACROSS]
        add = SumAugmentation(k, num_classes=len(split.classes))
        rows, _ = add(pictures[:, 0], labels, generator=torch.Generator().manual_seed(0))
        for axes, picture in zip(axes_of, rows, strict=True):
            values = picture.permute(1, 2, 0).numpy()
            axes.imshow(values if values.shape[2] == 3 else values[..., 0], cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
        axes_of[0].set_ylabel(f"k = {k}", fontsize=8)
    figure.set_size_inches(WIDTH, 0.15 + (WIDTH - 0.3) / ACROSS * len(counts))
    figure.subplots_adjust(0.07, 0.01, 0.99, 0.99, wspace=0.06, hspace=0.06)
    return f"{asked['title']}: rows of {', '.join(map(str, counts))} pictures of {split.name}."


def coefficients(figure: Figure, study: Path, found: dict[str, Any], asked: dict[str, Any]) -> str:
    """The coefficients of a row's pictures over the progress of a gradual phase (equations 3.1 to 3.6)."""
    from augend.augment.sums import gradual_coefficients

    start = int(asked["of"])
    progress = np.linspace(0, 1, 40 * (start - 1) + 1)
    values = torch.stack([gradual_coefficients(start, float(one)) for one in progress]).numpy()
    axes = figure.subplots()
    for number in range(start):
        axes.plot(
            progress, values[:, number], color=COLOURS[number % len(COLOURS)], lw=1.3, label=f"picture {number + 1}"
        )
    axes.set_xlabel("progress of the phase")
    axes.set_ylabel("coefficient")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    place(figure, axes)
    return f"{asked['title']}: those of {start} pictures."
