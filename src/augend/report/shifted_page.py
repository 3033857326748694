"""The page of `augend evaluate --shifts`: test pictures that are changed in a fixed way, for a run or a whole study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from augend.checkpoint import write_bytes, write_json
from augend.report.plots import draw
from augend.report.shifts import accuracies, draw_views, variation
from augend.report.templates import rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write"]

PANELS = 6  # models whose views are drawn


def write(folder: Path, found: dict[str, Any]) -> Path:
    """Draw the plots and write ``shifts.html`` and ``shifts.json`` into the folder of a run or a study.

    Args:
        found: what `augend.study.shifted.shifted(folder, ...)` returned.
    """
    write_json(folder / "shifts.json", found)
    rows = _rows(found)
    runs = {
        row["called"]: path
        for name, row in list(rows.items())[:PANELS]
        if ((path := folder / "trials" / f"{name}-r0" if "recipes" in found else folder) / "result.json").is_file()
    }
    shares: dict[str, float] = {}

    def views(figure: Figure) -> bool:
        shares.update(draw_views(figure, runs))
        return bool(shares)

    plots = draw(
        {
            "shifts": lambda figure: accuracies(figure, rows),
            "variation": lambda figure: bool(variation(figure, folder, {"rows": rows}, {"title": ""})),
            **({} if found["data"] is not None else {"views": views}),
        },
        folder / "plots",
    )
    text = rendered(
        "shifts.html",
        plots,
        {},
        found=found,
        rows=rows,
        shares=shares,
        study="recipes" in found,
        name=folder.resolve().name,
    )
    page = folder / "shifts.html"
    write_bytes(page, text.encode("utf-8", errors="backslashreplace"))
    return page


def _rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Recipe (or the run) -> ``called``, ``repeats``, ``shifts`` and ``variation``, each value as mean, low, high."""
    if "recipes" in found:
        return {
            name: {
                "called": name,
                "repeats": one["repeats"],
                "shifts": {shift: value["accuracy"] for shift, value in one["shifts"].items()},
                "against": {shift: value["versus_reference"] for shift, value in one["shifts"].items()},
                "variation": one["variation"],
            }
            for name, one in found["recipes"].items()
        }
    alone = {"low": None, "high": None}
    shifts = {shift: {"mean": one["accuracy"], **alone} for shift, one in found["shifts"].items()}
    against = {
        shift: {"mean": one["change"], "low": one["low"], "high": one["high"]} for shift, one in found["shifts"].items()
    }
    apart = {
        pair: {kind: {"mean": value, **alone} for kind, value in kinds.items()}
        for pair, kinds in found["variation"].items()
    }
    called = Path(found["model"]).resolve().name
    return {called: {"called": called, "repeats": 1, "shifts": shifts, "against": against, "variation": apart}}
