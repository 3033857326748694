"""What `augend evaluate --decoded` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from augend.cli.options import printable
from augend.cli.shifts import best_effort

__all__ = ["show_decoded"]


def show_decoded(run: Path, wanted: str, judge: Path | None, data: str | None, root: str | None, as_json: bool) -> None:
    """Show autoencoders changed pictures, and print what they made of them."""
    from augend.cli.display import Looking
    from augend.report.decoded_page import flattered, judged_on, value, write
    from augend.study.decoded import decoded

    found, seen = decoded(run, wanted, judge, data=data, root=root, after=Looking())
    rows = found["recipes"] if "recipes" in found else {"": found["changes"]}
    if as_json:
        print(json.dumps(found))
    else:
        if before := flattered(rows):
            typer.echo(before)
        if judge is not None:
            typer.echo(judged_on(rows))
        for name, changes in rows.items():
            if name:
                typer.echo(printable(name))
            for change, one in changes.items():
                typer.echo(
                    f"  {change:<10} moved {value(one['moved'])}, wrong after decoding {value(one['missed'])} "
                    f"(with one picture for all {value(one['constant'])}){_more(one)}"
                )
    page = best_effort(lambda: write(run, found, seen)) if run.is_dir() else None
    if page is not None and not as_json:
        typer.echo(f"As a page: {printable(str(page))}")


def _more(one: dict[str, Any]) -> str:
    from augend.report.decoded_page import value

    text = "" if one["score"] is None else f", score {value(one['score'], digits=2)}"
    if "kept" in one:
        changed, decoded = (value(one[key], share=True) for key in ("kept_changed", "kept"))
        text += f"; label kept {changed} % when changed, {decoded} % when decoded"
    return text
