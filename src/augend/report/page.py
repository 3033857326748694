"""The page: results, plots and pictures put into one template. Everything that came from a user is escaped."""

from __future__ import annotations

import os
import re
import shlex
import time
from pathlib import Path
from typing import Any

from augend.report import pictures
from augend.report.answers import TABLE_CLASSES
from augend.report.facts import facts
from augend.report.plots import draw_all
from augend.study import results as study_results
from augend.study.evidence import read_json
from augend.study.table import percent, seconds_text, table

__all__ = ["render", "write"]

HERE = Path(__file__).parent
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
    temporary = page.with_name(f".report.html.{os.getpid()}")
    # a name that is no text (bytes of another encoding) is shown with escapes
    temporary.write_text(render(results, plots, study), encoding="utf-8", errors="backslashreplace")
    temporary.replace(page)
    return page


def render(results: dict[str, Any], plots: dict[str, str], study: Path) -> str:
    """The HTML text. `plots`: name -> SVG element, as `draw_all` gives them; `study`: where grids and settings are."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    environment.filters["unbroken"] = _unbroken
    environment.filters["seconds"] = seconds_text
    record = read_json(study / "study.json")
    made = table(results)
    mistakes = pictures.mistakes(study, results)
    return environment.get_template("page.html").render(
        results=results,
        table=made,
        shifted=any(key.startswith("shifted:") for key in made.headers),
        plots={name: Markup(svg) for name, svg in plots.items()},
        # both files are ours and static; only what the template puts between them is escaped
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
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
        written=time.strftime("%Y-%m-%d %H:%M", time.localtime()),
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
