"""The page of `augend evaluate --attack`: accuracy against the budget, for a run or a whole study."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augend.checkpoint import file_word, write_bytes, write_json
from augend.evaluate.threats import ADAPTIVE, BARE, CLEAN, PIECES, TRANSFERRED
from augend.report.plots import COLOURS, MARKERS, draw, place
from augend.report.templates import rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["of_class", "stem_of", "write"]

LINES = {BARE: "-", TRANSFERRED: "--", ADAPTIVE: ":"}
Model = dict[str, Any]


def write(folder: Path, found: dict[str, Any]) -> Path:
    """Draw the plots and write a page and its numbers into the folder of a run or a study: ``attacks.html`` and
    ``attacks.json``, ``through-sums`` where nothing is attacked; see `stem_of`.

    Args:
        found: what `augend.study.attacked.attacked(folder, ...)` returned.
    """
    on = found["asked"]["on"]
    conditions = next(iter(found["models"].values()))["conditions"]
    nothing = all(one["attack"] == CLEAN for one in conditions)
    stem = stem_of("through-sums" if nothing else "attacks", on, found["data"])
    write_json(folder / f"{stem}.json", found)
    first = next(iter(found["models"].values()))
    attacks = list(dict.fromkeys(one["attack"] for one in first["conditions"] if one["attack"] != CLEAN))
    plots = draw(
        {
            f"{stem}-{number}": functools.partial(
                robustness, models=found["models"], attack=attack, pictures=PIECES[on]
            )
            for number, attack in enumerate(attacks)
        },
        folder / "plots",
    )
    text = rendered(
        "attacks.html",
        plots,
        {"of_class": of_class},
        found=found,
        figures={attack: f"{stem}-{number}" for number, attack in enumerate(attacks)},
        threats=list(dict.fromkeys(one["threat"] for one in first["conditions"])),
        pictures=PIECES[on],
        stem=stem,
        study="study" in found,
        name=folder.resolve().name,
    )
    page = folder / f"{stem}.html"
    write_bytes(page, text.encode("utf-8", errors="backslashreplace"))
    return page


def of_class(sums: Mapping[str, Any]) -> str:
    """Which training pictures are partners, after the words "training pictures".

    >>> of_class({"k": 2}), of_class({"partners": "others"})
    ('', ' of other classes than the model alone predicts')
    """
    kinds = {
        "predicted": " of the class that the model alone predicts",
        "others": " of other classes than the model alone predicts",
    }
    return kinds.get(sums.get("partners", "any"), "")


def stem_of(kind: str, on: str, data: str | None) -> str:
    """The name of a page, by what was shown: other pictures do not replace a page.

    >>> stem_of("attacks", "test", None), stem_of("attacks", "valid", None), stem_of("sums", "test", "cifar10:test=100")
    ('attacks', 'attacks-valid', 'sums-cifar10-test-100')
    """
    return kind + ("" if on == "test" else f"-{on}") + ("" if data is None else f"-{file_word(data)}")


def robustness(figure: Figure, models: dict[str, Model], attack: str, pictures: str = "test") -> bool:
    """Accuracy against the budget of one attack, from clean pictures on; a line a model and threat model, 95 % intervals.

    Budgets stand at equal distances, in order, since they often double; lines stand beside each other, not on one another.
    """
    axes = figure.subplots()
    first = next(iter(models.values()))["conditions"]
    said = {one["eps"]: one["said"] for one in first if one["attack"] == attack} | {0.0: "0"}
    places = {eps: place_of for place_of, eps in enumerate(sorted(said))}
    threats = [threat for threat in LINES if any((one["attack"], one["threat"]) == (attack, threat) for one in first)]
    lines = list(itertools.product(models, threats))
    for number, (name, threat) in enumerate(lines):
        own = _levels(models[name], attack, threat)
        kind = threats.index(threat) if len(models) == 1 else list(models).index(name)
        look: dict[str, Any] = {"color": COLOURS[kind % len(COLOURS)], "marker": MARKERS[kind % len(MARKERS)]}
        aside = (number - (len(lines) - 1) / 2) * min(0.03, 0.3 / len(lines)) * len(places) / 2
        xs = [places[eps] + aside for eps in own]
        for x, one in zip(xs, own.values(), strict=True):
            if one["low"] is not None:
                axes.plot([x, x], [100 * one["low"], 100 * one["high"]], color=look["color"], alpha=0.4, lw=2)
        label = threat if len(models) == 1 else f"{name}, {threat}"
        axes.plot(xs, [100 * one["mean"] for one in own.values()], lw=1.3, ms=4, ls=LINES[threat], label=label, **look)
    axes.set_xticks(list(places.values()), [said[eps] for eps in places])
    axes.set_ylim(0, 100)
    axes.set_xlabel(f"budget of {attack}, share of the pixels' range")
    axes.set_ylabel(f"accuracy on {pictures} pictures, %")
    place(figure, axes)
    return True


def _levels(model: Model, attack: str, threat: str) -> dict[float, dict[str, Any]]:
    """Budget -> accuracy, rising; 0 is what the same system makes of clean pictures."""
    found: dict[float, dict[str, Any]] = {}
    for one in model["conditions"]:
        clean = one["attack"] == CLEAN and (one["threat"] == BARE) == (threat == BARE)
        if clean or (one["attack"], one["threat"]) == (attack, threat):
            found[one["eps"]] = one["accuracy"]
    return dict(sorted(found.items(), key=lambda item: item[0]))
