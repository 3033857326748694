"""The page of a run that measures orders: which measures tell the best orders from the worst, and what an order was worth."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augend.checkpoint import write_bytes
from augend.order.measures import MEASURES
from augend.report.lines import provenance, signed, table, three
from augend.report.plots import COLOURS, draw
from augend.study.measured import JUDGED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write"]

NAMED = {"best": COLOURS[2], "median": COLOURS[6], "worst": COLOURS[1]}


def write(folder: Path, found: dict[str, Any]) -> Path:
    """Draw the figure and write ``measures.md``."""
    draw({"measures": functools.partial(_lines, found=found)}, folder / "figures")
    path = folder / "measures.md"
    write_bytes(path, _markdown(found).encode())
    return path


def _cell(found: dict[str, Any] | None) -> str:
    """A mean correlation with its interval; bold where it leaves out 0."""
    if found is None or found["mean"] is None:
        return "–"
    text = signed(found["mean"])
    if found["low"] is not None:
        text += f" ({signed(found['low'])} to {signed(found['high'])})"
        if found["low"] > 0 or found["high"] < 0:
            text = f"**{text}**"
    return text


def _markdown(found: dict[str, Any]) -> str:
    size, both = found["size"], found["correlations"]
    cells = sum(one is not None and one["low"] is not None for row in both["running"].values() for one in row)
    parts = [
        f"# {found['title']}",
        f"{found['source']}. Scale {found['scale']}: {found['about']}. All orders are judged on {size['judged']:,} pictures "
        f"that none was trained on; {size['sampled']} of each start's are measured.",
        "Rank correlation of a measure with the loss that its order ended in (below 0: the larger, the better), the mean "
        f"over {len(size['starts'])} starts, 95 % intervals over {size['splits']} splits of pictures. Of {cells} cells one "
        "in twenty would be bold by chance.",
        _correlations(found, "running"),
        "Running statistics of batch norm trail the weights, and weigh the last batches most. The same correlations where "
        "every order is judged with the statistics of all pictures that it was trained on, under its own weights:",
        _correlations(found, "renewed"),
        "What an order is worth, by the epochs of training before it: the loss after the order that is best, median and "
        "worst on the pictures that judge, and of the same three orders on other pictures, where being best was not chosen.",
        _worth(found),
        "![Measures of the best, the median and the worst order](figures/measures.png)",
        provenance(found),
    ]
    return "\n\n".join(parts) + "\n"


def _correlations(found: dict[str, Any], which: str) -> str:
    head = ["measure", *(f"position {n + 1}" for n in range(found["size"]["batches"])), "mean of positions"]
    rows = [[f"{name}: {about}", *map(_cell, found["correlations"][which][name])] for name, about in MEASURES.items()]
    return table(head, rows)


def _worth(found: dict[str, Any]) -> str:
    head = [
        "epochs before",
        "statistics",
        "judged: best / median / worst",
        "other pictures: best / median / worst",
        "other pictures: mean of all measured",
        "rank correlation of both",
    ]
    lines = [
        [
            str(epoch),
            which,
            *(three([float(np.mean([one[on][name] for one in of_it])) for name in NAMED]) for on in ("loss", "held")),
            f"{np.mean([one['held_mean'] for one in of_it]):.3f}",
            signed(_mean([one["agreement"] for one in of_it])),
        ]
        for epoch in found["size"]["starts"]
        for which in JUDGED
        for of_it in [[one[which] for one in found["starts"] if one["epoch"] == epoch]]
    ]
    return table(head, lines)


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _lines(figure: Figure, found: dict[str, Any]) -> bool:
    across, down = 2, -(-len(MEASURES) // 2)
    figure.set_size_inches(figure.get_size_inches()[0], 1.35 * down + 0.5)
    positions = range(1, found["size"]["batches"] + 1)
    for number, name in enumerate(MEASURES):
        axes = figure.add_subplot(down, across, number + 1)
        for which, colour in NAMED.items():
            values = np.array([one["running"]["measures"][name][which] for one in found["starts"]], dtype=float)
            there = ~np.isnan(values).all(0)
            mean = np.full(values.shape[1], np.nan)
            mean[there] = np.nanmean(values[:, there], axis=0)
            axes.plot(positions, mean, "o-", ms=3, color=colour, label=which)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", integer=True)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower right", bbox_to_anchor=(0.9, 0.06), fontsize=8)
    figure.supxlabel("position in the epoch", fontsize=8)
    figure.subplots_adjust(left=0.12, right=0.98, top=0.94, bottom=0.1, hspace=0.7, wspace=0.3)
    return True
