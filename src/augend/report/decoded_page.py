"""The page of `augend evaluate --decoded`: what autoencoders make of changed pictures, in numbers and to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from augend.augment.grid import tiled
from augend.checkpoint import write_bytes, write_json
from augend.evaluate.decoded import CHANGES
from augend.report.templates import rendered

__all__ = ["flattered", "judged_on", "value", "write"]

LARGE = 3  # times, of small pictures
SMALL = 48  # pixels a side that are small


def write(folder: Path, found: dict[str, Any], seen: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """Write ``decoded.html``, ``decoded.json`` and the grids ``decoded/NAME-CHANGE.png`` into a run's or a study's folder.

    Args:
        found, seen: what `augend.study.decoded.decoded(folder, ...)` returned.
    """
    write_json(folder / "decoded.json", found)
    rows = found["recipes"] if "recipes" in found else {next(iter(seen)): found["changes"]}
    grids = []
    (folder / "decoded").mkdir(exist_ok=True)
    for name, by_change in seen.items():
        for change, tiles in by_change.items():
            data = _png(tiles)
            write_bytes(folder / "decoded" / f"{name}-{change}.png", data)
            caption = f"{name}, {change}: pictures, changed, given back"
            grids.append({"caption": caption, "source": f"data:image/png;base64,{base64.b64encode(data).decode()}"})
    written = {f"{name}-{change}.png" for name, by_change in seen.items() for change in by_change}
    for old in (folder / "decoded").glob("*.png"):  # of what was asked before
        if old.name not in written and old.stem.rpartition("-")[2] in CHANGES:
            old.unlink()
    judged = any("kept" in one for by_change in rows.values() for one in by_change.values())
    text = rendered(
        "decoded.html",
        {},
        {"value": value},
        found=found,
        rows=rows,
        grids=grids,
        judged=judged,
        on=judged_on(rows) if judged else "",
        flattered=flattered(rows),
        name=folder.resolve().name,
    )
    page = folder / "decoded.html"
    write_bytes(page, text.encode("utf-8", errors="backslashreplace"))
    return page


def value(one: Any, share: bool = False, digits: int = 4) -> str:
    """A number, or a mean with its interval, as text; shares in percent.

    >>> value({"mean": 0.5, "low": 0.25, "high": 0.75}, share=True), value(0.25), value(None)
    ('50.0 (25.0 to 75.0)', '0.2500', '–')
    """
    if one is None:
        return "–"
    if not isinstance(one, dict):
        return f"{one:.{digits}f}"
    if one["mean"] is None:
        return "–"
    times, digits = (100, 1) if share else (1, digits)
    mean, low, high = (
        None if one[key] is None else f"{times * one[key]:.{digits}f}" for key in ("mean", "low", "high")
    )
    return f"{mean}" if low is None else f"{mean} ({low} to {high})"


def judged_on(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Which pictures the judge's shares leave out: those that it has learned from, as far as that is known."""
    each = [one for changes in rows.values() for one in changes.values() if "left_out" in one]
    most = max((one["left_out"] for one in each), default=0)
    left = f"Left out of the judge's shares, since it was trained on them: {most} pictures."
    if not all(one["sure"] for one in each):
        unsure = (
            "It is not known what else the judge has learned from (weights that no run here made, or another folder, which "
            "may hold copies): where these pictures are among it, its shares are too good."
        )
        return f"{left} {unsure}" if most else unsure.replace(" else", "", 1)
    return left if most else "The judge was trained on none of these pictures."


def flattered(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Whether weights that autoencoders began with knew pictures; empty where they knew none."""
    most = max(one["learned_before"] for changes in rows.values() for one in changes.values())
    if not most:
        return ""
    return (
        f"THE WEIGHTS that it began with had LEARNED FROM {most} OF THESE PICTURES, so all that stands here is too good; "
        "begin with weights that learned from none."
    )


def _png(tiles: Tensor) -> bytes:
    """Pictures uint8 ``(3, n, C, H, W)``: three lines, small ones larger."""
    page = tiled(tiles).permute(1, 2, 0).to(torch.uint8).numpy()
    image = Image.fromarray(page[..., 0] if page.shape[2] == 1 else page)
    if tiles.shape[-1] <= SMALL:
        image = image.resize((image.width * LARGE, image.height * LARGE), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
