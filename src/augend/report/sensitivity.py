"""The page of `augend sensitivity`: which augmentations the labels survive, with pictures, class by class."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from augend.augment.oneof import as_chain
from augend.checkpoint import write_bytes
from augend.evaluate.strengths import ways
from augend.pixels import to_float
from augend.randomness import Draws
from augend.report.facts import facts
from augend.report.lines import signed
from augend.report.pictures import as_address
from augend.report.plots import COLOURS, GRID, INK, WIDTH, draw, short
from augend.report.templates import rendered
from augend.runner.folder import RunFolder
from augend.runner.job import Job, load_splits
from augend.study.evidence import read_json
from augend.study.table import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["sentence", "write"]

CLASSES = 20  # with more the plot would not be read
STRIP, SIDE = 5, 44  # pictures in a strip, and pixels of each


def write(study: Path, found: dict[str, Any]) -> Path:
    """Draw the plot and write ``report.html`` into the study's folder.

    Args:
        found: what `augend.study.sensitivity.gather(study)` returned.
    """
    record = read_json(study / "study.json")
    plots = draw({"classes": lambda figure: _classes(figure, found)}, study / "plots")
    strips = _strips(study, record)
    headers = ["Augmentation", "Pictures", "Labels", "Accuracy, points", "Predictions, nats"]
    if found["run"]:
        headers += ["Your model: points", "Your model: nats"]
    data = str(record["data"]["path"])
    text = rendered(
        "sensitivity.html",
        plots,
        {"points": points, "interval": _interval},
        found=found,
        data=record["data"].get("name", data),
        data_quoted=shlex.quote(data),
        answer=sentence(found),
        headers=headers,
        rows=[
            {**way, "name": name, "strip": strips[name], "harmed": ", ".join(way["harmed"])}
            for name, way in found["ways"].items()
        ],
        yaml=(study / "suggested.yaml").read_text(encoding="utf-8"),
        file=shlex.quote(str(study / "suggested.yaml")),
        facts=facts(record, study),
    )
    page = study / "report.html"
    write_bytes(page, text.encode("utf-8", errors="backslashreplace"))
    return page


def points(found: Mapping[str, Any]) -> str:
    """A change of accuracy: ``−3.1 (−4.0 to −2.2)``.

    >>> points({"mean": -0.031, "low": -0.04, "high": -0.022})
    '−3.1 (−4.0 to −2.2)'
    """
    if found["mean"] is None:
        return "–"
    text = _signed(found["mean"])
    return text if found["low"] is None else f"{text} ({_signed(found['low'])} to {_signed(found['high'])})"


def _signed(share: float) -> str:
    return signed(100 * share, 1)


def _interval(found: Mapping[str, Any]) -> str:
    text = percent(found["mean"])
    return text if found["low"] is None else f"{text} ({percent(found['low'])} to {percent(found['high'])})"


def sentence(found: Mapping[str, Any]) -> str:
    """What the labels survive and what they do not, in one or two sentences."""
    if not found["learned"]:
        return "These networks know too little: what the labels survive cannot be said."
    said = {
        verdict: _names([way for way in found["ways"].values() if way["verdict"] == verdict])
        for verdict in ("harmless", "harmful")
    }
    parts = [f"Harmless to the labels: {said['harmless']}." if said["harmless"] else "Nothing was found harmless."]
    if said["harmful"]:
        parts.append(f"Harmful: {said['harmful']}.")
    unclear = sum(way["verdict"] == "unclear" for way in found["ways"].values())
    if unclear:
        parts.append(f"{unclear} of {len(found['ways'])} cannot be told.")
    return " ".join(parts)


def _names(found: Sequence[Mapping[str, Any]]) -> str:
    """``rotate (10, 30), hflip``."""
    kinds: dict[str, list[str]] = {}
    for way in found:
        kinds.setdefault(way["kind"], []).extend([f"{way['strength']:g}"] if way["strength"] else [])
    return ", ".join(f"{kind} ({', '.join(strengths)})" if strengths else kind for kind, strengths in kinds.items())


def _classes(figure: Figure, found: Mapping[str, Any]) -> bool:
    """Ways down, classes across, the points lost as numbers on a tint."""
    from matplotlib.patches import Rectangle

    names, classes = list(found["ways"]), found["classes"]
    if len(classes) > CLASSES:
        return False
    axes = figure.subplots()
    small = 7.0 if len(classes) <= 12 else 5.5
    for row, name in enumerate(names):
        for column, label in enumerate(classes):
            one = found["ways"][name]["classes"][label]
            if one["mean"] is None:
                continue
            deep = float(np.clip(-one["mean"], 0, 1))
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=COLOURS[1], alpha=0.9 * deep, lw=0))
            harmful = one["verdict"] == "harmful"
            axes.text(
                column,
                row,
                signed(100 * one["mean"], 0).removeprefix("+0") or "0",
                ha="center",
                va="center",
                color="#FEFEFE" if deep > 0.6 else INK,
                fontsize=small,
                fontweight="bold" if harmful else "normal",
            )
    labels = [short(label, 14) for label in classes]
    longest = max(len(label) for label in labels)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(range(len(labels)), labels, rotation=0 if longest <= 2 else 90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=8.0)
    axes.grid(visible=False)
    for line in range(1, len(names)):
        axes.axhline(line - 0.5, color=GRID, lw=0.5)
    left, below = 1.15, 0.3 if longest <= 2 else 0.3 + 0.065 * longest
    height = 0.19 * len(names)
    total = height + below + 0.1
    figure.set_size_inches(WIDTH, total)
    axes.set_position((left / WIDTH, below / total, (WIDTH - left - 0.1) / WIDTH, height / total))
    return True


def _strips(study: Path, record: Mapping[str, Any]) -> dict[str, str]:
    """Name of a way -> a row of pictures as a data address: one as it is, then the same and others under the way."""
    run = RunFolder(study / "trials" / "plain-r0")
    pictures = load_splits(Job.from_json(run.read("trial.json")["job"]))["main"].valid
    about = record["sensitivity"]
    first = {int(label): number for number, label in reversed(list(enumerate(pictures.labels.tolist())))}
    chosen = torch.tensor(sorted(first.values())[:STRIP])
    seen = pictures.fetch(chosen[:, None])[0][:, 0]
    middle = pictures.shape[1:]
    clean = as_chain([], middle).apply(seen, torch.zeros(len(chosen), 1))
    strips = {}
    for name, way in ways(tuple(about["shape"]), about["kinds"]).items():
        chain = as_chain(dict(way.shown), middle)
        made = chain.apply(seen, chain.draw(Draws(0, f"shift/{name}", keys=chosen), 0.0))
        strips[name] = as_address(_row(torch.cat([to_float(clean[:1]), made])))
    return strips


def _row(pictures: torch.Tensor) -> Image.Image:
    """Floats ``(n, C, H, W)`` side by side, each `SIDE` pixels high, a gap between them."""
    image = Image.new("RGB", (len(pictures) * (SIDE + 3) - 3, SIDE), "#8a8a90")
    for place, picture in enumerate((255 * pictures).round().byte().permute(0, 2, 3, 1).numpy()):
        one = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).convert("RGB")
        image.paste(one.resize((SIDE, SIDE), Image.Resampling.BILINEAR), (place * (SIDE + 3), 0))
    return image
