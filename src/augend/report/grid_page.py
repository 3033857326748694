"""The page of `augend evaluate --sums` with several values: what sums cost in clean accuracy and gain under attack."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augend.checkpoint import write_bytes, write_json
from augend.evaluate.threats import ADAPTIVE, BARE, CLEAN, PIECES, THROUGH, TRANSFERRED
from augend.report.attacked_page import of_class, stem_of
from augend.report.plots import COLOURS, INK, MARKERS, draw, place
from augend.report.templates import rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write"]

SMALL, LARGE = 3.0, 8.0  # of a marker, in points, for the fewest and the most draws
Model = dict[str, Any]


def write(folder: Path, found: dict[str, Any]) -> Path:
    """Draw the trade-offs and write ``sums.html`` and ``sums.json`` into the folder of a run or a study; of other pictures
    under the names that `stem_of` gives.

    Args:
        found: what `augend.study.grid.grid(folder, ...)` returned.
    """
    on = found["asked"]["on"]
    stem = stem_of("sums", on, found["data"])
    write_json(folder / f"{stem}.json", found)
    first = next(iter(found["models"].values()))
    attacks = list(dict.fromkeys((one["attack"], one["said"]) for one in first["bare"] if one["attack"] != CLEAN))
    wanted = [
        (name, attack, said, threat)
        for name in found["models"]
        for attack, said in attacks
        for threat in (TRANSFERRED, ADAPTIVE)
        if any((one["attack"], one["threat"]) == (attack, threat) for one in first["points"][0]["conditions"])
    ]
    plots = draw(
        {
            f"{stem}-{number}": functools.partial(
                trade, model=found["models"][name], attack=attack, said=said, threat=threat
            )
            for number, (name, attack, said, threat) in enumerate(wanted)
        },
        folder / "plots",
    )
    figures = [
        {"title": f"{name}: {attack} {said}, {threat}", "plot": f"{stem}-{number}"}
        for number, (name, attack, said, threat) in enumerate(wanted)
    ]
    columns = [(THROUGH, CLEAN, "0")] + [
        (threat, attack, said) for attack, said in attacks for threat in (TRANSFERRED, ADAPTIVE)
    ]
    text = rendered(
        "grid.html",
        plots,
        {"of": accuracy, "of_class": of_class},
        found=found,
        figures=figures,
        columns=columns,
        attacks=attacks,
        pictures=PIECES[on],
        stem=stem,
        bare=BARE,
        clean=CLEAN,
        study="study" in found,
        name=folder.resolve().name,
    )
    page = folder / f"{stem}.html"
    write_bytes(page, text.encode("utf-8", errors="backslashreplace"))
    return page


def accuracy(conditions: list[dict[str, Any]], threat: str, attack: str, said: str) -> dict[str, Any] | None:
    """The accuracy under one condition, as mean, low and high; None where it was not asked for."""
    for one in conditions:
        if (one["threat"], one["attack"], one["said"]) == (threat, attack, said):
            found: dict[str, Any] = one["accuracy"]
            return found
    return None


def trade(figure: Figure, model: Model, attack: str, said: str, threat: str) -> bool:
    """Accuracy under attack against accuracy on clean pictures: one point a setting; the bare model is a star.

    Colour: pictures in a sum; marker: the picture's own weight; size: draws. Points that differ in draws alone are joined.
    """
    axes = figure.subplots()
    points = model["points"]
    ks, weights, most = (list(dict.fromkeys(one[key] for one in points)) for key in ("k", "weight", "draws"))
    for number, k in enumerate(ks):
        for kind, weight in enumerate(weights):
            own = [one for one in points if (one["k"], one["weight"]) == (k, weight)]
            xs = [100 * accuracy(one["conditions"], THROUGH, CLEAN, "0")["mean"] for one in own]  # type: ignore[index]
            ys = [100 * accuracy(one["conditions"], threat, attack, said)["mean"] for one in own]  # type: ignore[index]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(xs, ys, color=colour, lw=0.8, alpha=0.6)
            for x, y, one in zip(xs, ys, own, strict=True):
                place_of = sorted(most).index(one["draws"]) / max(1, len(most) - 1)
                label = f"k = {k}, weight {weight:g}" if one is own[-1] else None
                size = SMALL + (LARGE - SMALL) * place_of
                axes.plot(x, y, MARKERS[kind % len(MARKERS)], color=colour, ms=size, ls="none", label=label)
    clean, bare = accuracy(model["bare"], BARE, CLEAN, "0"), accuracy(model["bare"], BARE, attack, said)
    if clean is not None and bare is not None:
        axes.plot(100 * clean["mean"], 100 * bare["mean"], "*", color=INK, ms=11, ls="none", label="bare model")
    axes.set_xlabel("accuracy on clean pictures, %")
    axes.set_ylabel(f"accuracy under {attack} {said}, %")
    place(figure, axes, left=0.65)
    return True
