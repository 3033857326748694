"""What `augend evaluate --shifts` prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from augend.cli.options import printable

__all__ = ["best_effort", "show_shifts"]


def show_shifts(run: Path, shifts: str, data: str | None, root: str | None, as_json: bool) -> None:
    """Show a model, or all models of a study, test pictures that are changed in a fixed way, and print what came out."""
    from augend.cli.display import Looking
    from augend.report.shifted_page import write
    from augend.study.shifted import shifted

    found = shifted(run, shifts, data=data, root=root, after=Looking())
    if as_json:
        print(json.dumps(found))
    elif "recipes" in found:
        _study(found)
    else:
        _run(found)
    page = best_effort(lambda: write(run, found)) if run.is_dir() else None
    if page is not None and not as_json:
        typer.echo(f"As a page: {printable(str(page))}")


def best_effort(write: Callable[[], Path]) -> Path | None:
    """Write a page of what was printed already; where it cannot be written, one line on stderr says so."""
    from augend.contract import AugendError

    try:
        return write()
    except (AugendError, OSError) as error:
        print(f"note: no page was written: {' '.join(str(error).split())}", file=sys.stderr)
        return None


def _run(found: dict[str, Any]) -> None:
    for name, one in found["shifts"].items():
        moved = ""
        if name != "original":
            interval = "" if one["low"] is None else f" ({_signed(one['low'])} to {_signed(one['high'])})"
            moved = f", {_signed(one['change'])} points{interval}"
        typer.echo(f"{name:<12} {100 * one['accuracy']:6.2f} % right of {one['pictures']}{moved}")
    for pair, one in found["variation"].items():
        if not pair.startswith("original, "):
            continue  # the others are in --json
        features = f", features {one['features']:.3f}" if "features" in one else ""
        typer.echo(f"between {pair:<24} predictions {one['kl']:.4f} nats{features}")


def _study(found: dict[str, Any]) -> None:
    for name, recipe in found["recipes"].items():
        typer.echo(
            f"{printable(name)} ({recipe['repeats']} repeats{', reference' if name == found['reference'] else ''})"
        )
        for shift, one in recipe["shifts"].items():
            typer.echo(
                f"  {shift:<12} {_level(one['accuracy'])}{_against(one['versus_reference'], found['reference'])}"
            )


def _level(one: dict[str, Any]) -> str:
    interval = "" if one["low"] is None else f" ({100 * one['low']:.1f} to {100 * one['high']:.1f})"
    return f"{100 * one['mean']:5.1f} %{interval}"


def _against(one: dict[str, Any] | None, reference: str) -> str:
    if one is None:
        return ""
    interval = "" if one["low"] is None else f" ({_signed(one['low'])} to {_signed(one['high'])})"
    return f", {_signed(one['mean'])} points against {reference}{interval}"


def _signed(share: float) -> str:
    return f"{100 * share:+.2f}"
