"""What `augend evaluate --attack` and `--sums` print."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from augend.cli.shifts import best_effort

__all__ = ["show_attacks"]


PICTURES = 1000


def show_attacks(
    run: Path,
    words: tuple[str | None, str | None, str | None],
    numbers: dict[str, Any],
    data: str | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Attack a model, or all models of a study, and print how accurate they stay.

    `words` are those of ``--attack``, ``--eps`` and ``--sums``; `numbers` those of `augend.evaluate.attacked.asked`, by name.
    """
    from augend.cli.display import Looking
    from augend.evaluate.attacked import asked
    from augend.report.attacked_page import write
    from augend.study.attacked import attacked

    wanted = asked(*words, **numbers)
    wanted = wanted if wanted.pictures else replace(wanted, pictures=PICTURES)
    found = attacked(run, wanted, data=data, root=root, after=Looking())
    if as_json:
        print(json.dumps(found))
    else:
        typer.echo(f"{found['pictures']} test pictures, L-infinity budgets in shares of the pixels' range")
        for name, model in found["models"].items():
            _model(name, model, found)
    page = best_effort(lambda: write(run, found)) if run.is_dir() else None
    if page is not None and not as_json:
        typer.echo(f"As a page: {page}")


def _model(name: str, model: dict[str, Any], found: dict[str, Any]) -> None:
    reference = found["reference"]
    if "study" in found:
        typer.echo(f"{name} ({model['repeats']} repeats{', reference' if name == reference else ''})")
    else:
        typer.echo(name)
    for (attack, threat), group in itertools.groupby(model["conditions"], lambda one: (one["attack"], one["threat"])):
        rows = list(group)
        how = f" ({rows[0]['procedure']})" if rows[0]["procedure"] else ""
        typer.echo(f"  {attack}, {threat}{how}")
        for one in rows:
            success = f", succeeds on {_level(one['success'])} of what is right when clean" if one["success"] else ""
            typer.echo(
                f"    eps {one['said']:<8} {_level(one['accuracy'])} right{success}"
                f"{_against(one['versus_reference'], reference)}"
            )
    if model["share_of_draws"] is not None:
        typer.echo(f"  test-time sums used {100 * model['share_of_draws']:.1f} % of their draws on clean pictures")


def _level(one: dict[str, Any]) -> str:
    interval = "" if one["low"] is None else f" ({100 * one['low']:.1f} to {100 * one['high']:.1f})"
    return f"{100 * one['mean']:.1f} %{interval}"


def _against(one: dict[str, Any] | None, reference: str | None) -> str:
    if one is None:
        return ""
    interval = "" if one["low"] is None else f" ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"
    return f", {100 * one['mean']:+.1f} points against {reference}{interval}"
