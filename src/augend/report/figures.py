"""The figures of a reproduction: curves of some rows, what a monitor saw, copies of a few pictures in two dimensions."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from augend.augment.grid import tiled
from augend.checkpoint import read_arrays
from augend.report.plots import COLOURS, WIDTH, curves, draw, place
from augend.report.shifts import levels, variation, views
from augend.report.sums import coefficients, errors, summed
from augend.study.evidence import read_json
from augend.study.reproduce import GIVEN_BACK

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from augend.evaluate.load import Classifier

__all__ = ["draw_figures"]

MEASURED = 200  # pictures whose copies' nearest neighbours are counted


def draw_figures(study: Path, found: dict[str, Any], asked: tuple[dict[str, Any], ...]) -> dict[str, str]:
    """Draw a table's figures into ``figures/``; name -> caption, of those that the finished trials allow."""
    captions: dict[str, str] = {}
    kinds: dict[str, Callable[[Figure, Path, dict[str, Any], dict[str, Any]], str]] = {
        "curves": _rows_curves,
        "monitor": _monitored,
        "copies": _copies,
        "levels": levels,
        "variation": variation,
        "views": views,
        "errors": errors,
        "summed": summed,
        "coefficients": coefficients,
        "given-back": _given_back,
    }

    def drawer(figure: Figure, one: dict[str, Any]) -> bool:
        caption = kinds[one["kind"]](figure, study, found, one)
        if caption:
            captions[one["name"]] = caption
        return bool(caption)

    draw({one["name"]: functools.partial(drawer, one=one) for one in asked}, study / "figures")
    return captions


def _rows_curves(figure: Figure, study: Path, found: dict[str, Any], asked: dict[str, Any]) -> str:
    """Validation accuracy against steps, named as the paper does."""
    results = read_json(study / "results.json")
    rows = {row: results["recipes"][row] for row in asked["rows"] if row in results["recipes"]}
    if asked.get("last"):  # of the last phase alone, from its start on
        rows = {row: {**recipe, "curve": _last_phase(recipe["curve"])} for row, recipe in rows.items()}
    named = {found["rows"][row]["called"]: recipe for row, recipe in rows.items()}
    if not named or not curves(figure, {**results, "recipes": named}, "steps"):
        return ""
    return f"{asked['title']}: {_mean({found['rows'][row]['repeats'] for row in rows})}."


def _last_phase(curve: dict[str, Any]) -> dict[str, Any]:
    begin = curve["phases"][-2]["end"] if len(curve["phases"]) > 1 else 0
    kept = [number for number, step in enumerate(curve["steps"]) if step > begin]
    columns = {key: [curve[key][number] for number in kept] for key in ("seconds", "mean", "low", "high")}
    phases = [{**curve["phases"][-1], "end": curve["phases"][-1]["end"] - begin}] if curve["phases"] else []
    return {**curve, **columns, "steps": [curve["steps"][number] - begin for number in kept], "phases": phases}


def _given_back(figure: Figure, study: Path, found: dict[str, Any], asked: dict[str, Any]) -> str:
    """Test pictures of one row's first repeat under each change: clean, changed, given back by its autoencoder."""
    if not (study / GIVEN_BACK).is_file() or asked["row"] not in found.get("decoded", {}):
        return ""
    stored = read_arrays(study / GIVEN_BACK)
    tiles = {name.rpartition("/")[2]: one for name, one in stored.items() if name.startswith(f"{asked['row']}/")}
    figure.set_size_inches(6, 2.5 * len(tiles))
    for axes, (change, three) in zip(figure.subplots(len(tiles), 1, squeeze=False)[:, 0], tiles.items(), strict=True):
        page = tiled(torch.from_numpy(three)).permute(1, 2, 0).numpy()
        axes.imshow(page[..., 0] if page.shape[2] == 1 else page, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
        axes.set_title(change, fontsize=9)
    figure.tight_layout()
    return f"{asked['title']}: pictures, changed, given back ({found['rows'][asked['row']]['called']}, first seed)."


def _mean(seeds: Collection[int]) -> str:
    """What curves are, by how many seeds the rows have."""
    least, most = min(seeds), max(seeds)
    if most == 1:
        return "one seed"
    return f"mean of {f'{least} to {most}' if least < most else most} seeds, band from least to most"


def _lines(study: Path, row: str, kind: str) -> list[list[dict[str, Any]]]:
    """The lines of one kind of every finished trial of a row."""
    runs = []
    for trial in sorted((study / "trials").glob(f"{row}-r*")):
        if trial.name.rpartition("-r")[0] == row and (trial / "result.json").is_file():
            text = (trial / "metrics.jsonl").read_text(encoding="utf-8")
            runs.append([line for line in map(json.loads, text.splitlines()) if line["kind"] == kind])
    return runs


def _monitored(figure: Figure, study: Path, found: dict[str, Any], asked: dict[str, Any]) -> str:
    """One value of a run's lines (`of`: those of the monitor, or ``valid`` or ``train``), mean and band over the seeds.

    Phase ends are bars; of one `phase` alone steps count from its start.
    """
    axes = figure.subplots()
    at = "step" if "phase" in asked else "global_step"
    seeds: set[int] = set()
    for number, row in enumerate(asked["rows"]):
        runs = [
            [line for line in run if asked.get("phase") in (None, line["phase"])]
            for run in _lines(study, row, asked.get("of", "monitor"))
        ]
        if not runs or not runs[0]:
            continue
        seeds.add(len(runs))
        steps = [line[at] for line in runs[0]]
        values = np.array([[line[asked["value"]] for line in run] for run in runs])
        if "over" in asked:  # a value of the line that scored the network, one a seed
            values /= np.array([[run[-1][asked["over"]]] for run in _lines(study, row, "augmenter")])
        colour = COLOURS[number % len(COLOURS)]
        axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
        axes.plot(steps, values.mean(0), color=colour, lw=1.5, label=found["rows"][row]["called"])
        ends = [a["global_step"] for a, b in zip(runs[0], runs[0][1:], strict=False) if a["phase"] != b["phase"]]
        for end in ends:
            axes.axvline(end, color="#888888", lw=1, ls="--")
    if not seeds:
        return ""
    axes.set_xlabel("training steps")
    axes.set_ylabel(asked.get("label", asked["value"]))
    if asked.get("log"):
        axes.set_yscale("log", subs=(2, 5))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    place(figure, axes)
    ends_said = "" if "phase" in asked else "; dashed: where a phase ends"
    return f"{asked['title']}: {_mean(seeds)}{ends_said}."


def _copies(figure: Figure, study: Path, found: dict[str, Any], asked: dict[str, Any]) -> str:
    """t-SNE of one test picture of each class and its rotated copies, in pixels and in the features of a trained network."""
    from sklearn.manifold import TSNE

    from augend.address import Address
    from augend.evaluate.load import load

    trial = study / "trials" / f"{asked['row']}-r0"
    if not (trial / "result.json").is_file():
        return ""
    model = load(trial)
    pixels, labels = _rotated(trial)
    features = _features(model, Address.parse(asked["tensor"]), pixels)
    flat = pixels.flatten(1).numpy()
    shares = [_neighbours(points) for points in (flat, features)]
    first = [int(np.flatnonzero(labels.numpy() == kind)[0]) for kind in np.unique(labels.numpy())]
    rows = np.array([5 * picture + copy for picture in first for copy in range(5)])
    axes = figure.subplots(1, 2)
    for one, points, title in zip(axes, (flat, features), ("pixels", "learned features"), strict=True):
        flatly = TSNE(perplexity=10, random_state=0, init="pca").fit_transform(points[rows].astype(np.float64))
        for number in range(len(first)):
            mine = flatly[5 * number : 5 * number + 5]
            colour = f"C{number % 10}"
            one.plot(mine[:, 0], mine[:, 1], "o", color=colour, ms=4)
        one.set_title(title, fontsize=9)
        one.set_xticks([])
        one.set_yticks([])
    figure.set_size_inches(WIDTH, 2.5)
    figure.subplots_adjust(0.02, 0.03, 0.98, 0.9, wspace=0.06)
    return (
        f"{asked['title']}. Among {len(labels)} test pictures and their copies the nearest neighbour shows the same picture "
        f"in {100 * shares[0]:.0f} % of cases in pixels and in {100 * shares[1]:.0f} % in the features."
    )


def _rotated(trial: Path) -> tuple[Tensor, Tensor]:
    """Tilted test pictures, five rotated copies of each in a row: float pixels ``(5 N, C, H, W)`` and labels ``(N,)``."""
    from augend.data.tilt import copies
    from augend.pixels import to_float
    from augend.runner.folder import RunFolder
    from augend.runner.job import Job, load_splits

    job = Job.from_json(RunFolder(trial).read("run.json")["job"])
    split = load_splits(job)["main"]
    tilted = split.shifted.get("tilted", split.test).take(range(MEASURED))
    turned = copies(tilted, authors="protocol=authors" in job.data)
    return to_float(turned.pixels), tilted.labels


def _features(model: Classifier, address: Any, pixels: Tensor) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        parts = [model.networks.tensor(address, part) for part in torch.split(pixels, 500)]
    found: NDArray[np.float32] = torch.cat(parts).flatten(1).float().numpy()
    return found


def _neighbours(points: NDArray[np.float32]) -> float:
    """The share of points whose nearest neighbour is one of the other four copies of the same picture."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=2).fit(points).kneighbors(points, return_distance=False)[:, 1]
    return float((nearest // 5 == np.arange(len(points)) // 5).mean())
