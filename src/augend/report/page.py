"""The page: results, plots and pictures put into one template. Everything that came from a user is escaped."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from augend.checkpoint import write_bytes
from augend.report import pictures
from augend.report.answers import TABLE_CLASSES
from augend.report.facts import facts
from augend.report.plots import draw_all
from augend.report.templates import rendered
from augend.study import results as study_results
from augend.study.evidence import read_json
from augend.study.table import percent, seconds_text, table

__all__ = ["render", "write"]

PAIRS = 10
LEAST = 5


def write(study: Path, results: dict[str, Any] | None = None) -> Path:
    """Draw the study's plots and write `report.html`; the path of the page.

    Args:
        study: the study's folder.
        results: what `augend.study.results.write(study)` just returned; None: it is called here.

    Raises:
        AugendError: `study` is no study folder, or a trial's files are damaged.
    """
    results = study_results.write(study) if results is None else results
    plots = draw_all(results, study / "plots")
    page = study / "report.html"
    # a name that is no text (bytes of another encoding) is shown with escapes
    write_bytes(page, render(results, plots, study).encode("utf-8", errors="backslashreplace"))
    return page


def render(results: dict[str, Any], plots: dict[str, str], study: Path) -> str:
    """The HTML text. `plots`: name -> SVG element, as `draw_all` gives them; `study`: where grids and settings are."""
    record = read_json(study / "study.json")
    made = table(results)
    mistakes = pictures.mistakes(study, results)
    return rendered(
        "page.html",
        plots,
        {"percent": percent, "unbroken": _unbroken, "seconds": seconds_text},
        results=results,
        table=made,
        shifted=any(key.startswith("shifted:") for key in made.headers),
        phases=pictures.phases(study, results),
        pairs=_pairs(results),
        least=_least(results),
        listed=len(results["classes"]) > TABLE_CLASSES,
        mistakes=mistakes,
        shown=all("source" in one for one in mistakes),
        facts=facts(record, study),
        model=_model(results, study),
        own=bool(record.get("default", False)),  # the embedded data, because none was named: invite to their own
        record=record,
    )


def _unbroken(text: str) -> Any:
    """Escaped text in which no line ends after the dashes of an option."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<!\S)(--[\w-]+)", r'<span class="option">\1</span>', str(escape(text))))


def _model(results: dict[str, Any], study: Path) -> dict[str, str] | None:
    """What the model of the study was trained on, and its folder as a command names it."""
    advised = (results["choice"] or {}).get("advised")
    if advised is None or not (study / "model.safetensors").is_file():
        return None
    trained = results.get("model", {}).get("trained_on", "train")
    about = {
        "trainval": "trained once more, on all but the test pictures of the first repeat",
        "all": "trained once more, on all pictures",
    }.get(trained, "that of the first repeat")
    return {"recipe": advised, "about": about, "folder": shlex.quote(str(study))}


def _pairs(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The most frequent confusions of the advised recipe: true class, answer, how many, share of the true class."""
    advised, classes = results["advised"], results["classes"]
    if advised is None:
        return []
    cells = [
        {"class": classes[i], "answer": classes[j], "count": count, "share": count / max(sum(row), 1)}
        for i, row in enumerate(advised["confusion"])
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(cells, key=lambda cell: (-cell["share"], -cell["count"]))[:PAIRS]


def _least(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The classes that the advised recipe recognises least."""
    advised = results["advised"]
    if advised is None:
        return []
    recall = results["recipes"][advised["recipe"]].get("recall", [])
    known = [
        {"class": name, "share": share}
        for name, share in zip(results["classes"], recall, strict=False)
        if share is not None and share < 1
    ]
    return sorted(known, key=lambda one: float(one["share"]))[:LEAST]
