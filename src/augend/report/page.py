"""The page: results, plots and pictures put into one template. Everything that came from a user is escaped."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import Any

from augend.report.plots import draw_all
from augend.study import results as study_results
from augend.study.evidence import read_json
from augend.study.table import percent, seconds_text, table

__all__ = ["render", "write"]

HERE = Path(__file__).parent
GRID_BYTES = 3_000_000
PAIRS = 10


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
    temporary.write_text(render(results, plots, study), encoding="utf-8")
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
    environment.filters["seconds"] = seconds_text
    record = read_json(study / "study.json")
    made = table(results)
    return environment.get_template("page.html").render(
        results=results,
        table=made,
        shifted=any(key.startswith("shifted:") for key in made.headers),
        plots={name: Markup(svg) for name, svg in plots.items()},
        # both files are ours and static; only what the template puts between them is escaped
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        grids=_grids(results, study),
        pairs=_pairs(results),
        facts=_facts(record),
        own=_own(record),
        record=record,
        written=time.strftime("%Y-%m-%d %H:%M", time.localtime()),
    )


def _grids(results: dict[str, Any], study: Path) -> dict[str, list[dict[str, str]]]:
    """Recipe -> the pictures that its phases saw in repeat 0 (`trials/ID/grids/PHASE-VIEW.png`) as data addresses."""
    found: dict[str, list[dict[str, str]]] = {}
    spent = 0
    for name, recipe in results["recipes"].items():
        phases = [phase["name"] for phase in recipe["curve"]["phases"]]
        paths = (study / "trials" / f"{name}-r0" / "grids").glob("*.png")
        for path in sorted(paths, key=lambda p: (_phase(p.stem, phases), p.stem)):
            content = path.read_bytes()
            spent += len(content)
            if spent > GRID_BYTES:
                return found
            text = base64.b64encode(content).decode()
            found.setdefault(name, []).append({"caption": path.stem, "source": f"data:image/png;base64,{text}"})
    return found


def _phase(stem: str, phases: list[str]) -> int:
    """Number of the phase that a grid is of: the longest name that its file name begins with; unknown ones come last."""
    fitting = [(len(name), number) for number, name in enumerate(phases) if stem.startswith(f"{name}-")]
    return max(fitting)[1] if fitting else len(phases)


def _pairs(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The most frequent confusions of the advised recipe: true class, answer, share of the true class."""
    advised, classes = results["advised"], results["classes"]
    if advised is None:
        return []
    cells = [
        {"class": classes[i], "answer": classes[j], "share": count / max(sum(row), 1)}
        for i, row in enumerate(advised["confusion"])
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(cells, key=lambda cell: -float(str(cell["share"])))[:PAIRS]


def _facts(record: dict[str, Any]) -> dict[str, str]:
    """How the study was made: every plain value of `study.json`, then its environment, as texts."""
    skipped = {"schema", "recipes", "classes", "environment", "command", "plan", "default", "notes"}
    request = record.get("request", {})
    facts: dict[str, str] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                add(f"{prefix} {key}".strip(), item)
        elif isinstance(value, list | tuple):
            facts[prefix] = ", ".join(map(str, value[:20])) + (" …" if len(value) > 20 else "")
        elif value not in (None, ""):
            facts[prefix] = str(value)

    for name, plan in record.get("plan", {}).items():
        if isinstance(plan, dict) and "steps" in plan:
            add(f"steps of {name}", plan["steps"])
    for key, value in {**request, **record}.items():
        if key not in skipped | {"request"} and not (key in request and isinstance(value, list) and not value):
            add(key.replace("_", " "), value)
    add("", record.get("environment", {}))
    return facts


def _own(record: dict[str, Any]) -> bool:
    """Whether to invite to own pictures: the study ran on the embedded data because none was named."""
    return bool(record.get("default", False))
