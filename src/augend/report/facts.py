"""How a study was made, as groups of names and texts: what was asked, the pictures, the machine, the versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from augend.study.unchanged import makers

__all__ = ["facts"]

_ELSEWHERE = {
    *(
        "schema",
        "recipes",
        "classes",
        "environment",
        "command",
        "plan",
        "default",
        "notes",
        "request",
        "hardware",
        "data",
    ),
    *("budgets", "fewer", "plugins", "overrides", "tuned", "predicted", "reproduces"),
    *("n_train", "n_valid", "n_test", "fixed_test", "precision", "metric"),
}
_VERSIONS = ("augend", "commit", "python", "torch", "numpy", "torchvision", "timm", "platform")


def facts(record: dict[str, Any], study: Path) -> dict[str, dict[str, str]]:
    """Group -> name -> text, from ``study.json`` and its first trial; what is empty is left out.

    Args:
        record: content of ``study.json``.
        study: its folder.
    """
    environment = {**_environment(study), **record.get("environment", {})}
    request = {key: value for key, value in record.get("request", {}).items() if key not in ("data",)}
    asked = {key: value for key, value in {**request, **record}.items() if key not in _ELSEWHERE}
    repeats, seed = record.get("repeats"), record.get("seed")
    if isinstance(repeats, int) and isinstance(seed, int):
        asked["seed"] = str(seed) if repeats == 1 else f"{seed} to {seed + repeats - 1}, one a repeat"
    if isinstance(record.get("margin"), float):
        asked["margin"] = "1 point" if record["margin"] == 0.01 else f"{100 * record['margin']:g} points"
    asked["overrides"] = [*request.get("overrides", ()), *request.get("plugins", ())]
    groups = {
        "Asked": asked,
        "Learning rates tuned": {name: _rate(found) for name, found in record.get("tuned", {}).items()},
        "Seconds predicted": {name: _seconds(found) for name, found in record.get("predicted", {}).items()},
        "Pictures": _pictures(record),
        "Machine": {
            **record.get("hardware", {}),
            **{key: value for key, value in environment.items() if key not in _VERSIONS},
        },
        "Trials were made by": {_text(trials): said for said, trials in makers(study).items()},
        "Versions": {key: environment[key] for key in _VERSIONS if key in environment},
    }
    return {
        group: shown
        for group, values in groups.items()
        if (shown := {key.replace("_", " "): text for key, value in values.items() if (text := _text(value))})
    }


def _environment(study: Path) -> dict[str, Any]:
    """What the trials' own environment says beyond that of the study: the version of augend, the commit."""
    for path in sorted((study / "trials").glob("*-r0/environment.json")):
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return {key: value for key, value in found.items() if key in _VERSIONS}
    return {}


def _pictures(record: dict[str, Any]) -> dict[str, Any]:
    data = record.get("data", {})
    if not isinstance(data, dict):
        return {"name": data}
    found = {key: value for key, value in data.items() if key in ("name", "path", "digest")}
    if data.get("path") == data.get("name"):
        found.pop("path", None)
    if "shape" in data:
        found["size"] = " × ".join(map(str, data["shape"]))
    if "traits" in data:
        found["labels survive"] = data["traits"] or "no change"
    for piece, counts in data.get("counts", {}).items():
        if counts:
            each = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
            found[piece.replace("shifted/", "shifted: ")] = f"{sum(counts):,}, {each} a class"
    return found


def _rate(found: dict[str, Any]) -> str:
    """The rate that was chosen, and among which: what `augend.study.tuning.choose_rates` says of a recipe."""
    tried = ", ".join(found.get("tried", {}))
    chosen = str(found.get("override", "")).rpartition("=")[2]
    return f"{chosen} (of {tried})" if chosen and tried else chosen


def _seconds(found: Any) -> Any:
    value = found.get("training") if isinstance(found, dict) else found
    return f"{value:.1f}" if isinstance(value, int | float) else value


def _text(value: Any) -> str:
    """A value as text; empty for nothing."""
    if value is None or value == "" or value in ([], {}, ()):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items() if _text(item))
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value[:20])) + (" …" if len(value) > 20 else "")
    return str(value)
