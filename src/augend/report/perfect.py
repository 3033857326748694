"""The page of a perfect-ordering run: its table beside the printed one, its distributions, what an order is worth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augend.checkpoint import write_bytes
from augend.report.lines import provenance, signed, table, three
from augend.report.plots import COLOURS, draw, place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write"]

LOSSES, ACCURACIES = (1, 2, 5, 6), (12, 13)  # the epochs of Figures 2.1 and 2.2


def write(folder: Path, found: dict[str, Any]) -> Path:
    """Draw the figures and write ``perfect.md``."""
    epochs = len(found["epochs"])
    there = {of: [e for e in wanted if e <= epochs] for of, wanted in (("losses", LOSSES), ("accuracies", ACCURACIES))}
    plots: dict[str, Callable[[Figure], bool]] = {
        "spread": functools.partial(_spread, found=found),
        "figure-2-1": functools.partial(_histograms, found=found, of="losses", wanted=there["losses"]),
        "figure-2-2": functools.partial(_histograms, found=found, of="accuracies", wanted=there["accuracies"]),
    }
    draw(plots, folder / "figures")
    path = folder / "perfect.md"
    write_bytes(path, _markdown(found, folder).encode())
    return path


def _markdown(found: dict[str, Any], folder: Path) -> str:
    head = [
        "epoch",
        "runs",
        "accuracy: least / mean / best",
        "printed",
        "loss: least / mean / greatest",
        "printed / 4: least / greatest",
        "held-out loss: best order / others of its start",
        "lower by a start's best order",
        "test with held-out",
        "with the epoch before: starts",
        "orders",
    ]
    lines = []
    for number, epoch in enumerate(found["epochs"]):
        printed = _printed(found)[number] if number < len(_printed(found)) else None
        beside = ("–", "–") if printed is None else (three(printed[:3]), three([value / 4 for value in printed[3:]]))
        between = epoch.get("between", {})
        lines.append(
            [
                str(number + 1),
                f"{epoch['runs']:,}",
                three(epoch["accuracy"]),
                beside[0],
                three(epoch["loss"]),
                beside[1],
                three([epoch["held_best"], epoch["held_mean"]]),
                signed(epoch["held_worth"], 3),
                signed(epoch["held_correlation"]),
                signed(between.get("starts")),
                signed(between.get("orders")),
            ]
        )
    parts = [
        f"# {found['title']}",
        f"{found['source']}. Scale {found['scale']}: {found['about']}, judged on {found['judged']:,} test pictures and as "
        "many held-out ones; losses are means over pictures, in nats.",
        table(head, lines),
        "The runs that are carried on are chosen by their test losses, so the best of an epoch is chosen noise as far as "
        "other pictures do not agree. Their losses stand in the held-out column, of the best run and, as their mean, of some "
        "orders drawn from the same start; runs of other starts differ by what came before as well. The next column says by "
        "how much the best order of a start lowers the held-out loss of those drawn from it, the mean over starts. "
        "Correlations are of ranks: of test with held-out losses of the orders drawn from a start, the mean over starts; of "
        "the carried runs' losses with the mean losses of what goes on from them; of an order's mean loss over the starts "
        "with that in the epoch before.",
        "Batch norm's running statistics trail the weights, and weigh an epoch's last batches most. The same held-out losses "
        "of the orders drawn from a start, once more with the statistics of all training pictures under each run's own "
        "weights: what is left of the differences is in the weights. Standard deviations are within a start, the mean over "
        "starts.",
        _batch_norm(found),
        *(f"![{title}](figures/{file.name})" for title, file in _figures(folder)),
        provenance(found),
    ]
    return "\n\n".join(parts) + "\n"


def _batch_norm(found: dict[str, Any]) -> str:
    head = [
        "epoch",
        "held-out loss: running / renewed statistics",
        "standard deviation: running / renewed",
        "renewed lower by a start's best order",
        "running with renewed",
    ]
    lines = [
        [
            str(number + 1),
            three(renewed["mean"]),
            " / ".join(f"{value:.4f}" for value in renewed["spread"]),
            signed(renewed["worth"], 4),
            signed(renewed["correlation"]),
        ]
        for number, epoch in enumerate(found["epochs"])
        for renewed in [epoch["renewed"]]
    ]
    return table(head, lines)


def _printed(found: dict[str, Any]) -> list[list[float]]:
    """The paper's numbers, where ours are of the same size."""
    return found["printed"] if found["scale"] == "paper" else []


def _figures(folder: Path) -> list[tuple[str, Path]]:
    named = {
        "spread": "Least, mean and best accuracy of all orders",
        "figure-2-1": "Figure 2.1: test losses of all orders",
        "figure-2-2": "Figure 2.2: test accuracies of all orders",
    }
    files = [(title, folder / "figures" / f"{name}.png") for name, title in named.items()]
    return [(title, file) for title, file in files if file.is_file()]


def _spread(figure: Figure, found: dict[str, Any]) -> bool:
    axes = figure.add_subplot()
    numbers = range(1, len(found["epochs"]) + 1)
    for place_, (name, colour) in enumerate(zip(("least", "mean", "best"), COLOURS, strict=False)):
        axes.plot(numbers, [100 * e["accuracy"][place_] for e in found["epochs"]], "o-", ms=3, color=colour, label=name)
        printed = [100 * row[place_] for row in _printed(found)[: len(found["epochs"])]]
        axes.plot(list(numbers)[: len(printed)], printed, "--", lw=1, color=colour)
    axes.set_xlabel("epoch" + ("; the paper's dashed" if _printed(found) else ""))
    axes.set_ylabel("test accuracy of all orders, %")
    axes.locator_params(axis="x", integer=True)
    place(figure, axes)
    return True


def _histograms(figure: Figure, found: dict[str, Any], of: str, wanted: Sequence[int]) -> bool:
    if not wanted:
        return False
    across = 2
    down = -(-len(wanted) // across)
    figure.set_size_inches(figure.get_size_inches()[0], 1.6 * down + 0.4)
    for number, epoch in enumerate(wanted):
        axes = figure.add_subplot(down, across, number + 1)
        values = [value * (100 if of == "accuracies" else 1) for value in found["epochs"][epoch - 1][of]]
        axes.hist(values, bins=30, color=COLOURS[0])
        axes.set_title(f"after epoch {epoch}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=4)
    figure.supxlabel("test accuracy, %" if of == "accuracies" else "test loss, nats", fontsize=8)
    figure.subplots_adjust(left=0.1, right=0.98, top=0.9, bottom=0.2 if down == 1 else 0.14, hspace=0.6, wspace=0.3)
    return True
