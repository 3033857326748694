"""The table of a study as text: what the console prints and the page shows, cell by cell the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Cell", "Table", "percent", "seconds_text", "table", "table_rows"]

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """One cell: what it is (``test``, ``difference``, ...), its text, and the number that it is sorted by."""

    key: str
    text: str
    value: float | None


@dataclass(frozen=True)
class Table:
    """Headers by key, and a row of cells for each recipe with its name."""

    headers: dict[str, str]
    rows: dict[str, tuple[Cell, ...]]


def percent(share: float, digits: int = 1) -> str:
    """A share as percent without the sign.

    >>> percent(0.9134)
    '91.3'
    """
    return f"{100 * share:.{digits}f}"


def seconds_text(seconds: float | None) -> str:
    """Seconds in a unit that reads well.

    >>> seconds_text(4.25), seconds_text(150), seconds_text(7200)
    ('4.2 s', '2.5 min', '2.0 h')
    """
    if seconds is None:
        return NONE
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _level(key: str, level: dict[str, Any] | None) -> Cell:
    if level is None:
        return Cell(key, NONE, None)
    text = percent(level["mean"])
    if level["low"] is not None:
        text += f" ({percent(level['low'])} to {percent(level['high'])})"
    return Cell(key, text, level["mean"])


def _signed(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _difference(key: str, found: dict[str, Any] | None) -> Cell:
    if found is None:
        return Cell(key, NONE, None)
    text = _signed(found["mean"])
    if found["low"] is not None:
        text += f" ({_signed(found['low'])} to {_signed(found['high'])})"
    return Cell(key, text, found["mean"])


def _three(key: str, found: dict[str, Any] | None) -> Cell:
    if found is None or found["probabilities"] is None:
        return Cell(key, NONE, None)
    better, worse = (found["probabilities"][name] for name in ("better", "worse"))
    first, last = round(100 * better), round(100 * worse)
    # the middle one takes the rounding, so that the three make 100
    return Cell(key, f"{first} / {max(0, 100 - first - last)} / {last}", better - worse)


def table(results: dict[str, Any]) -> Table:
    """The table of `results.json`: accuracy, difference, its three probabilities, cost, then every shifted set."""
    score = "Balanced accuracy" if results["metric"] == "balanced_accuracy" else "Accuracy"
    reference = results["reference"]
    shifted = sorted({name for recipe in results["recipes"].values() for name in recipe["shifted"]})
    headers = {
        "recipe": "Recipe",
        "test": f"{score} %, test",
        "difference": f'Points against "{reference}"',
        "probabilities": "Better / within / worse, %",
        "ratio": "Cost ×",
        "seconds": "Training time",
        **{f"shifted:{name}": f"Shifted: {name}, %" for name in shifted},
    }
    rows = {}
    for name, recipe in results["recipes"].items():
        against = recipe["versus_reference"].get("test")
        ratio = recipe["cost"]["ratio"]
        title = recipe["title"] if recipe["title"] in ("", name) else f"{recipe['title']} ({name})"
        rows[name] = (
            Cell("recipe", title or name, None),
            _level("test", recipe["test"]),
            Cell("difference", "reference", 0.0) if name == reference else _difference("difference", against),
            _three("probabilities", against),
            Cell("ratio", NONE if ratio is None else f"{ratio:.2f}", ratio),
            Cell("seconds", seconds_text(recipe["cost"]["seconds"]), recipe["cost"]["seconds"]),
            *(_level(f"shifted:{other}", recipe["shifted"].get(other)) for other in shifted),
        )
    return Table(headers, rows)


def table_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """The same table for a console: the headers, then one row of texts a recipe."""
    made = table(results)
    return [tuple(made.headers.values()), *(tuple(cell.text for cell in row) for row in made.rows.values())]
